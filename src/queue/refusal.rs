//! Why not: every reason for which a wish is refused, each with one sentence for the one who wished.
//!
//! Must never: name an errno. What a caller of `open(2)` gets is decided where the filesystem begins.

use thiserror::Error;

use super::{Moment, Seq, Span, TaskId, TaskState, WorkerName};

/// A wish refused. The text says what, why and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No such task.
    #[error("there is no task {task}")]
    Unknown {
        /// The id asked for.
        task: TaskId,
    },
    /// It has ended already.
    #[error("{task} is already {state}; to do it again: mv tasks/{state}/{task} tasks/ready/")]
    Finished {
        /// The task.
        task: TaskId,
        /// Completed or failed.
        state: TaskState,
    },
    /// Its file is not a task.
    #[error("{task} is rejected: {problem}")]
    Rejected {
        /// The task.
        task: TaskId,
        /// What is wrong with its file.
        problem: String,
    },
    /// It waits for something.
    #[error("{task} is blocked: {why}")]
    Blocked {
        /// The task.
        task: TaskId,
        /// What it waits for.
        why: String,
    },
    /// Another worker has it.
    #[error("{task} is held by {holder} since {}; take another one: touch tasks/claim/next", since.at)]
    Held {
        /// The task.
        task: TaskId,
        /// Who has it.
        holder: WorkerName,
        /// Since when.
        since: Moment,
    },
    /// The caller has it already, and asked to be the one who creates.
    #[error("you hold {task} already")]
    AlreadyYours {
        /// The task.
        task: TaskId,
    },
    /// The caller ended it already, and asked to be the one who creates.
    #[error("you have already {state} {task}")]
    AlreadyFinished {
        /// The task.
        task: TaskId,
        /// Completed or failed.
        state: TaskState,
    },
    /// There is nothing to claim.
    #[error("no task is ready: {blocked} blocked, {claimed} claimed by others")]
    NothingReady {
        /// How many tasks are blocked.
        blocked: usize,
        /// How many tasks are claimed.
        claimed: usize,
    },
    /// What is ready is not for the caller.
    #[error(
        "nothing that is ready is for {worker}: it requires {missing}; \
         what you can do is said in tasks/workers/self/capabilities"
    )]
    NothingForWorker {
        /// The caller.
        worker: WorkerName,
        /// Words that are required and the caller lacks.
        missing: String,
    },
    /// The caller lacks what the task requires.
    #[error(
        "{task} requires {missing}, which {worker} lacks; {others}; \
         what you can do is said in tasks/workers/self/capabilities"
    )]
    Incapable {
        /// The task.
        task: TaskId,
        /// The caller.
        worker: WorkerName,
        /// The words that it requires and the caller lacks.
        missing: String,
        /// Who has all that it requires.
        others: String,
    },
    /// The caller may not read the task's file.
    #[error(
        "{task} is not for {worker}, who may not read tasks/{task}.md; take another one: touch tasks/claim/next, or ask the \
         owner of that file for the right (chgrp, chmod or setfacl)"
    )]
    Private {
        /// The task.
        task: TaskId,
        /// The caller.
        worker: WorkerName,
    },
    /// The caller may not read the file of anything that it could claim.
    #[error("nothing that is ready is for {worker}: the files of {count} tasks are for others to read")]
    AllPrivate {
        /// The caller.
        worker: WorkerName,
        /// How many tasks are ready.
        count: usize,
    },
    /// The caller holds as much as one may.
    #[error("{worker} holds as many tasks as it may ({held} of {limit}); finish one first")]
    TooMany {
        /// The caller.
        worker: WorkerName,
        /// How many tasks it holds.
        held: usize,
        /// How many it may hold.
        limit: usize,
    },
    /// The operator stopped all claiming.
    #[error("the queue is paused; nothing is claimed until tasks/paused is removed")]
    Paused,
    /// The operator told this worker to stop.
    #[error("{worker} is draining: finish what you hold, then stop")]
    Draining {
        /// The caller.
        worker: WorkerName,
    },
    /// Only the holder may do this, and the caller is not.
    #[error("{task} is not yours: {why}")]
    NotHolder {
        /// The task.
        task: TaskId,
        /// Who is, or what became of the caller's claim.
        why: String,
    },
    /// What the caller has open belongs to a claim that is over.
    #[error("your claim {epoch} of {task} is over; nothing that was opened under it can change the task")]
    Stale {
        /// The task.
        task: TaskId,
        /// The claim or finish under which the file was opened.
        epoch: Seq,
    },
    /// The caller wrote a note for a claim that was ended by another hand.
    #[error("{why}; a note claims nothing anew: to claim again: touch tasks/{form}")]
    NoNote {
        /// What became of the claim.
        why: String,
        /// What to touch.
        form: String,
    },
    /// Its instruction file cannot go while another worker has it.
    #[error(
        "{task} is being worked on by {holder}; wait until it ends, or take it away: rm tasks/claim/{task}"
    )]
    InUse {
        /// The task.
        task: TaskId,
        /// Who has it.
        holder: WorkerName,
    },
    /// Only a finished or rejected task can be tried again.
    #[error("{task} is {state}: only a completed, failed or rejected task can be tried again")]
    NotFinished {
        /// The task.
        task: TaskId,
        /// What it is.
        state: TaskState,
    },
    /// A finished task without a file cannot be done again.
    #[error("{task} has no instructions any more; write tasks/{task}.md again, then move it")]
    NoFile {
        /// The task.
        task: TaskId,
    },
    /// A finished task is not forgotten while its file is there.
    #[error(
        "{task} has its instructions still: remove tasks/{task}.md first; to do it again, move it to tasks/ready/"
    )]
    HasFile {
        /// The task.
        task: TaskId,
    },
    /// A finished task cannot be done again while its needs lead back to it.
    #[error("{task} cannot be done again: {cycle}; change the needs of one of them first")]
    Cycle {
        /// The task.
        task: TaskId,
        /// The cycle, as a sentence.
        cycle: String,
    },
    /// Somebody else has the caller's name.
    #[error("the name {worker} belongs to uid {owner}; set CREWFS_WORKER to a name of your own")]
    NameTaken {
        /// The name.
        worker: WorkerName,
        /// Whom it belongs to.
        owner: u32,
    },
    /// The caller may not change the queue at all.
    #[error(
        "changing the queue takes the right to write in the directory tasks/, which uid {uid} lacks; ask its owner for it \
         (chgrp, chmod or setfacl), or who mounted for the option workers=NAME"
    )]
    NoMember {
        /// The caller's user.
        uid: u32,
    },
    /// The caller, or its user, adds more to the event log than one may.
    #[error(
        "{who} has written more to the event log than is allowed ({}), so nothing was changed; \
         finish what you hold, which goes on, or try again in {wait}", allowed(what, *a_second, *at_once)
    )]
    OverBudget {
        /// The worker or the user.
        who: String,
        /// Of what it was too much.
        what: &'static str,
        /// How much is allowed for long.
        a_second: u64,
        /// How much is allowed after a rest.
        at_once: u64,
        /// When there is something left again.
        wait: Span,
    },
    /// Only an operator may do this.
    #[error("{what} is for operators: the user who mounted, or root, without CREWFS_WORKER")]
    OperatorOnly {
        /// What was asked for.
        what: &'static str,
    },
}

fn allowed(what: &str, a_second: u64, at_once: u64) -> String {
    let amount = |number: u64| match number {
        number if what != "bytes" => number.to_string(),
        number if number % (1 << 20) == 0 => format!("{} Mi", number >> 20),
        number if number % (1 << 10) == 0 => format!("{} Ki", number >> 10),
        number => format!("{number} "),
    };
    let unit = if what == "bytes" { "B" } else { " events" };
    format!("{}{unit} a second, {}{unit} at once", amount(a_second), amount(at_once))
}

impl Refusal {
    /// The name of each, for counting.
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

    /// What kind of refusal it is, in a word.
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
            Refusal::NoNote { .. } => "no_note",
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
