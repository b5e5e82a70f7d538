//! The name and the anchor of a process, read from the process and its ancestors (C40). [`super::callers`] decides what follows from them.
//!
//! May assume: the calling thread may hang for ever ([`super::lookups`]): reading the memory of other processes can block.
//! Must never: keep a descriptor, or take longer than it takes to read [`ENVIRONMENTS_BYTES`].
//!
//! The sources of a name, in this order: `CREWFS_WORKER` in the environment of the process, or of its nearest ancestor that has
//! it; the nearest of them that is a known agent program; the login name of the user, which is looked up elsewhere.

use super::process::{
    Image, Stat, Variable, agent_program, serves_sftp, thread_group, tree_program, variable_of,
};
use super::process_watch::AnchorKind;
use crate::limits::{ANCESTORS, ENVIRONMENTS_BYTES};
use crate::queue::WorkerName;

/// The result of a look-up.
#[derive(Debug)]
pub(super) struct Ancestry {
    /// The process image that was read; `None` if the thread is not visible in `/proc`.
    pub(super) image: Option<Image>,
    /// The process that the thread belongs to; 0 if it is not visible.
    pub(super) process: u32,
    /// Whether the process serves an SFTP client.
    pub(super) is_sftp: bool,
    /// Its program, if it is one that replaces whole trees.
    pub(super) tree_program: Option<&'static str>,
    /// The source of its name.
    pub(super) name: NameSource,
    /// The process whose end is the end of this worker, if there is one.
    pub(super) anchor: Option<AnchorProcess>,
}

/// The source of a process's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NameSource {
    /// `CREWFS_WORKER` of the process or an ancestor is this name.
    Given(WorkerName),
    /// `CREWFS_WORKER` is set to this, which is not a valid name.
    Invalid(String),
    /// The process is this agent program, or a descendant of it; with the pid of the agent.
    Program(&'static str, u32),
    /// Neither; the process has the login name of its user.
    Login,
    /// The environments are larger than the limit.
    TooMuch,
}

/// The process whose end is the end of a worker.
#[derive(Debug)]
pub(super) struct AnchorProcess {
    pub(super) pid: u32,
    pub(super) started: u64,
    pub(super) program: String,
    pub(super) kind: AnchorKind,
}

/// Read the name and the anchor of a thread's process.
pub(super) fn read(tid: u32) -> Ancestry {
    let Some((_, stat)) = Stat::open(tid) else {
        let name = NameSource::Login;
        return Ancestry { image: None, process: 0, is_sftp: false, tree_program: None, name, anchor: None };
    };
    let (image, process, is_sftp) = (Some(stat.image), thread_group(tid), serves_sftp(&stat.command));
    let tree_program = tree_program(&stat.command);
    let mut budget = ENVIRONMENTS_BYTES;
    let (name, anchor) = name_of(tid, stat, &mut budget);
    let connection = if is_sftp { anchor_of(process, AnchorKind::Connection) } else { None };
    let anchor = if matches!(name, NameSource::Invalid(_) | NameSource::TooMuch) {
        None
    } else {
        connection.or(anchor)
    };
    Ancestry { image, process, is_sftp, tree_program, name, anchor }
}

fn name_of(tid: u32, stat: Stat, budget: &mut usize) -> (NameSource, Option<AnchorProcess>) {
    let (mut program, mut current) = (None, Some((tid, stat)));
    for _ in 0..ANCESTORS {
        let Some((pid, stat)) = current else { break };
        match variable_of(pid, budget) {
            Variable::Value(value) => {
                return match std::str::from_utf8(&value).ok().and_then(WorkerName::parse) {
                    Some(worker) => {
                        (NameSource::Given(worker), anchor_of_named(thread_group(pid), &value, budget))
                    }
                    None => (NameSource::Invalid(String::from_utf8_lossy(&value).into_owned()), None),
                };
            }
            Variable::TooMuch => return (NameSource::TooMuch, None),
            Variable::Absent => {}
        }
        if program.is_none() {
            program = agent_program(pid, &stat.command).map(|agent| (agent, thread_group(pid)));
        }
        current = parent(&stat);
    }
    match program {
        Some((agent, pid)) => (NameSource::Program(agent, pid), anchor_of(pid, AnchorKind::Agent)),
        None => (NameSource::Login, None),
    }
}

/// The anchor of a worker that is named by its environment. `pid` is the nearest process that has the variable.
///
/// All ancestors with the same value belong to the same worker. The anchor is the topmost agent among them, or else the topmost of
/// all. But an agent may set the variable only for its children; so the parent of the topmost is the anchor if it is an agent.
fn anchor_of_named(pid: u32, name: &[u8], budget: &mut usize) -> Option<AnchorProcess> {
    let (mut top, mut top_stat, mut agent) = (pid, Stat::open(pid)?.1, None);
    for _ in 0..ANCESTORS {
        if agent_program(top, &top_stat.command).is_some() {
            agent = Some(top);
        }
        let Some((above, stat)) = parent(&top_stat) else { break };
        if !matches!(variable_of(above, budget), Variable::Value(value) if value == name) {
            if agent.is_none() && agent_program(above, &stat.command).is_some() {
                agent = Some(above);
            }
            break;
        }
        (top, top_stat) = (above, stat);
    }
    match agent {
        Some(agent) => anchor_of(agent, AnchorKind::Agent),
        None => anchor_of(top, AnchorKind::Program),
    }
}

fn anchor_of(pid: u32, kind: AnchorKind) -> Option<AnchorProcess> {
    let (_, stat) = Stat::open(pid)?;
    // A process can set its own name to any bytes.
    let program = String::from_utf8_lossy(&stat.command).replace(char::is_control, "?");
    Some(AnchorProcess { pid, started: stat.image.started, program, kind })
}

/// The parent process, unless it is init or not visible.
fn parent(stat: &Stat) -> Option<(u32, Stat)> {
    (stat.parent > 1).then(|| Stat::open(stat.parent).map(|(_, above)| (stat.parent, above))).flatten()
}
