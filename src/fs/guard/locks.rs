//! Which worker holds which file for writing (C50, C52). Pure: it reads no file and no process.
//!
//! May assume: a lock is released only after a scan of the holder's processes.
//! Must never: let two workers hold one file, unless both only append.
//!
//! A lock begins with a worker's first change of a file. No event marks its end, because the kernel does not report opens and closes of
//! the tree. So a lock stays in this table until another worker wants the file. Only then the guard scans whether a process of the
//! holder still has it open for writing. A file that no other worker wants costs nothing.

use std::collections::HashMap;

use crate::fs::Ino;
use crate::fs::identity::callers::Caller;
use crate::limits::{LOCK_PROCESSES, LOCKED_FILES, LOCKED_FILES_OF_A_USER, OPENING_MS, SWEPT_LOCKS};
use crate::queue::{Instant, Now, Span, Wall, WorkerName};

/// What a worker does to a file. Each mode includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Give it another name or other attributes. This does not keep other workers from appending.
    Mark,
    /// Append to it. Workers that only append do not exclude each other.
    Append,
    /// Any other change.
    Change,
}

/// A worker that holds a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockHolder {
    pub(super) worker: WorkerName,
    /// The user whose locks this one counts among.
    pub(super) uid: u32,
    pub(super) mode: Mode,
    /// When the lock began.
    pub(super) since: Wall,
    /// The last change of the file by this worker.
    pub(super) last: Instant,
    /// The number of its changes.
    pub(super) changes: u64,
    /// Until this time the open that created or emptied the file may not have returned, so that its descriptor is not visible yet.
    pub(super) opening: Instant,
    /// The process of that open.
    pub(super) opener: u32,
    /// Whether that process has changed the file again since.
    pub(super) returned: bool,
    /// Whether the worker has created the file and written nothing to it.
    pub(super) made: bool,
    /// The processes that changed the file, the latest last.
    pub(super) processes: Vec<u32>,
    /// The anchors of these processes, which may have the file open for them, the latest last.
    pub(super) anchors: Vec<u32>,
}

/// The process through which a worker changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChangingProcess {
    pub(super) process: u32,
    /// The process whose end is the end of the worker, if there is one.
    pub(super) anchor: Option<u32>,
    pub(super) uid: u32,
}

impl ChangingProcess {
    pub(super) fn of(caller: &Caller) -> ChangingProcess {
        let anchor = caller.anchor.as_ref().map(|anchor| anchor.pid);
        ChangingProcess { process: caller.process, anchor, uid: caller.actor.uid }
    }
}

/// The table of locks.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: HashMap<Ino, Vec<LockHolder>>,
    users: HashMap<u32, UserLocks>,
}

/// The locks of one user.
#[derive(Debug)]
struct UserLocks {
    held: usize,
    /// The number of locks at which the next sweep is due.
    due: usize,
}

impl Default for UserLocks {
    fn default() -> UserLocks {
        UserLocks { held: 0, due: SWEPT_LOCKS }
    }
}

impl Locks {
    /// The holder that keeps `worker` from changing the file in this way.
    pub(super) fn rival(&self, ino: Ino, worker: &WorkerName, mode: Mode) -> Option<&LockHolder> {
        self.held
            .get(&ino)?
            .iter()
            .find(|holder| holder.worker != *worker && !(mode == Mode::Append && holder.mode <= Mode::Append))
    }

    /// Record that `worker` is about to change the file. Call this only when there is no [`Locks::rival`]. `opens`: the request is part
    /// of an open that has not returned.
    pub(super) fn take(
        &mut self,
        ino: Ino,
        worker: &WorkerName,
        mode: Mode,
        by: ChangingProcess,
        opens: bool,
        now: Now,
    ) {
        let ChangingProcess { process, anchor, uid } = by;
        let (holders, users) = (self.held.entry(ino).or_default(), &mut self.users);
        let opening = if opens { now.instant.after(Span(OPENING_MS)) } else { Instant::default() };
        let index = holders.iter().position(|holder| holder.worker == *worker).unwrap_or_else(|| {
            users.entry(uid).or_default().held += 1;
            holders.push(LockHolder {
                worker: worker.clone(),
                uid,
                mode,
                since: now.wall,
                last: now.instant,
                changes: 0,
                opening,
                opener: process,
                returned: !opens,
                made: false,
                processes: Vec::with_capacity(1),
                anchors: Vec::new(),
            });
            holders.len() - 1
        });
        let holder = &mut holders[index];
        holder.last = now.instant;
        holder.changes += 1;
        if opens {
            (holder.opening, holder.opener, holder.returned) = (opening, process, false);
        } else if holder.opener == process {
            // The process has continued. So its open has returned, and its descriptor is visible for as long as it exists. But touch(1)
            // creates a file, sets its times and exits: a worker that wants to append meanwhile waits until it has exited.
            holder.returned = true;
            if mode != Mode::Mark {
                holder.opening = Instant::default();
            }
        }
        holder.made &= mode == Mode::Mark;
        holder.mode = holder.mode.max(mode);
        push_last(&mut holder.processes, process);
        if let Some(anchor) = anchor.filter(|anchor| *anchor != process) {
            push_last(&mut holder.anchors, anchor);
        }
    }

