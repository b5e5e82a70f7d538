//! Reads and writes through an open handle of a synthesized node, and what its close puts on disk.
//!
//! Must never: acknowledge a close before the text is on disk.

use std::sync::Arc;
use std::time::Duration;

use super::write_access::{WriteAccess, write_access};
use crate::fs::desk::attributes::Shown;
use crate::fs::desk::handles::{OpenHandle, slice};
use crate::fs::desk::nodes::DeskNode;
use crate::fs::desk::private::hide_texts;
use crate::fs::desk::{DeskCore, NO_TIME, table};
use crate::fs::{Attr, Fault, FileKind, FsError, Ino, Reply, Request, Result, SetAttr, Timestamp};
use crate::queue::Command;

impl DeskCore {
    /// The attributes of a node for a process that has it open.
    pub(in crate::fs::desk) fn attr_of_open(
        &self,
        ino: Ino,
        node: &DeskNode,
        open: Option<&OpenHandle>,
        req: &Request,
    ) -> Result<Attr> {
        let shown = self.view.show(node, req);
        let size = match open {
            Some(OpenHandle::Document(bytes)) => bytes.len() as u64,
            Some(OpenHandle::Note(note)) => note.lock().shown.len() as u64,
            Some(OpenHandle::Draft(_, draft)) => draft.lock().text.len() as u64,
            _ => return Ok(self.view.dress(ino, &shown?)),
        };
        // An open file stays readable when its name is gone.
        let mut shown = shown.unwrap_or(Shown {
            kind: FileKind::File,
            perm: 0o444,
            size,
            mtime: Timestamp::default(),
            uid: None,
            gid: None,
        });
        shown.size = size;
        Ok(self.view.dress(ino, &shown))
    }

    pub(in crate::fs::desk) fn read_synthesized(
        &self,
        handle: &OpenHandle,
        offset: u64,
        size: u32,
        reply: Reply<Vec<u8>>,
    ) {
        let read = match handle {
            OpenHandle::Document(bytes) => Ok(slice(bytes, offset, size)),
            OpenHandle::Note(note) => Ok(slice(&note.lock().shown, offset, size)),
            OpenHandle::Draft(_, draft) => Ok(slice(&draft.lock().text, offset, size)),
            OpenHandle::Scratch(number) => self.view.scratches.read(*number, offset, size),
            OpenHandle::Events(eyes) => {
                let (engine, eyes) = (self.view.engine.clone(), eyes.clone());
                let show = move |lines: &mut [u8]| hide_texts(lines, &engine.state(), &eyes);
                return self.view.engine.read_events(offset, size as usize, show, |bytes| {
                    reply.send(bytes.map_err(FsError::from));
                });
            }
            OpenHandle::Plain(_) | OpenHandle::Listing(_) => Err(Fault::NoHandle.into()),
        };
        reply.send(read);
    }

    pub(in crate::fs::desk) fn write_synthesized(
        self: &Arc<DeskCore>,
        handle: &OpenHandle,
        offset: u64,
        data: &[u8],
        flags: i32,
        reply: Reply<u32>,
    ) {
        let (written, append) = (data.len() as u32, flags & libc::O_APPEND != 0);
        let done = match handle {
            OpenHandle::Note(note) => {
                let mut note = note.lock();
                let caller = note.caller.clone();
                let command = note.add(data).and_then(|text| {
                    let (task, epoch) = note.claim.claim().ok_or(Fault::NoHandle)?;
                    let (by, text) = (caller.actor.clone(), text.trim_end().to_string());
                    Ok(Command::Note { task, epoch, by, text })
                });
                match command {
                    Ok(command) => {
                        let answered = Reply::new(move |done: Result<()>| reply.send(done.map(|()| written)));
                        return self.submit(caller, None, command, answered);
                    }
                    Err(error) => Err(error),
                }
            }
            OpenHandle::Draft(_, draft) => draft.lock().write(offset, data, append),
            OpenHandle::Scratch(number) => {
                let at = (self.view.engine.clock())().wall;
                self.view.scratches.write(*number, offset, data, append, at)
            }
            OpenHandle::Document(_) => Ok(()),
            OpenHandle::Events(_) | OpenHandle::Plain(_) | OpenHandle::Listing(_) => {
                Err(Fault::NoHandle.into())
            }
        };
        reply.send(done.map(|()| written));
    }

