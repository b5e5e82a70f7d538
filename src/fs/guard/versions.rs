//! The recent change of each file, the worker that made it, and the workers that have read it since (C54). Pure: it reads no file.
//!
//! May assume: the clock never goes back.
//! Must never: grow beyond its bound. The oldest change is removed first, and that file then has no protection.

use std::collections::{HashMap, VecDeque};

use crate::fs::Ino;
use crate::limits::{FALLBACK_MS, RECENT_BELIEVED_MS, WRITE_UNDER_WAY_MS};
use crate::queue::{Instant, Now, Span, Wall, WorkerName};

/// How long a write can be on its way through the kernel. Meanwhile other workers can read a write that will be refused or is not made
/// yet, or cannot read one yet that was made.
const WRITE_IN_FLIGHT: Span = Span(WRITE_UNDER_WAY_MS);
/// How long a read can be on its way.
const READ_IN_FLIGHT: Span = Span(WRITE_UNDER_WAY_MS + RECENT_BELIEVED_MS);
/// The longest time that a program takes from a refusal to its other way of writing.
const FALLBACK: Span = Span(FALLBACK_MS);

/// A worker that was seen to read a file or to request its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reader {
    worker: WorkerName,
    /// The last time.
    at: Instant,
    /// [`LastChange::invalidations`] at its last request for the attributes.
    invalidations_seen: Option<u64>,
}

/// The last change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastChange {
    /// The worker that made it, for messages.
    pub(super) by: WorkerName,
    /// When, for messages.
    pub(super) at: Wall,
    /// When, for computing spans.
    instant: Instant,
    /// The exact time: `instant` is that of the first of many changes within a second.
    last: Instant,
    /// The workers that know the present content.
    read_by: Vec<WorkerName>,
    /// The workers that recently read the file or requested its attributes.
    readers: Vec<Reader>,
    /// When the changer opened the file again since.
    reopened: Option<Instant>,
    /// The worker that made the change. It differs from `by` if messages name another worker, whose unread change is still in the file.
    changer: WorkerName,
    /// Whether the changer has used the file again since, in any way: its changing call has then returned.
    returned: bool,
    /// The workers that were reading during the change, and since when. What they still read may be the rest of an older version.
    reading_across: Vec<(WorkerName, Instant)>,
    /// When the kernel's cached content was last invalidated.
    content_invalidated: Instant,
    /// The number of invalidations of attributes or content. Each one makes the kernel discard answers that are on their way.
    invalidations: u64,
    /// The number of invalidations under way because the kernel may still show the earlier content. Until they end, no read counts.
    page_drops: u32,
    /// When the kernel last showed content that is not in the file.
    wrongly_shown: Instant,
}

impl LastChange {
    fn new(by: &WorkerName, now: Now) -> LastChange {
        LastChange {
            by: by.clone(),
            at: now.wall,
            instant: now.instant,
            last: now.instant,
            read_by: vec![by.clone()],
            readers: Vec::new(),
            reopened: None,
            changer: by.clone(),
            returned: false,
            reading_across: Vec::new(),
            content_invalidated: Instant::default(),
            invalidations: 0,
            page_drops: 0,
            wrongly_shown: Instant::default(),
        }
    }

    fn note_reader(&mut self, worker: &WorkerName, invalidations_seen: Option<u64>, at: Instant) {
        self.readers.retain(|known| known.worker != *worker && at.since(known.at) < READ_IN_FLIGHT);
        self.readers.push(Reader { worker: worker.clone(), at, invalidations_seen });
    }

    /// [`LastChange::invalidations`] at this worker's last request for the attributes.
    fn invalidations_seen(&self, reader: &WorkerName) -> Option<u64> {
        self.readers.iter().find(|known| known.worker == *reader)?.invalidations_seen
    }

    /// Whether the kernel knows the file's size after the change when this worker reads. Until then it truncates reads to the earlier size.
    /// It learns the size when the changing call returns, or from the attributes that this worker requested, unless an invalidation has
    /// voided that answer.
    fn is_size_known(&self, reader: &WorkerName, now: Instant) -> bool {
        self.returned
            || self.invalidations_seen(reader) == Some(self.invalidations)
            || now.since(self.last) >= WRITE_IN_FLIGHT
    }
}

/// Why a worker requests a file's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadPurpose {
    /// To open it.
    Open,
    /// To open it; the same open has just created or emptied it.
    CreatingOpen,
    /// To continue reading.
    ReadOn,
}