    /// Record that `worker` has created the file by an open that permits this mode of writing.
    pub(super) fn make(&mut self, ino: Ino, worker: &WorkerName, mode: Mode, by: ChangingProcess, now: Now) {
        self.take(ino, worker, mode, by, true, now);
        self.of(ino, worker).into_iter().for_each(|holder| holder.made = true);
    }

    /// Let other workers append, if the holder has created the file and written nothing. The holder was seen to wait for the file,
    /// which the kernel keeps locked for a worker that appends to it. touch(1) waits like that to set the times of its new file.
    pub(super) fn yield_to_appends(&mut self, ino: Ino, seen: &LockHolder) -> bool {
        let holder = self.of(ino, &seen.worker).filter(|it| it.changes == seen.changes && it.made);
        holder.map(|holder| holder.mode = Mode::Mark).is_some()
    }

    fn of(&mut self, ino: Ino, worker: &WorkerName) -> Option<&mut LockHolder> {
        self.held.get_mut(&ino)?.iter_mut().find(|holder| holder.worker == *worker)
    }

    /// Whether a holder created or emptied the file by an open, and has done nothing more since: the open may still be under way.
    pub(super) fn is_opening(&self, ino: Ino, worker: &WorkerName) -> bool {
        let mut theirs = self.held.get(&ino).into_iter().flatten().filter(|holder| holder.worker == *worker);
        theirs.any(|holder| !holder.returned)
    }

    /// Add another process that a scan has found with the file open for the holder.
    pub(super) fn add_process(&mut self, ino: Ino, worker: &WorkerName, process: u32) {
        if let Some(holder) = self.of(ino, worker)
            && !holder.processes.contains(&process)
            && holder.processes.len() < LOCK_PROCESSES
        {
            holder.processes.push(process);
        }
    }

    /// Release a lock after a scan found the holder done. If the holder has changed the file since it was read as `seen`, the lock stays.
    pub(super) fn release(&mut self, ino: Ino, seen: &LockHolder) {
        let Some(holders) = self.held.get_mut(&ino) else { return };
        let ended = holders.extract_if(.., |it| it.worker == seen.worker && it.changes == seen.changes);
        ended.for_each(|holder| release_share(&mut self.users, holder.uid));
        if holders.is_empty() {
            self.held.remove(&ino);
        }
    }

    /// Remove all locks of a removed file.
    pub(super) fn forget(&mut self, ino: Ino) {
        let ended = self.held.remove(&ino).unwrap_or_default();
        ended.iter().for_each(|holder| release_share(&mut self.users, holder.uid));
    }

    /// Whether there is no room for one more lock of a user.
    pub(super) fn is_full(&self, uid: u32) -> bool {
        let of_user = self.users.get(&uid).map_or(0, |share| share.held);
        of_user >= LOCKED_FILES_OF_A_USER || self.held.len() >= LOCKED_FILES
    }

    /// Whether a worker holds a file.
    pub(super) fn holds(&self, ino: Ino, worker: &WorkerName) -> bool {
        self.holders(ino).iter().any(|holder| holder.worker == *worker)
    }

    /// Whether a user has so many locks that a sweep is due.
    pub(super) fn is_due(&self, uid: u32) -> bool {
        self.users.get(&uid).is_some_and(|share| share.held >= share.due)
    }

    /// A sweep of a user's locks has ended. All remaining locks are held, so the next sweep is due at twice their number.
    pub(super) fn swept(&mut self, uid: u32) {
        if let Some(share) = self.users.get_mut(&uid) {
            share.due = (share.held * 2).max(SWEPT_LOCKS);
        }
    }

