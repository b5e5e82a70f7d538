//! The ordinary files of the tasks directory (C4), and what changing an instruction file means for the queue.
//!
//! May assume: the kernel has checked permissions.
//! Must never: let the file and the queue differ. A removal or replacement of an instruction file is one step of the queue.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::files::{append_to, read_from, write_to};
use super::super::identity::process::leaving;
use super::super::{Attr, Entry, Ino, NewMode, Opened, ROOT, Reply, Request, Result, SetAttr};
use super::file_names::task_of;
use super::handles::{ListingLine, OpenHandle, Plain, Writing};
use super::nodes::is_synthesized;
use super::{DeskCore, NO_TIME, table};
use crate::queue::{Command, Payer, ProcessEnding, TaskId};

impl DeskCore {
    /// The task whose instructions a name in a directory holds.
    pub(super) fn task_at(&self, parent: Ino, name: &OsStr) -> Option<TaskId> {
        if parent == ROOT { task_of(name) } else { None }
    }

    /// The task whose instructions a file holds at present.
    fn task_of(&self, ino: Ino) -> Option<TaskId> {
        self.files.name_in_root(ino).and_then(|name| task_of(&name))
    }

    /// A caller is about to change the file of a task. It pays for the events that the queue will log for that (C35).
    pub(super) fn pay(&self, req: &Request, task: Option<&TaskId>) -> Result<Option<Payer>> {
        let Some(caller) = task.and_then(|_| self.view.caller(req).ok()) else { return Ok(None) };
        let payer = Payer::from(&caller.actor);
        match self.view.engine.spend(&payer, 1) {
            Ok(()) => Ok(Some(payer)),
            Err(refusal) => Err(self.refused(&caller, refusal.into())),
        }
    }

    /// A new handle of a file; `made`: the file is new, too. A handle for writing blocks the task as soon as open(2) returns.
    fn open_handle(&self, req: &Request, ino: Ino, file: Arc<OwnedFd>, writes: bool, made: bool) -> Opened {
        let writing = writes.then(|| {
            let caller = self.view.caller(req).ok();
            self.view.publisher.opened(&file, self.task_of(ino).as_ref());
            Writing {
                is_sftp: caller.as_ref().is_some_and(|caller| caller.is_sftp),
                by: caller.map(|caller| Payer::from(&caller.actor)),
                size: rustix::fs::fstat(&file).map_or(0, |stat| stat.st_size),
                wrote: AtomicBool::new(made),
                torn: AtomicBool::new(false),
            }
        });
        Opened {
            fh: self.handles.insert(req.uid, OpenHandle::Plain(Plain { file, writing })),
            ..Opened::default()
        }
    }

    pub(super) fn create_plain(
        &self,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        mode: NewMode,
        exclusive: bool,
    ) -> Result<(Entry, Opened)> {
        self.pay(req, self.task_at(parent, name).as_ref())?;
        let (attr, file) = self.files.create(req, parent, name, mode, exclusive)?;
        let opened = self.open_handle(req, attr.ino, file, true, true);
        Ok((DeskCore::plain_entry(attr), opened))
    }

