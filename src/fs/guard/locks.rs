//! Who holds which file for writing (C50, C52). Pure: it is told what happened, and looks at nothing.
//!
//! May assume: whoever tells it that a holder is done has looked.
//! Must never: let two workers hold one file, unless both only append.
//!
//! A lock begins with a worker's first change of a file. Nothing tells when it ends: opens and closes of the tree are not
//! reported. So a lock stands here until somebody else wants the file, and then it is looked whether a process of the holder
//! still has it open for writing. A file that nobody else wants costs nothing.

use std::collections::HashMap;

use crate::fs::Ino;
use crate::fs::identity::callers::Caller;
use crate::limits::{LOCK_PROCESSES, LOCKED_FILES, LOCKED_FILES_OF_A_USER, OPENING_MS, SWEPT_LOCKS};
use crate::queue::{Instant, Now, Span, Wall, WorkerName};

/// What a worker does to a file. What is further down includes what is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// Give it another name or other attributes. A worker that has done only this keeps no other from appending.
    Mark,
    /// Add at its end. Those who do only this do not disturb each other.
    Append,
    /// Anything else.
    Change,
}

/// A worker who holds a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LockHolder {
    pub(super) worker: WorkerName,
    /// The user for whom it counts.
    pub(super) uid: u32,
    pub(super) mode: Mode,
    /// When it began.
    pub(super) since: Wall,
    /// When it changed the file last.
    pub(super) last: Instant,
    /// How often it did so.
    pub(super) changes: u64,
    /// Until when an open that made or emptied the file may not have returned, so that no descriptor can be seen yet.
    pub(super) opening: Instant,
    /// Whose open that is.
    pub(super) opener: u32,
    /// Whether that process has done more to the file since.
    pub(super) returned: bool,
    /// Whether the worker has made the file and written nothing to it.
    pub(super) made: bool,
    /// The processes that changed the file, youngest last.
    pub(super) processes: Vec<u32>,
    /// The processes that these stand and fall with, which may have the file open for them, youngest last.
    pub(super) anchors: Vec<u32>,
}

/// By which process a worker changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hand {
    pub(super) process: u32,
    /// The process whose end is the end of the worker, if there is one.
    pub(super) anchor: Option<u32>,
    pub(super) uid: u32,
}

impl Hand {
    pub(super) fn of(caller: &Caller) -> Hand {
        let anchor = caller.anchor.as_ref().map(|anchor| anchor.pid);
        Hand { process: caller.process, anchor, uid: caller.actor.uid }
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
    /// How many they must be for the next sweep to be worth its while.
    due: usize,
}

impl Default for UserLocks {
    fn default() -> UserLocks {
        UserLocks { held: 0, due: SWEPT_LOCKS }
    }
}

impl Locks {
    /// Who keeps `worker` from changing the file in this way.
    pub(super) fn rival(&self, ino: Ino, worker: &WorkerName, mode: Mode) -> Option<&LockHolder> {
        self.held
            .get(&ino)?
            .iter()
            .find(|holder| holder.worker != *worker && !(mode == Mode::Append && holder.mode <= Mode::Append))
    }