    /// A scan found that the holder has the file open only for appending. It counts as such from now on.
    pub(super) fn only_appends(&mut self, ino: Ino, seen: &LockHolder) {
        let holders = self.held.get_mut(&ino).into_iter().flatten();
        for holder in holders.filter(|holder| holder.worker == seen.worker && holder.changes == seen.changes)
        {
            holder.mode = holder.mode.min(Mode::Append);
        }
    }

    /// The holders of a file.
    pub(super) fn holders(&self, ino: Ino) -> &[LockHolder] {
        self.held.get(&ino).map_or(&[], |holders| holders)
    }

    /// All locks. Some of their holders may be done, since they were not scanned.
    pub(super) fn all(&self) -> impl Iterator<Item = (Ino, &LockHolder)> {
        self.held.iter().flat_map(|(ino, holders)| holders.iter().map(|holder| (*ino, holder)))
    }
}

fn release_share(users: &mut HashMap<u32, UserLocks>, uid: u32) {
    if let Some(share) = users.get_mut(&uid) {
        share.held -= 1;
        if share.held == 0 {
            users.remove(&uid);
        }
    }
}

/// Move or add a process to the end.
fn push_last(processes: &mut Vec<u32>, process: u32) {
    if processes.last() != Some(&process) {
        processes.retain(|known| *known != process);
        if processes.len() == LOCK_PROCESSES {
            processes.remove(0);
        }
        processes.push(process);
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

    fn by(process: u32) -> ChangingProcess {
        ChangingProcess { process, anchor: None, uid: 0 }
    }

    fn rival(locks: &Locks, ino: Ino, worker: &str, mode: Mode) -> Option<String> {
        locks.rival(ino, &name(worker), mode).map(|holder| holder.worker.to_string())
    }

    #[test]
    fn one_worker_changes_a_file_at_a_time() {
        let mut locks = Locks::default();
        locks.take(7, &name("a"), Mode::Change, by(100), false, at(1));
        assert_eq!(rival(&locks, 7, "a", Mode::Change), None);
        assert_eq!(rival(&locks, 7, "b", Mode::Change).as_deref(), Some("a"));
        assert_eq!(rival(&locks, 7, "b", Mode::Append).as_deref(), Some("a"));
        assert_eq!(rival(&locks, 8, "b", Mode::Change), None);
    }

    #[test]
    fn workers_that_only_append_do_not_exclude_each_other() {
        let mut locks = Locks::default();
        for worker in ["a", "b"] {
            assert_eq!(rival(&locks, 7, worker, Mode::Append), None);
            locks.take(7, &name(worker), Mode::Append, by(100), false, at(1));
        }
        assert!(rival(&locks, 7, "a", Mode::Change).is_some());
        let seen = locks.holders(7)[1].clone();
        locks.release(7, &seen);
        assert_eq!(rival(&locks, 7, "a", Mode::Change), None);
        locks.take(7, &name("a"), Mode::Change, by(100), false, at(2));
        locks.take(7, &name("a"), Mode::Append, by(100), false, at(3));
        assert!(rival(&locks, 7, "b", Mode::Append).is_some(), "to append afterwards gives nothing back");
        let seen = locks.holders(7)[0].clone();
        locks.only_appends(7, &seen);
        assert!(
            rival(&locks, 7, "b", Mode::Append).is_none() && rival(&locks, 7, "b", Mode::Change).is_some()
        );
    }

    #[test]
    fn a_change_of_attributes_excludes_all_but_appending() {
        let mut locks = Locks::default();
        locks.take(7, &name("a"), Mode::Mark, by(100), false, at(1));
        assert_eq!(rival(&locks, 7, "b", Mode::Append), None);
        assert!(rival(&locks, 7, "b", Mode::Mark).is_some() && rival(&locks, 7, "b", Mode::Change).is_some());
        let seen = locks.holders(7)[0].clone();
        locks.only_appends(7, &seen);
        assert_eq!(locks.holders(7)[0].mode, Mode::Mark);
        locks.take(7, &name("b"), Mode::Append, by(200), false, at(1));
        assert!(rival(&locks, 7, "a", Mode::Mark).is_some(), "it is another's turn");
        locks.take(7, &name("a"), Mode::Append, by(100), false, at(1));
        locks.take(7, &name("a"), Mode::Mark, by(100), false, at(1));
        assert_eq!(locks.holders(7)[0].mode, Mode::Append, "nothing is given back");
    }

    #[test]
    fn a_creator_that_has_written_nothing_yields_to_appending() {
        let mut locks = Locks::default();
        locks.make(7, &name("a"), Mode::Change, by(100), at(1));
        locks.take(7, &name("a"), Mode::Mark, by(100), false, at(1));
        assert!(rival(&locks, 7, "b", Mode::Append).is_some());
        let seen = locks.holders(7)[0].clone();
        assert!(locks.yield_to_appends(7, &seen));
        assert!(
            rival(&locks, 7, "b", Mode::Append).is_none() && rival(&locks, 7, "b", Mode::Change).is_some()
        );
        locks.take(7, &name("a"), Mode::Change, by(100), false, at(1));
        assert!(!locks.yield_to_appends(7, &seen), "it has written");
        let seen = locks.holders(7)[0].clone();
        assert!(!locks.yield_to_appends(7, &seen));
    }

    #[test]
    fn a_change_after_the_look_keeps_the_lock() {
        let mut locks = Locks::default();
        locks.take(7, &name("a"), Mode::Change, by(100), false, at(1));
        let seen = locks.holders(7)[0].clone();
        locks.take(7, &name("a"), Mode::Change, by(100), false, at(1));
        locks.release(7, &seen);
        assert_eq!(locks.holders(7).len(), 1);
        let seen = locks.holders(7)[0].clone();
        locks.release(7, &seen);
        assert_eq!((locks.holders(7).len(), locks.all().count(), locks.users.len()), (0, 0, 0));
    }

    #[test]
    fn a_user_s_locks_are_counted_until_they_are_over() {
        let mut locks = Locks::default();
        let of = |uid| ChangingProcess { process: 100, anchor: None, uid };
        for ino in 0..LOCKED_FILES_OF_A_USER as Ino {
            assert!(!locks.is_full(1));
            locks.take(ino, &name("a"), Mode::Change, of(1), false, at(1));
            locks.take(ino, &name("a"), Mode::Change, of(1), false, at(2));
            assert_eq!(locks.is_due(1), ino + 1 >= SWEPT_LOCKS as Ino);
        }
        let next = LOCKED_FILES_OF_A_USER as Ino;
        assert!(locks.is_full(1) && locks.holds(next - 1, &name("a")) && !locks.holds(next, &name("a")));
        assert!(!locks.is_full(2) && !locks.is_due(2));
        locks.swept(1);
        assert!(!locks.is_due(1), "all of them are held: another look would see the same");
        let seen = locks.holders(0)[0].clone();
        locks.release(0, &seen);
        locks.forget(1);
        assert!(!locks.is_full(1));
        (2..next).for_each(|ino| locks.forget(ino));
        assert!(locks.users.is_empty());
    }

    #[test]
    fn processes_are_remembered_once_and_the_youngest_stay() {
        let mut locks = Locks::default();
        for process in 0..2 * LOCK_PROCESSES as u32 {
            locks.take(7, &name("a"), Mode::Change, by(process), false, at(1));
            locks.take(7, &name("a"), Mode::Change, by(process), true, at(1));
        }
        let holder = &locks.holders(7)[0];
        assert_eq!(holder.processes.len(), LOCK_PROCESSES);
        assert_eq!(holder.processes.last(), Some(&(2 * LOCK_PROCESSES as u32 - 1)));
        assert_eq!(holder.opening, Instant(1 + OPENING_MS));
    }

    #[test]
    fn the_anchors_of_the_processes_are_recorded_too() {
        let mut locks = Locks::default();
        for (process, anchor) in
            [(100, Some(100)), (101, Some(90)), (102, Some(91)), (103, Some(90)), (104, None)]
        {
            locks.take(
                7,
                &name("a"),
                Mode::Change,
                ChangingProcess { process, anchor, uid: 0 },
                false,
                at(1),
            );
        }
        assert_eq!(locks.holders(7)[0].anchors, [91, 90]);
    }

    #[test]
    fn an_open_has_returned_when_its_process_goes_on() {
        let mut locks = Locks::default();
        let mut take = |process, opens| {
            locks.take(7, &name("a"), Mode::Change, by(process), opens, at(1));
            locks.holders(7)[0].opening > Instant(1)
        };
        assert!(take(100, true));
        assert!(take(200, false), "another process tells nothing");
        assert!(!take(100, false));
        assert!(take(100, true));
        assert!(locks.is_opening(7, &name("a")));
        // It sets the times of its new file, and has not exited yet.
        locks.take(7, &name("a"), Mode::Mark, by(100), false, at(1));
        assert!(locks.holders(7)[0].opening > Instant(1) && !locks.is_opening(7, &name("a")));
    }
}
