//! Leases: how long a silent worker keeps what it claimed.
//!
//! May assume: readings of a clock that never goes back and does not jump (C33).
//! Must never: keep when a worker was heard of. The caller passes it, so that a restart can count as a sign of life.

use super::{Claim, Command, Instant, Span, State, Task, TaskId, TaskState, WorkerName};

/// For every claim whose holder has been silent for longer than its lease, the command that ends it.
/// `default` is the lease of a task that names none; `heard` returns when a worker was last heard of.
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

/// The lease of a task; `default` if it names none. No lease is longer than the rules allow.
pub(super) fn of(state: &State, task: &Task, default: Span) -> Span {
    task.spec.lease.unwrap_or(default).min(state.rules().lease_max)
}

/// A lease that a front matter names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedLease {
    /// What the front matter says.
    pub named: Span,
    /// What counts: as much of it as the rules allow.
    pub granted: Span,
}

/// The lease that a task names, if it names one.
pub fn named(state: &State, task: &Task) -> Option<NamedLease> {
    let named = task.spec.lease?;
    Some(NamedLease { named, granted: named.min(state.rules().lease_max) })
}

fn claims(state: &State) -> impl Iterator<Item = (&TaskId, &Task, &Claim)> {
    state.listed(TaskState::Claimed).filter_map(|id| {
        let task = state.task(id.as_str())?;
        Some((id, &**task, task.claim()?))
    })
}
