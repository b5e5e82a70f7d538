//! Which files were changed lately, by whom, and who has read them since (C54). Pure: it is told what happened.
//!
//! May assume: readings of a clock that never goes back.
//! Must never: grow beyond its bound. The oldest change is forgotten first, and with it the protection of that file.

use std::collections::{HashMap, VecDeque};

use crate::fs::Ino;
use crate::limits::{FALLBACK_MS, RECENT_BELIEVED_MS, WRITE_UNDER_WAY_MS};
use crate::queue::{Instant, Now, Span, Wall, WorkerName};

/// How long a write can be on its way through the kernel, where others see what will be refused or has not been made yet, or
/// do not see yet what was made.
const DOUBT: Span = Span(WRITE_UNDER_WAY_MS);
/// How long a read can be on its way.
const MIDWAY: Span = Span(WRITE_UNDER_WAY_MS + RECENT_BELIEVED_MS);
/// How long a program may take from a refusal to its other way of writing.
const FALLBACK: Span = Span(FALLBACK_MS);

/// Somebody who was seen to read a file or to look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reader {
    worker: WorkerName,
    /// When, last.
    at: Instant,
    /// [`LastChange::voided`] when it looked last.
    looked: Option<u64>,
}

/// The last change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastChange {
    /// Who made it.
    pub(super) by: WorkerName,
    /// When, for people.
    pub(super) at: Wall,
    /// When, to count from.
    instant: Instant,
    /// When exactly: the moment above is that of the first of many changes within a second.
    last: Instant,
    /// Who knows the content as it is now.
    read_by: Vec<WorkerName>,
    /// Who was lately seen to read it or to look at it.
    readers: Vec<Reader>,
    /// When who made it opened the file again since.
    reopened: Option<Instant>,
    /// Who made it, when sentences tell of somebody else: of one whose change is there still, and was not read.
    changer: WorkerName,
    /// Whether the changer has turned to the file again since, in whatever way: so its call has returned.
    returned: bool,
    /// Who was at it when it was changed, and since when: what they still read may be the rest of something older.
    midway: Vec<(WorkerName, Instant)>,
    /// When the kernel was last told to forget the content.
    forgotten: Instant,
    /// How often it was told to forget anything. Each time the answers on their way about the file become void.
    voided: u64,
    /// How often it is being told so because it may still show what was there before. Until then reading counts for nothing.
    unsettled: u32,
    /// When something was last seen in it that is not there.
    doubted: Instant,
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
            midway: Vec::new(),
            forgotten: Instant::default(),
            voided: 0,
            unsettled: 0,
            doubted: Instant::default(),
        }
    }

    fn note_reader(&mut self, worker: &WorkerName, looked: Option<u64>, at: Instant) {
        self.readers.retain(|known| known.worker != *worker && at.since(known.at) < MIDWAY);
        self.readers.push(Reader { worker: worker.clone(), at, looked });
    }

    /// [`LastChange::voided`] when somebody looked last.
    fn looked(&self, reader: &WorkerName) -> Option<u64> {
        self.readers.iter().find(|known| known.worker == *reader)?.looked
    }

    /// Whether the kernel knows the size that the file has since the change when this worker reads it. Until then it cuts
    /// what is read to the size of before. It learns the size when the call that made the change returns, or by the answer
    /// to who looks, if nothing made that void.
    fn is_sized(&self, reader: &WorkerName, now: Instant) -> bool {
        self.returned || self.looked(reader) == Some(self.voided) || now.since(self.last) >= DOUBT
    }
}

/// What somebody looks at a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadPurpose {
    /// To open it.
    Anew,
    /// The same, by an open that has made or emptied it just now.
    Opening,
    /// To read on.
    Onward,
}

/// The table of recent changes.
#[derive(Debug)]
pub(super) struct Versions {
    most: usize,
    /// For how long a change counts as recent.
    window: Span,
    files: HashMap<Ino, LastChange>,
    /// The changes in order, with those that are no longer the last of their file.
    order: VecDeque<(Ino, Instant)>,
    /// Who was refused lately, and when last.
    refused: HashMap<WorkerName, Instant>,
}

impl Versions {
    /// A table of at most so many files.
    pub(super) fn new(most: usize, window: Span) -> Versions {
        Versions { most, window, files: HashMap::new(), order: VecDeque::new(), refused: HashMap::new() }
    }