    pub(super) fn open_plain(&self, req: &Request, ino: Ino, flags: i32) -> Result<Opened> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        self.pay(req, self.task_of(ino).filter(|_| writes).as_ref())?;
        let file = Arc::new(self.files.open(ino, flags)?);
        Ok(self.open_handle(req, ino, file, writes, false))
    }

    pub(super) fn read_plain(file: &Plain, offset: u64, size: u32) -> Result<Vec<u8>> {
        read_from(&file.file, offset, size)
    }

    /// `append`: at the end of the file on the disk, which the kernel may not know.
    pub(super) fn write_plain(file: &Plain, offset: u64, data: &[u8], append: bool) -> Result<u32> {
        let written = match append {
            true => append_to(&file.file, data).map(|appended| appended.written),
            false => write_to(&file.file, offset, data),
        };
        if let (Some(writing), Ok(_)) = (&file.writing, &written) {
            writing.wrote.store(true, Ordering::Release);
            // This process lives, and goes on with a write that a killed one left unfinished.
            writing.torn.store(false, Ordering::Release);
        }
        written
    }

    /// One descriptor of an instruction file was closed. If it was the last, publishing is about to follow.
    ///
    /// Must not read the memory of the process that closes: during execve(2) it would wait for the daemon, and the daemon for it.
    pub(super) fn flush_plain(&self, req: &Request, ino: Ino, fh: u64, file: &Plain) {
        let Some(writing) = &file.writing else { return };
        let torn = || match leaving(req.tid) {
            Some(ProcessEnding::Killed(_)) => true,
            // If the client had been done, its server would have closed the file.
            Some(_) => writing.is_sftp,
            None => false,
        };
        // O_TRUNC is not a write. It begins one.
        let emptied =
            || writing.size > 0 && rustix::fs::fstat(&file.file).is_ok_and(|stat| stat.st_size == 0);
        if (writing.wrote.load(Ordering::Acquire) || emptied()) && torn() {
            writing.wrote.store(true, Ordering::Release);
            writing.torn.store(true, Ordering::Release);
        }
        if self.task_of(ino).is_some() {
            let by = writing.by.as_ref().and_then(|by| by.worker.clone());
            self.view.publisher.settling.begin(fh, by);
            // From now on a caller that reads a directory waits for the tasks that are about to appear in it.
            self.disbelieve();
        }
    }

    /// The last descriptor was closed: the content is complete, unless another handle has the file open.
    pub(super) fn release_plain(&self, ino: Ino, fh: u64, handle: Arc<OpenHandle>) {
        let OpenHandle::Plain(Plain { file, writing: Some(writing) }) = &*handle else { return };
        let stat = rustix::fs::fstat(file);
        let (wrote, torn) = (writing.wrote.load(Ordering::Acquire), writing.torn.load(Ordering::Acquire));
        let (task, writer) = (self.task_of(ino), writing.by.clone());
        let publisher = self.view.publisher.clone();
        publisher.settling.is_last(fh);
        // The daemon's own descriptors are closed first: the watch would take an open one for a writer beneath the mount.
        drop(handle);
        self.files.let_go(ino);
        if let Ok(stat) = stat {
            publisher.closed(&stat, wrote, writer, torn);
        }
        let Some(task) = task else { return publisher.settling.end(fh) };
        let settle = publisher.clone();
        publisher.publish(&task, move |_| settle.settling.end(fh));
    }

    /// A name that needs no further step appeared or disappeared: a link, a pipe, a directory.
    pub(super) fn appeared<T: Send + 'static>(
        &self,
        parent: Ino,
        name: &OsStr,
        done: Result<T>,
        reply: Reply<T>,
    ) {
        self.answer_when_published(self.task_at(parent, name), done, reply);
    }

    /// Sets the length or the attributes of a file.
    pub(super) fn set_plain(
        &self,
        req: &Request,
        ino: Ino,
        change: &SetAttr,
        reply: Reply<(Attr, Duration)>,
    ) {
        let task = self.task_of(ino);
        let payer = match self.pay(req, task.as_ref()) {
            Ok(payer) => payer,
            Err(error) => return reply.send(Err(error)),
        };
        let done = self.files.setattr(req, ino, change).map(|attr| (attr, NO_TIME));
        if let (Some(task), Some(payer), true) = (task, payer, done.is_ok()) {
            self.view.publisher.wrote(&task, payer);
        }
        match change.size {
            Some(_) => self.changed(ino, done, reply),
            None => self.marked(ino, done, reply),
        }
    }

    /// The content of a file was changed other than by a write. A process that has it open for writing is not done with it: open(2) with
    /// O_TRUNC comes this way, too, before the first byte.
    pub(super) fn changed<T: Send + 'static>(&self, ino: Ino, done: Result<T>, reply: Reply<T>) {
        self.files.let_go(ino);
        self.answer_when_published(self.task_of(ino), done, reply);
    }

    /// The attributes of a file were changed, such as the right to read it.
    pub(super) fn marked<T: Send + 'static>(&self, ino: Ino, done: Result<T>, reply: Reply<T>) {
        let task = if is_synthesized(ino) { None } else { self.task_of(ino) };
        self.answer_when_published(task, done, reply);
    }

    fn answer_when_published<T: Send + 'static>(
        &self,
        task: Option<TaskId>,
        done: Result<T>,
        reply: Reply<T>,
    ) {
        match task.filter(|_| done.is_ok()) {
            // The change of the file is done. If the queue cannot record it now, the watch tries again.
            Some(task) => self.view.publisher.publish(&task, move |_| reply.send(done)),
            None => reply.send(done),
        }
    }

    /// Removes a name. The task of an instruction file stays for a while, because the file may come back (C14).
    pub(super) fn unlink_plain(
        self: &Arc<DeskCore>,
        req: &Request,
        parent: Ino,
        name: &OsStr,
        reply: Reply<()>,
    ) {
        let step = {
            let (files, name) = (self.files.clone(), name.to_os_string());
            move || files.unlink(parent, &name)
        };
        self.taking_away(req, self.task_at(parent, name), step, reply);
    }

    pub(super) fn rename_plain(
        self: &Arc<DeskCore>,
        req: &Request,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr),
        flags: u32,
        reply: Reply<()>,
    ) {
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let (old, new) = (self.task_at(from.0, from.1), self.task_at(to.0, to.1));
        if let Err(error) = self.pay(req, new.as_ref()) {
            return reply.send(Err(error));
        }
        let step = {
            let (files, req) = (self.files.clone(), *req);
            let (from, to) = ((from.0, from.1.to_os_string()), (to.0, to.1.to_os_string()));
            move || files.rename(&req, (from.0, &from.1), (to.0, &to.1), flags)
        };
        // A moved file is complete. It is published before the caller gets the answer.
        let (core, other) = (self.clone(), old.clone().filter(|_| exchange));
        let published = Reply::new(move |done: Result<()>| {
            let last = core.clone();
            let reply = Reply::new(move |done| last.answer_when_published(new, done, reply));
            core.answer_when_published(other, done, reply);
        });
        self.taking_away(req, old.filter(|_| !exchange), step, published);
    }

    /// Removes the file of a task by a step, if the task allows that. The step is made after the queue has the removal on disk.
    fn taking_away(
        self: &Arc<DeskCore>,
        req: &Request,
        task: Option<TaskId>,
        step: impl FnOnce() -> Result<()> + Send + 'static,
        reply: Reply<()>,
    ) {
        self.view.settle(req);
        let state = self.view.engine.state();
        let Some(task) = task.filter(|task| state.task(task.as_str()).is_some()) else {
            return reply.send(step());
        };
        let caller = match self.view.caller(req) {
            Ok(caller) => caller,
            Err(error) => return reply.send(Err(error)),
        };
        let (id, command) = (task.clone(), Command::RemoveFile { task, by: caller.actor.clone() });
        let core = self.clone();
        self.view.engine.submit(command).on_durable(move |outcome| {
            match core.answer(&caller, outcome) {
                Err(error) => reply.send(Err(error)),
                Ok(_) => {
                    let taken = step();
                    // Publish again: the step may have failed, or a scan may have seen the file just before it went.
                    core.view.publisher.publish(&id, move |_| reply.send(taken));
                }
            }
        });
    }

    /// The entry of a plain node. The kernel may cache nothing of it, because the queue depends on these files.
    pub(super) fn plain_entry(attr: Attr) -> Entry {
        Entry { attr, entry_ttl: NO_TIME, attr_ttl: NO_TIME }
    }

    /// All names in the top directory: those of the project, then the synthesized ones that exist now.
    pub(super) fn list_plain_root(&self, req: &Request) -> Result<Vec<ListingLine>> {
        let mut lines = Vec::new();
        let fh = self.files.opendir(ROOT)?;
        let listed = self.files.readdir(ROOT, fh, 0, &mut |entry| {
            if table::at_top(entry.name).is_none() {
                let (ino, kind, name) = (entry.ino, entry.kind, entry.name.to_os_string());
                lines.push(ListingLine { ino, kind, name });
            }
            true
        });
        self.files.releasedir(fh);
        listed?;
        for (name, node) in table::TOP {
            if self.view.is_listed(&node, req) {
                let (ino, kind) = (self.view.nodes.shown(&node), node.kind());
                lines.push(ListingLine { ino, kind, name: name.into() });
            }
        }
        Ok(lines)
    }
}
