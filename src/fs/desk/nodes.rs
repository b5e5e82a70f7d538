//! The synthesized nodes, and their numbers.
//!
//! Must never: give one number to two nodes, or change a number while the kernel knows it.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use parking_lot::Mutex;

use super::super::{FsError, Ino, Kind, Result};
use crate::engine::Ticket;
use crate::queue::{TaskId, TaskState, Wall, WorkerName};

/// Numbers of synthesized nodes have this bit; those of real files never do.
pub(super) const SYNTHESIZED: Ino = 1 << 62;

/// Whether a number is that of a synthesized node.
pub(super) fn is_synthesized(ino: Ino) -> bool {
    ino & SYNTHESIZED != 0
}

/// The directories of the desk. Each but the last two lists the tasks of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Directory {
    Ready,
    Blocked,
    Claim,
    Completed,
    Failed,
    Rejected,
    Status,
    Workers,
}

impl Directory {
    /// The state whose tasks it lists; `None` for those that list everything of a kind.
    pub(super) fn lists(self) -> Option<TaskState> {
        match self {
            Directory::Ready => Some(TaskState::Ready),
            Directory::Blocked => Some(TaskState::Blocked),
            Directory::Claim => Some(TaskState::Claimed),
            Directory::Completed => Some(TaskState::Completed),
            Directory::Failed => Some(TaskState::Failed),
            Directory::Rejected => Some(TaskState::Rejected),
            Directory::Status | Directory::Workers => None,
        }
    }

    /// All of them.
    pub(super) const ALL: [Directory; 8] = [
        Directory::Ready,
        Directory::Blocked,
        Directory::Claim,
        Directory::Completed,
        Directory::Failed,
        Directory::Rejected,
        Directory::Status,
        Directory::Workers,
    ];
}

/// The documents at the top of the desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Document {
    Queue,
    Workers,
    Events,
    Summary,
    Dashboard,
    Metrics,
}

/// The files in a worker's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum WorkerFile {
    Status,
    ShouldStop,
    Task,
    Note,
    Why,
    Locks,
    Capabilities,
    Drain,
}

/// Something that was just made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// Tells it from all others.
    pub(super) number: u64,
    /// What its maker asked for: the answer to a MKDIR must be a directory, that to a CREATE a file.
    pub(super) kind: Kind,
    /// When.
    pub(super) at: Wall,
    /// What must be on disk before anybody is told that it was made.
    pub(super) ticket: Option<Ticket>,
}

/// The number alone tells one from another.
impl PartialEq for Made {
    fn eq(&self, other: &Made) -> bool {
        self.number == other.number
    }
}

impl Eq for Made {}

impl Hash for Made {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// One synthesized node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Node {
    /// A directory of the desk.
    Directory(Directory),
    /// A task's entry in one of them.
    Task(Directory, TaskId),
    /// `next`: a symbolic link to the best task.
    Next,
    /// `claim/next`: the caller's own claim.
    ClaimNext,
    /// A document at the top.
    Document(Document),
    /// `paused`.
    Paused,
    /// `workers/self`: a symbolic link to the caller's directory.
    WorkerSelf,
    /// `workers/<name>`.
    Worker(WorkerName),
    /// A file in it.
    WorkerFile(WorkerName, WorkerFile),
    /// A temporary file of an editor, in `completed/` or `failed/`.
    Scratch(u64),
    /// What somebody just made, as its maker has it. Whoever looks for the name finds the task's entry instead.
    Made(Made),
    /// A name in a synthesized directory that can mean nothing.
    Nothing,
}

impl Node {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Node::Directory(_) | Node::Worker(_) => Kind::Directory,
            Node::Made(made) => made.kind,
            Node::Next | Node::WorkerSelf => Kind::Symlink,
            Node::Task(..)
            | Node::ClaimNext
            | Node::Document(_)
            | Node::Paused
            | Node::WorkerFile(..)
            | Node::Scratch(_)
            | Node::Nothing => Kind::File,
        }
    }
}

/// Which number is which node.
#[derive(Default)]
pub(super) struct Nodes(Mutex<Table>);

#[derive(Default)]
struct Table {
    next: u64,
    numbers: HashMap<Node, Ino>,
    nodes: HashMap<Ino, (Node, u64)>,
}

impl Nodes {
    /// The number of a node, with one more reference to it.
    pub(super) fn refer(&self, node: &Node) -> Ino {
        let mut table = self.0.lock();
        if let Some(&ino) = table.numbers.get(node) {
            if let Some((_, count)) = table.nodes.get_mut(&ino) {
                *count += 1;
            }
            return ino;
        }
        table.next += 1;
        let ino = SYNTHESIZED | table.next;
        table.numbers.insert(node.clone(), ino);
        table.nodes.insert(ino, (node.clone(), 1));
        ino
    }

    /// The number to show for a node that is only listed.
    pub(super) fn shown(&self, node: &Node) -> Ino {
        self.0.lock().numbers.get(node).copied().unwrap_or(SYNTHESIZED)
    }

    /// The node of a number.
    pub(super) fn get(&self, ino: Ino) -> Result<Node> {
        self.0.lock().nodes.get(&ino).map(|(node, _)| node.clone()).ok_or(FsError::new(libc::ESTALE))
    }

    /// Drop references; a node without any is forgotten.
    pub(super) fn forget(&self, ino: Ino, count: u64) {
        let mut table = self.0.lock();
        if let Some((_, left)) = table.nodes.get_mut(&ino) {
            *left = left.saturating_sub(count);
            if *left == 0
                && let Some((node, _)) = table.nodes.remove(&ino)
            {
                table.numbers.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_number_until_the_last_reference_is_gone() {
        let nodes = Nodes::default();
        let next = nodes.refer(&Node::Next);
        assert_eq!(nodes.refer(&Node::Next), next);
        assert_ne!(nodes.refer(&Node::Paused), next);
        nodes.forget(next, 1);
        assert_eq!(nodes.get(next).unwrap(), Node::Next);
        nodes.forget(next, 1);
        assert!(nodes.get(next).is_err());
        assert_ne!(nodes.refer(&Node::Next), next, "a number is not used twice");
    }
}
