//! New synthesized nodes: claims and finished tasks by open(O_CREAT), mkdir(2) and mknod(2).
//!
//! Must never: answer a CREATE with a node whose attributes are cached: the kernel would not ask whether it is on disk.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::open::note;
use crate::engine::{Failure, Ticket};
use crate::fs::desk::attributes::Shown;
use crate::fs::desk::handles::{OpenHandle, Subject};
use crate::fs::desk::nodes::{CreatedNode, DeskNode, is_synthesized};
use crate::fs::desk::{DeskCore, NO_TIME};
use crate::fs::identity::callers::Caller;
use crate::fs::{Attr, Entry, FileKind, FsError, Ino, NewMode, Opened, Reply, Request};
use crate::limits::RESULT_BYTES;
use crate::queue::{ClaimForm, Command, Outcome};

impl DeskCore {
    /// Makes a node by a call that has no second request (`mkdir`, `mknod`): the answer comes when the outcome is on disk.
    pub(in crate::fs::desk) fn make_durably(
        self: &Arc<DeskCore>,
        req: &Request,
        node: DeskNode,
        kind: FileKind,
        reply: Reply<Entry>,
    ) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        match self.wished(req, &node, &caller, ClaimForm::Exclusive) {
            Ok(command) => self.fulfil(caller, command, kind, reply),
            Err(error) => reply.send(Err(self.refused(&caller, error))),
        }
    }

    pub(super) fn fulfil(
        self: &Arc<DeskCore>,
        caller: Arc<Caller>,
        command: Command,
        kind: FileKind,
        reply: Reply<Entry>,
    ) {
        let core = self.clone();
        self.command(caller, command, Reply::from(reply, move |()| core.fresh(kind, None)));
    }

    /// A new node for what its caller made: an empty file or directory. Its name leads to the entry of the task.
    pub(in crate::fs::desk) fn fresh(&self, kind: FileKind, ticket: Option<Ticket>) -> Entry {
        let (number, at) = (self.made.fetch_add(1, Ordering::Relaxed), (self.view.engine.clock())().wall);
        let made = CreatedNode { number, kind, at, ticket };
        let shown = Shown::new_node(kind, at);
        let attr = self.view.dress(self.view.nodes.refer(&DeskNode::Made(made)), &shown);
        Entry { attr, entry_ttl: NO_TIME, attr_ttl: NO_TIME }
    }

    /// The new node with this number, if there is one.
    pub(in crate::fs::desk) fn made(&self, ino: Ino) -> Option<CreatedNode> {
        match self.view.nodes.get(ino) {
            Ok(DeskNode::Made(made)) if is_synthesized(ino) => Some(made),
            _ => None,
        }
    }

    /// The attributes of a new node, when it is on disk. `open(2)` does not return before this answer.
    pub(in crate::fs::desk) fn safe(
        self: &Arc<DeskCore>,
        ino: Ino,
        made: CreatedNode,
        reply: Reply<(Attr, Duration)>,
    ) {
        let shown = Shown::new_node(made.kind, made.at);
        let attr = self.view.dress(ino, &shown);
        match made.ticket {
            None => reply.send(Ok((attr, NO_TIME))),
            Some(ticket) => ticket.on_durable(move |outcome| {
                reply.send(outcome.map(|_| (attr, NO_TIME)).map_err(FsError::from));
            }),
        }
    }

    /// `open(O_CREAT)`. The kernel holds the directory's lock until this is answered, and asks for the attributes afterwards. So this
    /// answers as soon as the command is decided, and [`DeskCore::safe`] answers when it is on disk.
    pub(in crate::fs::desk) fn create_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        (parent, name): (Ino, &OsStr),
        node: DeskNode,
        (mode, flags): (NewMode, i32),
        reply: Reply<(Entry, Opened)>,
    ) {
        let form = form_of(flags);
        if self.is_scratch(parent, name, &node, form == ClaimForm::Exclusive) {
            return reply.send(self.create_scratch(req, (parent, name), mode));
        }
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        let room = self.handles.admit(req.uid, RESULT_BYTES);
        let submitted = room.and_then(|()| self.wished(req, &node, &caller, form)).and_then(|command| {
            let process = self.before(&caller, &command)?;
            Ok((self.view.engine.submit(command), process))
        });
        let (ticket, process) = match submitted {
            Ok(submitted) => submitted,
            Err(error) => return reply.send(Err(self.refused(&caller, error))),
        };
        let (core, claimer) = (self.clone(), caller.clone());
        ticket.on_durable(move |outcome| core.after(&claimer, process, outcome.as_ref().ok()));
        let (core, uid, made) = (self.clone(), req.uid, ticket.clone());
        let answer = move |decided: std::result::Result<Outcome, Failure>| {
            reply.send(match decided {
                Err(failure) => Err(core.refused(&caller, failure.into())),
                Ok(outcome) => {
                    let opened = match (outcome, node) {
                        (Outcome::Claimed { .. }, _) => {
                            core.opened(uid, note(made.clone(), &caller, Arc::default()))
                        }
                        (Outcome::Finished { .. }, DeskNode::Task(_, task)) => {
                            core.opened_draft(&caller, Subject::Result(task, made.clone()), Vec::new())
                        }
                        _ => core.opened(uid, OpenHandle::Document(Arc::default())),
                    };
                    Ok((core.fresh(FileKind::File, Some(made)), opened))
                }
            });
        };
        match ticket.decided() {
            Some(decided) if !self.create_probe.create_waits() => answer(decided),
            // Or the log does not work: it is decided when it does.
            _ => ticket.on_durable(answer),
        }
    }
}

/// How an `open(O_CREAT)` with these flags asks for a claim. A shell's `>` and `>>` open a file to write a text, `touch` does not.
fn form_of(flags: i32) -> ClaimForm {
    if flags & libc::O_EXCL != 0 {
        ClaimForm::Exclusive
    } else if flags & (libc::O_TRUNC | libc::O_APPEND) != 0 {
        ClaimForm::Text
    } else {
        ClaimForm::Any
    }
}
