//! Opens of synthesized nodes, for reading and for writing.
//!
//! Must never: open for writing what the caller may not write (C22, C24).

use std::sync::Arc;

use parking_lot::Mutex;

use super::write_access::{WriteAccess, write_access};
use crate::engine::Ticket;
use crate::fs::desk::DeskCore;
use crate::fs::desk::content::NodeContent;
use crate::fs::desk::file_names::file_of;
use crate::fs::desk::handles::{NoteHandle, OpenHandle, Source, Subject};
use crate::fs::desk::nodes::DeskNode;
use crate::fs::identity::callers::Caller;
use crate::fs::{Fault, FsError, Ino, Opened, Reply, Request, Result};
use crate::limits::{INSTRUCTIONS_BYTES, RESULT_BYTES};
use crate::log::LogError;
use crate::queue::{Outcome, Payer, State, TaskId};

impl DeskCore {
    pub(in crate::fs::desk) fn open_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        ino: Ino,
        flags: i32,
        reply: Reply<Opened>,
    ) {
        let node = match self.view.nodes.get(ino) {
            Ok(node) => node,
            Err(error) => return reply.send(Err(error)),
        };
        if let DeskNode::Scratch(number) = node {
            let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
            return reply.send(self.open_scratch(req, number, writes));
        }
        // One open sees one state: a claim that just ended is gone also for a caller that opens it for writing (C22).
        let state = self.view.engine.state();
        let content = match self.view.content(&node, &state, req) {
            Ok(content) => content,
            // The node is gone since the kernel looked it up. The kernel looks again, and creates it if the caller asked for that.
            Err(error) if error.errno() == libc::ENOENT => return reply.send(Err(Fault::Stale.into())),
            Err(error) => return reply.send(Err(error)),
        };
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            return self.open_to_write(req, &node, &state, content, reply);
        }
        let uid = req.uid;
        match content {
            NodeContent::Bytes(bytes) => reply.send(self.opened_document(uid, bytes)),
            NodeContent::Events => {
                let events = OpenHandle::Events(self.view.eyes(req, &state));
                reply.send(self.handles.admit(uid, 0).map(|()| self.opened(uid, events)));
            }
            NodeContent::Instructions(task) => {
                let text = self.instructions(req, &task);
                reply.send(text.and_then(|text| self.opened_document(uid, text)));
            }
            NodeContent::Withheld(task) => reply.send(Err(self.view.withheld(req, &task))),
            NodeContent::Changes(task) => {
                let diff = self.view.diff(&task, req);
                reply.send(diff.and_then(|diff| self.opened_document(uid, diff)));
            }
            NodeContent::Text(text) => {
                let source = Source::Log(text.seq);
                if let Some(known) = self.handles.shared(&source) {
                    return reply.send(self.opened_document(uid, known));
                }
                if let Err(error) = self.handles.admit(uid, text.size as usize) {
                    return reply.send(Err(error));
                }
                let core = self.clone();
                self.view.engine.read_text(text.seq, move |text| {
                    let text = there(text).map(|text| core.handles.share(source, text));
                    reply.send(text.and_then(|text| core.opened_document(uid, text)));
                });
            }
        }
    }

    /// Opens a document for reading. A text that is open already costs the user only the handle.
    fn opened_document(&self, uid: u32, text: Arc<[u8]>) -> Result<Opened> {
        let mine = if Arc::strong_count(&text) > 1 { 0 } else { text.len() };
        self.handles.admit(uid, mine)?;
        Ok(self.opened(uid, OpenHandle::Document(text)))
    }

    pub(super) fn opened_draft(&self, caller: &Arc<Caller>, of: Subject, text: Vec<u8>) -> Opened {
        let fh = self.handles.insert_draft(caller, of, text);
        Opened { fh, direct_io: true, no_flush: false }
    }

    fn instructions(&self, req: &Request, task: &TaskId) -> Result<Arc<[u8]>> {
        use rustix::fs::{Mode, OFlags, openat};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(self.view.publisher.directory(), file_of(task), flags, Mode::empty())?;
        self.view.may_read(req, task, &file)?;
        let text = crate::fs::files::read_from(&file, 0, INSTRUCTIONS_BYTES as u32)?;
        Ok(self.handles.share(Source::File(task.clone()), text))
    }

    /// Opens a node for writing: only a task that the caller holds or has finished itself (C22, C24).
    fn open_to_write(
        self: &Arc<DeskCore>,
        req: &Request,
        node: &DeskNode,
        state: &State,
        content: NodeContent,
        reply: Reply<Opened>,
    ) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        let right = match write_access(node, &caller, state) {
            Ok(right) => right,
            Err(error) => return reply.send(Err(self.refused(&caller, error))),
        };
        if let Err(error) = self.handles.admit(req.uid, RESULT_BYTES) {
            return reply.send(Err(self.refused(&caller, error)));
        }
        // Few programs notice a refusal at close, so it comes at open. The first result is never refused (C35).
        let first =
            matches!((&right, &content), (WriteAccess::Draft(Subject::Result(..)), NodeContent::Bytes(_)));
        if matches!(right, WriteAccess::Draft(_))
            && !first
            && let Err(refusal) = self.view.engine.spend(&Payer::from(&caller.actor), 0)
        {
            return reply.send(Err(self.refused(&caller, refusal.into())));
        }
        let shown = match &content {
            NodeContent::Bytes(bytes) => bytes.clone(),
            NodeContent::Withheld(task) => {
                return reply.send(Err(self.view.withheld(req, task)));
            }
            NodeContent::Text(_)
            | NodeContent::Instructions(_)
            | NodeContent::Changes(_)
            | NodeContent::Events => Arc::default(),
        };
        match (right, content) {
            (WriteAccess::Nothing, _) => reply.send(Ok(self.opened(req.uid, OpenHandle::Document(shown)))),
            (WriteAccess::Note(task, epoch), _) => {
                let claim = Ticket::known(Outcome::Claimed { task, epoch });
                reply.send(Ok(self.opened(req.uid, note(claim, &caller, shown))));
            }
            (WriteAccess::Draft(of), NodeContent::Text(text)) => {
                let core = self.clone();
                self.view.engine.read_text(text.seq, move |text| {
                    reply.send(there(text).map(|text| core.opened_draft(&caller, of, text)));
                });
            }
            (WriteAccess::Draft(of), _) => reply.send(Ok(self.opened_draft(&caller, of, shown.to_vec()))),
        }
    }
}

/// A text from the log. A text that was overwritten meanwhile is stale, so that the kernel looks the newer one up.
fn there(text: std::result::Result<Option<Vec<u8>>, LogError>) -> Result<Vec<u8>> {
    text?.ok_or(FsError::Plain(Fault::Stale))
}

/// The handle of a progress note.
pub(super) fn note(claim: Ticket, caller: &Arc<Caller>, shown: Arc<[u8]>) -> OpenHandle {
    OpenHandle::Note(Mutex::new(NoteHandle { claim, caller: caller.clone(), shown, written: Vec::new() }))
}