    /// `worker` is about to change the file. To be called only when there is no [`Locks::rival`]. `opens`: the request is
    /// part of an open that has not returned.
    pub(super) fn take(
        &mut self,
        ino: Ino,
        worker: &WorkerName,
        mode: Mode,
        hand: Hand,
        opens: bool,
        now: Now,
    ) {
        let Hand { process, anchor, uid } = hand;
        let (holders, users) = (self.held.entry(ino).or_default(), &mut self.users);
        let opening = if opens { now.instant.after(Span(OPENING_MS)) } else { Instant::default() };
        let at = holders.iter().position(|holder| holder.worker == *worker).unwrap_or_else(|| {
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
        let holder = &mut holders[at];
        holder.last = now.instant;
        holder.changes += 1;
        if opens {
            (holder.opening, holder.opener, holder.returned) = (opening, process, false);
        } else if holder.opener == process {
            // It goes on: so its open has returned, and a descriptor can be seen for as long as there is one. But touch(1) makes a
            // file, sets its times and ends: a worker that wants to append meanwhile waits until it has.
            holder.returned = true;
            if mode != Mode::Mark {
                holder.opening = Instant::default();
            }
        }
        holder.made &= mode == Mode::Mark;
        holder.mode = holder.mode.max(mode);
        remember(&mut holder.processes, process);
        if let Some(anchor) = anchor.filter(|anchor| *anchor != process) {
            remember(&mut holder.anchors, anchor);
        }
    }

    /// `worker` has made the file by an open through which it can write in this way.
    pub(super) fn make(&mut self, ino: Ino, worker: &WorkerName, mode: Mode, hand: Hand, now: Now) {
        self.take(ino, worker, mode, hand, true, now);
        self.of(ino, worker).into_iter().for_each(|holder| holder.made = true);
    }

    /// The holder was seen to wait for the file, which is locked for a worker that appends to it. If it has made the file and written nothing,
    /// it lets appending be. touch(1) is such a one: it waits to set the times of what it has made.
    pub(super) fn gives_way(&mut self, ino: Ino, seen: &LockHolder) -> bool {
        let holder = self.of(ino, &seen.worker).filter(|it| it.changes == seen.changes && it.made);
        holder.map(|holder| holder.mode = Mode::Mark).is_some()
    }

    fn of(&mut self, ino: Ino, worker: &WorkerName) -> Option<&mut LockHolder> {
        self.held.get_mut(&ino)?.iter_mut().find(|holder| holder.worker == *worker)
    }

    /// Whether a holder made or emptied the file by an open, and has done nothing more since: the open may still be under way.
    pub(super) fn is_opening(&self, ino: Ino, worker: &WorkerName) -> bool {
        let mut theirs = self.held.get(&ino).into_iter().flatten().filter(|holder| holder.worker == *worker);
        theirs.any(|holder| !holder.returned)
    }

    /// One more process was seen to have the file open for the holder.
    pub(super) fn also(&mut self, ino: Ino, worker: &WorkerName, process: u32) {
        if let Some(holder) = self.of(ino, worker)
            && !holder.processes.contains(&process)
            && holder.processes.len() < LOCK_PROCESSES
        {
            holder.processes.push(process);
        }
    }

    /// The holder was seen to be done with the file. If it has changed the file since it was known as `seen`, it was too early.
    pub(super) fn release(&mut self, ino: Ino, seen: &LockHolder) {
        let Some(holders) = self.held.get_mut(&ino) else { return };
        let over = holders.extract_if(.., |it| it.worker == seen.worker && it.changes == seen.changes);
        over.for_each(|holder| give_back(&mut self.users, holder.uid));
        if holders.is_empty() {
            self.held.remove(&ino);
        }
    }

    /// The file is gone.
    pub(super) fn forget(&mut self, ino: Ino) {
        let over = self.held.remove(&ino).unwrap_or_default();
        over.iter().for_each(|holder| give_back(&mut self.users, holder.uid));
    }

    /// Whether there is no place for one more lock of a user.
    pub(super) fn is_full(&self, uid: u32) -> bool {
        let of_user = self.users.get(&uid).map_or(0, |share| share.held);
        of_user >= LOCKED_FILES_OF_A_USER || self.held.len() >= LOCKED_FILES
    }

    /// Whether a worker holds a file.
    pub(super) fn holds(&self, ino: Ino, worker: &WorkerName) -> bool {
        self.holders(ino).iter().any(|holder| holder.worker == *worker)
    }

    /// Whether a user has so many locks that it shall be looked which of them are over.
    pub(super) fn is_due(&self, uid: u32) -> bool {
        self.users.get(&uid).is_some_and(|share| share.held >= share.due)
    }

    /// It was looked, and what is over was released. What is left was held: to look again is worth its while when there is twice as much.
    pub(super) fn swept(&mut self, uid: u32) {
        if let Some(share) = self.users.get_mut(&uid) {
            share.due = (share.held * 2).max(SWEPT_LOCKS);
        }
    }

    /// The holder was seen to have the file open for nothing but appending, which is all that it does from now on.
    pub(super) fn only_appends(&mut self, ino: Ino, seen: &LockHolder) {
        let holders = self.held.get_mut(&ino).into_iter().flatten();
        for holder in holders.filter(|holder| holder.worker == seen.worker && holder.changes == seen.changes)
        {
            holder.mode = holder.mode.min(Mode::Append);
        }
    }

    /// Who holds a file.
    pub(super) fn holders(&self, ino: Ino) -> &[LockHolder] {
        self.held.get(&ino).map_or(&[], |holders| holders)
    }

    /// Everything that is held: at most, for nobody has looked.
    pub(super) fn all(&self) -> impl Iterator<Item = (Ino, &LockHolder)> {
        self.held.iter().flat_map(|(ino, holders)| holders.iter().map(|holder| (*ino, holder)))
    }
}

fn give_back(users: &mut HashMap<u32, UserLocks>, uid: u32) {
    if let Some(share) = users.get_mut(&uid) {
        share.held -= 1;
        if share.held == 0 {
            users.remove(&uid);
        }
    }
}

/// Put a process last.
fn remember(processes: &mut Vec<u32>, process: u32) {
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

    fn by(process: u32) -> Hand {
        Hand { process, anchor: None, uid: 0 }
    }

    fn rival(locks: &Locks, ino: Ino, worker: &str, mode: Mode) -> Option<String> {
        locks.rival(ino, &name(worker), mode).map(|holder| holder.worker.to_string())
    }

    #[test]
    fn one_changes_and_nobody_else_does() {
        let mut locks = Locks::default();
        locks.take(7, &name("a"), Mode::Change, by(100), false, at(1));
        assert_eq!(rival(&locks, 7, "a", Mode::Change), None);
        assert_eq!(rival(&locks, 7, "b", Mode::Change).as_deref(), Some("a"));
        assert_eq!(rival(&locks, 7, "b", Mode::Append).as_deref(), Some("a"));
        assert_eq!(rival(&locks, 8, "b", Mode::Change), None);
    }

    #[test]
    fn who_only_appends_disturbs_no_other_who_does() {
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
    fn who_only_gives_it_other_attributes_is_in_the_way_of_all_but_appending() {
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
    fn who_has_made_a_file_and_written_nothing_gives_way_to_appending() {
        let mut locks = Locks::default();
        locks.make(7, &name("a"), Mode::Change, by(100), at(1));
        locks.take(7, &name("a"), Mode::Mark, by(100), false, at(1));
        assert!(rival(&locks, 7, "b", Mode::Append).is_some());
        let seen = locks.holders(7)[0].clone();
        assert!(locks.gives_way(7, &seen));
        assert!(
            rival(&locks, 7, "b", Mode::Append).is_none() && rival(&locks, 7, "b", Mode::Change).is_some()
        );
        locks.take(7, &name("a"), Mode::Change, by(100), false, at(1));
        assert!(!locks.gives_way(7, &seen), "it has written");
        let seen = locks.holders(7)[0].clone();
        assert!(!locks.gives_way(7, &seen));
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
        let of = |uid| Hand { process: 100, anchor: None, uid };
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
    fn what_the_processes_stand_and_fall_with_is_remembered_too() {
        let mut locks = Locks::default();
        for (process, anchor) in
            [(100, Some(100)), (101, Some(90)), (102, Some(91)), (103, Some(90)), (104, None)]
        {
            locks.take(7, &name("a"), Mode::Change, Hand { process, anchor, uid: 0 }, false, at(1));
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
        // It sets the times of what it has made, and is still on its way out.
        locks.take(7, &name("a"), Mode::Mark, by(100), false, at(1));
        assert!(locks.holders(7)[0].opening > Instant(1) && !locks.is_opening(7, &name("a")));
    }
}
