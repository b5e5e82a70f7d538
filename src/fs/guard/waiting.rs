//! Parked changes: changes that another worker prevents, with their answers (C51).
//!
//! May assume: the kernel waits for each of these answers, and cannot be interrupted meanwhile.
//! Must never: let an answer wait for longer than its patience. So three threads share the parked changes. The retry thread looks at the
//! processes of holders. The finder finds the caller that stored through a mapping, for which it may have to look at every process.
//! Both may be held up by a process that they look at, and neither holds up the other. The deadline thread only keeps time.
//!
//! A parked change holds up more than its caller: the kernel keeps the file locked until the answer, so the holder cannot write. If the
//! holder is stuck because of that, the change is refused at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::family::ProcessScan;
use super::judge::Grant;
use super::locks::LockHolder;
use super::open_files::{maps, processes};
use super::refusal::GuardRefusal;
use super::{Change, Guard, OpenState, Verdict};
use crate::fs::identity::callers::Caller;
use crate::fs::{FsError, Ino, Result};
use crate::limits::{
    LOCKS_FULL_MS, MAPPED_WAIT_MS, STUCK_MS, STUCK_UNSEEN_MS, WAITING_CHANGES, WAITING_CHANGES_OF_A_USER,
};
use crate::queue::{Instant, Span};

/// How long the retry thread and the finder rest between two rounds.
const ROUND: Duration = Duration::from_millis(3);
/// How much later than the retry thread the deadline thread answers, so that it is not first where the retry thread can answer, also on a
/// busy machine.
const SLACK: Span = Span(250);

/// Why a change waits, and for how long.
pub struct Patience(pub(super) WaitReason);

impl Patience {
    /// The caller, if it is known.
    pub(super) fn caller(&self) -> Option<Arc<Caller>> {
        match &self.0 {
            WaitReason::Held { caller, .. } | WaitReason::Full(caller) => Some(caller.clone()),
            WaitReason::Unknown(_) => None,
        }
    }

    fn uid(&self) -> Option<u32> {
        self.caller().map(|caller| caller.actor.uid)
    }
}

/// What a change waits for.
#[derive(Clone)]
pub(super) enum WaitReason {
    /// Another worker holds the file.
    Held {
        /// The caller.
        caller: Arc<Caller>,
        /// The file.
        ino: Ino,
        /// The holder.
        rival: LockHolder,
        /// How long it may wait.
        span: Span,
    },
    /// The user of this caller has more locks than one user may have, and some of them may be over.
    Full(Arc<Caller>),
    /// The caller that stored through a mapping of this file is not known.
    Unknown(Ino),
}

impl WaitReason {
    fn is_unknown(&self) -> bool {
        matches!(self, WaitReason::Unknown(_))
    }
}

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

/// All parked changes. See the top of this file.
#[derive(Default)]
pub(super) struct ParkedChanges {
    inside: Mutex<ParkedState>,
    changed: Condvar,
}

/// Starts the threads. They end when `close` is called, or the guard is gone.
pub(super) fn start(guard: &Arc<Guard>) -> std::io::Result<()> {
    let retry: fn(&Arc<Guard>) = |guard| attend_all(guard, false);
    let find_mappers: fn(&Arc<Guard>) = |guard| attend_all(guard, true);
    for (name, serve) in [("retry", retry), ("mappers", find_mappers), ("deadlines", deadlines)] {
        let guard = Arc::downgrade(guard);
        std::thread::Builder::new().name(name.into()).spawn(move || {
            while let Some(guard) = Weak::upgrade(&guard).filter(|guard| !guard.room.inside.lock().closed) {
                serve(&guard);
            }
        })?;
    }
    Ok(())
}

impl ParkedChanges {
    /// Parks a change.
    pub(super) fn enter(&self, guard: &Guard, patience: Patience, change: Change, resume: Resume) {
        let span = match &patience.0 {
            WaitReason::Held { span, .. } => *span,
            WaitReason::Full(_) => Span(LOCKS_FULL_MS),
            WaitReason::Unknown(_) => Span(MAPPED_WAIT_MS),
        };
        // The clock counts whole milliseconds. No wait is shorter than promised.
        let until = (guard.clock)().instant.after(if span == Span(0) { span } else { Span(span.0 + 1) });
        let mut inside = self.inside.lock();
        let uid = patience.uid();
        let of_user = || inside.parked.values().filter(|parked| parked.patience.uid() == uid).count();
        if inside.closed || inside.parked.len() >= WAITING_CHANGES || of_user() >= WAITING_CHANGES_OF_A_USER {
            drop(inside);
            return resume(guard.give_up(&patience));
        }
        let number = inside.next;
        inside.next += 1;
        inside.parked.insert(number, ParkedChange { change, patience, until, resume });
        self.changed.notify_all();
    }

