//! Parked changes: changes that another worker prevents, with their answers (C51).
//!
//! May assume: the kernel waits for each of these answers, and cannot be interrupted meanwhile.
//! Must never: let an answer wait for longer than its patience. So three threads share the parked changes. The retry thread scans the
//! processes of holders. The finder finds the caller that stored through a mapping, for which it may have to read every process.
//! A process that they read may block either of them, and neither blocks the other. The deadline thread only watches the time.
//!
//! A parked change delays more than its caller: the kernel keeps the file locked until the answer, so the holder cannot write. If the
//! holder is stuck because of that, the change is refused at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::family::ProcessScan;
use super::judge::Grant;
use super::locks::LockHolder;
use super::open_files::{maps, processes};
use super::patience::{Patience, WaitReason};
use super::refusal::GuardRefusal;
use super::{Change, Guard, OpenState, Verdict};
use crate::fs::identity::callers::Caller;
use crate::fs::{FsError, Ino, Result};
use crate::limits::{
    LOCKS_FULL_MS, MAPPED_WAIT_MS, STUCK_MS, STUCK_UNSEEN_MS, WAITING_CHANGES, WAITING_CHANGES_OF_A_USER,
};
use crate::queue::{Instant, Span};

/// The pause of the retry thread and the finder between two rounds.
const ROUND: Duration = Duration::from_millis(3);
/// How much later than the retry thread the deadline thread answers. So the retry thread answers first if it can, even on a busy
/// machine.
const SLACK: Span = Span(250);

type Resume = Box<dyn FnOnce(Result<Grant>) + Send>;

struct ParkedChange {
    change: Change,
    patience: Patience,
    until: Instant,
    resume: Resume,
}

#[derive(Default)]
struct ParkedState {
    closed: bool,
    next: u64,
    /// In order of arrival.
    parked: BTreeMap<u64, ParkedChange>,
}

/// All parked changes. See the module's documentation.
#[derive(Default)]
pub(super) struct ParkedChanges {
    state: Mutex<ParkedState>,
    changed: Condvar,
}

/// Start the threads. They end when `close` is called, or the guard is gone.
pub(super) fn start(guard: &Arc<Guard>) -> std::io::Result<()> {
    let retry: fn(&Arc<Guard>) = |guard| retry_all(guard, false);
    let find_mappers: fn(&Arc<Guard>) = |guard| retry_all(guard, true);
    for (name, serve) in [("retry", retry), ("mappers", find_mappers), ("deadlines", answer_expired)] {
        let guard = Arc::downgrade(guard);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            while let Some(guard) = Weak::upgrade(&guard).filter(|guard| !guard.parked.state.lock().closed) {
                serve(&guard);
            }
        })?;
    }
    Ok(())
}

impl ParkedChanges {
    /// Park a change.
    pub(super) fn enter(&self, guard: &Guard, patience: Patience, change: Change, resume: Resume) {
        let span = match &patience.0 {
            WaitReason::Held { span, .. } => *span,
            WaitReason::Full(_) => Span(LOCKS_FULL_MS),
            WaitReason::Unknown(_) => Span(MAPPED_WAIT_MS),
        };
        // The clock counts whole milliseconds. No wait may be shorter than configured.
        let until = (guard.clock)().instant.after(if span == Span(0) { span } else { Span(span.0 + 1) });
        let mut state = self.state.lock();
        let uid = patience.uid();
        let of_user = || state.parked.values().filter(|parked| parked.patience.uid() == uid).count();
        if state.closed || state.parked.len() >= WAITING_CHANGES || of_user() >= WAITING_CHANGES_OF_A_USER {
            drop(state);
            return resume(guard.give_up(&patience));
        }
        let number = state.next;
        state.next += 1;
        state.parked.insert(number, ParkedChange { change, patience, until, resume });
        self.changed.notify_all();
    }

    /// Drop every parked change, which answers it.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let parked = std::mem::take(&mut state.parked);
        self.changed.notify_all();
        drop(state);
        drop(parked);
    }

    fn take(&self, number: u64) -> Option<ParkedChange> {
        self.state.lock().parked.remove(&number)
    }
}

