//! Every reason for which the queue refuses a command, as a fact.
//!
//! Must never: make a sentence, or name an errno or a path. The filesystem turns each refusal into the answer to its caller.

use std::sync::Arc;

use super::reasons::{ClaimFate, Obstacle};
use super::{Lost, Moment, Problem, Seq, Span, TaskId, TaskState, WorkerName};

/// Why the queue refuses a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The task does not exist.
    Unknown {
        /// The id in the command.
        task: TaskId,
    },
    /// The task is already finished.
    Finished {
        /// The task.
        task: TaskId,
        /// Completed or failed.
        state: TaskState,
    },
    /// The file is not a valid task.
    Rejected {
        /// The task.
        task: TaskId,
        /// The problem of the file; `None` if not every user may see it.
        problem: Option<Arc<Problem>>,
    },
    /// The task is blocked.
    Blocked {
        /// The task.
        task: TaskId,
        /// What the task waits for.
        why: Vec<Obstacle>,
    },
    /// Another worker holds the task.
    Held {
        /// The task.
        task: TaskId,
        /// The holder.
        holder: WorkerName,
        /// When the claim began.
        since: Moment,
    },
    /// The caller already holds the task and asked for an exclusive claim.
    AlreadyYours {
        /// The task.
        task: TaskId,
    },
    /// The caller already finished the task and asked for an exclusive finish.
    AlreadyFinished {
        /// The task.
        task: TaskId,
        /// Completed or failed.
        state: TaskState,
    },
    /// No task is ready.
    NothingReady {
        /// How many tasks are blocked.
        blocked: usize,
        /// How many tasks are claimed.
        claimed: usize,
    },
    /// The caller lacks capabilities for every ready task.
    NothingForWorker {
        /// The caller.
        worker: WorkerName,
        /// The required capabilities that the caller lacks.
        missing: Vec<String>,
    },
    /// The caller lacks capabilities that the task requires.
    Incapable {
        /// The task.
        task: TaskId,
        /// The caller.
        worker: WorkerName,
        /// The required capabilities that the caller lacks.
        missing: Vec<String>,
        /// Workers that have all required capabilities; not more than a sentence names.
        others: Vec<WorkerName>,
    },
    /// The caller may not read the file of the task.
    Private {
        /// The task.
        task: TaskId,
        /// The caller.
        worker: WorkerName,
    },
    /// The caller may not read the file of any task that it could claim.
    AllPrivate {
        /// The caller.
        worker: WorkerName,
        /// How many tasks are ready.
        count: usize,
    },
    /// The caller holds as many tasks as a worker may.
    TooMany {
        /// The caller.
        worker: WorkerName,
        /// How many tasks it holds.
        held: usize,
        /// How many it may hold.
        limit: usize,
    },
    /// An operator stopped all claiming.
    Paused,
    /// The caller may claim nothing more.
    Draining {
        /// The caller.
        worker: WorkerName,
    },
    /// Only the holder may do this, and the caller is not the holder.
    NotHolder {
        /// The task.
        task: TaskId,
        /// How the caller's claim ended, and the current situation of the task.
        fate: ClaimFate,
    },
    /// The caller's open file belongs to a claim or finish that is no longer current.
    Stale {
        /// The task.
        task: TaskId,
        /// The position of the claim or finish under which the file was opened.
        epoch: Seq,
    },
    /// The caller wrote a note for a claim that the caller did not end itself.
    NoNote(EndedClaim),
    /// The instruction file cannot be removed while another worker holds the task.
    InUse {
        /// The task.
        task: TaskId,
        /// The holder.
        holder: WorkerName,
    },
    /// The task is not finished, so it cannot be retried or forgotten.
    NotFinished {
        /// The task.
        task: TaskId,
        /// The state of the task.
        state: TaskState,
    },
    /// The task is finished and its file is gone, so it cannot be done again.
    NoFile {
        /// The task.
        task: TaskId,
    },
    /// The file of the finished task exists, so its record cannot be removed.
    HasFile {
        /// The task.
        task: TaskId,
    },
    /// The needs of the finished task lead back to it, so it cannot be done again.
    Cycle {
        /// The task.
        task: TaskId,
        /// The cycle, starting with the task.
        cycle: Vec<TaskId>,
    },
    /// The caller's name belongs to another user.
    NameTaken {
        /// The name.
        worker: WorkerName,
        /// The user that it belongs to.
        owner: u32,
    },
    /// The caller may not change the queue.
    NoMember {
        /// The caller's user.
        uid: u32,
    },
    /// The caller or its user adds more to the event log than its budget allows.
    OverBudget {
        /// The worker or the user.
        spender: Spender,
        /// The unit that is used up.
        unit: BudgetUnit,
        /// The allowed rate per second.
        a_second: u64,
        /// The largest allowed burst.
        at_once: u64,
        /// How long the caller must wait until the account is positive again.
        wait: Span,
    },
    /// Only an operator may do this.
    OperatorOnly {
        /// The operation.
        act: OperatorAct,
    },
}

