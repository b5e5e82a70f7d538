//! The synthesized nodes, and their numbers.
//!
//! Must never: give one number to two nodes, or change a number while the kernel knows it.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use parking_lot::Mutex;

use super::super::{Fault, FileKind, FsError, Ino, Result};
use crate::engine::Ticket;
use crate::queue::{TaskId, TaskState, Wall, WorkerName};

/// Numbers of synthesized nodes have this bit; those of real files never do.
pub(super) const SYNTHESIZED: Ino = 1 << 62;

/// Whether a number is that of a synthesized node.
pub(super) fn is_synthesized(ino: Ino) -> bool {
    ino & SYNTHESIZED != 0
}

/// The directories of the desk. Each but the last three lists the tasks of one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DeskDirectory {
    Ready,
    Blocked,
    Claim,
    Completed,
    Failed,
    Rejected,
    Status,
    Changes,
    Workers,
}

impl DeskDirectory {
    /// The state whose tasks it lists; `None` for those that list everything of a kind.
    pub(super) fn lists(self) -> Option<TaskState> {
        match self {
            DeskDirectory::Ready => Some(TaskState::Ready),
            DeskDirectory::Blocked => Some(TaskState::Blocked),
            DeskDirectory::Claim => Some(TaskState::Claimed),
            DeskDirectory::Completed => Some(TaskState::Completed),
            DeskDirectory::Failed => Some(TaskState::Failed),
            DeskDirectory::Rejected => Some(TaskState::Rejected),
            DeskDirectory::Status | DeskDirectory::Changes | DeskDirectory::Workers => None,
        }
    }

    /// All of them.
    pub(super) const ALL: [DeskDirectory; 9] = [
        DeskDirectory::Ready,
        DeskDirectory::Blocked,
        DeskDirectory::Claim,
        DeskDirectory::Completed,
        DeskDirectory::Failed,
        DeskDirectory::Rejected,
        DeskDirectory::Status,
        DeskDirectory::Changes,
        DeskDirectory::Workers,
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

/// A new node.
#[derive(Debug, Clone)]
pub(super) struct CreatedNode {
    /// Distinguishes it from all others.
    pub(super) number: u64,
    /// What its maker asked for: the answer to MKDIR must be a directory, and to CREATE a file.
    pub(super) kind: FileKind,
    /// When.
    pub(super) at: Wall,
    /// What must be on disk before the maker learns that it was made.
    pub(super) ticket: Option<Ticket>,
}

/// The number alone distinguishes two of them.
impl PartialEq for CreatedNode {
    fn eq(&self, other: &CreatedNode) -> bool {
        self.number == other.number
    }
}

impl Eq for CreatedNode {}

impl Hash for CreatedNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// One synthesized node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum DeskNode {
    /// A directory of the desk.
    Directory(DeskDirectory),
    /// A task's entry in one of them.
    Task(DeskDirectory, TaskId),
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
    /// A new node as its maker has it open. A lookup of the name finds the entry of the task instead.
    Made(CreatedNode),
    /// A name in a synthesized directory that means nothing.
    Nothing,
}

impl DeskNode {
    pub(super) fn kind(&self) -> FileKind {
        match self {
            DeskNode::Directory(_) | DeskNode::Worker(_) => FileKind::Directory,
            DeskNode::Made(made) => made.kind,
            DeskNode::Next | DeskNode::WorkerSelf => FileKind::Symlink,
            DeskNode::Task(..)
            | DeskNode::ClaimNext
            | DeskNode::Document(_)
            | DeskNode::Paused
            | DeskNode::WorkerFile(..)
            | DeskNode::Scratch(_)
            | DeskNode::Nothing => FileKind::File,
        }
    }
}

/// Which number is which node.
#[derive(Default)]
pub(super) struct Nodes(Mutex<NodeTable>);

#[derive(Default)]
struct NodeTable {
    next: u64,
    numbers: HashMap<DeskNode, Ino>,
    nodes: HashMap<Ino, (DeskNode, u64)>,
}

impl Nodes {
    /// The number of a node, with one more reference to it.
    pub(super) fn refer(&self, node: &DeskNode) -> Ino {
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
    pub(super) fn shown(&self, node: &DeskNode) -> Ino {
        self.0.lock().numbers.get(node).copied().unwrap_or(SYNTHESIZED)
    }

    /// The node of a number.
    pub(super) fn get(&self, ino: Ino) -> Result<DeskNode> {
        self.0.lock().nodes.get(&ino).map(|(node, _)| node.clone()).ok_or(FsError::Plain(Fault::Stale))
    }

    /// Drops references. A node without any is removed.
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
        let next = nodes.refer(&DeskNode::Next);
        assert_eq!(nodes.refer(&DeskNode::Next), next);
        assert_ne!(nodes.refer(&DeskNode::Paused), next);
        nodes.forget(next, 1);
        assert_eq!(nodes.get(next).unwrap(), DeskNode::Next);
        nodes.forget(next, 1);
        assert!(nodes.get(next).is_err());
        assert_ne!(nodes.refer(&DeskNode::Next), next, "a number is not used twice");
    }
}
