//! The waiting room: changes that another worker is in the way of, parked with their answers (C51).
//!
//! May assume: the kernel waits for each of these answers, and cannot be interrupted meanwhile.
//! Must never: let an answer wait for longer than its patience, whatever it takes to find out more. So three threads share the
//! room: the lookout looks at the processes of holders; the finder finds out who stored through a mapping, for which it may have to
//! look at every process; both may be held up by what they look at, and neither holds up the other; the usher only keeps time.
//!
//! A parked change holds up more than its caller: the kernel keeps the file locked until the answer, so the holder cannot
//! write on. Where the holder is seen to be stuck, the change is refused at once.

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
use crate::limits::{LOCKS_FULL_MS, MAPPED_WAIT_MS, WAITING_CHANGES, WAITING_CHANGES_OF_A_USER};
use crate::queue::{Instant, Span};

/// How long the lookout and the finder rest between two rounds.
const ROUND: Duration = Duration::from_millis(3);
/// How much later than the lookout the usher answers: it shall not be first where the lookout is able to, on
/// a busy machine too.
const SLACK: Span = Span(250);

/// Why a change waits, and for how long.
pub struct Patience(pub(super) WaitReason);

impl Patience {
    /// Who asks, if that is known.
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

/// What is waited for.
#[derive(Clone)]
pub(super) enum WaitReason {
    /// Another worker holds the file.
    Held {
        /// Who asks.
        caller: Arc<Caller>,
        /// The file.
        ino: Ino,
        /// Who holds it.
        rival: LockHolder,
        /// How long it may wait.
        span: Span,
    },
    /// The user of this caller has more locks than one user may have, and some of them may be over.
    Full(Arc<Caller>),
    /// It is not known who stored through a mapping of this file.
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
    /// In the order in which they came.
    parked: BTreeMap<u64, ParkedChange>,
}

/// The room. See the top of this file.
#[derive(Default)]
pub(super) struct ParkedChanges {
    inside: Mutex<ParkedState>,
    changed: Condvar,
}

/// Start the threads. They end when the room is closed, or the guard is gone.
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
    /// Let a change wait.
    pub(super) fn enter(&self, guard: &Guard, patience: Patience, change: Change, resume: Resume) {
        let span = match &patience.0 {
            WaitReason::Held { span, .. } => *span,
            WaitReason::Full(_) => Span(LOCKS_FULL_MS),
            WaitReason::Unknown(_) => Span(MAPPED_WAIT_MS),
        };
        // The clock counts whole milliseconds; no wait is shorter than was promised.
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

    /// Nobody waits any longer. What is parked is dropped, which answers it.
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

/// Answer whoever is out of patience.
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

/// One round: look whether the holders that are waited for are done, or find out who stored through mappings.
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
    let mut scan = ProcessScan::patient();
    for number in &numbers {
        guard.attend(*number, &mut scan);
    }
    let mut inside = guard.room.inside.lock();
    if !inside.closed {
        guard.room.changed.wait_for(&mut inside, ROUND);
    }
}

impl Guard {
    /// See whether a parked change can be answered.
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
                // It may be for the other thread now.
                if is_unknown {
                    self.room.changed.notify_all();
                }
                return;
            }
        };
        // Nothing is made for somebody who has been answered meanwhile; a lock that was taken is found free by the next.
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
            // Also if it holds the file: by that look it may be a worker that only appends, and no rival. Or it has changed the file again,
            // and waiting has become pointless.
            let verdict = self.judge_for(caller, change);
            let Verdict::Wait(Patience(WaitReason::Held { ino: next, rival: other, .. })) = &verdict else {
                return verdict;
            };
            if !holds && (other.worker != rival.worker || *next != ino) {
                (ino, rival) = (*next, other.clone());
                continue;
            }
            // What the holder did since it was looked at may be all that it was stuck with.
            let unchanged = (*next, &other.worker, other.changes) == (ino, &rival.worker, rival.changes);
            if holds && unchanged && rival.processes.iter().any(|process| self.descriptors.is_stuck(*process))
            {
                let appends = matches!(change, Change::Write { append: true, .. });
                if appends && self.table.lock().locks.gives_way(ino, &rival) {
                    return self.judge_for(caller, change);
                }
                // Until its open has returned, it may be a worker that only appends.
                if looked >= rival.opening {
                    return Verdict::Refused(self.held(Some(caller), ino, &rival));
                }
            }
            return verdict;
        }
    }

    /// Find out who stores through a mapping, and judge for that worker.
    fn attend_unknown(&self, ino: Ino, scan: &mut ProcessScan) -> Verdict {
        if self.known_mapper(ino).is_none() {
            let holders = self.table.lock().locks.holders(ino).to_vec();
            // A process that maps a file has opened it, or got it from one that has: the daemon has heard of most of them.
            let mut likely: Vec<u32> = holders.iter().flat_map(|holder| self.family(holder, scan)).collect();
            likely.extend(self.callers.processes());
            let mut suspects = self.suspects(self.mapping(likely.clone(), ino));
            if suspects.is_empty() {
                suspects = self.suspects(self.mapping(processes(), ino));
            }
            // Programs unmap before they close, and closing is what writes the pages.
            if suspects.is_empty() {
                let writes = |process: &u32| {
                    matches!(
                        scan.sight(&self.descriptors, *process, ino),
                        OpenState::Writing | OpenState::Appending
                    )
                };
                suspects = self.suspects(likely.into_iter().filter(writes));
            }
            let holds =
                |caller: &Arc<Caller>| holders.iter().any(|holder| holder.worker == caller.actor.worker);
            // Two who have mapped one file share its pages: what one stores cannot be told from what the other does.
            let at = suspects.iter().position(holds).unwrap_or(0);
            self.remember_mapper(ino, suspects.into_iter().nth(at));
        }
        self.judge_mapped(ino)
    }

    /// Those of these processes that have a file mapped so that what they store reaches it.
    fn mapping(&self, processes: impl IntoIterator<Item = u32>, ino: Ino) -> Vec<u32> {
        let Some(device) = self.descriptors.device() else { return Vec::new() };
        let looked = self.callers.look_at(processes, move |process| maps(process, device, ino));
        looked.into_iter().filter_map(|(process, maps)| maps.then_some(process)).collect()
    }

    /// Whom these processes work for, each once.
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
