//! Changes of synthesized nodes: a request becomes a command, and the outcome of the command becomes the answer.
//!
//! May assume: the table knows what a request means, and the queue decides whether it may happen.
//! Must never: answer before the engine does.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::super::identity::callers::Caller;
use super::super::identity::process_watch::LiveProcess;
use super::super::{
    Attr, Entry, Fault, FileKind, FsError, Ino, NewMode, Opened, Reply, Request, Result, SetAttr, Timestamp,
};
use super::handles::{NoteHandle, OpenHandle, Source, Subject, slice};
use super::misuse::Misuse;
use super::nodes::{CreatedNode, DeskDirectory, DeskNode, WorkerFile, is_synthesized};
use super::private::hide_texts;
use super::show::{NodeContent, Shown};
use super::{DeskCore, NO_TIME, show, table};
use crate::engine::{Failure, Ticket};
use crate::limits::{INSTRUCTIONS_BYTES, RESULT_BYTES};
use crate::log::LogError;
use crate::queue::{ClaimFate, ClaimForm, Command, Outcome, Payer, Refusal, Seq, Standing, State, TaskId};

/// The answer to a call on a name that belongs to crewfs.
pub(super) fn ours<T>() -> Result<T> {
    Err(Misuse::OurName.into())
}

impl DeskCore {
    /// The synthesized node that a name stands for, whether or not it exists; `None` for an ordinary file.
    pub(super) fn being_made(&self, parent: Ino, name: &OsStr) -> Option<DeskNode> {
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
    pub(super) fn changer(&self, req: &Request) -> Result<Arc<Caller>> {
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

    /// Makes a node by a call that has no second request (`mkdir`, `mknod`): the answer comes when the outcome is on disk.
    pub(super) fn make_durably(
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

    fn fulfil(
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
    pub(super) fn fresh(&self, kind: FileKind, ticket: Option<Ticket>) -> Entry {
        let (number, at) = (self.made.fetch_add(1, Ordering::Relaxed), (self.view.engine.clock())().wall);
        let made = CreatedNode { number, kind, at, ticket };
        let shown = Shown { kind, perm: 0o666, size: 0, mtime: show::at(at), uid: None, gid: None };
        let attr = self.view.dress(self.view.nodes.refer(&DeskNode::Made(made)), &shown);
        Entry { attr, entry_ttl: NO_TIME, attr_ttl: NO_TIME }
    }

    /// The new node with this number, if there is one.
    pub(super) fn made(&self, ino: Ino) -> Option<CreatedNode> {
        match self.view.nodes.get(ino) {
            Ok(DeskNode::Made(made)) if is_synthesized(ino) => Some(made),
            _ => None,
        }
    }

    /// The attributes of a new node, when it is on disk. `open(2)` does not return before this answer.
    pub(super) fn safe(self: &Arc<DeskCore>, ino: Ino, made: CreatedNode, reply: Reply<(Attr, Duration)>) {
        let shown =
            Shown { kind: made.kind, perm: 0o666, size: 0, mtime: show::at(made.at), uid: None, gid: None };
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
    pub(super) fn create_synthesized(
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

    pub(super) fn opened(&self, uid: u32, handle: OpenHandle) -> Opened {
        // A draft is put on disk at close, a note at each write.
        Opened { fh: self.handles.insert(uid, handle), direct_io: true, no_flush: true }
    }

    fn opened_draft(&self, caller: &Arc<Caller>, of: Subject, text: Vec<u8>) -> Opened {
        let fh = self.handles.insert_draft(caller, of, text);
        Opened { fh, direct_io: true, no_flush: false }
    }

    pub(super) fn link_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        ino: Ino,
        to: DeskNode,
        reply: Reply<Entry>,
    ) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        let state = self.view.engine.state();
        let wished = self.view.nodes.get(ino).and_then(|from| {
            Ok((
                table::moving(&from, &to, &caller, (&state, self.view.eyes(req, &state)), true)?,
                from.kind(),
            ))
        });
        match wished {
            // The answer must have the kind of the linked node.
            Ok((command, kind)) => self.fulfil(caller, command, kind, reply),
            Err(error) => reply.send(Err(self.refused(&caller, error))),
        }
    }

    /// An ordinary file is moved or linked onto a synthesized name. For the caller that is another filesystem, so it copies the file. A
    /// claim of another worker is refused at once, before the caller removes it to make room.
    pub(super) fn brought_in<T>(&self, req: &Request, to: &DeskNode, reply: Reply<T>) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        let error = match table::held_by_another(&self.view.engine.state(), &caller, to) {
            Ok(()) => FsError::Plain(Fault::OtherFilesystem),
            Err(held) => self.refused(&caller, held),
        };
        reply.send(Err(error));
    }

    pub(super) fn unlink_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        node: DeskNode,
        reply: Reply<()>,
    ) {
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        if self.view.scratches.at(parent, name).is_some() {
            return reply.send(self.unlink_scratch(req, &caller, (parent, name)));
        }
        match table::removing(&node, &caller, &self.view.engine.state()) {
            Ok(command) => self.command(caller, command, reply),
            Err(error) => reply.send(Err(self.refused(&caller, error))),
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
    pub(super) fn before(&self, caller: &Caller, command: &Command) -> Result<Option<LiveProcess>> {
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

    pub(super) fn rename_synthesized(
        self: &Arc<DeskCore>,
        req: &Request,
        from: (Ino, &OsStr, DeskNode),
        to: (Ino, &OsStr, DeskNode),
        flags: u32,
        reply: Reply<()>,
    ) {
        if flags & !libc::RENAME_NOREPLACE != 0 {
            return reply.send(Err(Fault::Invalid.into()));
        }
        let exclusive = flags & libc::RENAME_NOREPLACE != 0;
        let Some((caller, reply)) = self.begin(req, reply) else { return };
        if self.view.scratches.at(from.0, from.1).is_some() {
            return self.rename_scratch(req, caller, (from.0, from.1), to, exclusive, reply);
        }
        let state = self.view.engine.state();
        match table::moving(&from.2, &to.2, &caller, (&state, self.view.eyes(req, &state)), exclusive) {
            Ok(command) => self.command(caller, command, reply),
            Err(error) => reply.send(Err(self.refused(&caller, error))),
        }
    }

    pub(super) fn open_synthesized(
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

    fn instructions(&self, req: &Request, task: &TaskId) -> Result<Arc<[u8]>> {
        use rustix::fs::{Mode, OFlags, openat};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(self.view.publisher.directory(), table::file_of(task), flags, Mode::empty())?;
        self.view.may_read(req, task, &file)?;
        let text = super::super::files::read_from(&file, 0, INSTRUCTIONS_BYTES as u32)?;
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
        let right = match right_to_write(node, &caller, state) {
            Ok(right) => right,
            Err(error) => return reply.send(Err(self.refused(&caller, error))),
        };
        if let Err(error) = self.handles.admit(req.uid, RESULT_BYTES) {
            return reply.send(Err(self.refused(&caller, error)));
        }
        // Few programs notice a refusal at close, so it comes at open. The first result is never refused (C35).
        let first = matches!((&right, &content), (Right::Draft(Subject::Result(..)), NodeContent::Bytes(_)));
        if matches!(right, Right::Draft(_))
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
            NodeContent::Text(_) | NodeContent::Instructions(_) | NodeContent::Events => Arc::default(),
        };
        match (right, content) {
            (Right::Nothing, _) => reply.send(Ok(self.opened(req.uid, OpenHandle::Document(shown)))),
            (Right::Note(task, epoch), _) => {
                let claim = Ticket::known(Outcome::Claimed { task, epoch });
                reply.send(Ok(self.opened(req.uid, note(claim, &caller, shown))));
            }
            (Right::Draft(of), NodeContent::Text(text)) => {
                let core = self.clone();
                self.view.engine.read_text(text.seq, move |text| {
                    reply.send(there(text).map(|text| core.opened_draft(&caller, of, text)));
                });
            }
            (Right::Draft(of), _) => reply.send(Ok(self.opened_draft(&caller, of, shown.to_vec()))),
        }
    }

    /// The attributes of a node for a process that has it open.
    pub(super) fn attr_of_open(
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

    pub(super) fn read_synthesized(
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

    pub(super) fn write_synthesized(
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
    pub(super) fn flush_draft(self: &Arc<DeskCore>, handle: Arc<OpenHandle>, reply: Reply<()>) {
        match &*handle {
            OpenHandle::Draft(_, draft) if std::mem::take(&mut draft.lock().emptied) => reply.send(Ok(())),
            _ => self.keep_draft(handle, reply),
        }
    }

    /// Puts a draft on disk, if it is not there yet.
    pub(super) fn keep_draft(self: &Arc<DeskCore>, handle: Arc<OpenHandle>, reply: Reply<()>) {
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

    pub(super) fn set_synthesized(
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
            (_, Some(OpenHandle::Draft(_, draft))) => Right::Draft(draft.lock().of.clone()),
            (DeskNode::Made(_), _) => Right::Nothing,
            _ => match right_to_write(&node, &caller, &self.view.engine.state()) {
                Ok(right) => right,
                Err(error) => return reply.send(Err(self.refused(&caller, error))),
            },
        };
        match (right, change.size, open.as_deref()) {
            (Right::Draft(_), Some(size), Some(OpenHandle::Draft(_, draft))) => {
                if let Err(error) = draft.lock().resize(size) {
                    return reply.send(Err(error));
                }
            }
            // `open(O_TRUNC)` comes like this, after its OPEN. The truncation goes to the disk together with the new text: a full disk
            // that took only the truncation would lose the result.
            (Right::Draft(of), Some(0), _) => match self.handles.draft(&of) {
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
            (Right::Draft(_), Some(_), _) => return reply.send(Err(Fault::Invalid.into())),
            // Times, modes and owners of a node that the caller may write stay as they are; `touch` must succeed.
            _ => {}
        }
        reply.send(self.attr_of_open(ino, &node, open.as_deref(), req).map(|attr| (attr, NO_TIME)));
    }
}

/// A text from the log. A text that was overwritten meanwhile is stale, so that the kernel looks the newer one up.
fn there(text: std::result::Result<Option<Vec<u8>>, LogError>) -> Result<Vec<u8>> {
    text?.ok_or(FsError::Plain(Fault::Stale))
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

/// What a caller may write to a node.
enum Right {
    /// Anything; it has no effect.
    Nothing,
    /// The progress note of this claim.
    Note(TaskId, Seq),
    /// A text that the queue keeps.
    Draft(Subject),
}

/// What the caller may write to a node, if anything.
fn right_to_write(node: &DeskNode, caller: &Caller, state: &State) -> Result<Right> {
    let id = match node {
        DeskNode::Task(DeskDirectory::Claim | DeskDirectory::Completed | DeskDirectory::Failed, id) => {
            id.clone()
        }
        DeskNode::ClaimNext => table::current_claim(state, caller).ok_or(Fault::Absent)?,
        DeskNode::WorkerFile(worker, WorkerFile::Note) => table::noted_claim(worker, state, caller)?,
        DeskNode::Paused | DeskNode::WorkerFile(_, WorkerFile::Drain) => return Ok(Right::Nothing),
        DeskNode::WorkerFile(worker, WorkerFile::Capabilities) => {
            table::may_equip(worker, caller)?;
            return Ok(Right::Draft(Subject::Capabilities(worker.clone())));
        }
        _ => return Err(Misuse::NotWritable.into()),
    };
    let task = state.task(id.as_str()).ok_or(Fault::Absent)?;
    let me = &caller.actor.worker;
    if let Some(claim) = task.claim() {
        if claim.worker == *me || caller.actor.operator {
            return Ok(Right::Note(id, claim.epoch()));
        }
        let (holder, since) = (claim.worker.clone(), claim.since);
        return Err(Refusal::Held { task: id, holder, since }.into());
    }
    match task.finish() {
        Some(finish) if finish.worker.as_ref() == Some(me) || caller.actor.operator => {
            let finish = Ticket::known(Outcome::Finished { finish: finish.when.seq });
            Ok(Right::Draft(Subject::Result(id, finish)))
        }
        _ => {
            let fate = ClaimFate { ended: None, now: Standing::Is(state.state_of(task)) };
            Err(Refusal::NotHolder { task: id, fate }.into())
        }
    }
}

fn note(claim: Ticket, caller: &Arc<Caller>, shown: Arc<[u8]>) -> OpenHandle {
    OpenHandle::Note(Mutex::new(NoteHandle { claim, caller: caller.clone(), shown, written: Vec::new() }))
}