    /// A worker changed a file. `blind`: what was in it before is in it still, whether or not the worker knows that.
    pub(super) fn changed(&mut self, ino: Ino, by: &WorkerName, blind: bool, now: Now) {
        let mut recent = LastChange::new(by, now);
        if let Some(known) = self.files.get_mut(&ino)
            && Self::fresh(known, self.window, now.instant)
        {
            let late = |at: Instant| now.instant.since(at) < MIDWAY;
            known.midway.retain(|(_, at)| late(*at));
            (known.reopened, known.returned) = (None, false);
            let came = known.readers.drain(..).filter(|reader| late(reader.at) && reader.worker != *by);
            known.midway.extend(came.map(|reader| (reader.worker, reader.at)));
            recent.midway.clone_from(&known.midway);
            (recent.forgotten, recent.voided) = (known.forgotten, known.voided);
            (recent.doubted, recent.unsettled) = (known.doubted, known.unsettled);
            if blind && !known.read_by.contains(by) {
                // There is something in it that nobody else knows, and something that this worker does not know either:
                // sentences go on telling of that.
                (recent.by, recent.at) = (known.by.clone(), known.at);
                recent.read_by.clear();
            }
            // Writing on and on is one change; it counts from its last moment, to the second.
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

    /// A worker reads a file through the kernel. Whoever was refused just now, and reads through a descriptor that can write, is
    /// about to put there in place what was refused, and keeps a copy of what it destroys: nobody learns anything by that.
    pub(super) fn read(&mut self, ino: Ino, by: &WorkerName, writable: bool, now: Instant) {
        let falls_back = writable && self.refused.get(by).is_some_and(|at| now.since(*at) < FALLBACK);
        if !falls_back && self.files.get(&ino).is_some_and(|recent| recent.is_sized(by, now)) {
            self.knows(ino, by, now);
        }
    }

    /// A worker was refused, because of whatever file: what it wanted to change may have another number by now.
    pub(super) fn refused(&mut self, worker: &WorkerName, now: Instant) {
        self.refused.retain(|_, at| now.since(*at) < FALLBACK);
        self.refused.insert(worker.clone(), now);
    }

    /// A worker has read a file.
    pub(super) fn knows(&mut self, ino: Ino, by: &WorkerName, now: Instant) {
        if let Some(recent) = self.files.get_mut(&ino).filter(|recent| recent.unsettled == 0) {
            if recent.midway.iter().any(|(reader, at)| reader == by && now.since(*at) < MIDWAY) {
                return;
            }
            if !recent.read_by.contains(by) {
                recent.read_by.push(by.clone());
            }
            recent.note_reader(by, recent.looked(by), now);
        }
    }

    /// A worker looks at a file, and may read what the kernel has of it.
    pub(super) fn looked(&mut self, ino: Ino, by: &WorkerName, look: ReadPurpose, now: Instant) {
        self.turned_to(ino, by);
        if let Some(recent) = self.files.get_mut(&ino) {
            if look != ReadPurpose::Onward {
                recent.midway.retain(|(reader, _)| reader != by);
            }
            if look == ReadPurpose::Anew && recent.changer == *by {
                recent.reopened = Some(now);
            }
            recent.note_reader(by, Some(recent.voided), now);
        }
    }

    /// A worker does something with a file.
    pub(super) fn turned_to(&mut self, ino: Ino, worker: &WorkerName) {
        if let Some(recent) = self.files.get_mut(&ino)
            && recent.changer == *worker
        {
            recent.returned = true;
        }
    }

    /// What a worker was taken to have read was not what is there now.
    pub(super) fn not_read(&mut self, ino: Ino, by: &WorkerName) {
        if let Some(recent) = self.files.get_mut(&ino)
            && recent.by != *by
        {
            recent.read_by.retain(|reader| reader != by);
        }
    }

    /// What `refused` wanted to write could be seen in the file for a moment, since then and until now: whoever has looked at it
    /// since may have read that. Not so who is `writing`, and has not opened it again since: that is the midst of a change,
    /// and to refuse the rest of it would tear it.
    pub(super) fn doubt(
        &mut self,
        ino: Ino,
        refused: &WorkerName,
        writing: Option<&WorkerName>,
        since: Instant,
        now: Instant,
    ) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.doubted = now;
            let misled = |worker: &WorkerName| {
                recent.readers.iter().any(|reader| reader.worker == *worker && reader.at >= since)
            };
            let reopened = recent.reopened.is_some_and(|at| at >= since);
            let goes_on =
                |worker: &WorkerName| Some(worker) == writing && *worker == recent.changer && !reopened;
            recent.read_by.retain(|worker| worker == refused || goes_on(worker) || !misled(worker));
        }
    }

