//! The desk at this moment: which synthesized nodes exist, and what `stat(2)` and a read of each return.
//!
//! Must never: change anything (C2), or show a size or time that does not fit the content that an open would read now (C1).

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, statat};

use super::super::guard::Guard;
use super::super::identity::callers::{Caller, Callers};
use super::super::{Attr, Fault, FileKind, FsError, Ino, Request, Result, SessionInfo, Timestamp};
use super::documents;
use super::handles::ListingLine;
use super::nodes::{DeskDirectory, DeskNode, Document, Nodes, WorkerFile};
use super::overview::{Overview, Rendering, Renderings};
use super::publish::{Publisher, stamp_of};
use super::scratch::Scratches;
use super::sentences::Sentences;
use super::table::{current_claim, file_of};
use super::{Config, table};
use crate::engine::Engine;
use crate::limits::WORKERS_PRESENT;
use crate::queue::{Eyes, Instant, Moment, Phase, State, Task, TaskId, TextRef, Wall, WorkerName};
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
    /// All events.
    Events,
}

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

/// The view of the desk.
pub(super) struct View {
    pub(super) engine: Arc<Engine>,
    pub(super) callers: Arc<Callers>,
    /// Knows which worker holds which file of the tree.
    pub(super) guard: Arc<Guard>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) nodes: Nodes,
    pub(super) scratches: Scratches,
    pub(super) config: Config,
    /// When the desk was opened. No node is older.
    pub(super) opened: Timestamp,
    opened_at: Wall,
    pub(super) overview: Overview,
    /// The two sessions: the tree's, and the desk's own.
    pub(super) sessions: [OnceLock<Arc<SessionInfo>>; 2],
    /// The newest `queue.json`, so that not every `stat` writes out thousands of tasks.
    queue: Mutex<Renderings>,
    /// What `locks` of each worker last showed, and since when. No event marks the end of a lock.
    locks: Mutex<HashMap<WorkerName, (Vec<u8>, Timestamp)>>,
}

const ABSENT: FsError = FsError::Plain(Fault::Absent);

impl View {
    pub(super) fn new(
        engine: Arc<Engine>,
        callers: Arc<Callers>,
        guard: Arc<Guard>,
        publisher: Arc<Publisher>,
        config: Config,
    ) -> View {
        let (nodes, scratches) = (Nodes::default(), Scratches::default());
        let opened_at = (engine.clock())().wall;
        let opened = at(opened_at);
        View {
            engine,
            callers,
            guard,
            publisher,
            nodes,
            scratches,
            config,
            opened,
            opened_at,
            overview: Overview::default(),
            sessions: Default::default(),
            queue: Mutex::default(),
            locks: Mutex::default(),
        }
    }

