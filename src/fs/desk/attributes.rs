//! What stat(2) shows of each synthesized node at this moment.
//!
//! Must never: show a size or a time that does not fit the content that an open would read now (C1).

use std::ffi::OsStr;

use rustix::fs::{AtFlags, statat};

use super::content::{ABSENT, NodeContent};
use super::file_names::file_of;
use super::nodes::{DeskDirectory, DeskNode, WorkerFile};
use super::publish::stamp_of;
use super::table;
use super::timestamps::{timestamp_at, timestamp_of};
use super::view::View;
use crate::fs::{Attr, FileKind, Ino, Request, Result, Timestamp};
use crate::queue::{Moment, Phase, State, TaskId, Wall};

/// A node as it is now.
pub(super) struct Shown {
    pub(super) kind: FileKind,
    pub(super) perm: u16,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    /// The user of the worker that may write it; `None`: the user that mounted. Only the owner of a file may set its times freely, which
    /// `touch` does over SFTP.
    pub(super) uid: Option<u32>,
    /// Its group; `None`: that of the user that mounted.
    pub(super) gid: Option<u32>,
}

impl Shown {
    /// A new node as its maker sees it: empty, and made at this time.
    pub(super) fn new_node(kind: FileKind, at: Wall) -> Shown {
        Shown { kind, perm: 0o666, size: 0, mtime: timestamp_at(at), uid: None, gid: None }
    }
}

impl View {
    /// The node of a name in a synthesized directory, if it exists now.
    pub(super) fn find(&self, parent: Ino, name: &OsStr, req: &Request) -> Result<DeskNode> {
        if let Some(number) = self.scratches.at(parent, name) {
            return Ok(DeskNode::Scratch(number));
        }
        let node = table::in_directory(&self.nodes.get(parent)?, name).ok_or(ABSENT)?;
        self.show(&node, req).map(|_| node)
    }

    /// The attributes of a node that exists.
    pub(super) fn attr(&self, ino: Ino, node: &DeskNode, req: &Request) -> Result<Attr> {
        Ok(self.dress(ino, &self.show(node, req)?))
    }

    /// The attributes that go with what is shown.
    pub(super) fn dress(&self, ino: Ino, shown: &Shown) -> Attr {
        Attr {
            ino,
            kind: shown.kind,
            perm: shown.perm,
            nlink: if shown.kind == FileKind::Directory { 2 } else { 1 },
            uid: shown.uid.unwrap_or(self.config.owner_uid),
            gid: shown.gid.unwrap_or(self.config.owner_gid),
            rdev: 0,
            size: shown.size,
            blocks: shown.size.div_ceil(512),
            blksize: 4096,
            atime: shown.mtime,
            mtime: shown.mtime,
            ctime: shown.mtime,
        }
    }

    /// How a node looks now; ENOENT if there is no such thing at present.
    pub(super) fn show(&self, node: &DeskNode, req: &Request) -> Result<Shown> {
        let state = self.engine.state();
        let changed = self.changed(&state);
        let directory =
            |perm| Shown { kind: FileKind::Directory, perm, size: 0, mtime: changed, uid: None, gid: None };
        let link = |target: &OsStr, mtime| Shown {
            kind: FileKind::Symlink,
            perm: 0o777,
            size: target.len() as u64,
            mtime,
            uid: None,
            gid: None,
        };
        Ok(match node {
            DeskNode::Directory(
                DeskDirectory::Blocked
                | DeskDirectory::Status
                | DeskDirectory::Changes
                | DeskDirectory::Workers,
            ) => directory(0o555),
            // Workers of every uid make, move and remove names here. The queue decides what they may do.
            DeskNode::Directory(_) => directory(0o777),
            DeskNode::Worker(name) => {
                self.worker(name, &state, req)?;
                directory(0o777)
            }
            DeskNode::Made(made) => Shown::new_node(made.kind, made.at),
            DeskNode::Nothing => return Err(ABSENT),
            DeskNode::Next | DeskNode::WorkerSelf => link(&self.target(node, &state, req)?, changed),
            DeskNode::Scratch(number) => {
                let file = self.scratches.stat(*number)?;
                let (perm, size, mtime) = (file.mode, file.size, timestamp_at(file.at));
                Shown { kind: FileKind::File, perm, size, mtime, uid: Some(file.uid), gid: Some(file.gid) }
            }
            DeskNode::Task(..)
            | DeskNode::ClaimNext
            | DeskNode::Document(_)
            | DeskNode::Paused
            | DeskNode::WorkerFile(..) => {
                let (content, perm, mtime) = self.file(node, &state, req)?;
                let (size, mtime) = match &content {
                    NodeContent::Bytes(bytes) => (bytes.len() as u64, mtime),
                    NodeContent::Text(text) => {
                        (text.size, timestamp_of(Moment { seq: text.seq, at: text.at }))
                    }
                    NodeContent::Instructions(task) => self.instructions(task)?,
                    NodeContent::Withheld(_) => (0, mtime),
                    NodeContent::Changes(task) => {
                        (self.diff(task, req).map_or(0, |diff| diff.len() as u64), mtime)
                    }
                    NodeContent::Events => (self.engine.log_bytes(), mtime),
                };
                Shown {
                    kind: FileKind::File,
                    perm,
                    size,
                    mtime,
                    uid: self.writer(node, &state, req),
                    gid: None,
                }
            }
        })
    }

    /// The user of the one worker that may write a node.
    fn writer(&self, node: &DeskNode, state: &State, req: &Request) -> Option<u32> {
        let worker = match node {
            DeskNode::ClaimNext => return Some(req.uid),
            DeskNode::Task(DeskDirectory::Claim | DeskDirectory::Completed | DeskDirectory::Failed, id) => {
                match &state.task(id.as_str())?.phase {
                    Phase::Claimed(claim) => &claim.worker,
                    Phase::Completed(finish) | Phase::Failed(finish) => finish.worker.as_ref()?,
                    Phase::Open | Phase::Rejected(_) => return None,
                }
            }
            DeskNode::WorkerFile(name, WorkerFile::Note | WorkerFile::Capabilities | WorkerFile::Drain) => {
                name
            }
            _ => return None,
        };
        state.worker(worker.as_str()).map(|worker| worker.uid)
    }

    fn instructions(&self, task: &TaskId) -> Result<(u64, Timestamp)> {
        let stat = statat(self.publisher.directory(), file_of(task), AtFlags::SYMLINK_NOFOLLOW)?;
        let stamp = stamp_of(&stat);
        let nanos = stamp.mtime_ns;
        let mtime = Timestamp {
            seconds: nanos.div_euclid(1_000_000_000),
            nanos: nanos.rem_euclid(1_000_000_000) as u32,
        };
        Ok((stamp.size, mtime))
    }

    /// Whether the attributes of a node may depend on the caller. A task that a directory does not list exists for no caller.
    pub(super) fn depends_on_caller(&self, node: &DeskNode) -> bool {
        match node {
            DeskNode::Made(_) | DeskNode::Nothing | DeskNode::Scratch(_) => false,
            DeskNode::Directory(_) => self.is_settling(),
            DeskNode::Task(directory, id) => {
                let state = self.engine.state();
                state
                    .task(id.as_str())
                    .is_some_and(|task| directory.lists().is_none_or(|listed| listed == state.state_of(task)))
            }
            _ => true,
        }
    }
}