/// Answer every change whose time is over.
fn answer_expired(guard: &Arc<Guard>) {
    let mut state = guard.parked.state.lock();
    let now = (guard.clock)().instant;
    let is_late = |parked: &ParkedChange| now >= parked.until.after(SLACK);
    let number = state.parked.iter().find(|(_, parked)| is_late(parked)).map(|(number, _)| *number);
    let Some(parked) = number.and_then(|number| state.parked.remove(&number)) else {
        let next = state.parked.values().map(|parked| parked.until.after(SLACK)).min();
        let pause = next.map_or(Duration::from_secs(60), |next| next.since(now).to_std());
        guard.parked.changed.wait_for(&mut state, pause.max(Duration::from_millis(1)));
        return;
    };
    drop(state);
    (parked.resume)(guard.give_up(&parked.patience));
}

/// One round: retry the changes that wait for holders, or find the callers that stored through mappings.
fn retry_all(guard: &Arc<Guard>, unknown: bool) {
    let numbers: Vec<u64> = {
        let mut state = guard.parked.state.lock();
        let all = state.parked.iter();
        let mine =
            all.filter(|(_, parked)| parked.patience.0.is_unknown() == unknown).map(|(number, _)| *number);
        let mine: Vec<u64> = mine.collect();
        if mine.is_empty() {
            guard.parked.changed.wait_for(&mut state, Duration::from_secs(60));
            return;
        }
        mine
    };
    let mut scan = ProcessScan::patient((guard.clock)().instant);
    for number in &numbers {
        guard.retry(*number, &mut scan);
    }
    let mut state = guard.parked.state.lock();
    if !state.closed {
        guard.parked.changed.wait_for(&mut state, ROUND);
    }
}

impl Guard {
    /// Try to answer a parked change.
    fn retry(&self, number: u64, scan: &mut ProcessScan) {
        let (change, reason, until) = {
            let state = self.parked.state.lock();
            let Some(parked) = state.parked.get(&number) else { return };
            (parked.change.clone(), parked.patience.0.clone(), parked.until)
        };
        let is_unknown = reason.is_unknown();
        let verdict = match reason {
            WaitReason::Held { caller, ino, rival, .. } => {
                self.retry_held(&caller, &change, ino, rival, scan)
            }
            WaitReason::Full(caller) => self.judge_for(&caller, &change),
            WaitReason::Unknown(ino) => self.find_mapper(ino, scan),
        };
        let answer = match verdict {
            Verdict::Granted(grant) => Ok(grant),
            Verdict::Refused(error) => Err(error),
            Verdict::Wait(patience) if (self.clock)().instant >= until => self.give_up(&patience),
            Verdict::Wait(patience) => {
                if let Some(parked) = self.parked.state.lock().parked.get_mut(&number) {
                    parked.patience = patience;
                }
                // The other thread may have to continue with it.
                if is_unknown {
                    self.parked.changed.notify_all();
                }
                return;
            }
        };
        // A change that was answered meanwhile gets no second answer. If it took a lock, the next caller's scan releases that.
        if let Some(parked) = self.parked.take(number) {
            (parked.resume)(answer);
        }
    }

