//! Sweeps: each releases the locks of one user whose holders are done. They are needed because no event marks the close of a file.
//!
//! May assume: a lock that is released late costs only its place in the table.
//! Must never: run on a thread that serves the kernel. The duration of a sweep depends on the number of descriptors of the user's
//! processes, which the user decides. For the same reason the sweeper pauses after each sweep for as long as the sweep took.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::family::ProcessScan;
use super::locks::LockHolder;
use super::{Guard, OpenState};
use crate::fs::Ino;

/// The users whose locks need a sweep. See the module's documentation.
#[derive(Default)]
pub(super) struct Sweeper {
    state: Mutex<SweepState>,
    changed: Condvar,
}

#[derive(Default)]
struct SweepState {
    closed: bool,
    /// Each user once, the one that has waited longest first.
    users: VecDeque<u32>,
}

impl Sweeper {
    /// Request a sweep of a user's locks.
    pub(super) fn request(&self, uid: u32) {
        let mut state = self.state.lock();
        if !state.users.contains(&uid) {
            state.users.push_back(uid);
            self.changed.notify_all();
        }
    }

    /// Stop sweeping.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// The next user, if a sweep is requested within a minute.
    fn next(&self) -> Option<u32> {
        let mut state = self.state.lock();
        if state.users.is_empty() && !state.closed {
            self.changed.wait_for(&mut state, Duration::from_secs(60));
        }
        state.users.front().copied()
    }

    /// A sweep of a user's locks has ended after `took`. Wait as long before the next one.
    fn done(&self, uid: u32, took: Duration) {
        let mut state = self.state.lock();
        let users = state.users.len();
        while !state.closed
            && !self.changed.wait_for(&mut state, took).timed_out()
            && state.users.len() == users
        {}
        state.users.retain(|user| *user != uid);
    }
}

/// Start the thread. It ends when the sweeper is closed, or the guard is gone.
pub(super) fn start(guard: &Arc<Guard>) -> std::io::Result<()> {
    let guard = Arc::downgrade(guard);
    std::thread::Builder::new().name("sweeper".into()).spawn(move || {
        while let Some(guard) = Weak::upgrade(&guard).filter(|guard| !guard.sweeper.state.lock().closed) {
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
    /// Release the locks of a user whose holders are done. Each process is scanned once.
    fn sweep(&self, uid: u32) {
        let started = (self.clock)().instant;
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
                started >= holder.opening
                    && !open.contains(ino)
                    && !processes.any(|it| {
                        let since = holder.last.max(holder.opening);
                        scan.open_state(&self.descriptors, *it, *ino, since) != OpenState::Done
                    })
            })
            .collect();
        let mut table = self.table.lock();
        done.iter().for_each(|(ino, holder)| table.locks.release(*ino, holder));
        table.locks.swept(uid);
    }
}