    /// Drops every parked change, which answers it.
    pub(super) fn close(&self) {
        let mut inside = self.inside.lock();
        inside.closed = true;
        let parked = std::mem::take(&mut inside.parked);
        self.changed.notify_all();
        drop(inside);
        drop(parked);
    }

    fn leave(&self, number: u64) -> Option<ParkedChange> {
        self.inside.lock().parked.remove(&number)
    }
}

/// Answers every change whose time is over.
fn deadlines(guard: &Arc<Guard>) {
    let mut inside = guard.room.inside.lock();
    let now = (guard.clock)().instant;
    let late = |parked: &ParkedChange| now >= parked.until.after(SLACK);
    let number = inside.parked.iter().find(|(_, parked)| late(parked)).map(|(number, _)| *number);
    let Some(parked) = number.and_then(|number| inside.parked.remove(&number)) else {
        let next = inside.parked.values().map(|parked| parked.until.after(SLACK)).min();
        let pause = next.map_or(Duration::from_secs(60), |next| next.since(now).to_std());
        guard.room.changed.wait_for(&mut inside, pause.max(Duration::from_millis(1)));
        return;
    };
    drop(inside);
    (parked.resume)(guard.give_up(&parked.patience));
}

/// One round: looks whether the awaited holders are done, or finds the callers that stored through mappings.
fn attend_all(guard: &Arc<Guard>, unknown: bool) {
    let numbers: Vec<u64> = {
        let mut inside = guard.room.inside.lock();
        let all = inside.parked.iter();
        let mine =
            all.filter(|(_, parked)| parked.patience.0.is_unknown() == unknown).map(|(number, _)| *number);
        let mine: Vec<u64> = mine.collect();
        if mine.is_empty() {
            guard.room.changed.wait_for(&mut inside, Duration::from_secs(60));
            return;
        }
        mine
    };
    let mut scan = ProcessScan::patient((guard.clock)().instant);
    for number in &numbers {
        guard.attend(*number, &mut scan);
    }
    let mut inside = guard.room.inside.lock();
    if !inside.closed {
        guard.room.changed.wait_for(&mut inside, ROUND);
    }
}

impl Guard {
    /// Tries to answer a parked change.
    fn attend(&self, number: u64, scan: &mut ProcessScan) {
        let (change, waits, until) = {
            let inside = self.room.inside.lock();
            let Some(parked) = inside.parked.get(&number) else { return };
            (parked.change.clone(), parked.patience.0.clone(), parked.until)
        };
        let is_unknown = waits.is_unknown();
        let verdict = match waits {
            WaitReason::Held { caller, ino, rival, .. } => {
                self.attend_held(&caller, &change, ino, rival, scan)
            }
            WaitReason::Full(caller) => self.judge_for(&caller, &change),
            WaitReason::Unknown(ino) => self.attend_unknown(ino, scan),
        };
        let answer = match verdict {
            Verdict::Granted(grant) => Ok(grant),
            Verdict::Refused(error) => Err(error),
            Verdict::Wait(patience) if (self.clock)().instant >= until => self.give_up(&patience),
            Verdict::Wait(patience) => {
                if let Some(parked) = self.room.inside.lock().parked.get_mut(&number) {
                    parked.patience = patience;
                }
                // The other thread may have to go on with it.
                if is_unknown {
                    self.room.changed.notify_all();
                }
                return;
            }
        };
        // A caller that was answered meanwhile gets no second answer. If it took a lock, the next caller finds that free.
        if let Some(parked) = self.room.leave(number) {
            (parked.resume)(answer);
        }
    }