    pub(super) fn sentences(&self) -> Sentences<'_> {
        Sentences(&self.config.tasks)
    }

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
            DeskNode::Directory(DeskDirectory::Blocked | DeskDirectory::Status | DeskDirectory::Workers) => {
                directory(0o555)
            }
            // Workers of every uid make, move and remove names here. The queue decides what they may do.
            DeskNode::Directory(_) => directory(0o777),
            DeskNode::Worker(name) => {
                self.worker(name, &state, req)?;
                directory(0o777)
            }
            DeskNode::Made(made) => {
                Shown { kind: made.kind, perm: 0o666, size: 0, mtime: at(made.at), uid: None, gid: None }
            }
            DeskNode::Nothing => return Err(ABSENT),
            DeskNode::Next | DeskNode::WorkerSelf => link(&self.target(node, &state, req)?, changed),
            DeskNode::Scratch(number) => {
                let file = self.scratches.stat(*number)?;
                let (perm, size, mtime) = (file.mode, file.size, at(file.at));
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
                    NodeContent::Text(text) => (text.size, time(Moment { seq: text.seq, at: text.at })),
                    NodeContent::Instructions(task) => self.instructions(task)?,
                    NodeContent::Withheld(_) => (0, mtime),
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

    /// When anything on the desk changed last.
    fn changed(&self, state: &State) -> Timestamp {
        time(state.changed()).max(self.opened)
    }

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
    fn best<'a>(&self, state: &'a State, req: &Request) -> Option<&'a TaskId> {
        state.best_for(self.worker_of(req).as_deref(), &self.eyes(req, state))
    }

    fn file(&self, node: &DeskNode, state: &State, req: &Request) -> Result<(NodeContent, u16, Timestamp)> {
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
                let mtime = heard.map_or(changed, |wall| changed.max(at(wall)));
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
                Ok((NodeContent::Bytes(text.into()), 0o644, time(since)))
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
        let (own, any) = (time(task.changed), self.changed(state));
        if !matches!(directory, DeskDirectory::Ready | DeskDirectory::Claim | DeskDirectory::Status)
            && !state.shows(id, task, &eyes)
        {
            return Ok((NodeContent::Withheld(id.clone()), 0o444, any));
        }
        Ok(match (directory, &task.phase) {
            (DeskDirectory::Ready, _) => (NodeContent::Instructions(id.clone()), 0o444, own),
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
    fn worker(&self, name: &WorkerName, state: &State, req: &Request) -> Result<()> {
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

    fn worker_file(
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
                let heard = presence.map_or(changed, |p| changed.max(at(p.last_heard_wall())));
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
                let mtime = if idle >= limit { changed.max(at(Wall(over))) } else { changed };
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
                let refused = refusal.as_ref().map_or(self.opened, |(wall, _)| at(*wall));
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
            *last = (held, at((self.engine.clock())().wall));
        }
        last.clone()
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

    /// Whether a node of the top exists at present. Cheaper than showing it.
    pub(super) fn is_listed(&self, node: &DeskNode, req: &Request) -> bool {
        match node {
            DeskNode::Next => self.best(&self.engine.state(), req).is_some(),
            DeskNode::Paused => self.engine.state().paused().is_some(),
            _ => true,
        }
    }

    /// Everything in a synthesized directory, in the order in which it is listed.
    pub(super) fn list(&self, parent: Ino, directory: &DeskNode, req: &Request) -> Result<Vec<ListingLine>> {
        let state = self.engine.state();
        let mut lines = Vec::new();
        let mut add = |node: DeskNode, name: &str| {
            lines.push(ListingLine { ino: self.nodes.shown(&node), kind: node.kind(), name: name.into() });
        };
        match directory {
            DeskNode::Directory(DeskDirectory::Workers) => {
                let mut names = documents::everybody(&state, &self.engine);
                let caller = self.callers.reader(req)?;
                if caller.is_worker && !names.contains(&caller.actor.worker) {
                    names.push(caller.actor.worker.clone());
                }
                add(DeskNode::WorkerSelf, "self");
                names.into_iter().for_each(|name| add(DeskNode::Worker(name.clone()), name.as_str()));
            }
            DeskNode::Directory(directory) => match directory.lists() {
                Some(listed) => {
                    state
                        .listed(listed)
                        .for_each(|id| add(DeskNode::Task(*directory, id.clone()), id.as_str()));
                }
                None => {
                    state.tasks().for_each(|(id, _)| add(DeskNode::Task(*directory, id.clone()), id.as_str()))
                }
            },
            DeskNode::Worker(name) => {
                for (file, kind) in table::WORKER {
                    if self.worker_file(name, kind, &state, req).is_ok() {
                        add(DeskNode::WorkerFile(name.clone(), kind), file);
                    }
                }
            }
            _ => {}
        }
        for (name, number) in self.scratches.names(parent) {
            lines.push(ListingLine {
                ino: self.nodes.shown(&DeskNode::Scratch(number)),
                kind: FileKind::File,
                name,
            });
        }
        Ok(lines)
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

    /// Whether the caller just wrote a file that is not published yet. Such a caller waits.
    pub(super) fn is_settling(&self) -> bool {
        !self.publisher.settling.is_empty()
    }

    /// Waits until files that were just written are published.
    pub(super) fn settle(&self, req: &Request) {
        if self.is_settling()
            && let Ok(caller) = self.caller(req)
        {
            self.publisher.settling.wait(&caller.actor.worker);
        }
    }

    /// The worker that reads; `None` for a caller without a proper name, which may read, too.
    fn worker_of(&self, req: &Request) -> Option<String> {
        let caller = self.callers.identify(req).ok()?;
        Some(caller.actor.worker.as_str().to_owned())
    }

    /// The caller.
    pub(super) fn caller(&self, req: &Request) -> Result<Arc<Caller>> {
        self.callers.identify(req)
    }
}

/// A time of day as a file's time.
pub(super) fn at(wall: Wall) -> Timestamp {
    time(Moment { seq: 0, at: wall })
}

/// A moment as a file's time. The position in the log stands below the milliseconds, so that two changes in one
/// millisecond still show two times (C1).
pub(super) fn time(moment: Moment) -> Timestamp {
    let ms = moment.at.0;
    Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: (ms.rem_euclid(1000) * 1_000_000) as u32 + (moment.seq % 1_000_000) as u32,
    }
}