    /// Whether the kernel may show at present what is not there: what was refused just now, or what was there before.
    pub(super) fn is_doubted(&self, ino: Ino, now: Instant) -> bool {
        self.files.get(&ino).is_some_and(|recent| recent.unsettled > 0 || now.since(recent.doubted) < DOUBT)
    }

    /// The kernel is told to forget the content.
    pub(super) fn forgotten(&mut self, ino: Ino, now: Instant) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.forgotten = now;
            recent.voided += 1;
        }
    }

    /// The kernel is told to forget the attributes.
    pub(super) fn voided(&mut self, ino: Ino) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.voided += 1;
        }
    }

    /// Whether it was told so just now.
    pub(super) fn is_forgotten(&self, ino: Ino, now: Instant) -> bool {
        self.files.get(&ino).is_some_and(|recent| now.since(recent.forgotten) < DOUBT)
    }

    /// The kernel may have read again what was there before the last change, and is about to be told to forget that.
    pub(super) fn unsettle(&mut self, ino: Ino) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.unsettled += 1;
        }
    }

    /// It has forgotten.
    pub(super) fn settle(&mut self, ino: Ino) {
        if let Some(recent) = self.files.get_mut(&ino) {
            recent.unsettled = recent.unsettled.saturating_sub(1);
        }
    }

    /// The change that a worker has not seen yet.
    pub(super) fn unread(&self, ino: Ino, worker: &WorkerName, now: Instant) -> Option<&LastChange> {
        self.recent(ino, now).filter(|recent| !recent.read_by.contains(worker))
    }

    /// The last change of a file, if it is recent.
    pub(super) fn recent(&self, ino: Ino, now: Instant) -> Option<&LastChange> {
        self.files.get(&ino).filter(|recent| Self::fresh(recent, self.window, now))
    }

    /// Whether somebody of this crowd does not know the content of a file as it is now.
    pub(super) fn is_news(&self, ino: Ino, crowd: &[WorkerName], now: Instant) -> bool {
        self.recent(ino, now)
            .is_some_and(|recent| !crowd.iter().all(|worker| recent.read_by.contains(worker)))
    }

    /// The file is gone.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.files.remove(&ino);
    }

    /// All files that were changed lately.
    pub(super) fn all(&self) -> Vec<Ino> {
        self.files.keys().copied().collect()
    }

    fn fresh(recent: &LastChange, window: Span, now: Instant) -> bool {
        now.since(recent.instant) < window
    }

    fn make_room(&mut self, now: Instant) {
        // What is no longer the last change of its file is left out now and then: one file that changes all the time costs no
        // other file its protection.
        if self.order.len() >= 2 * self.most {
            let files = &self.files;
            self.order
                .retain(|(ino, instant)| files.get(ino).is_some_and(|recent| recent.instant == *instant));
        }
        // What is over goes first, and then the oldest.
        while let Some((ino, instant)) = self.order.front().copied() {
            let current = self.files.get(&ino).is_some_and(|recent| recent.instant == instant);
            let over = now.since(instant) >= self.window;
            if current && !over && self.files.len() < self.most {
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

    /// Somebody opens a file and reads it.
    fn read(table: &mut Versions, ino: Ino, who: &str, at: Instant) {
        table.looked(ino, &name(who), ReadPurpose::Onward, at);
        table.read(ino, &name(who), false, at);
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
            table.looked(ino, &name("b"), ReadPurpose::Anew, Instant(at));
            table.read(ino, &name("b"), writable, Instant(at));
            table.unread(ino, &name("b"), Instant(at)).is_none()
        };
        table.changed(7, &name("a"), false, at(0));
        table.refused(&name("b"), Instant(0));
        assert!(!reads(&mut table, 7, true, 1));
        // What was to be changed has been replaced meanwhile.
        table.changed(8, &name("c"), false, at(2));
        assert!(!reads(&mut table, 8, true, 3));
        assert!(reads(&mut table, 8, false, 4));
        assert!(reads(&mut table, 7, true, FALLBACK_MS), "whoever was not refused lately reads as it likes");
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
    fn who_changes_a_file_blindly_still_has_to_read_it() {
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
        table.forgotten(7, Instant(1));
        assert!(table.is_forgotten(7, Instant(2)) && !table.is_forgotten(8, Instant(2)));
        table.changed(7, &name("a"), false, at(2));
        table.unsettle(7);
        read(&mut table, 7, "b", Instant(3));
        assert!(table.unread(7, &name("b"), Instant(3)).is_some());
        table.settle(7);
        read(&mut table, 7, "b", Instant(4));
        assert!(table.unread(7, &name("b"), Instant(4)).is_none());
    }

    #[test]
    fn who_reads_on_across_a_change_has_not_read_it() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        table.looked(7, &name("b"), ReadPurpose::Anew, Instant(1));
        read(&mut table, 7, "b", Instant(1));
        table.changed(7, &name("a"), false, at(2));
        table.looked(7, &name("b"), ReadPurpose::Onward, Instant(3));
        read(&mut table, 7, "b", Instant(3));
        assert!(table.unread(7, &name("b"), Instant(3)).is_some(), "the rest of an older one");
        table.looked(7, &name("b"), ReadPurpose::Anew, Instant(4));
        read(&mut table, 7, "b", Instant(4));
        assert!(table.unread(7, &name("b"), Instant(4)).is_none(), "opened anew");
    }

    #[test]
    fn who_reads_while_a_write_is_refused_reads_again() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        read(&mut table, 7, "b", Instant(1));
        read(&mut table, 7, "d", Instant(1));
        let then = 2;
        read(&mut table, 7, "a", Instant(then));
        read(&mut table, 7, "c", Instant(then));
        table.looked(7, &name("d"), ReadPurpose::Anew, Instant(then));
        table.doubt(7, &name("e"), Some(&name("a")), Instant(then), Instant(then + 1));
        let unread = |table: &Versions| {
            ["a", "b", "c", "d"].map(|worker| table.unread(7, &name(worker), Instant(then + 1)).is_some())
        };
        assert_eq!(unread(&table), [false, false, true, true], "a goes on writing");
        table.looked(7, &name("a"), ReadPurpose::Opening, Instant(then));
        table.doubt(7, &name("e"), Some(&name("a")), Instant(then), Instant(then + 1));
        assert!(!unread(&table)[0], "a begins to write");
        table.looked(7, &name("a"), ReadPurpose::Anew, Instant(then));
        table.doubt(7, &name("e"), Some(&name("a")), Instant(then), Instant(then + 1));
        assert_eq!(unread(&table), [true, false, true, true], "a begins anew");
        let doubted = |ms| table.is_doubted(7, Instant(then + 1 + ms));
        assert!(doubted(0) && !doubted(WRITE_UNDER_WAY_MS));
    }

    #[test]
    fn what_is_read_while_the_kernel_may_not_know_the_size_counts_for_nothing() {
        let mut table = table(10);
        table.changed(7, &name("a"), false, at(0));
        table.looked(7, &name("b"), ReadPurpose::Anew, Instant(1));
        table.voided(7);
        table.read(7, &name("b"), false, Instant(1));
        assert!(table.unread(7, &name("b"), Instant(1)).is_some(), "the answer was void");
        table.looked(7, &name("b"), ReadPurpose::Onward, Instant(1));
        table.read(7, &name("b"), false, Instant(1));
        assert!(table.unread(7, &name("b"), Instant(1)).is_none());
        table.read(7, &name("c"), false, Instant(1));
        assert!(table.unread(7, &name("c"), Instant(1)).is_some(), "and there was none");
        table.read(7, &name("c"), false, Instant(WRITE_UNDER_WAY_MS));
        assert!(table.unread(7, &name("c"), Instant(WRITE_UNDER_WAY_MS)).is_none(), "by then it knows");
        table.changed(7, &name("a"), false, at(1_000));
        table.turned_to(7, &name("a"));
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