    /// One descriptor of a draft is closed. A shell's `>` closes one before it writes the first byte. So a draft that was only truncated
    /// is put on disk by the next close.
    pub(in crate::fs::desk) fn flush_draft(self: &Arc<DeskCore>, handle: Arc<OpenHandle>, reply: Reply<()>) {
        match &*handle {
            OpenHandle::Draft(_, draft) if std::mem::take(&mut draft.lock().emptied) => reply.send(Ok(())),
            _ => self.keep_draft(handle, reply),
        }
    }

    /// Puts a draft on disk, if it is not there yet.
    pub(in crate::fs::desk) fn keep_draft(self: &Arc<DeskCore>, handle: Arc<OpenHandle>, reply: Reply<()>) {
        let (caller, command) = match &*handle {
            OpenHandle::Draft(caller, draft) => {
                let mut draft = draft.lock();
                if !std::mem::take(&mut draft.dirty) {
                    return reply.send(Ok(()));
                }
                match table::writing(&draft.of, &draft.text, caller) {
                    Ok(command) => (caller.clone(), command),
                    Err(error) => return reply.send(Err(self.refused(caller, error))),
                }
            }
            _ => return reply.send(Ok(())),
        };
        let core = self.clone();
        self.view.engine.submit(command).on_durable(move |outcome| {
            let outcome = core.answer(&caller, outcome);
            if let (Err(error), OpenHandle::Draft(_, draft)) = (&outcome, &*handle) {
                // The next close tries again if the disk did not take the text. A refused text stays refused.
                draft.lock().dirty = matches!(error, FsError::Engine(_));
            }
            reply.send(outcome.map(|_| ()));
        });
    }

    pub(in crate::fs::desk) fn set_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        ino: Ino,
        fh: Option<u64>,
        change: &SetAttr,
        reply: Reply<(Attr, Duration)>,
    ) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        let node = match self.view.nodes.get(ino) {
            Ok(node) => node,
            Err(error) => return reply.send(Err(error)),
        };
        if let DeskNode::Scratch(number) = node {
            let set = self.set_scratch(req, &caller, ino, number, change);
            return reply.send(set.map(|attr| (attr, NO_TIME)));
        }
        let open = fh.and_then(|fh| self.handles.get(fh).ok());
        let right = match (&node, open.as_deref()) {
            (_, Some(OpenHandle::Draft(_, draft))) => WriteAccess::Draft(draft.lock().of.clone()),
            (DeskNode::Made(_), _) => WriteAccess::Nothing,
            _ => match write_access(&node, &caller, &self.view.engine.state()) {
                Ok(right) => right,
                Err(error) => return reply.send(Err(self.refused(&caller, error))),
            },
        };
        match (right, change.size, open.as_deref()) {
            (WriteAccess::Draft(_), Some(size), Some(OpenHandle::Draft(_, draft))) => {
                if let Err(error) = draft.lock().resize(size) {
                    return reply.send(Err(error));
                }
            }
            // `open(O_TRUNC)` comes like this, after its OPEN. The truncation goes to the disk together with the new text: a full disk
            // that took only the truncation would lose the result.
            (WriteAccess::Draft(of), Some(0), _) => match self.handles.draft(&of) {
                Some(draft) => {
                    let mut draft = draft.lock();
                    draft.empty();
                }
                None => {
                    let command = match table::writing(&of, &[], &caller) {
                        Ok(command) => command,
                        Err(error) => return reply.send(Err(self.refused(&caller, error))),
                    };
                    let (core, req) = (self.clone(), *req);
                    let emptied = Reply::new(move |done: Result<()>| {
                        reply.send(done.and_then(|()| Ok((core.view.attr(ino, &node, &req)?, NO_TIME))));
                    });
                    return self.submit(caller, None, command, emptied);
                }
            },
            (WriteAccess::Draft(_), Some(_), _) => return reply.send(Err(Fault::Invalid.into())),
            // Times, modes and owners of a node that the caller may write stay as they are; `touch` must succeed.
            _ => {}
        }
        reply.send(self.attr_of_open(ino, &node, open.as_deref(), req).map(|attr| (attr, NO_TIME)));
    }
}