/// The table of recent changes.
#[derive(Debug)]
pub(super) struct Versions {
    most: usize,
    /// How long a change counts as recent.
    window: Span,
    files: HashMap<Ino, LastChange>,
    /// The changes in order, including those that are no longer the last of their file.
    order: VecDeque<(Ino, Instant)>,
    /// The workers that were recently refused a change, and when last.
    refused: HashMap<WorkerName, Instant>,
}

impl Versions {
    /// A table of at most `most` files.
    pub(super) fn new(most: usize, window: Span) -> Versions {
        Versions { most, window, files: HashMap::new(), order: VecDeque::new(), refused: HashMap::new() }
    }

    /// Record a change. `blind`: the earlier content is still in the file, whether or not the worker has read it.
    pub(super) fn changed(&mut self, ino: Ino, by: &WorkerName, blind: bool, now: Now) {
        let mut recent = LastChange::new(by, now);
        if let Some(known) = self.files.get_mut(&ino)
            && Self::is_recent(known, self.window, now.instant)
        {
            let is_in_flight = |at: Instant| now.instant.since(at) < READ_IN_FLIGHT;
            known.reading_across.retain(|(_, at)| is_in_flight(*at));
            (known.reopened, known.returned) = (None, false);
            let current =
                known.readers.drain(..).filter(|reader| is_in_flight(reader.at) && reader.worker != *by);
            known.reading_across.extend(current.map(|reader| (reader.worker, reader.at)));
            recent.reading_across.clone_from(&known.reading_across);
            (recent.content_invalidated, recent.invalidations) =
                (known.content_invalidated, known.invalidations);
            (recent.wrongly_shown, recent.page_drops) = (known.wrongly_shown, known.page_drops);
            if blind && !known.read_by.contains(by) {
                // The file has content that no other worker knows, and content that this worker does not know either. Messages still
                // name the worker of the latter.
                (recent.by, recent.at) = (known.by.clone(), known.at);
                recent.read_by.clear();
            }
            // Continuous writing is one change, and its time is that of its last write, to the second.
            if known.by == *by
                && known.read_by == [by.clone()]
                && now.instant.since(known.instant) < Span(1_000)
            {
                (known.at, known.last) = (now.wall, now.instant);
                return;
            }
        }
        self.make_room(now.instant);
        let before = self.files.insert(ino, recent);
        if before.is_none_or(|before| before.instant != now.instant) {
            self.order.push_back((ino, now.instant));
        }
    }

    /// Record that a worker's read has reached the daemon. It does not count for a worker that was just refused and reads through a
    /// writable descriptor: that worker is about to write the refused content in place, and copies the content that it destroys. It
    /// learns nothing from that copy.
    pub(super) fn read(&mut self, ino: Ino, by: &WorkerName, writable: bool, now: Instant) {
        let falls_back = writable && self.refused.get(by).is_some_and(|at| now.since(*at) < FALLBACK);
        if !falls_back && self.files.get(&ino).is_some_and(|recent| recent.is_size_known(by, now)) {
            self.mark_read(ino, by, now);
        }
    }

    /// Record a refusal of a worker. It counts for every file: the file that it wanted to change may have another node by now.
    pub(super) fn refused(&mut self, worker: &WorkerName, now: Instant) {
        self.refused.retain(|_, at| now.since(*at) < FALLBACK);
        self.refused.insert(worker.clone(), now);
    }

    /// Record that a worker has read a file.
    pub(super) fn mark_read(&mut self, ino: Ino, by: &WorkerName, now: Instant) {
        if let Some(recent) = self.files.get_mut(&ino).filter(|recent| recent.page_drops == 0) {
            if recent
                .reading_across
                .iter()
                .any(|(reader, at)| reader == by && now.since(*at) < READ_IN_FLIGHT)
            {
                return;
            }
            if !recent.read_by.contains(by) {
                recent.read_by.push(by.clone());
            }
            recent.note_reader(by, recent.invalidations_seen(by), now);
        }
    }

    /// Record that a worker requests a file's attributes, and may read what the kernel has cached.
    pub(super) fn attributes_requested(
        &mut self,
        ino: Ino,
        by: &WorkerName,
        purpose: ReadPurpose,
        now: Instant,
    ) {
        self.used_by(ino, by);
        if let Some(recent) = self.files.get_mut(&ino) {
            if purpose != ReadPurpose::ReadOn {
                recent.reading_across.retain(|(reader, _)| reader != by);
            }
            if purpose == ReadPurpose::Open && recent.changer == *by {
                recent.reopened = Some(now);
            }
            recent.note_reader(by, Some(recent.invalidations), now);
        }
    }

