//! The table of the desk: which name is which node, and what making, moving and removing a node means for the queue.
//!
//! This is the contract in code: a new file of the contract is a new row here, and its content one arm in `documents`.
//!
//! Must never: use the engine, a file, or a clock. It returns [`Command`]s.

use std::ffi::OsStr;

use super::super::Result;
use super::super::identity::callers::Caller;
use super::handles::Subject;
use super::misuse::Misuse;
use super::nodes::{DeskDirectory, DeskNode, Document, WorkerFile};
use crate::queue::{ClaimForm, Command, Content, Ending, Eyes, Refusal, State, TaskId, WorkerName};

/// The top of the desk.
pub(super) const TOP: [(&str, DeskNode); 17] = [
    ("ready", DeskNode::Directory(DeskDirectory::Ready)),
    ("blocked", DeskNode::Directory(DeskDirectory::Blocked)),
    ("claim", DeskNode::Directory(DeskDirectory::Claim)),
    ("completed", DeskNode::Directory(DeskDirectory::Completed)),
    ("failed", DeskNode::Directory(DeskDirectory::Failed)),
    ("rejected", DeskNode::Directory(DeskDirectory::Rejected)),
    ("status", DeskNode::Directory(DeskDirectory::Status)),
    ("changes", DeskNode::Directory(DeskDirectory::Changes)),
    ("workers", DeskNode::Directory(DeskDirectory::Workers)),
    ("next", DeskNode::Next),
    ("queue.json", DeskNode::Document(Document::Queue)),
    ("workers.json", DeskNode::Document(Document::Workers)),
    ("events.jsonl", DeskNode::Document(Document::Events)),
    ("summary.json", DeskNode::Document(Document::Summary)),
    ("dashboard.html", DeskNode::Document(Document::Dashboard)),
    ("metrics.prom", DeskNode::Document(Document::Metrics)),
    ("paused", DeskNode::Paused),
];

/// The files in a worker's directory.
pub(super) const WORKER: [(&str, WorkerFile); 8] = [
    ("status", WorkerFile::Status),
    ("should-stop", WorkerFile::ShouldStop),
    ("task", WorkerFile::Task),
    ("note", WorkerFile::Note),
    ("why", WorkerFile::Why),
    ("locks", WorkerFile::Locks),
    ("capabilities", WorkerFile::Capabilities),
    ("drain", WorkerFile::Drain),
];

/// The node of a name at the top, whether or not it exists at present.
pub(super) fn at_top(name: &OsStr) -> Option<DeskNode> {
    TOP.iter().find(|(known, _)| *known == name).map(|(_, node)| node.clone())
}

/// The node that a name in a directory means, whether or not it exists at present.
pub(super) fn in_directory(directory: &DeskNode, name: &OsStr) -> Option<DeskNode> {
    let name = name.to_str()?;
    match directory {
        DeskNode::Directory(DeskDirectory::Workers) if name == "self" => Some(DeskNode::WorkerSelf),
        DeskNode::Directory(DeskDirectory::Workers) => WorkerName::parse(name).map(DeskNode::Worker),
        DeskNode::Directory(DeskDirectory::Claim) if name == "next" => Some(DeskNode::ClaimNext),
        DeskNode::Directory(directory) => TaskId::parse(name).map(|task| DeskNode::Task(*directory, task)),
        DeskNode::Worker(worker) => {
            let (_, file) = WORKER.iter().find(|(known, _)| *known == name)?;
            Some(DeskNode::WorkerFile(worker.clone(), *file))
        }
        _ => None,
    }
}

/// Whether editors and agents give this name to a file that they will rename (C25). `sed` makes names that could be ids of tasks,
/// but opens them with O_EXCL. A worker that names a task which does not exist opens it without.
pub(super) fn is_scratch(name: &OsStr, exclusive: bool) -> bool {
    let of_sed = |name: &str| {
        let end = name.strip_prefix("sed");
        exclusive && end.is_some_and(|end| end.len() == 6 && end.bytes().all(|b| b.is_ascii_alphanumeric()))
    };
    name.to_str().is_some_and(|name| name.starts_with('.') || name.contains(".tmp.") || of_sed(name))
}

