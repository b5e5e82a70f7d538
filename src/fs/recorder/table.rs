//! The open entries: which worker changed which path last, and what was there before. Pure: it reads no file.
//!
//! May assume: paths are changed by one caller at a time, because the kernel keeps the file or the directory locked.
//! Must never: drop an entry whose versions are not in the queue.
//!
//! A path has at most one open entry: that of the step that changed it last. When another step changes the path, the entry of the first one
//! is closed: the version that the first worker left goes into the queue, and is the version before of the next entry.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::records::{Author, ContentSource, Item, Line, Observed, Snapshot, Stamp, StepId};
use crate::fs::Ino;
use crate::limits::REVISIONS_KEPT;
use crate::queue::{Instant, Now, Span, TaskId, Wall};

/// A path that a step has changed.
#[derive(Debug, Clone)]
struct OpenEntry {
    step: StepId,
    before: Option<Snapshot>,
    /// The last version that was read, and its stamp.
    known: Option<Observed>,
    /// The stamp after the step's last change; the outer `None` after a restart.
    stamp: Option<Option<Stamp>>,
    /// How many changes the step has made here.
    changes: u64,
    /// The last of them.
    changed: Instant,
    /// The node, if the kernel knows one.
    ino: Option<Ino>,
    /// Whether the path is in the list of those to read.
    listed: bool,
}

impl OpenEntry {
    /// The known version, if it is that of this stamp.
    fn known_at(&self, stamp: &Option<Stamp>) -> Option<Option<Snapshot>> {
        self.known.as_ref().filter(|(known, _)| known == stamp).map(|(_, snapshot)| *snapshot)
    }

    /// Whether the path was changed since the step's last change, by a caller that does not use the mount.
    fn is_changed_outside(&self, stamp: &Option<Stamp>) -> bool {
        // A directory changes by what is made in it, and that has entries of its own.
        let both_directories = |own: &Option<Stamp>| {
            own.is_some_and(|own| own.is_directory) && stamp.is_some_and(|stamp| stamp.is_directory)
        };
        self.stamp.as_ref().is_some_and(|own| own != stamp && !both_directories(own))
    }

    fn change(&mut self, stamp: Option<Stamp>, path: &Path, now: Instant, unread: &mut Vec<PathBuf>) {
        self.stamp = Some(stamp);
        self.changes += 1;
        self.changed = now;
        if !self.listed {
            self.listed = true;
            unread.push(path.to_path_buf());
        }
    }

    /// Whether the last change is not among the known versions.
    fn is_dirty(&self) -> bool {
        self.stamp.as_ref().is_none_or(|stamp| self.known_at(stamp).is_none())
    }
}

/// An entry that a thread is about to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) path: PathBuf,
    pub(super) step: StepId,
    changes: u64,
}

/// A step that has, or had, open entries.
#[derive(Debug, Clone)]
struct OpenStep {
    author: Arc<Author>,
    /// How many entries are open.
    entries: usize,
    /// The time of its last change.
    changed: Instant,
    /// The time of the first change that is not in the queue.
    unsettled: Option<Instant>,
    /// Whether its claim has ended, and the queue says so.
    ended: bool,
}

impl OpenStep {
    fn change(&mut self, now: Instant) {
        self.changed = self.changed.max(now);
        self.unsettled.get_or_insert(now);
    }

    fn is_open(&self) -> bool {
        self.entries > 0 || self.author.claim.is_some() && !self.ended
    }
}

/// A step, for the thread that records.
#[derive(Debug, Clone)]
pub(super) struct StepState {
    pub(super) id: StepId,
    pub(super) author: Arc<Author>,
    /// The time of its last change.
    pub(super) changed: Instant,
    /// The time of the first change that is not in the queue; `None` if all are.
    pub(super) unsettled: Option<Instant>,
}

/// All open entries, and the queue of what the repository has not recorded yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    next: StepId,
    ids: HashMap<Arc<Author>, StepId>,
    steps: HashMap<StepId, OpenStep>,
    entries: HashMap<PathBuf, OpenEntry>,
    /// The entry of each node, so that a write costs one look-up.
    nodes: HashMap<Ino, (StepId, PathBuf)>,
    /// Paths whose last version was not read since it was changed.
    unread: Vec<PathBuf>,
    queue: VecDeque<Item>,
    /// Numbers in the spool whose content the repository does not have.
    spooled: BTreeSet<u64>,
    /// Numbers in the spool whose content the repository has, and that snapshots still name.
    stored: HashMap<u64, ContentSource>,
    /// How often anything was changed.
    revision: u64,
    /// [`Table::revision`] at the last change that touches a task.
    revisions: HashMap<TaskId, u64>,
    /// That of every task that is not among them.
    least: u64,
    /// Lines for the journal that are not written yet.
    lines: Vec<Line>,
}