    /// Record that a worker uses a file.
    pub(super) fn used_by(&mut self, ino: Ino, worker: &WorkerName) {
        if let Some(recent) = self.files.get_mut(&ino)
            && recent.changer == *worker
        {
            recent.returned = true;
        }
    }

    /// Take back that a worker has read a file: the content has changed since.
    pub(super) fn mark_unread(&mut self, ino: Ino, by: &WorkerName) {
        if let Some(recent) = self.files.get_mut(&ino)
            && recent.by != *by
        {
            recent.read_by.retain(|reader| reader != by);
        }
    }

    /// Readers could see a refused write of `refused` from `since` until now. So a worker that read the file or requested its attributes
    /// since then must read again. The worker that is `writing` and has not opened the file again since is exempt: it is in the
    /// middle of a change, and refusing the rest of it would tear it.
    pub(super) fn refused_write_shown(
        &mut self,
        ino: Ino,
        refused: &WorkerName,
        writing: Option<&WorkerName>,
        since: Instant,
        now: Instant,
    ) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.wrongly_shown = now;
            let may_have_read = |worker: &WorkerName| {
                recent.readers.iter().any(|reader| reader.worker == *worker && reader.at >= since)
            };
            let reopened = recent.reopened.is_some_and(|at| at >= since);
            let goes_on =
                |worker: &WorkerName| Some(worker) == writing && *worker == recent.changer && !reopened;
            recent.read_by.retain(|worker| worker == refused || goes_on(worker) || !may_have_read(worker));
        }
    }

    /// Whether the kernel may show content that is not in the file: a write that was just refused, or the earlier content.
    pub(super) fn may_show_wrong_content(&self, ino: Ino, now: Instant) -> bool {
        self.files
            .get(&ino)
            .is_some_and(|recent| recent.page_drops > 0 || now.since(recent.wrongly_shown) < WRITE_IN_FLIGHT)
    }

    /// Record that the kernel's cached content is invalidated.
    pub(super) fn content_invalidated(&mut self, ino: Ino, now: Instant) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.content_invalidated = now;
            recent.invalidations += 1;
        }
    }

    /// Record that the kernel's cached attributes are invalidated.
    pub(super) fn attributes_invalidated(&mut self, ino: Ino) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.invalidations += 1;
        }
    }

    /// Whether the content was invalidated just now.
    pub(super) fn is_just_invalidated(&self, ino: Ino, now: Instant) -> bool {
        self.files.get(&ino).is_some_and(|recent| now.since(recent.content_invalidated) < WRITE_IN_FLIGHT)
    }

    /// The kernel may have read the earlier content again, and an invalidation of it begins.
    pub(super) fn page_drop_begins(&mut self, ino: Ino) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.page_drops += 1;
        }
    }

    /// That invalidation has ended.
    pub(super) fn page_drop_ends(&mut self, ino: Ino) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.page_drops = recent.page_drops.saturating_sub(1);
        }
    }

    /// The change that a worker has not read yet.
    pub(super) fn unread(&self, ino: Ino, worker: &WorkerName, now: Instant) -> Option<&LastChange> {
        self.recent(ino, now).filter(|recent| !recent.read_by.contains(worker))
    }

    /// The last change of a file, if it is recent.
    pub(super) fn recent(&self, ino: Ino, now: Instant) -> Option<&LastChange> {
        self.files.get(&ino).filter(|recent| Self::is_recent(recent, self.window, now))
    }

    /// Whether any worker of this crowd does not know the present content of a file.
    pub(super) fn is_unread_in(&self, ino: Ino, crowd: &[WorkerName], now: Instant) -> bool {
        self.recent(ino, now)
            .is_some_and(|recent| !crowd.iter().all(|worker| recent.read_by.contains(worker)))
    }

    /// Remove a removed file.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.files.remove(&ino);
    }

    /// All recently changed files.
    pub(super) fn all(&self) -> Vec<Ino> {
        self.files.keys().copied().collect()
    }

    fn is_recent(recent: &LastChange, window: Span, now: Instant) -> bool {
        now.since(recent.instant) < window
    }

    fn make_room(&mut self, now: Instant) {
        // Entries that are no longer the last change of their file are removed now and then, so that one file which changes all the
        // time costs no other file its protection.
        if self.order.len() >= 2 * self.most {
            let files = &self.files;
            self.order
                .retain(|(ino, instant)| files.get(ino).is_some_and(|recent| recent.instant == *instant));
        }
        // Expired changes go first, and then the oldest.
        while let Some((ino, instant)) = self.order.front().copied() {
            let current = self.files.get(&ino).is_some_and(|recent| recent.instant == instant);
            let expired = now.since(instant) >= self.window;
            if current && !expired && self.files.len() < self.most {
                break;
            }
            if current {
                self.files.remove(&ino);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WorkerName {
        WorkerName::parse(text).unwrap()
    }

    fn at(ms: u64) -> Now {
        Now { wall: Wall(ms as i64), instant: Instant(ms) }
    }

    /// A worker opens a file and reads it.
    fn read(table: &mut Versions, ino: Ino, worker: &str, at: Instant) {
        table.attributes_requested(ino, &name(worker), ReadPurpose::ReadOn, at);
        table.read(ino, &name(worker), false, at);
    }

    fn table(most: usize) -> Versions {
        Versions::new(most, Span(10_000))
    }

    #[test]
    fn others_must_read_and_the_changer_need_not() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        assert!(table.unread(7, &name("a"), Instant(1)).is_none());
        assert_eq!(table.unread(7, &name("b"), Instant(1)).unwrap().by, name("a"));
        read(&mut table, 7, "b", Instant(0));
        assert!(table.unread(7, &name("b"), Instant(1)).is_none());
        table.changed(7, &name("b"), false, at(2));
        assert_eq!(table.unread(7, &name("a"), Instant(3)).unwrap().by, name("b"));
    }

    #[test]
    fn a_copy_made_while_falling_back_is_no_reading() {
        let mut table = table(10);
        let reads = |table: &mut Versions, ino: Ino, writable: bool, at: u64| {
            table.attributes_requested(ino, &name("b"), ReadPurpose::Open, Instant(at));
            table.read(ino, &name("b"), writable, Instant(at));
            table.unread(ino, &name("b"), Instant(at)).is_none()
        };
        table.changed(7, &name("a"), false, at(0));
        table.refused(&name("b"), Instant(0));
        assert!(!reads(&mut table, 7, true, 1));
        // The file that was to be changed has been replaced meanwhile.
        table.changed(8, &name("c"), false, at(2));
        assert!(!reads(&mut table, 8, true, 3));
        assert!(reads(&mut table, 8, false, 4));
        assert!(
            reads(&mut table, 7, true, FALLBACK_MS),
            "a worker that was not refused lately may read in any way"
        );
    }

    #[test]
    fn a_change_after_a_read_must_be_read_again_at_once() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        read(&mut table, 7, "b", Instant(0));
        table.changed(7, &name("a"), false, at(1));
        assert!(table.unread(7, &name("b"), Instant(1)).is_some());
    }

    #[test]
    fn a_worker_that_changes_a_file_blindly_must_still_read_it() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        table.changed(7, &name("b"), true, at(1));
        for worker in ["a", "b", "c"] {
            assert_eq!(table.unread(7, &name(worker), Instant(1)).unwrap().by, name("a"), "{worker}");
        }
        read(&mut table, 7, "b", Instant(0));
        table.changed(7, &name("b"), true, at(2));
        assert!(table.unread(7, &name("b"), Instant(2)).is_none());
        assert_eq!(table.unread(7, &name("a"), Instant(2)).unwrap().by, name("b"));
    }

    #[test]
    fn what_is_read_before_the_kernel_has_forgotten_counts_for_nothing() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        table.content_invalidated(7, Instant(1));
        assert!(table.is_just_invalidated(7, Instant(2)) && !table.is_just_invalidated(8, Instant(2)));
        table.changed(7, &name("a"), false, at(2));
        table.page_drop_begins(7);
        read(&mut table, 7, "b", Instant(3));
        assert!(table.unread(7, &name("b"), Instant(3)).is_some());
        table.page_drop_ends(7);
        read(&mut table, 7, "b", Instant(4));
        assert!(table.unread(7, &name("b"), Instant(4)).is_none());
    }

    #[test]
    fn a_worker_that_reads_across_a_change_has_not_read_it() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        table.attributes_requested(7, &name("b"), ReadPurpose::Open, Instant(1));
        read(&mut table, 7, "b", Instant(1));
        table.changed(7, &name("a"), false, at(2));
        table.attributes_requested(7, &name("b"), ReadPurpose::ReadOn, Instant(3));
        read(&mut table, 7, "b", Instant(3));
        assert!(table.unread(7, &name("b"), Instant(3)).is_some(), "the rest of an older one");
        table.attributes_requested(7, &name("b"), ReadPurpose::Open, Instant(4));
        read(&mut table, 7, "b", Instant(4));
        assert!(table.unread(7, &name("b"), Instant(4)).is_none(), "opened anew");
    }

    #[test]
    fn a_worker_that_reads_while_a_write_is_refused_must_read_again() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        read(&mut table, 7, "b", Instant(1));
        read(&mut table, 7, "d", Instant(1));
        let then = 2;
        read(&mut table, 7, "a", Instant(then));
        read(&mut table, 7, "c", Instant(then));
        table.attributes_requested(7, &name("d"), ReadPurpose::Open, Instant(then));
        table.refused_write_shown(7, &name("e"), Some(&name("a")), Instant(then), Instant(then + 1));
        let unread = |table: &Versions| {
            ["a", "b", "c", "d"].map(|worker| table.unread(7, &name(worker), Instant(then + 1)).is_some())
        };
        assert_eq!(unread(&table), [false, false, true, true], "a goes on writing");
        table.attributes_requested(7, &name("a"), ReadPurpose::CreatingOpen, Instant(then));
        table.refused_write_shown(7, &name("e"), Some(&name("a")), Instant(then), Instant(then + 1));
        assert!(!unread(&table)[0], "a begins to write");
        table.attributes_requested(7, &name("a"), ReadPurpose::Open, Instant(then));
        table.refused_write_shown(7, &name("e"), Some(&name("a")), Instant(then), Instant(then + 1));
        assert_eq!(unread(&table), [true, false, true, true], "a begins anew");
        let may_show = |ms| table.may_show_wrong_content(7, Instant(then + 1 + ms));
        assert!(may_show(0) && !may_show(WRITE_UNDER_WAY_MS));
    }

    #[test]
    fn what_is_read_while_the_kernel_may_not_know_the_size_counts_for_nothing() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        table.attributes_requested(7, &name("b"), ReadPurpose::Open, Instant(1));
        table.attributes_invalidated(7);
        table.read(7, &name("b"), false, Instant(1));
        assert!(table.unread(7, &name("b"), Instant(1)).is_some(), "the answer was void");
        table.attributes_requested(7, &name("b"), ReadPurpose::ReadOn, Instant(1));
        table.read(7, &name("b"), false, Instant(1));
        assert!(table.unread(7, &name("b"), Instant(1)).is_none());
        table.read(7, &name("c"), false, Instant(1));
        assert!(table.unread(7, &name("c"), Instant(1)).is_some(), "and there was none");
        table.read(7, &name("c"), false, Instant(WRITE_UNDER_WAY_MS));
        assert!(table.unread(7, &name("c"), Instant(WRITE_UNDER_WAY_MS)).is_none(), "by then it knows");
        table.changed(7, &name("a"), false, at(1_000));
        table.used_by(7, &name("a"));
        table.read(7, &name("d"), false, Instant(1_000));
        assert!(table.unread(7, &name("d"), Instant(1_000)).is_none(), "the change has returned");
    }

    #[test]
    fn it_ends_with_the_window_and_with_the_file() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        assert!(table.unread(7, &name("b"), Instant(9_999)).is_some());
        assert!(table.unread(7, &name("b"), Instant(10_000)).is_none());
        table.changed(7, &name("a"), true, at(10_000));
        assert!(
            table.unread(7, &name("a"), Instant(10_000)).is_none(),
            "what is over need not be read any more"
        );
        table.forget(7);
        assert!(table.unread(7, &name("b"), Instant(10_001)).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let mut table = table(100);
        for n in 0..1_000 {
            table.changed(n, &name("a"), false, at(n));
            assert!(table.files.len() <= 100 && table.order.len() <= 200);
        }
        assert!(table.recent(999, Instant(999)).is_some() && table.recent(900, Instant(999)).is_some());
        assert!(table.recent(899, Instant(999)).is_none());
        let mut table = self::table(100);
        table.changed(2, &name("a"), false, at(0));
        for n in 0..1_000 {
            table.changed(1, &name(if n % 2 == 0 { "a" } else { "b" }), false, at(n));
            assert!(table.order.len() <= 200);
        }
        assert_eq!(table.files.len(), 2, "a busy file costs no other its protection");
        assert!(table.recent(1, Instant(999)).is_some());
    }
}