/// What making `node` means, and in which form the caller makes it.
pub(super) fn making(node: &DeskNode, caller: &Caller, form: ClaimForm, eyes: Eyes) -> Result<Command> {
    let by = caller.actor.clone();
    let exclusive = form == ClaimForm::Exclusive;
    Ok(match node {
        DeskNode::Task(DeskDirectory::Claim, task) => Command::Claim { task: task.clone(), by, form, eyes },
        DeskNode::ClaimNext => Command::ClaimNext { by, form, eyes },
        DeskNode::Task(DeskDirectory::Completed, task) => {
            finishing(task, caller, Ending::Completed, None, exclusive)
        }
        DeskNode::Task(DeskDirectory::Failed, task) => {
            finishing(task, caller, Ending::Failed, None, exclusive)
        }
        DeskNode::Task(_, task) => {
            return Err(Misuse::MadeByWriting { task: task.clone() }.into());
        }
        DeskNode::Paused => Command::Pause { by, paused: true },
        DeskNode::WorkerFile(worker, WorkerFile::Drain) => {
            Command::Drain { worker: worker.clone(), by, draining: true }
        }
        _ => return Err(Misuse::NotMakeable.into()),
    })
}

/// The end of a task, with its text where that is known.
pub(super) fn finishing(
    task: &TaskId,
    caller: &Caller,
    ending: Ending,
    text: Option<Content>,
    exclusive: bool,
) -> Command {
    Command::Finish { task: task.clone(), by: caller.actor.clone(), ending, text, exclusive }
}

/// What renaming one node to another means.
pub(super) fn moving(
    from: &DeskNode,
    to: &DeskNode,
    caller: &Caller,
    (state, eyes): (&State, Eyes),
    exclusive: bool,
) -> Result<Command> {
    use DeskDirectory::{Claim, Completed, Failed, Ready, Rejected};
    let by = caller.actor.clone();
    // The links for the best task and for the caller's claim are as good as the name of the task.
    let from = match from {
        DeskNode::Next if matches!(to, DeskNode::ClaimNext) => {
            return Ok(Command::ClaimNext { by, form: ClaimForm::Exclusive, eyes });
        }
        DeskNode::Next => match state.best_for(Some(caller.actor.worker.as_str()), &eyes) {
            Some(task) => DeskNode::Task(Ready, task.clone()),
            None => return Err(Misuse::NoTaskReady.into()),
        },
        DeskNode::ClaimNext => match current_claim(state, caller) {
            Some(task) => DeskNode::Task(Claim, task),
            None => return Err(Misuse::NoClaim.into()),
        },
        other => other.clone(),
    };
    let (there, task) = match &from {
        DeskNode::Task(there, task) => (*there, task),
        _ => return Err(Misuse::NotMovable.into()),
    };
    // A worker that holds a claim has `claim/next` already (C21).
    if matches!(to, DeskNode::ClaimNext)
        && let Some(task) = current_claim(state, caller)
    {
        return Err(Refusal::AlreadyYours { task }.into());
    }
    Ok(match (there, to) {
        (_, DeskNode::Task(_, other)) if other != task => {
            held_by_another(state, caller, to)?;
            return Err(Misuse::KeepsItsName { task: task.clone() }.into());
        }
        // Only a ready task can be claimed. The queue says why another one cannot (C22).
        (DeskDirectory::Status, _) => return Err(Misuse::StatusIsForReading.into()),
        (DeskDirectory::Changes, _) => return Err(Misuse::ChangesAreForReading.into()),
        (_, DeskNode::Task(Claim, _) | DeskNode::ClaimNext) => {
            Command::Claim { task: task.clone(), by, form: ClaimForm::Exclusive, eyes }
        }
        (Claim, DeskNode::Task(Completed, _)) => finishing(task, caller, Ending::Completed, None, exclusive),
        (Claim, DeskNode::Task(Failed, _)) => finishing(task, caller, Ending::Failed, None, exclusive),
        (Claim, DeskNode::Task(Ready, _)) => Command::Release { task: task.clone(), by },
        (Completed | Failed | Rejected, DeskNode::Task(Ready, _)) => {
            Command::Retry { task: task.clone(), by }
        }
        _ => return Err(Misuse::NoSuchMove.into()),
    })
}

