//! What a process and those above it say of who it is (C40). Plain answers: what becomes of them, [`super::callers`] decides.
//!
//! May assume: it is called by a thread that may hang for ever ([`super::lookups`]): it looks into the memory of processes.
//! Must never: keep a descriptor, or take longer than it takes to read [`ENVIRONMENTS_BYTES`].
//!
//! A name is looked for in this order: `CREWFS_WORKER` in the environment of the process or its nearest ancestor that has
//! it; the nearest of them that is a known agent program; the login name of the user, which is not looked for here.

use super::process::{Image, Stat, Variable, agent_program, serves_sftp, thread_group, variable_of};
use super::process_watch::AnchorKind;
use crate::limits::{ANCESTORS, ENVIRONMENTS_BYTES};
use crate::queue::WorkerName;

/// What was found.
#[derive(Debug)]
pub(super) struct Ancestry {
    /// Which process image was looked at; none if the thread cannot be seen.
    pub(super) image: Option<Image>,
    /// The process that the thread belongs to; 0 if it cannot be seen.
    pub(super) process: u32,
    /// Whether it serves an SFTP client.
    pub(super) is_sftp: bool,
    /// What it is called.
    pub(super) name: NameSource,
    /// The process whose end is the end of this worker, if there is one.
    pub(super) anchor: Option<AnchorProcess>,
}

/// What a process is called.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NameSource {
    /// It, or one above it, was given this name.
    Given(WorkerName),
    /// It was given something that is no name.
    None(String),
    /// It is this agent program, or works for it.
    Program(&'static str, u32),
    /// It has no name of its own.
    Login,
    /// There is more to be looked at than may be.
    TooMuch,
}

/// The process that a worker stands and falls with.
#[derive(Debug)]
pub(super) struct AnchorProcess {
    pub(super) pid: u32,
    pub(super) started: u64,
    pub(super) program: String,
    pub(super) kind: AnchorKind,
}

/// Look at a thread and at what is above it.
pub(super) fn look(tid: u32) -> Ancestry {
    let Some((_, stat)) = Stat::open(tid) else {
        return Ancestry { image: None, process: 0, is_sftp: false, name: NameSource::Login, anchor: None };
    };
    let (image, process, is_sftp) = (Some(stat.image), thread_group(tid), serves_sftp(&stat.command));
    let mut budget = ENVIRONMENTS_BYTES;
    let (name, anchor) = name_of(tid, stat, &mut budget);
    let connection = if is_sftp { stands(process, AnchorKind::Connection) } else { None };
    let anchor =
        if matches!(name, NameSource::None(_) | NameSource::TooMuch) { None } else { connection.or(anchor) };
    Ancestry { image, process, is_sftp, name, anchor }
}

fn name_of(tid: u32, stat: Stat, budget: &mut usize) -> (NameSource, Option<AnchorProcess>) {
    let (mut program, mut at) = (None, Some((tid, stat)));
    for _ in 0..ANCESTORS {
        let Some((pid, stat)) = at else { break };
        match variable_of(pid, budget) {
            Variable::Value(value) => {
                return match std::str::from_utf8(&value).ok().and_then(WorkerName::parse) {
                    Some(worker) => (NameSource::Given(worker), carrier(thread_group(pid), &value, budget)),
                    None => (NameSource::None(String::from_utf8_lossy(&value).into_owned()), None),
                };
            }
            Variable::TooMuch => return (NameSource::TooMuch, None),
            Variable::Absent => {}
        }
        if program.is_none() {
            program = agent_program(pid, &stat.command).map(|agent| (agent, thread_group(pid)));
        }
        at = parent(&stat);
    }
    match program {
        Some((agent, pid)) => (NameSource::Program(agent, pid), stands(pid, AnchorKind::Agent)),
        None => (NameSource::Login, None),
    }
}

/// The process that a worker stands and falls with who was given its name. `pid` is the nearest that carries it.
///
/// All above it that carry the name too are the same worker: the topmost agent among them, or else the topmost of all. But
/// an agent may have been told to give the name to what it starts, and not carry it itself.
fn carrier(pid: u32, name: &[u8], budget: &mut usize) -> Option<AnchorProcess> {
    let (mut top, mut at, mut agent) = (pid, Stat::open(pid)?.1, None);
    for _ in 0..ANCESTORS {
        if agent_program(top, &at.command).is_some() {
            agent = Some(top);
        }
        let Some((above, stat)) = parent(&at) else { break };
        if !matches!(variable_of(above, budget), Variable::Value(value) if value == name) {
            if agent.is_none() && agent_program(above, &stat.command).is_some() {
                agent = Some(above);
            }
            break;
        }
        (top, at) = (above, stat);
    }
    match agent {
        Some(agent) => stands(agent, AnchorKind::Agent),
        None => stands(top, AnchorKind::Program),
    }
}

fn stands(pid: u32, kind: AnchorKind) -> Option<AnchorProcess> {
    let (_, stat) = Stat::open(pid)?;
    // A process may call itself anything.
    let program = String::from_utf8_lossy(&stat.command).replace(char::is_control, "?");
    Some(AnchorProcess { pid, started: stat.image.started, program, kind })
}

/// The process above, if it is one of those that a worker can be known by.
fn parent(stat: &Stat) -> Option<(u32, Stat)> {
    (stat.parent > 1).then(|| Stat::open(stat.parent).map(|(_, above)| (stat.parent, above))).flatten()
}
