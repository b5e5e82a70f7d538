//! Judges commands against the state.
//!
//! May assume: nothing else changes the state during the call.
//! Must never: change the state, or return different results for the same arguments.

use std::collections::BTreeSet;

use super::command::{Actor, ClaimForm, Command, Decision, Ending, Outcome};
use super::event::{Event, Record};
use super::loss::LossReason;
use super::refusal::{EndedClaim, OperatorAct};
use super::task::{Claim, FileStamp, FileState, Finish, Manifest, Phase, Task};
use super::{Content, Eyes, Refusal, Seq, State, TaskId, TaskState, WorkerName};

/// Judges one command. Returns its events, or the reason for a refusal.
pub fn decide(state: &State, command: &Command) -> Result<Decision, Refusal> {
    if let Some(by) = command.actor() {
        check_name(state, by)?;
    }
    match command {
        Command::Publish { task, manifest, stamp } => publish(state, task, manifest, stamp),
        Command::OpenFile { task } => match state.task(task.as_str()) {
            Some(found) if !matches!(found.file, FileState::Open(_)) => {
                done(vec![Event::FileOpened { task: task.clone() }])
            }
            Some(_) | None => done(vec![]),
        },
        Command::RemoveFile { task, by } => {
            if let Some(claim) = find(state, task)?.claim()
                && claim.worker != by.worker
                && !by.operator
            {
                return Err(Refusal::InUse { task: task.clone(), holder: claim.worker.clone() });
            }
            file_gone(state, task)
        }
        Command::FileGone { task } => file_gone(state, task),
        Command::Withdraw { task } => match state.task(task.as_str()) {
            Some(found)
                if found.file_is_missing() && matches!(found.phase, Phase::Open | Phase::Rejected(_)) =>
            {
                with_broken_cycles(state, Event::Withdrawn { task: task.clone() })
            }
            Some(_) | None => done(vec![]),
        },
        Command::Forget { task, by } => forget(state, task, by),
        Command::Claim { task, by, form, eyes } => claim(state, task, by, *form, eyes),
        Command::ClaimNext { by, form, eyes } => claim_next(state, by, *form, eyes),
        Command::Note { task, epoch, by, text } => {
            let claim = held_by(state, task, by)?;
            if claim.epoch() != *epoch {
                return Err(Refusal::Stale { task: task.clone(), epoch: *epoch });
            }
            match &claim.note {
                Some(note) if note.text == *text => done(vec![]),
                _ => done(vec![Event::Noted { task: task.clone(), text: Content::new(text.as_str()) }]),
            }
        }
        Command::Finish { task, by, ending, text, exclusive } => {
            finish(state, task, by, *ending, text, *exclusive)
        }
        Command::Report { task, finish, by, text } => {
            let Some(current) = find(state, task)?.finish() else {
                return Err(Refusal::Stale { task: task.clone(), epoch: *finish });
            };
            if current.when.seq != *finish {
                return Err(Refusal::Stale { task: task.clone(), epoch: *finish });
            }
            if current.worker.as_ref() != Some(&by.worker) && !by.operator {
                return Err(not_holder(state, task, by));
            }
            done(reported(task, current, Some(text)))
        }
        Command::Release { task, by } => {
            let claim = held_by(state, task, by)?;
            let reason = if claim.worker == by.worker {
                LossReason::GivenBack
            } else {
                LossReason::TakenAway { by: by.worker.clone() }
            };
            done(vec![Event::Returned { task: task.clone(), worker: claim.worker.clone(), reason }])
        }
        Command::Retry { task, by } => retry(state, task, by),
        Command::Expire { task, epoch, silent } => {
            expire(state, task, *epoch, LossReason::LeaseExpired { silent: *silent })
        }
        Command::Depart { worker, epoch, reason } => depart(state, worker, *epoch, reason),
        Command::Drain { worker, by, draining } => {
            if !by.may_speak_for(worker) {
                return Err(Refusal::OperatorOnly { act: OperatorAct::DrainAnother });
            }
            let mut events = if worker == &by.worker { join(state, by) } else { vec![] };
            if state.is_draining(worker.as_str()) != *draining {
                events.push(Event::Drained { worker: worker.clone(), draining: *draining });
            }
            done(events)
        }
        Command::Equip { worker, by, words } => {
            if !by.may_speak_for(worker) {
                return Err(Refusal::OperatorOnly { act: OperatorAct::EquipAnother });
            }
            let mut events = if worker == &by.worker { join(state, by) } else { vec![] };
            let words: Vec<String> = words.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
            if state.capabilities(worker.as_str()) != words {
                events.push(Event::Capable { worker: worker.clone(), words });
            }
            done(events)
        }
        Command::Pause { by, paused } => {
            if !by.operator {
                return Err(Refusal::OperatorOnly { act: OperatorAct::Pause });
            }
            if state.paused().is_some() == *paused {
                return done(vec![]);
            }
            done(vec![Event::Paused { paused: *paused, by: by.worker.clone() }])
        }
    }
}