impl Table {
    /// The step of an author.
    pub(super) fn step(&mut self, author: &Author) -> StepId {
        if let Some(step) = self.ids.get(author) {
            return *step;
        }
        let step = self.next;
        self.add_step(step, Arc::new(author.clone()));
        self.lines.push(Line::Step { step, author: author.clone() });
        step
    }

    fn add_step(&mut self, step: StepId, author: Arc<Author>) {
        self.next = self.next.max(step + 1);
        self.ids.insert(author.clone(), step);
        let changed = Instant::default();
        self.steps.insert(step, OpenStep { author, entries: 0, changed, unsettled: None, ended: false });
    }

    /// The author of a step.
    pub(super) fn author(&self, step: StepId) -> Option<&Arc<Author>> {
        self.steps.get(&step).map(|step| &step.author)
    }

    /// Whether the last change of a node was made in this step. Then nothing needs to be kept before the next one.
    pub(super) fn is_last_of(&self, ino: Ino, step: StepId) -> bool {
        self.nodes.get(&ino).is_some_and(|(last, _)| *last == step)
    }

    /// Whether this step changed the path last.
    pub(super) fn is_open(&self, path: &Path, step: StepId) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.step == step)
    }

    /// The snapshot of a path if its content with this stamp is known already, so that it need not be copied again.
    pub(super) fn known(&self, path: &Path, stamp: &Option<Stamp>) -> Option<Option<Snapshot>> {
        self.entries.get(path)?.known_at(stamp)
    }

    /// A step is about to change a path at which it found this.
    pub(super) fn enter(&mut self, step: StepId, path: &Path, found: Observed, now: Now) {
        if self.is_open(path, step) {
            return;
        }
        let (stamp, snapshot) = found;
        if let Some(left) = self.take(path) {
            self.leave(path, left, stamp, snapshot, now.wall);
        }
        self.lines.push(Line::Open { path: path.to_path_buf(), step, before: snapshot });
        let entry = OpenEntry {
            step,
            before: snapshot,
            known: Some((stamp, snapshot)),
            stamp: Some(stamp),
            changes: 0,
            changed: now.instant,
            ino: None,
            listed: false,
        };
        self.insert(path.to_path_buf(), entry);
    }

    fn insert(&mut self, path: PathBuf, entry: OpenEntry) {
        if let Some(ContentSource::Spooled(number)) = entry.before.map(|before| before.source)
            && !self.stored.contains_key(&number)
        {
            self.spooled.insert(number);
        }
        if let Some(step) = self.steps.get_mut(&entry.step) {
            step.entries += 1;
            step.change(entry.changed);
        }
        self.entries.insert(path, entry);
    }

    fn take(&mut self, path: &Path) -> Option<OpenEntry> {
        let entry = self.entries.remove(path)?;
        if let Some(ino) = entry.ino {
            self.nodes.remove(&ino);
        }
        if let Some(step) = self.steps.get_mut(&entry.step) {
            step.entries -= 1;
        }
        self.lines.push(Line::Left { path: path.to_path_buf() });
        Some(entry)
    }

    /// A step has changed a path: this is there now. `ino`: its node, if the kernel knows one.
    pub(super) fn changed(&mut self, path: &Path, stamp: Option<Stamp>, ino: Option<Ino>, now: Instant) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        entry.change(stamp, path, now, &mut self.unread);
        let changer = entry.step;
        if let Some(step) = self.steps.get_mut(&entry.step) {
            step.change(now);
        }
        if entry.ino != ino {
            let before = std::mem::replace(&mut entry.ino, ino);
            let step = changer;
            if let Some(before) = before
                && self.nodes.get(&before).is_some_and(|(_, known)| known == path)
            {
                self.nodes.remove(&before);
            }
            if let Some(ino) = ino {
                self.nodes.insert(ino, (step, path.to_path_buf()));
            }
        }
        self.revise(changer);
    }

    /// The same for a change of a node's content.
    pub(super) fn changed_node(&mut self, ino: Ino, stamp: Stamp, now: Instant) {
        if let Some((_, path)) = self.nodes.get(&ino)
            && let Some(entry) = self.entries.get_mut(path)
        {
            entry.change(Some(stamp), path, now, &mut self.unread);
            let changer = entry.step;
            if let Some(step) = self.steps.get_mut(&changer) {
                step.change(now);
            }
            self.revise(changer);
        }
    }

    /// A caller that is no author of the file has set its times: that is no change of a version.
    pub(super) fn touched_node(&mut self, ino: Ino, stamp: Stamp) {
        if let Some((_, path)) = self.nodes.get(&ino)
            && let Some(entry) = self.entries.get_mut(path)
            && let Some(Some(own)) = &mut entry.stamp
        {
            let before = std::mem::replace(own, stamp);
            if let Some((known, _)) = entry.known.as_mut().filter(|(known, _)| *known == Some(before)) {
                *known = Some(stamp);
            }
        }
    }

    /// A node belongs to the entry of this path.
    pub(super) fn bind(&mut self, ino: Ino, path: &Path) {
        if let Some(entry) = self.entries.get_mut(path) {
            let step = entry.step;
            if let Some(other) = entry.ino.replace(ino).filter(|other| *other != ino) {
                self.nodes.remove(&other);
            }
            self.nodes.insert(ino, (step, path.to_path_buf()));
        }
    }

    /// The kernel has forgotten a node: its number may be that of another file next.
    pub(super) fn forget_node(&mut self, ino: Ino) {
        if let Some((_, path)) = self.nodes.remove(&ino)
            && let Some(entry) = self.entries.get_mut(&path).filter(|entry| entry.ino == Some(ino))
        {
            entry.ino = None;
        }
    }

    /// Directories have moved, so that nodes have other paths now.
    pub(super) fn forget_nodes(&mut self) {
        self.nodes.clear();
        self.entries.values_mut().for_each(|entry| entry.ino = None);
    }

    /// Entries that were changed since their last version was read, and not within this span.
    pub(super) fn unread(&mut self, quiet: Span, now: Instant) -> Vec<Due> {
        let listed = std::mem::take(&mut self.unread);
        let mut due = Vec::new();
        for path in listed {
            let Some(entry) = self.entries.get_mut(&path).filter(|entry| entry.listed) else { continue };
            if now.since(entry.changed) < quiet {
                self.unread.push(path);
                continue;
            }
            entry.listed = false;
            if entry.is_dirty() {
                due.push(Due::of(&path, entry));
            }
        }
        due
    }

    /// Whether a version is to be read.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// All entries of a step; of every step if `None`.
    pub(super) fn due(&self, step: Option<StepId>) -> Vec<Due> {
        let of_step = self.entries.iter().filter(|(_, entry)| step.is_none_or(|step| entry.step == step));
        of_step.map(|(path, entry)| Due::of(path, entry)).collect()
    }

    /// The steps that have open entries, or whose claim has not ended.
    pub(super) fn open_steps(&self) -> Vec<StepState> {
        let open = self.steps.iter().filter(|(_, step)| step.is_open());
        open.map(|(id, step)| StepState {
            id: *id,
            author: step.author.clone(),
            changed: step.changed,
            unsettled: step.unsettled,
        })
        .collect()
    }

    /// All changes of a step are in the queue.
    pub(super) fn settled(&mut self, step: StepId) {
        if let Some(step) = self.steps.get_mut(&step) {
            step.unsettled = None;
        }
    }

    /// Whether there is an open step.
    pub(super) fn is_open_anywhere(&self) -> bool {
        self.steps.values().any(OpenStep::is_open)
    }

    /// Whether the version with this stamp is known.
    pub(super) fn is_known(&self, due: &Due, stamp: &Option<Stamp>) -> bool {
        self.entry(due).is_some_and(|entry| entry.known_at(stamp).is_some())
    }

    fn entry(&self, due: &Due) -> Option<&OpenEntry> {
        self.entries.get(&due.path).filter(|entry| entry.step == due.step && entry.changes == due.changes)
    }

    /// A thread has read an entry's path. If the entry was changed meanwhile, this tells nothing.
    pub(super) fn note(&mut self, due: &Due, found: Observed, now: Now) {
        let (stamp, snapshot) = found;
        match self.entry(due).map(|entry| entry.is_changed_outside(&stamp)) {
            // The path is no longer as the step left it, so it has no author now.
            Some(true) => {
                if let Some(entry) = self.take(&due.path) {
                    self.leave(&due.path, entry, stamp, snapshot, now.wall);
                }
            }
            Some(false) => {
                if let Some(entry) = self.entries.get_mut(&due.path) {
                    entry.stamp = Some(stamp);
                    entry.known = Some((stamp, snapshot));
                }
            }
            None => {}
        }
    }

    /// Put what a step has changed until now into the queue. With `last`, its entries end.
    pub(super) fn record(&mut self, due: &Due, last: bool, now: Wall) {
        let Some(entry) = self.entry(due) else { return };
        let Some((_, known)) = entry.known else { return };
        if entry.is_dirty() {
            return;
        }
        let (before, step) = (entry.before, entry.step);
        if before != known {
            self.push(Item::Change { step, path: due.path.clone(), before, after: known, at: now });
        }
        if last {
            self.take(&due.path);
        } else if before != known {
            self.lines.push(Line::Open { path: due.path.clone(), step, before: known });
            if let Some(entry) = self.entries.get_mut(&due.path) {
                entry.before = known;
            }
        }
    }

    /// The claim of a step has ended, and it has no open entries left.
    pub(super) fn end(&mut self, step: StepId) {
        if let Some(step) = self.steps.get_mut(&step) {
            step.ended = true;
        }
        self.push(Item::End { step });
    }

    /// The first items of the queue.
    pub(super) fn queued(&self, limit: usize) -> Vec<Item> {
        self.queue.iter().take(limit).map(|item| self.resolved(item)).collect()
    }

    /// Whether the queue is empty.
    pub(super) fn is_recorded(&self) -> bool {
        self.queue.is_empty()
    }

    /// The repository has recorded so many items.
    pub(super) fn recorded(&mut self, count: usize) {
        self.queue.drain(..count.min(self.queue.len()));
        self.lines.push(Line::Recorded { count });
    }

    /// The repository has the content of this file of the spool now.
    pub(super) fn stored(&mut self, number: u64, source: ContentSource) {
        self.spooled.remove(&number);
        self.stored.insert(number, source);
        self.lines.push(Line::Stored { spooled: number, source });
    }

    /// The numbers in the spool whose content the repository does not have.
    pub(super) fn spooled(&self) -> Vec<u64> {
        self.spooled.iter().copied().collect()
    }

    fn resolve(&self, snapshot: Option<Snapshot>) -> Option<Snapshot> {
        let mut snapshot = snapshot?;
        if let ContentSource::Spooled(number) = snapshot.source
            && let Some(stored) = self.stored.get(&number)
        {
            snapshot.source = *stored;
        }
        Some(snapshot)
    }

    fn resolved(&self, item: &Item) -> Item {
        let mut item = item.clone();
        if let Item::Change { before, after, .. } = &mut item {
            (*before, *after) = (self.resolve(*before), self.resolve(*after));
        }
        item
    }

    /// How many paths have an entry.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// A number that grows with each change that a task makes, or that ends a task's version of a path.
    pub(super) fn revision(&self, task: &TaskId) -> u64 {
        self.revisions.get(task).copied().unwrap_or(self.least)
    }

    fn revise(&mut self, step: StepId) {
        self.revision += 1;
        if let Some((task, _)) = self.steps.get(&step).and_then(|step| step.author.claim.as_ref()) {
            match self.revisions.get_mut(task) {
                Some(known) => *known = self.revision,
                None => {
                    if self.revisions.len() >= REVISIONS_KEPT {
                        self.revisions.clear();
                        self.least = self.revision;
                    }
                    self.revisions.insert(task.clone(), self.revision);
                }
            }
        }
    }

    /// Whether a path has an entry.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    /// The paths with entries at and below this one.
    pub(super) fn paths_at<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        self.entries.keys().filter(move |below| below.starts_with(path))
    }

    /// The lines that the journal has not yet.
    pub(super) fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// The content in the repository that open entries and the queue name.
    pub(super) fn stored_contents(&self) -> BTreeSet<[u8; 20]> {
        let entries =
            self.entries.values().flat_map(|entry| [entry.before, entry.known.and_then(|known| known.1)]);
        let queued = self.queue.iter().flat_map(|item| match item {
            Item::Change { before, after, .. } => [*before, *after],
            Item::End { .. } => [None, None],
        });
        let sources = entries.chain(queued).filter_map(|snapshot| Some(self.resolve(snapshot)?.source));
        let stored = |source| if let ContentSource::Stored(id) = source { Some(id) } else { None };
        sources.filter_map(stored).collect()
    }

    /// The repository was lost, with all that was stored in it.
    pub(super) fn repository_lost(&mut self) {
        let lost = |snapshot: Option<Snapshot>| {
            snapshot.map(|snapshot| match snapshot.source {
                ContentSource::Stored(_) => Snapshot { source: ContentSource::NotKept(0), ..snapshot },
                _ => snapshot,
            })
        };
        let mut table = Table::replay(self.as_lines());
        std::mem::swap(self, &mut table);
        for (path, entry) in &mut self.entries {
            entry.before = lost(entry.before);
            if let Some(old) = table.entries.get(path) {
                (entry.stamp, entry.changes, entry.changed) = (old.stamp, old.changes + 1, old.changed);
            }
            entry.listed = true;
            self.unread.push(path.clone());
        }
        for item in &mut self.queue {
            if let Item::Change { before, after, .. } = item {
                (*before, *after) = (lost(*before), lost(*after));
            }
        }
    }

    /// Everything that a journal must hold, as lines. Snapshots name the repository's content from now on.
    pub(super) fn as_lines(&mut self) -> Vec<Line> {
        let queue: VecDeque<Item> = self.queue.iter().map(|item| self.resolved(item)).collect();
        let mut entries = std::mem::take(&mut self.entries);
        for entry in entries.values_mut() {
            entry.before = self.resolve(entry.before);
            if let Some((_, known)) = &mut entry.known {
                *known = self.resolve(*known);
            }
        }
        (self.entries, self.queue) = (entries, queue);
        self.stored.clear();
        let queued: HashSet<StepId> = self.queue.iter().map(Item::step).collect();
        let used = self.steps.iter().filter(|(id, step)| step.is_open() || queued.contains(id));
        let used: HashSet<StepId> = used.map(|(id, _)| *id).collect();
        self.steps.retain(|id, _| used.contains(id));
        self.ids.retain(|_, id| used.contains(id));
        self.lines.clear();
        let steps = self.steps.iter();
        let steps = steps.map(|(id, step)| Line::Step { step: *id, author: (*step.author).clone() });
        let queue = self.queue.iter().cloned().map(Line::Queued);
        let open = self.entries.iter().map(|(path, entry)| Line::Open {
            path: path.clone(),
            step: entry.step,
            before: entry.before,
        });
        steps.chain(queue).chain(open).collect()
    }

    /// The table that a journal describes.
    pub(super) fn replay(lines: impl IntoIterator<Item = Line>) -> Table {
        let mut table = Table::default();
        for line in lines {
            match line {
                Line::Step { step, author } => table.add_step(step, Arc::new(author)),
                Line::Open { path, step, before } => {
                    table.take(&path);
                    let entry = OpenEntry {
                        step,
                        before,
                        known: None,
                        stamp: None,
                        changes: 1,
                        changed: Instant::default(),
                        ino: None,
                        listed: false,
                    };
                    table.insert(path, entry);
                }
                Line::Queued(item) => {
                    let numbers = item.spooled().filter(|number| !table.stored.contains_key(number));
                    table.spooled.extend(numbers.collect::<Vec<u64>>());
                    if let (Item::End { .. }, Some(step)) = (&item, table.steps.get_mut(&item.step())) {
                        step.ended = true;
                    }
                    table.queue.push_back(item);
                }
                Line::Left { path } => drop(table.take(&path)),
                Line::Recorded { count } => drop(table.queue.drain(..count.min(table.queue.len()))),
                Line::Stored { spooled, source } => table.stored(spooled, source),
            }
        }
        table.lines.clear();
        table
    }

    /// An entry is closed: this is what its step, or what came after it from outside, has left.
    fn leave(
        &mut self,
        path: &Path,
        entry: OpenEntry,
        stamp: Option<Stamp>,
        snapshot: Option<Snapshot>,
        at: Wall,
    ) {
        let left = entry.stamp.as_ref().and_then(|own| entry.known_at(own));
        let changes = match left.filter(|_| entry.is_changed_outside(&stamp)) {
            Some(left) => {
                let outside = self.step(&Author::outside());
                vec![(entry.step, entry.before, left), (outside, left, snapshot)]
            }
            None => vec![(entry.step, entry.before, snapshot)],
        };
        for (step, before, after) in changes.into_iter().filter(|(_, before, after)| before != after) {
            self.push(Item::Change { step, path: path.to_path_buf(), before, after, at });
        }
    }

    fn push(&mut self, item: Item) {
        self.revise(item.step());
        let numbers = item.spooled().filter(|number| !self.stored.contains_key(number));
        self.spooled.extend(numbers.collect::<Vec<u64>>());
        self.lines.push(Line::Queued(item.clone()));
        self.queue.push_back(item);
    }
}

impl Due {
    fn of(path: &Path, entry: &OpenEntry) -> Due {
        Due { path: path.to_path_buf(), step: entry.step, changes: entry.changes }
    }
}