    fn retry_held(
        &self,
        caller: &Arc<Caller>,
        change: &Change,
        mut ino: Ino,
        mut rival: LockHolder,
        scan: &mut ProcessScan,
    ) -> Verdict {
        loop {
            let scanned_at = (self.clock)().instant;
            let holds = self.still_holds(ino, &rival, scan);
            // Judge even if the rival still holds the file: the scan may have shown that it only appends and is no rival. Or it has changed
            // the file again, so that waiting is pointless.
            let verdict = self.judge_for(caller, change);
            let Verdict::Wait(Patience(WaitReason::Held { ino: next, rival: other, .. })) = &verdict else {
                return verdict;
            };
            if !holds && (other.worker != rival.worker || *next != ino) {
                (ino, rival) = (*next, other.clone());
                continue;
            }
            // The holder may have got stuck only with the change that it has made since the scan.
            let unchanged = (*next, &other.worker, other.changes) == (ino, &rival.worker, rival.changes);
            let is_stuck = |process: &u32| {
                let now = (self.clock)().instant;
                let Some(since) = self.descriptors.stuck_since(*process, now) else { return false };
                // A holder that closes the file waits too, but no longer has it open. If its descriptors cannot be read, as in the middle
                // of execve(2), the length of the wait decides.
                let most = match scan.open_state(&self.descriptors, *process, ino, since) {
                    OpenState::Writing | OpenState::Appending => STUCK_MS,
                    OpenState::Done | OpenState::Hidden | OpenState::Awaited => STUCK_UNSEEN_MS,
                };
                since < scan.began() && now.since(since) >= Span(most)
            };
            if holds && unchanged && rival.processes.iter().any(is_stuck) {
                let appends = matches!(change, Change::Write { append: true, .. });
                if appends && self.table.lock().locks.yield_to_appends(ino, &rival) {
                    return self.judge_for(caller, change);
                }
                // Until its open has returned, the holder may turn out to append only.
                if scanned_at >= rival.opening {
                    return Verdict::Refused(self.held_refusal(Some(caller), ino, &rival));
                }
            }
            return verdict;
        }
    }

    /// Find the caller that stores through a mapping, and judge the change for that worker.
    fn find_mapper(&self, ino: Ino, scan: &mut ProcessScan) -> Verdict {
        if self.known_mapper(ino).is_none() {
            let holders = self.table.lock().locks.holders(ino).to_vec();
            // A process that maps a file has opened it, or received it from one that has. The daemon knows most of these processes.
            let mut likely: Vec<u32> = holders.iter().flat_map(|holder| self.family(holder, scan)).collect();
            likely.extend(self.callers.processes());
            let mut suspects = self.suspects(self.mapping(likely.clone(), ino));
            if suspects.is_empty() {
                suspects = self.suspects(self.mapping(processes(), ino));
            }
            // Programs unmap before they close, and the close writes the pages.
            if suspects.is_empty() {
                let now = (self.clock)().instant;
                let writes = |process: &u32| {
                    matches!(
                        scan.open_state(&self.descriptors, *process, ino, now),
                        OpenState::Writing | OpenState::Appending
                    )
                };
                suspects = self.suspects(likely.into_iter().filter(writes));
            }
            let holds =
                |caller: &Arc<Caller>| holders.iter().any(|holder| holder.worker == caller.actor.worker);
            // Two processes that map one file share its pages: the stores of one cannot be distinguished from those of the other.
            let index = suspects.iter().position(holds).unwrap_or(0);
            self.record_mapper(ino, suspects.into_iter().nth(index));
        }
        self.judge_mapped(ino)
    }

    /// Those of these processes that have a writable shared mapping of a file.
    fn mapping(&self, processes: impl IntoIterator<Item = u32>, ino: Ino) -> Vec<u32> {
        let Some(device) = self.descriptors.device() else { return Vec::new() };
        let found = self.callers.look_at(processes, move |process| maps(process, device, ino));
        found.into_iter().filter_map(|(process, maps)| maps.then_some(process)).collect()
    }

    /// The callers of these processes, each worker once.
    fn suspects(&self, processes: impl IntoIterator<Item = u32>) -> Vec<Arc<Caller>> {
        let mut suspects: Vec<Arc<Caller>> = Vec::new();
        for caller in processes.into_iter().filter_map(|process| self.callers.caller_of(process)) {
            if !suspects.iter().any(|known| known.actor.worker == caller.actor.worker) {
                suspects.push(caller);
            }
        }
        suspects
    }

    /// The answer to a change that has waited long enough.
    fn give_up(&self, patience: &Patience) -> Result<Grant> {
        match &patience.0 {
            WaitReason::Held { caller, ino, rival, .. } => Err(self.held_refusal(Some(caller), *ino, rival)),
            WaitReason::Full(caller) => {
                let error = FsError::from(GuardRefusal::LocksFull { uid: caller.actor.uid });
                self.callers.refused(caller, &error);
                Err(error)
            }
            // A refusal would lose the pages. Only pages of a caller that is known to be in the wrong are refused.
            WaitReason::Unknown(ino) => Ok(Grant::of_unknown(*ino)),
        }
    }
}
