//! Leases: how long a silent worker keeps what it claimed.
//!
//! May assume: readings of a clock that never goes back and does not jump (C33).
//! Must never: remember when a worker was heard of. That is told, so that a restart can count as a sign of life.

use super::{Claim, Command, Instant, Span, State, Task, TaskId, TaskState, WorkerName};

/// Every claim whose holder has been silent for longer than its lease, as the wish that ends it.
/// `default` is the lease of a task that names none; `heard` tells when a worker was last heard of.
pub fn expired(
    state: &State,
    default: Span,
    now: Instant,
    heard: impl Fn(&WorkerName) -> Instant,
) -> Vec<Command> {
    let over = claims(state).filter(|(_, task, claim)| ends(state, task, claim, default, &heard) <= now);
    let wish = |(id, _, claim): (&TaskId, &Task, &Claim)| Command::Expire {
        task: id.clone(),
        epoch: claim.epoch(),
        silent: now.since(heard(&claim.worker)),
    };
    over.map(wish).collect()
}

fn ends(
    state: &State,
    task: &Task,
    claim: &Claim,
    default: Span,
    heard: impl Fn(&WorkerName) -> Instant,
) -> Instant {
    heard(&claim.worker).after(of(state, task, default))
}

/// The lease of a task; `default` if it names none. None is longer than the rules allow.
pub(super) fn of(state: &State, task: &Task, default: Span) -> Span {
    task.spec.lease.unwrap_or(default).min(state.rules().lease_max)
}

/// The lease that a task names, as far as the rules allow it; and what is to be said of it, if that is less.
pub fn named(state: &State, task: &Task) -> Option<(Span, Option<String>)> {
    let (named, most) = (task.spec.lease?, state.rules().lease_max);
    let cut = (named > most)
        .then(|| format!("lease: {named} is cut to {most}, the longest that this mount allows"));
    Some((named.min(most), cut))
}

fn claims(state: &State) -> impl Iterator<Item = (&TaskId, &Task, &Claim)> {
    state.listed(TaskState::Claimed).filter_map(|id| {
        let task = state.task(id.as_str())?;
        Some((id, &**task, task.claim()?))
    })
}