fn done(events: Vec<Event>) -> Result<Decision, Refusal> {
    Ok(Decision { events, outcome: Outcome::Done })
}

fn find<'a>(state: &'a State, task: &TaskId) -> Result<&'a Task, Refusal> {
    match state.task(task.as_str()) {
        Some(task) => Ok(task),
        None => Err(Refusal::Unknown { task: task.clone() }),
    }
}

/// Refuses a caller whose name belongs to another user (C41).
fn check_name(state: &State, by: &Actor) -> Result<(), Refusal> {
    match state.worker(by.worker.as_str()) {
        Some(worker) if worker.uid != by.uid && by.uid != 0 => {
            Err(Refusal::NameTaken { worker: by.worker.clone(), owner: worker.uid })
        }
        Some(_) | None => Ok(()),
    }
}

/// The event that gives the name to the caller's user, if the name belongs to no user yet.
fn join(state: &State, by: &Actor) -> Vec<Event> {
    match state.worker(by.worker.as_str()) {
        None => vec![Event::Joined { worker: by.worker.clone(), uid: by.uid }],
        Some(_) => vec![],
    }
}

fn publish(
    state: &State,
    task: &TaskId,
    manifest: &Manifest,
    stamp: &FileStamp,
) -> Result<Decision, Refusal> {
    let cycle = match state.task(task.as_str()) {
        Some(known) if known.stamp == *stamp && known.manifest == *manifest && known.has_whole_file() => {
            return done(vec![]);
        }
        // If the needs did not change, the cycle did not change either. A new search is not necessary.
        Some(known) if known.manifest.needs() == manifest.needs() => known.cycle.clone(),
        Some(_) | None => cycle_through(state, task, manifest.needs()),
    };
    let (task, manifest, stamp) = (task.clone(), manifest.clone(), stamp.clone());
    with_broken_cycles(state, Event::Published { task, manifest, stamp, cycle })
}

/// The file is gone. The task and its claim stay: the loss of a file must not lose work in progress.
fn file_gone(state: &State, task: &TaskId) -> Result<Decision, Refusal> {
    match state.task(task.as_str()) {
        Some(found) if !found.file_is_missing() => done(vec![Event::FileMissing { task: task.clone() }]),
        Some(_) | None => done(vec![]),
    }
}

fn forget(state: &State, task: &TaskId, by: &Actor) -> Result<Decision, Refusal> {
    let found = find(state, task)?;
    if !by.operator {
        return Err(Refusal::OperatorOnly { act: OperatorAct::Forget });
    }
    if found.finish().is_none() {
        return Err(Refusal::NotFinished { task: task.clone(), state: state.state_of(found) });
    }
    // If the file exists, the task would be published again without its record, and be done again.
    if !found.file_is_missing() {
        return Err(Refusal::HasFile { task: task.clone() });
    }
    with_broken_cycles(state, Event::Forgotten { task: task.clone(), by: by.worker.clone() })
}