/// An ended claim for which its worker wrote a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedClaim {
    /// The worker named the task.
    Of(TaskId, ClaimFate),
    /// The worker did not name the task. This is its last claim, which it lost.
    Last(Lost),
}

/// The account that is used up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spender {
    /// One worker.
    Worker(WorkerName),
    /// All workers of the user with this uid.
    User(u32),
}

/// The unit of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetUnit {
    /// Events.
    Events,
    /// Bytes of the log.
    Bytes,
}

/// An operation that only an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAct {
    /// Remove the record of a finished task.
    Forget,
    /// Drain another worker.
    DrainAnother,
    /// Set the capabilities of another worker.
    EquipAnother,
    /// Pause or resume the queue.
    Pause,
}

impl Refusal {
    /// The name of each kind of refusal, as metrics show it.
    pub const NAMES: [&str; 27] = [
        "unknown",
        "finished",
        "rejected",
        "blocked",
        "held",
        "already_yours",
        "already_finished",
        "nothing_ready",
        "nothing_for_worker",
        "incapable",
        "private",
        "all_private",
        "too_many",
        "paused",
        "draining",
        "not_holder",
        "stale",
        "no_note",
        "in_use",
        "not_finished",
        "no_file",
        "has_file",
        "cycle",
        "name_taken",
        "no_member",
        "over_budget",
        "operator_only",
    ];

    /// The name of this kind of refusal, as metrics show it.
    pub fn name(&self) -> &'static str {
        match self {
            Refusal::Unknown { .. } => "unknown",
            Refusal::Finished { .. } => "finished",
            Refusal::Rejected { .. } => "rejected",
            Refusal::Blocked { .. } => "blocked",
            Refusal::Held { .. } => "held",
            Refusal::AlreadyYours { .. } => "already_yours",
            Refusal::AlreadyFinished { .. } => "already_finished",
            Refusal::NothingReady { .. } => "nothing_ready",
            Refusal::NothingForWorker { .. } => "nothing_for_worker",
            Refusal::Incapable { .. } => "incapable",
            Refusal::Private { .. } => "private",
            Refusal::AllPrivate { .. } => "all_private",
            Refusal::TooMany { .. } => "too_many",
            Refusal::Paused => "paused",
            Refusal::Draining { .. } => "draining",
            Refusal::NotHolder { .. } => "not_holder",
            Refusal::Stale { .. } => "stale",
            Refusal::NoNote(_) => "no_note",
            Refusal::InUse { .. } => "in_use",
            Refusal::NotFinished { .. } => "not_finished",
            Refusal::NoFile { .. } => "no_file",
            Refusal::HasFile { .. } => "has_file",
            Refusal::Cycle { .. } => "cycle",
            Refusal::NameTaken { .. } => "name_taken",
            Refusal::NoMember { .. } => "no_member",
            Refusal::OverBudget { .. } => "over_budget",
            Refusal::OperatorOnly { .. } => "operator_only",
        }
    }
}
