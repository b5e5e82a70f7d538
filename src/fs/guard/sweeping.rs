//! Locks whose holders are done, released many at a time: nothing tells when a file is closed.
//!
//! May assume: a lock that is released late costs nothing but its place in the table.
//! Must never: run on a thread that serves the kernel. How long a sweep takes depends on how many descriptors the user's processes have, and
//! the user decides that. For the same reason the sweeper rests after each sweep for as long as the sweep took.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::family::ProcessScan;
use super::locks::LockHolder;
use super::{Guard, OpenState};
use crate::fs::Ino;

/// The users whose locks are to be swept. See the top of this file.
#[derive(Default)]
pub(super) struct Sweeper {
    wanted: Mutex<SweepState>,
    changed: Condvar,
}

#[derive(Default)]
struct SweepState {
    closed: bool,
    /// Each once, the one that waits longest first.
    users: VecDeque<u32>,
}

impl Sweeper {
    /// A user's locks shall be swept.
    pub(super) fn want(&self, uid: u32) {
        let mut wanted = self.wanted.lock();
        if !wanted.users.contains(&uid) {
            wanted.users.push_back(uid);
            self.changed.notify_all();
        }
    }

    /// Nothing is swept any more.
    pub(super) fn close(&self) {
        self.wanted.lock().closed = true;
        self.changed.notify_all();
    }

    /// The next user, if one comes within a minute.
    fn next(&self) -> Option<u32> {
        let mut wanted = self.wanted.lock();
        if wanted.users.is_empty() && !wanted.closed {
            self.changed.wait_for(&mut wanted, Duration::from_secs(60));
        }
        wanted.users.front().copied()
    }

    /// A user's locks were swept, which took so long. They are not swept again at once.
    fn done(&self, uid: u32, took: Duration) {
        let mut wanted = self.wanted.lock();
        let users = wanted.users.len();
        while !wanted.closed
            && !self.changed.wait_for(&mut wanted, took).timed_out()
            && wanted.users.len() == users
        {}
        wanted.users.retain(|user| *user != uid);
    }
}

/// Start the thread. It ends when the sweeper is closed, or the guard is gone.
pub(super) fn start(guard: &Arc<Guard>) -> std::io::Result<()> {
    let guard = Arc::downgrade(guard);
    std::thread::Builder::new().name("sweeper".into()).spawn(move || {
        while let Some(guard) = Weak::upgrade(&guard).filter(|guard| !guard.sweeper.wanted.lock().closed) {
            let Some(uid) = guard.sweeper.next() else { continue };
            let began = (guard.clock)().instant;
            guard.sweep(uid);
            let took = (guard.clock)().instant.since(began);
            guard.sweeper.done(uid, took.to_std());
        }
    })?;
    Ok(())
}

impl Guard {
    /// Release the locks of a user whose holders are done. Each process is looked at once.
    fn sweep(&self, uid: u32) {
        let looked = (self.clock)().instant;
        let held: Vec<(Ino, LockHolder)> = {
            let table = self.table.lock();
            let theirs = table.locks.all().filter(|(_, holder)| holder.uid == uid);
            theirs.map(|(ino, holder)| (ino, holder.clone())).collect()
        };
        let mut scan = ProcessScan::default();
        let (mut roots, mut others) = (Vec::new(), Vec::new());
        for worker in held.iter().map(|(_, holder)| &holder.worker).collect::<HashSet<_>>() {
            let (processes, anchors) = self.callers.processes_of(worker);
            others.extend(processes);
            roots.extend(anchors);
        }
        roots.extend(held.iter().flat_map(|(_, holder)| holder.processes.iter().chain(&holder.anchors)));
        let mut processes = scan.family(&self.descriptors, roots);
        processes.append(&mut others);
        let open = scan.open_files(&self.descriptors, &processes);
        let done: Vec<(Ino, LockHolder)> = held
            .into_iter()
            .filter(|(ino, holder)| {
                let mut processes = holder.processes.iter();
                looked >= holder.opening
                    && !open.contains(ino)
                    && !processes.any(|it| {
                        let since = holder.last.max(holder.opening);
                        scan.sight(&self.descriptors, *it, *ino, since) != OpenState::Done
                    })
            })
            .collect();
        let mut table = self.table.lock();
        done.iter().for_each(|(ino, holder)| table.locks.release(*ino, holder));
        table.locks.swept(uid);
    }
}