fn retry(state: &State, task: &TaskId, by: &Actor) -> Result<Decision, Refusal> {
    let found = find(state, task)?;
    match &found.phase {
        Phase::Completed(_) | Phase::Failed(_) if found.file_is_missing() => {
            Err(Refusal::NoFile { task: task.clone() })
        }
        Phase::Completed(_) | Phase::Failed(_) => {
            // While the task was completed, needs that lead back to it were no cycle. After the retry they would be one.
            let cycle = cycle_through(state, task, found.declared_needs());
            if !cycle.is_empty() {
                return Err(Refusal::Cycle { task: task.clone(), cycle });
            }
            done(vec![Event::Retried { task: task.clone(), by: by.worker.clone() }])
        }
        // A rejected task is published again when its file is corrected. Until then it stays rejected.
        Phase::Rejected(problem) => {
            Err(Refusal::Rejected { task: task.clone(), problem: state.shown_problem(task, problem) })
        }
        Phase::Open | Phase::Claimed(_) => {
            Err(Refusal::NotFinished { task: task.clone(), state: state.state_of(found) })
        }
    }
}

fn claim(
    state: &State,
    task: &TaskId,
    by: &Actor,
    form: ClaimForm,
    eyes: &Eyes,
) -> Result<Decision, Refusal> {
    let mut events = join(state, by);
    let found = find(state, task)?;
    match &found.phase {
        Phase::Claimed(claim) if claim.worker == by.worker => {
            if form == ClaimForm::Exclusive {
                return Err(Refusal::AlreadyYours { task: task.clone() });
            }
            let outcome = Outcome::Claimed { task: task.clone(), epoch: claim.epoch() };
            return Ok(Decision { events, outcome });
        }
        Phase::Claimed(claim) => {
            let (holder, since) = (claim.worker.clone(), claim.since);
            return Err(Refusal::Held { task: task.clone(), holder, since });
        }
        Phase::Completed(_) | Phase::Failed(_) => {
            return Err(Refusal::Finished { task: task.clone(), state: state.state_of(found) });
        }
        // Only a worker that may read the file gets the reason why the task cannot be claimed.
        Phase::Rejected(_) | Phase::Open if !eyes.may_read(found.stamp.readers.as_deref()) => {
            return Err(Refusal::Private { task: task.clone(), worker: by.worker.clone() });
        }
        Phase::Rejected(problem) => {
            return Err(Refusal::Rejected {
                task: task.clone(),
                problem: state.shown_problem(task, problem),
            });
        }
        Phase::Open if state.state_of(found) == TaskState::Blocked => {
            return Err(Refusal::Blocked {
                task: task.clone(),
                why: state.why_blocked(found, &Eyes::ANYBODY),
            });
        }
        Phase::Open => {}
    }
    if form == ClaimForm::Text && found.ousted.contains(&by.worker) {
        return Err(Refusal::NoNote(EndedClaim::Of(task.clone(), state.fate(found, &by.worker))));
    }
    may_claim(state, by)?;
    if let Some(refusal) = state.incapable(task, found, &by.worker) {
        return Err(refusal);
    }
    events.push(Event::Claimed { task: task.clone(), worker: by.worker.clone() });
    let epoch = state.tail() + events.len() as Seq;
    Ok(Decision { events, outcome: Outcome::Claimed { task: task.clone(), epoch } })
}

