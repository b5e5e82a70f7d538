//! How many tasks and workers are in which state.

use serde::Serialize;

use super::summary_input::SummaryInput;
use super::{State, TaskState};

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tasks {
    /// All tasks.
    pub total: usize,
    /// Tasks that can be claimed.
    pub ready: usize,
    /// Tasks that wait for something.
    pub blocked: usize,
    /// Tasks that a worker holds.
    pub claimed: usize,
    /// Tasks that are done.
    pub completed: usize,
    /// Tasks that were given up.
    pub failed: usize,
    /// Files that are not valid tasks.
    pub rejected: usize,
}

/// How many workers are in which state. Each worker is in one of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Workers {
    /// All known workers.
    pub total: usize,
    /// Workers that hold a task.
    pub working: usize,
    /// Workers that hold no task.
    pub idle: usize,
    /// Workers that may claim nothing more, whether or not they hold a task.
    pub draining: usize,
}

impl Tasks {
    /// Counts the tasks of a state.
    pub(super) fn of(state: &State) -> Tasks {
        let count = |of| state.count(of);
        Tasks {
            total: state.len(),
            ready: count(TaskState::Ready),
            blocked: count(TaskState::Blocked),
            claimed: count(TaskState::Claimed),
            completed: count(TaskState::Completed),
            failed: count(TaskState::Failed),
            rejected: count(TaskState::Rejected),
        }
    }
}

impl Workers {
    /// Counts the workers of a state.
    pub(super) fn of(state: &State, input: &SummaryInput<'_>) -> Workers {
        let mut workers = Workers { total: input.workers.len(), ..Workers::default() };
        for (name, _) in input.workers {
            let holds = state.worker(name.as_str()).is_some_and(|worker| !worker.claims.is_empty());
            match (state.is_draining(name.as_str()), holds) {
                (true, _) => workers.draining += 1,
                (false, true) => workers.working += 1,
                (false, false) => workers.idle += 1,
            }
        }
        workers
    }
}
