//! Requests on temporary files that editors make in `completed/` and `failed/` (C25).
//!
//! Must never: let one user change the temporary file of another.

use std::ffi::OsStr;
use std::sync::Arc;

use super::ours;
use crate::fs::desk::handles::OpenHandle;
use crate::fs::desk::misuse::Misuse;
use crate::fs::desk::nodes::{DeskDirectory, DeskNode};
use crate::fs::desk::{DeskCore, table};
use crate::fs::identity::callers::Caller;
use crate::fs::{Attr, Entry, Fault, FsError, Ino, NewMode, Opened, Reply, Request, Result, SetAttr};
use crate::limits::RESULT_BYTES;
use crate::queue::{Content, Ending};

impl DeskCore {
    /// Whether a name is that of a temporary file. `exclusive`: the caller opens it with O_EXCL.
    pub(in crate::fs::desk) fn is_scratch(
        &self,
        parent: Ino,
        name: &OsStr,
        node: &DeskNode,
        exclusive: bool,
    ) -> bool {
        let finished = DeskNode::Directory(DeskDirectory::Completed);
        let failed = DeskNode::Directory(DeskDirectory::Failed);
        let a_task = match node {
            DeskNode::Task(_, id) => self.view.engine.state().task(id.as_str()).is_some(),
            _ => false,
        };
        !a_task
            && table::is_scratch(name, exclusive)
            && self.view.nodes.get(parent).is_ok_and(|dir| dir == finished || dir == failed)
    }

    /// Refuses to change or remove a temporary file of another user. Operators and root may change any.
    fn may_change_scratch(&self, req: &Request, caller: &Caller, number: u64) -> Result<()> {
        let file = self.view.scratches.stat(number)?;
        if file.uid == req.uid || req.uid == 0 || caller.actor.operator {
            return Ok(());
        }
        Err(self.refused(caller, Misuse::ScratchOfAnother { uid: file.uid }.into()))
    }

    /// `place` has no file; the kernel has checked that.
    pub(in crate::fs::desk) fn create_scratch(
        &self,
        req: &Request,
        place: (Ino, &OsStr),
        mode: NewMode,
    ) -> Result<(Entry, Opened)> {
        let caller = self.changer(req)?;
        if let Some(number) = self.view.scratches.at(place.0, place.1) {
            self.may_change_scratch(req, &caller, number)?;
        }
        self.handles.admit(req.uid, 0)?;
        let (mode, at) = ((mode.mode & 0o777 & !mode.umask) as u16, (self.view.engine.clock())().wall);
        let number = self.view.scratches.create(place, req, mode, at);
        let number = number.map_err(|error| self.refused(&caller, error))?;
        Ok((self.entry(&DeskNode::Scratch(number), req)?, self.opened(req.uid, OpenHandle::Scratch(number))))
    }

    pub(in crate::fs::desk) fn open_scratch(
        &self,
        req: &Request,
        number: u64,
        writes: bool,
    ) -> Result<Opened> {
        if writes {
            let caller = self.changer(req)?;
            self.may_change_scratch(req, &caller, number)?;
        }
        self.handles.admit(req.uid, 0)?;
        self.view.scratches.opened(number)?;
        Ok(self.opened(req.uid, OpenHandle::Scratch(number)))
    }

    pub(in crate::fs::desk) fn set_scratch(
        &self,
        req: &Request,
        caller: &Caller,
        ino: Ino,
        number: u64,
        change: &SetAttr,
    ) -> Result<Attr> {
        self.may_change_scratch(req, caller, number)?;
        if let Some(size) = change.size {
            self.view.scratches.resize(number, size)?;
        }
        if let Some(mode) = change.mode {
            self.view.scratches.set_mode(number, mode)?;
        }
        self.view.attr(ino, &DeskNode::Scratch(number), req)
    }

    pub(in crate::fs::desk) fn unlink_scratch(
        &self,
        req: &Request,
        caller: &Caller,
        place: (Ino, &OsStr),
    ) -> Result<()> {
        let number = self.view.scratches.at(place.0, place.1).ok_or(Fault::Absent)?;
        self.may_change_scratch(req, caller, number)?;
        self.view.scratches.remove(place.0, place.1)
    }

    /// The rename that saves a file: it becomes the result in the same step that ends the task (C25).
    pub(in crate::fs::desk) fn rename_scratch(
        self: &Arc<DeskCore>,
        req: &Request,
        caller: Arc<Caller>,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr, DeskNode),
        exclusive: bool,
        reply: Reply<()>,
    ) {
        let replaced = self.view.scratches.at(to.0, to.1);
        let mine =
            self.view.scratches.at(from.0, from.1).ok_or(FsError::from(Fault::Absent)).and_then(|number| {
                self.may_change_scratch(req, &caller, number)?;
                replaced.map_or(Ok(()), |replaced| self.may_change_scratch(req, &caller, replaced))?;
                Ok(number)
            });
        let number = match mine {
            Ok(number) => number,
            Err(error) => return reply.send(Err(error)),
        };
        if self.is_scratch(to.0, to.1, &to.2, exclusive) {
            return reply.send(self.view.scratches.rename(from, (to.0, to.1)));
        }
        let (task, ending) = match &to.2 {
            DeskNode::Task(DeskDirectory::Completed, task) => (task, Ending::Completed),
            DeskNode::Task(DeskDirectory::Failed, task) => (task, Ending::Failed),
            _ => return reply.send(ours()),
        };
        let content = match self.view.scratches.read(number, 0, RESULT_BYTES as u32) {
            Ok(content) => content,
            Err(error) => return reply.send(Err(error)),
        };
        let command = table::finishing(task, &caller, ending, Some(Content::new(content)), exclusive);
        if let Err(error) = self.before(&caller, &command) {
            return reply.send(Err(self.refused(&caller, error)));
        }
        let (core, place) = (self.clone(), (from.0, from.1.to_os_string()));
        self.view.engine.submit(command).on_durable(move |outcome| {
            let outcome = core.answer(&caller, outcome);
            if outcome.is_ok() {
                let _ = core.view.scratches.remove(place.0, &place.1);
            }
            reply.send(outcome.map(|_| ()));
        });
    }
}
