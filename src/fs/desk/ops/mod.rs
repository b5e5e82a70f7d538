//! Requests on synthesized nodes: a request becomes a command, and the outcome of the command becomes the answer.
//!
//! May assume: [`super::table`] knows what a request means, and the queue decides whether it may happen.
//! Must never: answer before the engine does.
//!
//! One file for each kind of request: [`create`] for new nodes, [`open`], [`write`] for reads and writes through a handle, and [`rename`]
//! for names. [`scratch`] has the same for temporary files of editors. This file has what they share.

mod create;
mod open;
mod rename;
mod scratch;
mod write;
mod write_access;

use std::ffi::OsStr;
use std::sync::Arc;

use super::handles::OpenHandle;
use super::misuse::Misuse;
use super::nodes::{DeskNode, is_synthesized};
use super::{DeskCore, table};
use crate::fs::identity::callers::Caller;
use crate::fs::identity::process_watch::LiveProcess;
use crate::fs::{Ino, Opened, Reply, Request, Result};
use crate::queue::{ClaimForm, Command, Outcome, Refusal};

/// The answer to a call on a name that belongs to crewfs.
pub(in crate::fs::desk) fn ours<T>() -> Result<T> {
    Err(Misuse::OurName.into())
}

impl DeskCore {
    /// The synthesized node that a name stands for, whether or not it exists; `None` for an ordinary file.
    pub(in crate::fs::desk) fn being_made(&self, parent: Ino, name: &OsStr) -> Option<DeskNode> {
        if !is_synthesized(parent) {
            return self.synthesized_at(parent, name);
        }
        let node = self.view.nodes.get(parent).ok().and_then(|dir| table::in_directory(&dir, name));
        Some(node.unwrap_or(DeskNode::Nothing))
    }

    /// The caller of a change of the queue. Publishes everything that was written before.
    fn begin<T>(&self, req: &Request, reply: Reply<T>) -> Option<(Arc<Caller>, Reply<T>)> {
        self.view.settle(req);
        match self.changer(req) {
            Ok(caller) => Some((caller, reply)),
            Err(error) => {
                self.view.callers.refused_unknown(req, &error);
                reply.send(Err(error));
                None
            }
        }
    }

    /// The caller of a change of the queue, if it may change the queue (C17).
    pub(in crate::fs::desk) fn changer(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = self.view.caller(req)?;
        match self.view.may_change(req, &caller) {
            Ok(()) => Ok(caller),
            Err(error) => Err(self.refused(&caller, error)),
        }
    }

    fn wished(&self, req: &Request, node: &DeskNode, caller: &Caller, form: ClaimForm) -> Result<Command> {
        match node {
            DeskNode::Nothing => Err(Misuse::NotAnId.into()),
            node => table::making(node, caller, form, self.view.eyes(req, &self.view.engine.state())),
        }
    }

    fn command(self: &Arc<DeskCore>, caller: Arc<Caller>, command: Command, reply: Reply<()>) {
        let process = match self.before(&caller, &command) {
            Ok(process) => process,
            Err(error) => return reply.send(Err(self.refused(&caller, error))),
        };
        self.submit(caller, process, command, reply);
    }

    fn submit(
        self: &Arc<DeskCore>,
        caller: Arc<Caller>,
        process: Option<LiveProcess>,
        command: Command,
        reply: Reply<()>,
    ) {
        let core = self.clone();
        self.view.engine.submit(command).on_durable(move |outcome| {
            core.after(&caller, process, outcome.as_ref().ok());
            reply.send(core.answer(&caller, outcome).map(|_| ()));
        });
    }

    /// Before a command is decided: for a claim, the process whose end ends it. Refuses the end of a claim if it comes from a connection
    /// that has lost the claim.
    pub(in crate::fs::desk) fn before(
        &self,
        caller: &Caller,
        command: &Command,
    ) -> Result<Option<LiveProcess>> {
        match command {
            Command::Claim { .. } | Command::ClaimNext { .. } => Ok(self.view.callers.alive(caller)),
            Command::Finish { task, .. } | Command::Release { task, .. } => {
                let state = self.view.engine.state();
                match state.task(task.as_str()).and_then(|task| self.view.callers.superseded(caller, task)) {
                    Some(fate) => Err(Refusal::NotHolder { task: task.clone(), fate }.into()),
                    None => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }

    fn after(&self, caller: &Caller, process: Option<LiveProcess>, outcome: Option<&Outcome>) {
        if let (Some(process), Some(Outcome::Claimed { epoch, .. })) = (process, outcome) {
            self.view.callers.claimed(caller, process, *epoch);
        }
    }

    pub(in crate::fs::desk) fn opened(&self, uid: u32, handle: OpenHandle) -> Opened {
        // A draft is put on disk at close, a note at each write.
        Opened { fh: self.handles.insert(uid, handle), direct_io: true, no_flush: true }
    }
}
