//! Every reason for which the queue refuses a command, as a fact.
//!
//! Must never: make a sentence, or name an errno or a path. The filesystem turns each refusal into what its caller gets.

use std::sync::Arc;

use super::reasons::{ClaimFate, Obstacle};
use super::{Lost, Moment, Problem, Seq, Span, TaskId, TaskState, WorkerName};

/// Why the queue refuses a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No such task.
    Unknown {
        /// The id asked for.
        task: TaskId,
    },
    /// It has ended already.
    Finished {
        /// The task.
        task: TaskId,
        /// Completed or failed.
        state: TaskState,
    },
    /// Its file is not a task.
    Rejected {
        /// The task.
        task: TaskId,
        /// What is wrong with its file; `None` if not every user may see that.
        problem: Option<Arc<Problem>>,
    },
    /// It waits for something.
    Blocked {
        /// The task.
        task: TaskId,
        /// What it waits for.
        why: Vec<Obstacle>,
    },
    /// Another worker has it.
    Held {
        /// The task.
        task: TaskId,
        /// The worker that has it.
        holder: WorkerName,
        /// Since when.
        since: Moment,
    },
    /// The caller has it already, and asked to be the one who creates.
    AlreadyYours {
        /// The task.
        task: TaskId,
    },
    /// The caller ended it already, and asked to be the one who creates.
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
    /// The caller lacks capabilities for every task that is ready.
    NothingForWorker {
        /// The caller.
        worker: WorkerName,
        /// The words that are required and the caller lacks.
        missing: Vec<String>,
    },
    /// The caller lacks what the task requires.
    Incapable {
        /// The task.
        task: TaskId,
        /// The caller.
        worker: WorkerName,
        /// The words that it requires and the caller lacks.
        missing: Vec<String>,
        /// Workers that have all that it requires; not more than a sentence names.
        others: Vec<WorkerName>,
    },
    /// The caller may not read the task's file.
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
    /// Only the holder may do this, and the caller is not.
    NotHolder {
        /// The task.
        task: TaskId,
        /// What became of the caller's claim, and which worker holds the task now.
        fate: ClaimFate,
    },
    /// The caller's open file belongs to a claim that is over.
    Stale {
        /// The task.
        task: TaskId,
        /// The claim or finish under which the file was opened.
        epoch: Seq,
    },
    /// The caller wrote a note for a claim that another hand ended.
    NoNote(EndedClaim),
    /// Its instruction file cannot go while another worker has it.
    InUse {
        /// The task.
        task: TaskId,
        /// The worker that has it.
        holder: WorkerName,
    },
    /// Only a finished or rejected task can be tried again.
    NotFinished {
        /// The task.
        task: TaskId,
        /// Its state.
        state: TaskState,
    },
    /// A finished task without a file cannot be done again.
    NoFile {
        /// The task.
        task: TaskId,
    },
    /// A finished task is not forgotten while its file is there.
    HasFile {
        /// The task.
        task: TaskId,
    },
    /// A finished task cannot be done again while its needs lead back to it.
    Cycle {
        /// The task.
        task: TaskId,
        /// The cycle, starting with the task.
        cycle: Vec<TaskId>,
    },
    /// Another user has the caller's name.
    NameTaken {
        /// The name.
        worker: WorkerName,
        /// The user that it belongs to.
        owner: u32,
    },
    /// The caller may not change the queue at all.
    NoMember {
        /// The caller's user.
        uid: u32,
    },
    /// The caller, or its user, adds more to the event log than is allowed.
    OverBudget {
        /// The worker or the user.
        spender: Spender,
        /// The amount that is counted.
        unit: BudgetUnit,
        /// How much is allowed for long.
        a_second: u64,
        /// How much is allowed after a rest.
        at_once: u64,
        /// When something is left again.
        wait: Span,
    },
    /// Only an operator may do this.
    OperatorOnly {
        /// What was asked for.
        act: OperatorAct,
    },
}

/// A claim that is over, and that its worker wrote a note for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndedClaim {
    /// The worker named the task.
    Of(TaskId, ClaimFate),
    /// The worker meant its last claim, which it lost.
    Last(Lost),
}

/// A worker or a user that writes to the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spender {
    /// One worker.
    Worker(WorkerName),
    /// All workers of the user with this uid.
    User(u32),
}

/// What a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetUnit {
    /// Events.
    Events,
    /// Bytes of the log.
    Bytes,
}

/// What only an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAct {
    /// Remove the record of a finished task.
    Forget,
    /// Drain another worker.
    DrainAnother,
    /// Set the capabilities of another worker.
    EquipAnother,
    /// Pause the queue, or let it go on.
    Pause,
}

impl Refusal {
    /// The name of each, as metrics show it.
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

    /// The name of this one, as metrics show it.
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
