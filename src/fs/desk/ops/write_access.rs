//! What a caller may write to a synthesized node (C22, C24).

use crate::engine::Ticket;
use crate::fs::desk::handles::Subject;
use crate::fs::desk::misuse::Misuse;
use crate::fs::desk::nodes::{DeskDirectory, DeskNode, WorkerFile};
use crate::fs::desk::table;
use crate::fs::identity::callers::Caller;
use crate::fs::{Fault, Result};
use crate::queue::{ClaimFate, Outcome, Refusal, Seq, Standing, State, TaskId};

/// What a caller may write to a node.
pub(super) enum WriteAccess {
    /// Anything; it has no effect.
    Nothing,
    /// The progress note of this claim.
    Note(TaskId, Seq),
    /// A text that the queue keeps.
    Draft(Subject),
}

/// What the caller may write to a node, if anything.
pub(super) fn write_access(node: &DeskNode, caller: &Caller, state: &State) -> Result<WriteAccess> {
    let id = match node {
        DeskNode::Task(DeskDirectory::Claim | DeskDirectory::Completed | DeskDirectory::Failed, id) => {
            id.clone()
        }
        DeskNode::ClaimNext => table::current_claim(state, caller).ok_or(Fault::Absent)?,
        DeskNode::WorkerFile(worker, WorkerFile::Note) => table::noted_claim(worker, state, caller)?,
        DeskNode::Paused | DeskNode::WorkerFile(_, WorkerFile::Drain) => return Ok(WriteAccess::Nothing),
        DeskNode::WorkerFile(worker, WorkerFile::Capabilities) => {
            table::may_equip(worker, caller)?;
            return Ok(WriteAccess::Draft(Subject::Capabilities(worker.clone())));
        }
        _ => return Err(Misuse::NotWritable.into()),
    };
    let task = state.task(id.as_str()).ok_or(Fault::Absent)?;
    let me = &caller.actor.worker;
    if let Some(claim) = task.claim() {
        if claim.worker == *me || caller.actor.operator {
            return Ok(WriteAccess::Note(id, claim.epoch()));
        }
        let (holder, since) = (claim.worker.clone(), claim.since);
        return Err(Refusal::Held { task: id, holder, since }.into());
    }
    match task.finish() {
        Some(finish) if finish.worker.as_ref() == Some(me) || caller.actor.operator => {
            let finish = Ticket::known(Outcome::Finished { finish: finish.when.seq });
            Ok(WriteAccess::Draft(Subject::Result(id, finish)))
        }
        _ => {
            let fate = ClaimFate { ended: None, now: Standing::Is(state.state_of(task)) };
            Err(Refusal::NotHolder { task: id, fate }.into())
        }
    }
}