fn claim_next(state: &State, by: &Actor, form: ClaimForm, eyes: &Eyes) -> Result<Decision, Refusal> {
    let worker = state.worker(by.worker.as_str());
    // A worker that repeats the call gets the task that it already holds, never a second one (C21).
    if let Some(task) = worker.and_then(|worker| worker.claims.last()) {
        return claim(state, task, by, form, eyes);
    }
    if form == ClaimForm::Text
        && let Some(lost) = worker.filter(|worker| worker.ousted).and_then(|worker| worker.lost.as_ref())
    {
        return Err(Refusal::NoNote(EndedClaim::Last(lost.clone())));
    }
    may_claim(state, by)?;
    match state.best_for(Some(by.worker.as_str()), eyes) {
        Some(task) => claim(state, task, by, form, eyes),
        None => Err(state.nothing_for(&by.worker, eyes)),
    }
}

fn may_claim(state: &State, by: &Actor) -> Result<(), Refusal> {
    if state.paused().is_some() {
        return Err(Refusal::Paused);
    }
    if state.is_draining(by.worker.as_str()) {
        return Err(Refusal::Draining { worker: by.worker.clone() });
    }
    if let Some((held, limit)) = state.held_and_limit(by.worker.as_str()) {
        return Err(Refusal::TooMany { worker: by.worker.clone(), held, limit });
    }
    Ok(())
}

/// The claim of a task, if the caller is the holder or an operator.
fn held_by<'a>(state: &'a State, task: &TaskId, by: &Actor) -> Result<&'a Claim, Refusal> {
    match find(state, task)?.claim() {
        Some(claim) if claim.worker == by.worker || by.operator => Ok(claim),
        Some(_) | None => Err(not_holder(state, task, by)),
    }
}

/// The refusal of a caller that is not the holder.
fn not_holder(state: &State, task: &TaskId, by: &Actor) -> Refusal {
    let Some(found) = state.task(task.as_str()) else {
        return Refusal::Unknown { task: task.clone() };
    };
    Refusal::NotHolder { task: task.clone(), fate: state.fate(found, &by.worker) }
}

fn finish(
    state: &State,
    task: &TaskId,
    by: &Actor,
    ending: Ending,
    text: &Option<Content>,
    exclusive: bool,
) -> Result<Decision, Refusal> {
    let found = find(state, task)?;
    let mut events = Vec::new();
    let (worker, operator) = match &found.phase {
        Phase::Claimed(claim) if claim.worker == by.worker => (Some(claim.worker.clone()), None),
        // The operator takes the claim away and finishes the task.
        Phase::Claimed(claim) if by.operator => {
            let reason = LossReason::TakenAway { by: by.worker.clone() };
            events.push(Event::Returned { task: task.clone(), worker: claim.worker.clone(), reason });
            (None, Some(by.worker.clone()))
        }
        Phase::Open | Phase::Rejected(_) if by.operator => (None, Some(by.worker.clone())),
        Phase::Completed(finish) | Phase::Failed(finish) => {
            let same = matches!(
                (&found.phase, ending),
                (Phase::Completed(_), Ending::Completed) | (Phase::Failed(_), Ending::Failed)
            );
            // A caller may repeat a finish whose answer was lost. The new text replaces the old one.
            if !same || (finish.worker.as_ref() != Some(&by.worker) && !by.operator) {
                return Err(not_holder(state, task, by));
            }
            if exclusive {
                let state = state.state_of(found);
                return Err(Refusal::AlreadyFinished { task: task.clone(), state });
            }
            let outcome = Outcome::Finished { finish: finish.when.seq };
            return Ok(Decision { events: reported(task, finish, text.as_ref()), outcome });
        }
        Phase::Claimed(_) | Phase::Open | Phase::Rejected(_) => return Err(not_holder(state, task, by)),
    };
    let (task, text) = (task.clone(), text.clone());
    let finish = state.tail() + events.len() as Seq + 1;
    events.push(match ending {
        Ending::Completed => Event::Completed { task, worker, by: operator, text },
        Ending::Failed => Event::Failed { task, worker, by: operator, text },
    });
    // A completed task is in no cycle.
    let events = append_broken_cycles(state, events);
    Ok(Decision { events, outcome: Outcome::Finished { finish } })
}

