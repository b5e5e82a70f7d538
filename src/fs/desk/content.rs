//! What a read of each synthesized node returns in a state of the queue.
//!
//! Must never: change anything (C2), or show a text that the caller may not see.

use std::ffi::OsString;
use std::sync::Arc;

use super::documents;
use super::nodes::{DeskDirectory, DeskNode, Document, WorkerFile};
use super::renderings::Rendering;
use super::table::current_claim;
use super::timestamps::{timestamp_at, timestamp_of};
use super::view::View;
use crate::fs::{Fault, FsError, Request, Result, Timestamp};
use crate::limits::WORKERS_PRESENT;
use crate::queue::{Eyes, Instant, Phase, State, Task, TaskId, TextRef, Wall, WorkerName};
use crate::shown;

/// What a reader of a node gets.
pub(super) enum NodeContent {
    /// A document made from the state.
    Bytes(Arc<[u8]>),
    /// A text that lies in the log.
    Text(TextRef),
    /// The instructions of a task: a real file.
    Instructions(TaskId),
    /// A text of a task that the caller may not see.
    Withheld(TaskId),
    /// What a task has changed in the tree.
    Changes(TaskId),
    /// All events.
    Events,
}

/// What `changes/<id>` says when nothing is recorded.
const HISTORY_OFF: &str = "the history of changes is off (-o history=off)\n";

/// The error of a node that does not exist now.
pub(super) const ABSENT: FsError = FsError::Plain(Fault::Absent);

impl View {
    /// What an open of a file reads in this state.
    pub(super) fn content(&self, node: &DeskNode, state: &State, req: &Request) -> Result<NodeContent> {
        Ok(self.file(node, state, req)?.0)
    }

    /// Where a symbolic link leads.
    pub(super) fn target(&self, node: &DeskNode, state: &State, req: &Request) -> Result<OsString> {
        match node {
            DeskNode::Next => {
                let task = self.best(state, req).ok_or(ABSENT)?;
                Ok(format!("ready/{task}").into())
            }
            DeskNode::WorkerSelf => Ok(self.callers.reader(req)?.actor.worker.as_str().into()),
            _ => Err(Fault::Invalid.into()),
        }
    }