    fn attend_held(
        &self,
        caller: &Arc<Caller>,
        change: &Change,
        mut ino: Ino,
        mut rival: LockHolder,
        scan: &mut ProcessScan,
    ) -> Verdict {
        loop {
            let looked = (self.clock)().instant;
            let holds = self.still_holds(ino, &rival, scan);
            // Also if it holds the file: the look may have shown that it only appends and is no rival. Or it has changed the file again, so
            // that waiting is pointless.
            let verdict = self.judge_for(caller, change);
            let Verdict::Wait(Patience(WaitReason::Held { ino: next, rival: other, .. })) = &verdict else {
                return verdict;
            };
            if !holds && (other.worker != rival.worker || *next != ino) {
                (ino, rival) = (*next, other.clone());
                continue;
            }
            // The holder may have been stuck only with the change that it has made since the look.
            let unchanged = (*next, &other.worker, other.changes) == (ino, &rival.worker, rival.changes);
            let is_stuck = |process: &u32| {
                let now = (self.clock)().instant;
                let Some(since) = self.descriptors.stuck_since(*process, now) else { return false };
                // A holder that closes the file waits, too, but has it open no longer. Where no look tells, as at a process in the midst of
                // execve(2), the wait itself does.
                let most = match scan.sight(&self.descriptors, *process, ino, since) {
                    OpenState::Writing | OpenState::Appending => STUCK_MS,
                    OpenState::Done | OpenState::Hidden | OpenState::Awaited => STUCK_UNSEEN_MS,
                };
                since < scan.began() && now.since(since) >= Span(most)
            };
            if holds && unchanged && rival.processes.iter().any(is_stuck) {
                let appends = matches!(change, Change::Write { append: true, .. });
                if appends && self.table.lock().locks.gives_way(ino, &rival) {
                    return self.judge_for(caller, change);
                }
                // Until its open has returned, it may turn out to append only.
                if looked >= rival.opening {
                    return Verdict::Refused(self.held(Some(caller), ino, &rival));
                }
            }
            return verdict;
        }
    }

    /// Finds the caller that stores through a mapping, and judges for that worker.
    fn attend_unknown(&self, ino: Ino, scan: &mut ProcessScan) -> Verdict {
        if self.known_mapper(ino).is_none() {
            let holders = self.table.lock().locks.holders(ino).to_vec();
            // A process that maps a file has opened it, or received it from one that has. The daemon knows most of them.
            let mut likely: Vec<u32> = holders.iter().flat_map(|holder| self.family(holder, scan)).collect();
            likely.extend(self.callers.processes());
            let mut suspects = self.suspects(self.mapping(likely.clone(), ino));
            if suspects.is_empty() {
                suspects = self.suspects(self.mapping(processes(), ino));
            }
            // Programs unmap before they close, and closing is what writes the pages.
            if suspects.is_empty() {
                let now = (self.clock)().instant;
                let writes = |process: &u32| {
                    matches!(
                        scan.sight(&self.descriptors, *process, ino, now),
                        OpenState::Writing | OpenState::Appending
                    )
                };
                suspects = self.suspects(likely.into_iter().filter(writes));
            }
            let holds =
                |caller: &Arc<Caller>| holders.iter().any(|holder| holder.worker == caller.actor.worker);
            // Two processes that map one file share its pages: the stores of one cannot be distinguished from those of the other.
            let at = suspects.iter().position(holds).unwrap_or(0);
            self.remember_mapper(ino, suspects.into_iter().nth(at));
        }
        self.judge_mapped(ino)
    }

    /// Those of these processes that have a file mapped so that their stores reach it.
    fn mapping(&self, processes: impl IntoIterator<Item = u32>, ino: Ino) -> Vec<u32> {
        let Some(device) = self.descriptors.device() else { return Vec::new() };
        let looked = self.callers.look_at(processes, move |process| maps(process, device, ino));
        looked.into_iter().filter_map(|(process, maps)| maps.then_some(process)).collect()
    }

    /// The callers that these processes work for, each once.
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
            WaitReason::Held { caller, ino, rival, .. } => Err(self.held(Some(caller), *ino, rival)),
            WaitReason::Full(caller) => {
                let error = FsError::from(GuardRefusal::LocksFull { uid: caller.actor.uid });
                self.callers.refused(caller, &error);
                Err(error)
            }
            // Refused pages are lost. Only pages of a caller that is known to be in the wrong are refused.
            WaitReason::Unknown(_) => Ok(Grant::default()),
        }
    }
}