/// The event for a text that is written for a finish. If the text did not change, there is no event.
fn reported(task: &TaskId, finish: &Finish, text: Option<&Content>) -> Vec<Event> {
    let is_known = |text: &&Content| finish.text.as_ref().is_some_and(|known| known.is(text.digest()));
    let new = text.filter(|text| !is_known(text));
    new.map(|text| Event::Reported { task: task.clone(), text: text.clone() }).into_iter().collect()
}

fn expire(state: &State, task: &TaskId, epoch: Seq, reason: LossReason) -> Result<Decision, Refusal> {
    let found = find(state, task)?;
    let Some(claim) = found.claim().filter(|claim| claim.epoch() == epoch) else { return done(vec![]) };
    let lost = found.losses.iter().filter(|loss| loss.reason.counts_as_attempt()).count() + 1;
    let mut events = vec![Event::Returned { task: task.clone(), worker: claim.worker.clone(), reason }];
    if lost >= found.spec.attempts as usize {
        let text = Content::new(format!(
            "given up after {lost} claims that were lost; the last one by {}. The status of {task} names each.\n",
            claim.worker
        ));
        events.push(Event::Failed { task: task.clone(), worker: None, by: None, text: Some(text) });
    }
    done(events)
}

/// Ends every claim of a worker whose epoch is at most `last`.
fn depart(state: &State, worker: &WorkerName, last: Seq, reason: &LossReason) -> Result<Decision, Refusal> {
    let mut events = Vec::new();
    for task in state.worker(worker.as_str()).map_or(&[][..], |worker| &worker.claims) {
        let epoch = find(state, task)?.claim().map_or(0, Claim::epoch);
        if epoch <= last {
            events.extend(expire(state, task, epoch, reason.clone())?.events);
        }
    }
    done(events)
}

/// `event`, followed by a [`Event::CycleBroken`] for every cycle that it breaks.
fn with_broken_cycles(state: &State, event: Event) -> Result<Decision, Refusal> {
    done(append_broken_cycles(state, vec![event]))
}

/// `events`, followed by a [`Event::CycleBroken`] for every cycle that they break.
fn append_broken_cycles(state: &State, mut events: Vec<Event>) -> Vec<Event> {
    if state.in_cycles().next().is_some() {
        let mut after = state.clone();
        for event in &events {
            after.apply(&Record { seq: after.tail() + 1, at: state.last_at(), event: event.clone() });
        }
        let broken = after.in_cycles().filter(|id| match after.task(id.as_str()) {
            Some(task) => cycle_through(&after, id, task.manifest.needs()).is_empty(),
            None => false,
        });
        events.extend(broken.map(|task| Event::CycleBroken { task: task.clone() }));
    }
    events
}

/// The cycle that `task` closes with these needs, starting with `task`; empty if there is none. A completed need is met, and its own needs
/// do not count. They are searched again if that need is retried.
fn cycle_through(state: &State, task: &TaskId, needs: &[TaskId]) -> Vec<TaskId> {
    // Most tasks are needed by no other task when they are published. Then no search is necessary.
    if !state.is_needed(task) && !needs.contains(task) {
        return Vec::new();
    }
    let mut visited = BTreeSet::new();
    // Depth-first search without recursion, because a chain may be as long as the queue. Each frame is a task and its needs still to visit.
    let mut path: Vec<(&TaskId, &[TaskId])> = vec![(task, needs)];
    while let Some((_, rest)) = path.last_mut() {
        let Some((need, others)) = rest.split_first() else {
            path.pop();
            continue;
        };
        *rest = others;
        if need == task {
            return path.iter().map(|(id, _)| (*id).clone()).collect();
        }
        if let Some(found) = state.task(need.as_str())
            && !state.is_met(need)
            && visited.insert(need)
        {
            path.push((need, found.declared_needs()));
        }
    }
    Vec::new()
}