    /// The first task that the caller can do and read.
    pub(super) fn best<'a>(&self, state: &'a State, req: &Request) -> Option<&'a TaskId> {
        state.best_for(self.worker_of(req).as_deref(), &self.eyes(req, state))
    }

    pub(super) fn file(
        &self,
        node: &DeskNode,
        state: &State,
        req: &Request,
    ) -> Result<(NodeContent, u16, Timestamp)> {
        let changed = self.changed(state);
        let document = |bytes: Vec<u8>, mtime| Ok((NodeContent::Bytes(bytes.into()), 0o444, mtime));
        match node {
            DeskNode::Task(directory, id) => self.task(*directory, id, state, req),
            DeskNode::ClaimNext => {
                let caller = self.callers.reader(req)?;
                let id = current_claim(state, &caller).filter(|_| caller.nameless.is_none()).ok_or(ABSENT)?;
                self.task(DeskDirectory::Claim, &id, state, req)
            }
            DeskNode::Document(Document::Queue) => {
                Ok((NodeContent::Bytes(self.queue(state, &self.eyes(req, state))), 0o444, changed))
            }
            DeskNode::Document(Document::Workers) => {
                let heard = self.engine.roster().all().iter().map(|p| p.last_heard_wall()).max();
                let mtime = heard.map_or(changed, |wall| changed.max(timestamp_at(wall)));
                document(documents::workers(state, &self.engine, &self.eyes(req, state)), mtime)
            }
            DeskNode::Document(Document::Events) => Ok((NodeContent::Events, 0o444, changed)),
            DeskNode::Document(moving @ (Document::Summary | Document::Dashboard | Document::Metrics)) => {
                let (bytes, mtime) = self.overview(*moving, state, &self.eyes(req, state));
                Ok((NodeContent::Bytes(bytes), 0o444, mtime))
            }
            DeskNode::Paused => {
                let since = state.paused().ok_or(ABSENT)?;
                let text = format!("paused since {}\n", since.at).into_bytes();
                Ok((NodeContent::Bytes(text.into()), 0o644, timestamp_of(since)))
            }
            DeskNode::WorkerFile(name, file) => self.worker_file(name, *file, state, req),
            _ => Err(Fault::IsDirectory.into()),
        }
    }

    fn task(
        &self,
        directory: DeskDirectory,
        id: &TaskId,
        state: &State,
        req: &Request,
    ) -> Result<(NodeContent, u16, Timestamp)> {
        let task: &Task = state.task(id.as_str()).ok_or(ABSENT)?;
        if directory.lists().is_some_and(|listed| listed != state.state_of(task)) {
            return Err(ABSENT);
        }
        let caller = || self.worker_of(req);
        let eyes = self.eyes(req, state);
        let sentence = || {
            let why = state.why(task, caller().as_deref(), &eyes);
            let why = why.map_or_else(String::new, |why| self.sentences().why(&why));
            NodeContent::Bytes((shown::line(&why) + "\n").as_bytes().into())
        };
        let status = || {
            NodeContent::Bytes(
                documents::task(state, id, task, caller().as_deref(), &eyes, self.sentences()).into(),
            )
        };
        // What a task waits for changes with other tasks, and with what the caller can do.
        let (own, any) = (timestamp_of(task.changed), self.changed(state));
        if !matches!(directory, DeskDirectory::Ready | DeskDirectory::Claim | DeskDirectory::Status)
            && !state.shows(id, task, &eyes)
        {
            return Ok((NodeContent::Withheld(id.clone()), 0o444, any));
        }
        Ok(match (directory, &task.phase) {
            (DeskDirectory::Ready, _) => (NodeContent::Instructions(id.clone()), 0o444, own),
            (DeskDirectory::Changes, _) => (NodeContent::Changes(id.clone()), 0o444, any),
            (DeskDirectory::Blocked, _) => (sentence(), 0o444, any),
            (DeskDirectory::Rejected, _) => (sentence(), 0o444, own),
            (DeskDirectory::Claim, _) => (status(), 0o666, own),
            (
                DeskDirectory::Completed | DeskDirectory::Failed,
                Phase::Completed(finish) | Phase::Failed(finish),
            ) => {
                let text = finish.text.clone();
                (text.map_or(NodeContent::Bytes(Arc::default()), NodeContent::Text), 0o666, own)
            }
            _ => (status(), 0o444, any),
        })
    }

    /// A worker exists if it ever claimed a task, or was heard of, or is the caller.
    pub(super) fn worker(&self, name: &WorkerName, state: &State, req: &Request) -> Result<()> {
        let known = state.worker(name.as_str()).is_some()
            || self.engine.roster().get(name.as_str()).is_some()
            || self.callers.reader(req)?.actor.worker == *name;
        if known { Ok(()) } else { Err(ABSENT) }
    }

    /// What a caller without a name reads in its directory: why it has none, and that it may stop.
    fn to_nameless(
        &self,
        name: &WorkerName,
        file: WorkerFile,
        req: &Request,
    ) -> Option<(NodeContent, u16, Timestamp)> {
        if !matches!(file, WorkerFile::Why | WorkerFile::ShouldStop) {
            return None;
        }
        let caller = self.callers.nameless(req).filter(|caller| caller.actor.worker == *name)?;
        let why = caller.nameless.as_ref()?.to_string();
        let text = match file {
            WorkerFile::Why => format!("{} {}\n", self.opened_at, shown::line(&why)),
            WorkerFile::ShouldStop => String::new(),
            _ => return None,
        };
        Some((NodeContent::Bytes(text.into_bytes().into()), 0o444, self.opened))
    }

    pub(super) fn worker_file(
        &self,
        name: &WorkerName,
        file: WorkerFile,
        state: &State,
        req: &Request,
    ) -> Result<(NodeContent, u16, Timestamp)> {
        self.worker(name, state, req)?;
        if let Some(answer) = self.to_nameless(name, file, req) {
            return Ok(answer);
        }
        let presence = self.engine.roster().get(name.as_str());
        let changed = self.changed(state);
        let (bytes, perm, mtime) = match file {
            WorkerFile::Status => {
                let heard = presence.map_or(changed, |p| changed.max(timestamp_at(p.last_heard_wall())));
                (documents::worker(state, &self.engine, name, &self.eyes(req, state)), 0o444, heard)
            }
            WorkerFile::ShouldStop => {
                let now = (self.engine.clock())();
                let limit = self.config.idle_timeout;
                let idle =
                    presence.as_ref().map_or_else(Default::default, |p| now.instant.since(p.idle_since()));
                let text = documents::should_stop(
                    state,
                    &self.config.tasks,
                    name,
                    (idle, limit),
                    &self.eyes(req, state),
                );
                // At the end of the idle time the content changes without an event.
                let over = now.wall.0.saturating_sub_unsigned(idle.0.saturating_sub(limit.0));
                let mtime = if idle >= limit { changed.max(timestamp_at(Wall(over))) } else { changed };
                (text, 0o444, mtime)
            }
            WorkerFile::Task => {
                let claims = state.worker(name.as_str()).map_or(&[][..], |worker| &worker.claims);
                let task = claims.last().ok_or(ABSENT)?;
                return Ok((NodeContent::Instructions(task.clone()), 0o444, changed));
            }
            // The note of the youngest claim, which `task` and `claim/next` stand for, too.
            WorkerFile::Note => (documents::note(state, name, &self.eyes(req, state)), 0o666, changed),
            WorkerFile::Why => {
                let refusal = presence.and_then(|p| p.last_refusal());
                let refused = refusal.as_ref().map_or(self.opened, |(wall, _)| timestamp_at(*wall));
                let (line, of_the_state) = documents::worker_why(state, refusal, name, self.sentences());
                (line, 0o444, if of_the_state { changed } else { refused })
            }
            WorkerFile::Locks => {
                let (bytes, mtime) = self.locks(name);
                (bytes, 0o444, mtime)
            }
            WorkerFile::Capabilities => (documents::capabilities(state, name), 0o666, changed),
            WorkerFile::Drain => {
                if !state.is_draining(name.as_str()) {
                    return Err(ABSENT);
                }
                (Vec::new(), 0o644, changed)
            }
        };
        Ok((NodeContent::Bytes(bytes.into()), perm, mtime))
    }

    /// The files that a worker holds for writing, one a line, and since when the list is the same.
    fn locks(&self, name: &WorkerName) -> (Vec<u8>, Timestamp) {
        let held = documents::lines(&self.guard.held_by(name));
        let mut shown = self.locks.lock();
        if shown.len() >= WORKERS_PRESENT {
            shown.clear();
        }
        let last = shown.entry(name.clone()).or_insert_with(|| (Vec::new(), self.opened));
        if last.0 != held {
            *last = (held, timestamp_at((self.engine.clock())().wall));
        }
        last.clone()
    }

    /// The unified diff of what a task has changed, as far as the caller may read the files.
    pub(super) fn diff(&self, task: &TaskId, req: &Request) -> Result<Arc<[u8]>> {
        match &self.recorder {
            Some(recorder) => recorder.task_diff(task, req),
            None => Ok(HISTORY_OFF.as_bytes().into()),
        }
    }

    fn queue(&self, state: &State, eyes: &Eyes) -> Arc<[u8]> {
        let unseen = state.unseen(eyes);
        if let Some(last) = self.queue.lock().find(&unseen).filter(|last| last.seq == state.tail()) {
            return last.bytes.clone();
        }
        let bytes: Arc<[u8]> = documents::queue(state, eyes, self.sentences()).into();
        let (made, mtime) = (Instant::default(), Timestamp::default());
        let rendering = Rendering { unseen, seq: state.tail(), made, bytes: bytes.clone(), mtime };
        self.queue.lock().keep(rendering);
        bytes
    }
}