/// The command that follows from a written text.
pub(super) fn writing(of: &Subject, text: &[u8], caller: &Caller) -> Result<Command> {
    let by = caller.actor.clone();
    Ok(match of {
        Subject::Result(task, finish) => {
            // Opened for writing means finished: there is a position.
            let finish = finish.finish().unwrap_or_default();
            Command::Report { task: task.clone(), finish, by, text: Content::new(text) }
        }
        Subject::Capabilities(worker) => match std::str::from_utf8(text) {
            Ok(text) if !text.contains('\0') => {
                let words = text.split_whitespace().map(str::to_string).collect();
                Command::Equip { worker: worker.clone(), by, words }
            }
            _ => return Err(Misuse::NotWords.into()),
        },
    })
}

/// Whether the caller may set the capabilities of a worker. The open asks this, so that the close is not the first to refuse.
pub(super) fn may_equip(worker: &WorkerName, caller: &Caller) -> Result<()> {
    if caller.actor.may_speak_for(worker) {
        return Ok(());
    }
    Err(Misuse::CapabilitiesOfAnother { worker: worker.clone() }.into())
}

/// What removing a node means.
pub(super) fn removing(node: &DeskNode, caller: &Caller, state: &State) -> Result<Command> {
    let by = caller.actor.clone();
    Ok(match node {
        DeskNode::Task(DeskDirectory::Claim, task) => Command::Release { task: task.clone(), by },
        DeskNode::ClaimNext => match current_claim(state, caller) {
            Some(task) => Command::Release { task, by },
            None => return Err(Misuse::NoClaim.into()),
        },
        DeskNode::Paused => Command::Pause { by, paused: false },
        DeskNode::WorkerFile(worker, WorkerFile::Drain) => {
            Command::Drain { worker: worker.clone(), by, draining: false }
        }
        DeskNode::Task(DeskDirectory::Completed | DeskDirectory::Failed, task) => {
            Command::Forget { task: task.clone(), by }
        }
        DeskNode::Task(_, task) => {
            return Err(Misuse::WithdrawnByRemoving { task: task.clone() }.into());
        }
        _ => return Err(Misuse::NotRemovable.into()),
    })
}

/// Refuses a request that would replace another worker's claim (C22).
pub(super) fn held_by_another(state: &State, caller: &Caller, to: &DeskNode) -> Result<()> {
    let DeskNode::Task(DeskDirectory::Claim, task) = to else { return Ok(()) };
    match state.task(task.as_str()).and_then(|t| t.claim()) {
        Some(claim) if claim.worker != caller.actor.worker => {
            let (task, holder, since) = (task.clone(), claim.worker.clone(), claim.since);
            Err(Refusal::Held { task, holder, since }.into())
        }
        _ => Ok(()),
    }
}

/// The claim that a note of this worker is about: its youngest.
///
/// # Errors
/// EACCES for callers that do not speak for the worker, and while the worker holds nothing.
pub(super) fn noted_claim(worker: &WorkerName, state: &State, caller: &Caller) -> Result<TaskId> {
    if !caller.actor.may_speak_for(worker) {
        return Err(Misuse::NoteOfAnother { worker: worker.clone() }.into());
    }
    match state.worker(worker.as_str()).and_then(|worker| worker.claims.last()) {
        Some(task) => Ok(task.clone()),
        None => Err(Misuse::NothingToNote { worker: worker.clone() }.into()),
    }
}

/// The claim that the caller works on: its youngest.
pub(super) fn current_claim(state: &State, caller: &Caller) -> Option<TaskId> {
    state.worker(caller.actor.worker.as_str())?.claims.last().cloned()
}
