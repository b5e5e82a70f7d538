//! Leases: how long a worker without activity keeps its claims.
//!
//! May assume: readings of a monotonic clock that does not jump (C33).
//! Must never: store when a worker was last active. The caller passes it, so that a restart can count as activity.

use super::{Claim, Command, Instant, Span, State, Task, TaskId, TaskState, WorkerName};

/// The commands that end every claim whose holder had no activity for longer than the lease. `default` is the lease of a task that names
/// none; `last_active` returns when a worker was last active.
pub fn expired(
    state: &State,
    default: Span,
    now: Instant,
    last_active: impl Fn(&WorkerName) -> Instant,
) -> Vec<Command> {
    let expired =
        claims(state).filter(|(_, task, claim)| ends(state, task, claim, default, &last_active) <= now);
    let command = |(id, _, claim): (&TaskId, &Task, &Claim)| Command::Expire {
        task: id.clone(),
        epoch: claim.epoch(),
        silent: now.since(last_active(&claim.worker)),
    };
    expired.map(command).collect()
}

fn ends(
    state: &State,
    task: &Task,
    claim: &Claim,
    default: Span,
    last_active: impl Fn(&WorkerName) -> Instant,
) -> Instant {
    last_active(&claim.worker).after(of(state, task, default))
}

/// The lease of a task; `default` if it names none. The rules limit its length.
pub(super) fn of(state: &State, task: &Task, default: Span) -> Span {
    task.spec.lease.unwrap_or(default).min(state.rules().lease_max)
}

/// A lease that a front matter names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedLease {
    /// The lease in the front matter.
    pub named: Span,
    /// The lease that is granted: at most what the rules allow.
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
