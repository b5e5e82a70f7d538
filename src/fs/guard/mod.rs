//! The guard: the one place that permits changes of the tree.
//!
//! May assume: every changing request asks here before it touches the disk, and the kernel keeps the file (and, for names, the directory)
//! locked until the answer, so that two changes of one file are never judged at once.
//! Must never: wait on a thread that serves the kernel. A change that has to wait is parked together with its answer ([`waiting`]).
//!
//! A change is refused ([`refusal`]) because of
//! - the root's own names ([`Policy`]),
//! - files that belong to a claimed task by its `owns` globs ([`owned`], C53),
//! - another worker that holds the file ([`locks`], C50 to C52),
//! - a younger connection of the same worker ([`fences`], C42),
//! - a change that the worker has not read yet ([`versions`], C54).
//!
//! Files that git would ignore are exempt from the last three ([`gitignore`]).
//!
//! # How the guard notices a read
//!
//! The kernel answers most reads from its cache. So it may not cache the attributes of a recently changed file until every worker of
//! the crowd has read the file: each open asks for them ([`Guard::before_read`]). If a worker opens it that has not read it, the guard
//! drops the cached pages first, so that the read itself reaches the daemon ([`Guard::reading`]). A read that comes in between costs
//! one refused change and one more read.
//!
//! Lock order: the table, alone. It is never held over a system call.

mod change;
mod family;
mod fences;
mod gitignore;
mod invalidator;
mod judge;
mod locks;
mod open_files;
mod owned;
mod refusal;
mod sweeping;
mod versions;
mod waiting;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

pub use self::change::{Change, EntryName};
use self::family::ProcessScan;
use self::fences::Fences;
use self::gitignore::GitIgnore;
use self::invalidator::Invalidator;
use self::judge::Grant;
use self::locks::{Hand, LockHolder, Locks, Mode};
pub use self::open_files::DeviceNumber;
use self::open_files::{OpenFiles, OpenState};
use self::owned::{Owned, Reach};
pub use self::refusal::GuardRefusal;
use self::sweeping::Sweeper;
use self::versions::{ReadPurpose, Versions};
use self::waiting::{ParkedChanges, Patience};
use super::files::Files;
use super::identity::callers::{Caller, Callers};
use super::{Attr, FileKind, FsError, Ino, Kernel, Reply, Request, Result};
use crate::clock::Clock;
use crate::engine::{Engine, Tally};
use crate::limits::{MAPPED_KNOWN_MS, RECENT_BELIEVED_MS, RECENT_FILES, UNSEEN_LOCK_MS};
use crate::queue::{Instant, Span, Wall, WorkerName};

/// The extended attribute that names the holder of a file (C55).
pub const LOCK_ATTRIBUTE: &str = "user.crewfs.lock";

/// The options of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long a change waits for another worker's lock (C51).
    pub lock_wait: Span,
    /// How long after a change other workers must read the file before they change it (C54).
    pub stale_window: Span,
    /// Whether they must.
    pub refuse_stale: bool,
    /// The exempt files (C52), as the text of a `.gitignore` at the root; `None`: those that git would ignore.
    pub unguarded: Option<Arc<str>>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            lock_wait: Span(2_000),
            stale_window: Span(60 * 60_000),
            refuse_stale: true,
            unguarded: None,
        }
    }
}

/// Changes that a session forbids every caller.
pub trait Policy: Send + Sync {
    /// Refuses a change.
    fn permits(&self, change: &Change) -> Result<()>;
}

/// The result of a change, as far as the guard needs it.
pub trait ChangeOutcome {
    /// The file that was made.
    fn made(&self) -> Option<Ino> {
        None
    }
}

impl ChangeOutcome for () {}
impl ChangeOutcome for u32 {}
impl ChangeOutcome for Attr {
    fn made(&self) -> Option<Ino> {
        (self.kind == FileKind::File).then_some(self.ino)
    }
}

/// What the guard knows of files.
struct FileTable {
    locks: Locks,
    fences: Fences,
    changes: Versions,
    /// Files that lost their last name and may still be open.
    orphans: HashMap<Ino, Orphan>,
    /// The last caller that stored through a mapping, if it was found, and when the guard looked.
    mapped: HashMap<Ino, (Option<Arc<Caller>>, Instant)>,
}

/// How a file lost its last name. A write of another worker into it would be lost silently.
struct Orphan {
    path: String,
    by: WorkerName,
    at: Wall,
}

/// The judgement of a change.
pub enum Verdict {
    /// It may be made now, by [`Guard::carry_out`].
    Granted(Grant),
    /// It may not be made.
    Refused(FsError),
    /// Another worker holds the file, or the caller is not known. The change waits, in [`Guard::park`].
    Wait(Patience),
}

/// What the guard has done against changes, in numbers.
#[derive(Debug)]
pub struct GuardCounters {
    /// Changes that were refused, by reason.
    pub refusals: Tally<GuardRefusal>,
    /// Changes that had to wait for another worker's lock.
    pub waited: AtomicU64,
    /// How often the kernel dropped the cached pages of a file, so that the guard notices a read.
    pub pages_dropped: AtomicU64,
}

impl Default for GuardCounters {
    fn default() -> GuardCounters {
        GuardCounters {
            refusals: Tally::default(),
            waited: AtomicU64::new(0),
            pages_dropped: AtomicU64::new(0),
        }
    }
}

/// Permits or refuses changes. See the top of this file.
pub struct Guard {
    config: Config,
    policy: Box<dyn Policy>,
    files: Arc<Files>,
    callers: Arc<Callers>,
    clock: Clock,
    exempt: GitIgnore,
    owned: Owned,
    descriptors: OpenFiles,
    table: Arc<Mutex<FileTable>>,
    forgetting: OnceLock<Invalidator>,
    room: ParkedChanges,
    sweeper: Sweeper,
    counters: GuardCounters,
    /// How large the crowd was when the attributes of all recent changes were last invalidated for it.
    crowd: AtomicUsize,
}

impl Guard {
    /// A guard of `files`, with no parked change.
    pub fn new(
        config: Config,
        policy: Box<dyn Policy>,
        files: Arc<Files>,
        callers: Arc<Callers>,
        engine: Arc<Engine>,
    ) -> Guard {
        let (stale_window, exempt) =
            (config.stale_window, GitIgnore::new(files.clone(), config.unguarded.as_deref()));
        Guard {
            config,
            policy,
            descriptors: OpenFiles::new(callers.clone(), engine.clock().clone()),
            callers,
            clock: engine.clock().clone(),
            exempt,
            files,
            owned: Owned::new(engine),
            table: Arc::new(Mutex::new(FileTable {
                locks: Locks::default(),
                fences: Fences::default(),
                changes: Versions::new(RECENT_FILES, stale_window),
                orphans: Default::default(),
                mapped: Default::default(),
            })),
            forgetting: OnceLock::new(),
            room: ParkedChanges::default(),
            sweeper: Sweeper::default(),
            counters: GuardCounters::default(),
            crowd: AtomicUsize::new(0),
        }
    }

    /// The tree is mounted as this device, by a kernel that can invalidate its cache. Changes can be parked from now on.
    pub fn start(self: &Arc<Self>, device: DeviceNumber, kernel: Arc<dyn Kernel>) -> std::io::Result<()> {
        self.descriptors.mounted(device);
        let _ = self.forgetting.set(Invalidator::start(kernel)?);
        sweeping::start(self)?;
        waiting::start(self)
    }

    /// Answers every parked change with EIO.
    pub fn stop(&self) {
        self.room.close();
        self.sweeper.close();
    }

    /// The numbers since the start.
    pub fn counters(&self) -> &GuardCounters {
        &self.counters
    }

    /// Records a sign of life of this caller.
    pub fn seen(&self, req: &Request) {
        self.callers.seen(req);
        self.meet();
    }

    /// Makes a change if and when it may be made, and answers.
    pub fn run<T: ChangeOutcome + Send + 'static>(
        self: &Arc<Self>,
        req: &Request,
        change: Change,
        reply: Reply<T>,
        make: impl FnMut() -> Result<T> + Send + 'static,
    ) {
        match self.judge(req, &change) {
            Verdict::Granted(grant) => self.finish(grant, req.uid, make, move |came| reply.send(came)),
            Verdict::Refused(error) => reply.send(Err(error)),
            Verdict::Wait(patience) => self.park(patience, change, reply, make),
        }
    }

    /// Makes a granted change, and records it.
    pub fn carry_out<T: ChangeOutcome>(&self, grant: Grant, make: impl FnOnce() -> Result<T>) -> Result<T> {
        let made = make()?;
        self.note(grant, made.made());
        Ok(made)
    }

    /// The same, when no lease prevents it. The kernel keeps the file locked until the answer, so the judgement stays true.
    pub fn finish<T: ChangeOutcome + Send + 'static>(
        self: &Arc<Self>,
        grant: Grant,
        uid: u32,
        make: impl FnMut() -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let guard = self.clone();
        let noted = move |made: Result<T>| done(made.and_then(|made| guard.carry_out(grant, || Ok(made))));
        self.files.leases().run(uid, make, noted);
    }

    /// Makes a change when the other worker is done, and answers.
    pub fn park<T: ChangeOutcome + Send + 'static>(
        self: &Arc<Self>,
        patience: Patience,
        change: Change,
        reply: Reply<T>,
        make: impl FnMut() -> Result<T> + Send + 'static,
    ) {
        self.counters.waited.fetch_add(1, Ordering::Relaxed);
        let guard = self.clone();
        let came_in = (self.clock)().instant;
        let written = if let Change::Write { ino, .. } = change { Some(ino) } else { None };
        let mapped = if let Change::WriteMapped { ino } = change { Some(ino) } else { None };
        let caller = patience.caller();
        let uid = caller.as_ref().map_or(0, |caller| caller.actor.uid);
        let after = {
            let guard = guard.clone();
            move |came: Result<T>| {
                if let (Ok(_), Some(ino)) = (&came, written) {
                    // Another worker may have made the kernel drop the written pages and read the old content again.
                    guard.drop_pages(ino, || {});
                }
                if let (Err(_), Some(ino), Some(caller)) = (&came, written, &caller) {
                    // In the meantime every reader could see the write in the cache.
                    guard.doubt(ino, &caller.actor.worker, came_in);
                }
                reply.send(came);
            }
        };
        let resume = move |granted: Result<Grant>| match granted {
            Ok(grant) => guard.finish(grant, uid, make, after),
            Err(error) => {
                if let Some(ino) = mapped {
                    // Refused pages must not stay in the cache, where other workers read them.
                    guard.drop_pages(ino, || {});
                }
                after(Err(error));
            }
        };
        self.room.enter(self, patience, change, Box::new(resume));
    }

    /// The node is gone: no process has it open, and the kernel has forgotten it.
    pub fn forget(&self, ino: Ino) {
        self.exempt.forget(ino);
        let mut table = self.table.lock();
        table.locks.forget(ino);
        table.fences.forget(ino);
        table.orphans.remove(&ino);
        table.mapped.remove(&ino);
    }

    /// Called about every second: a connection that has closed a file may open and change it again.
    pub fn lower_fences(&self) {
        let raised = self.table.lock().fences.all();
        for (ino, process) in raised {
            if !self.has_open(process, ino) {
                self.table.lock().fences.lower(ino, process);
            }
        }
    }

    /// Whether a process has a file open for writing, or is still being looked at.
    fn has_open(&self, process: u32, ino: Ino) -> bool {
        let now = (self.clock)().instant;
        !matches!(self.descriptors.sight(process, ino, now), OpenState::Done | OpenState::Hidden)
    }

    /// An entry of this name changed behind the mount; `None`: any entry.
    pub fn changed_behind(&self, name: Option<&OsStr>) {
        if name.is_none_or(gitignore::makes_rules) {
            self.exempt.rules_changed();
        }
    }

    /// How long the kernel may cache the attributes of a file; `as_a_rule` without a recent change.
    pub fn attr_ttl(&self, ino: Ino, as_a_rule: Duration) -> Duration {
        let now = (self.clock)().instant;
        let table = self.table.lock();
        if table.changes.recent(ino, now).is_none() {
            as_a_rule
        } else if table.changes.is_news(ino, &self.callers.crowd(), now) {
            Duration::ZERO
        } else {
            // A worker that is not in the crowd yet may read it next.
            as_a_rule.min(Duration::from_millis(RECENT_BELIEVED_MS))
        }
    }

    /// A caller asks for the attributes of a file, and may read it next. Calls `then` when the kernel is ready for that; `then` reads the
    /// attributes, so that a change before counts as unread. `anew`: for an open, and not during a read.
    pub fn before_read(&self, req: &Request, ino: Ino, anew: bool, then: impl FnOnce() + Send + 'static) {
        let now = (self.clock)().instant;
        if self.table.lock().changes.recent(ino, now).is_none() {
            return then();
        }
        // An unknown caller has not read it.
        let Ok(caller) = self.acting(req) else { return then() };
        let mut table = self.table.lock();
        // A process that opens it may store through a mapping next.
        if table.mapped.get(&ino).is_some_and(|(known, _)| {
            known.as_ref().is_none_or(|known| known.actor.worker != caller.actor.worker)
        }) {
            table.mapped.remove(&ino);
        }
        let look = match (anew, table.locks.is_opening(ino, &caller.actor.worker)) {
            (true, false) => ReadPurpose::Anew,
            (true, true) => ReadPurpose::Opening,
            (false, _) => ReadPurpose::Onward,
        };
        table.changes.looked(ino, &caller.actor.worker, look, now);
        // Not during a read: to drop the pages would invalidate this answer, and the kernel reads as far as the size in it.
        let renew = anew
            && (table.changes.unread(ino, &caller.actor.worker, now).is_some()
                || table.changes.is_doubted(ino, now));
        drop(table);
        let (table, files) = (self.table.clone(), self.files.clone());
        let then = move || {
            let is_empty = || files.getattr(ino).is_ok_and(|attr| attr.size == 0);
            if anew && is_empty() {
                // The file is empty, so no read will come. But the file may have been written just before this.
                table.lock().changes.knows(ino, &caller.actor.worker, now);
                if !is_empty() {
                    table.lock().changes.not_read(ino, &caller.actor.worker);
                }
            }
            then();
        };
        if renew { self.drop_pages(ino, then) } else { then() }
    }

    /// Makes the kernel invalidate the attributes of a node, so that an open asks for them.
    fn forget_attributes(&self, ino: Ino) {
        if let Some(forgetting) = self.forgetting.get() {
            forgetting.attributes(ino);
            self.table.lock().changes.voided(ino);
        }
    }

    /// Makes the kernel drop the cached pages of a file, and calls `then` afterwards.
    ///
    /// Writes from now until a while after may be dropped as well, and the old content be read again. So the guard records both ends.
    pub fn drop_pages(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        let Some(forgetting) = self.forgetting.get() else { return then() };
        self.counters.pages_dropped.fetch_add(1, Ordering::Relaxed);
        let (table, clock) = (self.table.clone(), self.clock.clone());
        let note = move || table.lock().changes.forgotten(ino, clock().instant);
        note();
        forgetting.content(ino, move || {
            note();
            then();
        });
    }

    /// A caller is about to read a file. Called before the read of the disk, so that a change in between counts as unread. `writable`:
    /// through a descriptor that can write, too. May be called while the caller's memory is locked.
    pub fn reading(&self, req: &Request, ino: Ino, writable: bool) {
        let now = (self.clock)().instant;
        if self.table.lock().changes.recent(ino, now).is_some()
            && let Some(caller) = self.callers.glance(req)
        {
            self.table.lock().changes.read(ino, &caller.actor.worker, writable, now);
        }
    }

    /// The worker that holds a file, and since when (C55): by a lock, or by a claimed task.
    pub fn holder(&self, ino: Ino) -> Option<String> {
        let holders = self.table.lock().locks.holders(ino).to_vec();
        let mut scan = ProcessScan::default();
        let held = holders.into_iter().find(|holder| self.still_holds(ino, holder, &mut scan));
        if let Some(holder) = held {
            return Some(format!("{} since {}", holder.worker, holder.since));
        }
        let path = self.files.path(ino)?;
        let owners = self.owned.owners();
        let owner = owned::owner_of(&owners, &path, Reach::File, None)?;
        Some(format!("{} since {} by {}", owner.worker, owner.since, owner.task))
    }

    /// The files that a worker holds for writing, by their paths, in order (C55).
    pub fn held_by(&self, worker: &WorkerName) -> Vec<String> {
        let held: Vec<(Ino, LockHolder)> = {
            let table = self.table.lock();
            let theirs = table.locks.all().filter(|(_, holder)| holder.worker == *worker);
            theirs.map(|(ino, holder)| (ino, holder.clone())).collect()
        };
        let mut scan = ProcessScan::default();
        let held = held.into_iter().filter(|(ino, holder)| self.still_holds(*ino, holder, &mut scan));
        let mut paths: Vec<String> = held.map(|(ino, _)| self.shown(ino)).collect();
        paths.sort();
        paths
    }

    /// The path of a file as sentences show it.
    fn shown(&self, ino: Ino) -> String {
        self.files.path(ino).map_or_else(|| "a deleted file".to_owned(), |path| path.display().to_string())
    }

    fn acting(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = self.callers.acting(req)?;
        self.meet();
        Ok(caller)
    }

    /// A new worker has read no file. Invalidates the attributes that were cached because every worker had read the file.
    fn meet(&self) {
        let crowd = self.callers.crowd().len();
        if self.crowd.swap(crowd, Ordering::AcqRel) < crowd && crowd > 1 {
            let all = self.table.lock().changes.all();
            if let Some(forgetting) = self.forgetting.get().filter(|_| !all.is_empty()) {
                forgetting.attributes_of(all);
            }
        }
    }

    /// Records a change that was made.
    fn note(&self, grant: Grant, made: Option<Ino>) {
        let now = (self.clock)();
        for ino in [grant.gone, grant.moved].into_iter().flatten() {
            self.exempt.forget(ino);
        }
        if let Some(ino) = grant.gone {
            // It may be open, also beneath the mount, where the guard does not see its changes from now on.
            self.forget_attributes(ino);
        }
        if grant.rules {
            self.exempt.rules_changed();
        }
        // The kernel may have cached this file's attributes. Invalidate them, so that the next open by a worker that has not read this
        // version reaches us.
        let crowd = self.callers.crowd();
        let (news, doubtful) = {
            let mut table = self.table.lock();
            if let Some(ino) = grant.gone.or(grant.freed) {
                table.locks.forget(ino);
                table.changes.forget(ino);
            }
            let Some(by) = grant.by else { return };
            if let (Some(ino), Some(path)) = (grant.gone, grant.orphan) {
                // The kernel invalidates nearly all of them at once.
                if table.orphans.len() >= RECENT_FILES {
                    table.orphans.clear();
                }
                table.orphans.insert(ino, Orphan { path, by: by.actor.worker.clone(), at: now.wall });
            }
            if let (true, Some(ino)) = (grant.makes, made) {
                // The file that had this number before is gone.
                table.locks.forget(ino);
                table.orphans.remove(&ino);
                // A maker without a descriptor for writing does not hold the file.
                if let Some(mode) = grant.opens {
                    table.locks.make(ino, &by.actor.worker, mode, Hand::of(&by), now);
                }
                table.changes.changed(ino, &by.actor.worker, false, now);
            }
            let changed = grant.changed.into_iter().flatten();
            // The kernel may have dropped this write and read the old content again.
            let doubtful = changed.clone().filter(|ino| table.changes.is_forgotten(*ino, now.instant));
            let doubtful: Vec<Ino> = doubtful.collect();
            let news = changed.filter(|ino| {
                let believed = !table.changes.is_news(*ino, &crowd, now.instant);
                table.changes.changed(*ino, &by.actor.worker, grant.blind, now);
                believed && table.changes.is_news(*ino, &crowd, now.instant)
            });
            let news = news.collect::<Vec<Ino>>();
            doubtful.iter().for_each(|ino| table.changes.unsettle(*ino));
            (news, doubtful)
        };
        news.into_iter().for_each(|ino| self.forget_attributes(ino));
        for ino in doubtful {
            let table = self.table.clone();
            self.drop_pages(ino, move || table.lock().changes.settle(ino));
        }
    }

    /// Whether a holder still needs its lock of a file. Releases the lock if not.
    fn still_holds(&self, ino: Ino, holder: &LockHolder, scan: &mut ProcessScan) -> bool {
        let looked = (self.clock)().instant;
        let opener_lives = self.descriptors.exists(holder.opener);
        if looked < holder.opening && opener_lives {
            return true;
        }
        // What was seen before may be different since.
        let since = if opener_lives { holder.last.max(holder.opening) } else { holder.last };
        let (mut hidden, mut appends) = (false, false);
        // A worker that may not change the file any more does not hold it.
        let fenced = |process: &u32| self.table.lock().fences.stands(ino, *process);
        for process in holder.processes.iter().filter(|process| !fenced(process)) {
            match scan.sight(&self.descriptors, *process, ino, since) {
                OpenState::Writing | OpenState::Awaited => return true,
                OpenState::Appending if holder.mode <= Mode::Append => return true,
                OpenState::Appending => appends = true,
                OpenState::Hidden => hidden = true,
                OpenState::Done => {}
            }
        }
        // Another process of the worker may have the file open without having changed it: it passed the descriptor on, or received it.
        let (family, may_wait) = (self.family(holder, scan), scan.may_wait());
        let others = family.iter().filter(|process| !holder.processes.contains(process) && !fenced(process));
        for process in others {
            let sight = scan.sight(&self.descriptors, *process, ino, since);
            match sight {
                OpenState::Writing | OpenState::Appending => {}
                OpenState::Awaited => return true,
                OpenState::Done | OpenState::Hidden => continue,
            }
            let caller = match may_wait {
                true => self.callers.caller_of(*process),
                false => self.callers.known_of(*process),
            };
            match caller {
                Some(caller) if caller.actor.worker == holder.worker => {
                    self.table.lock().locks.also(ino, &holder.worker, *process);
                    if sight == OpenState::Writing {
                        return true;
                    }
                    appends = true;
                }
                Some(_) => {}
                // A thread that may wait finds it out, or the next call does.
                None => return true,
            }
        }
        if appends {
            if !hidden {
                self.table.lock().locks.only_appends(ino, holder);
            }
            return true;
        }
        if hidden && looked.since(holder.last) < Span(UNSEEN_LOCK_MS) {
            return true;
        }
        let mut table = self.table.lock();
        table.locks.release(ino, holder);
        table.locks.holders(ino).iter().any(|still| still.worker == holder.worker)
    }

    /// The processes that may have a file open for a holder, and others of its worker.
    fn family(&self, holder: &LockHolder, scan: &mut ProcessScan) -> Vec<u32> {
        let (mut others, anchors) = self.callers.processes_of(&holder.worker);
        let roots = holder.processes.iter().chain(&holder.anchors).copied().chain(anchors);
        let mut family = scan.family(&self.descriptors, roots);
        // Descendants of these need not belong to this worker: a person's shell starts agents.
        family.append(&mut others);
        family
    }

    /// The caller that stores through a mapping of a file, if the guard looked just now; the inner `None`: it found none.
    fn known_mapper(&self, ino: Ino) -> Option<Option<Arc<Caller>>> {
        let now = (self.clock)().instant;
        let table = self.table.lock();
        let (caller, looked) = table.mapped.get(&ino)?;
        (now.since(*looked) < Span(MAPPED_KNOWN_MS)).then(|| caller.clone())
    }

    fn remember_mapper(&self, ino: Ino, caller: Option<Arc<Caller>>) {
        let now = (self.clock)().instant;
        let mut table = self.table.lock();
        table.mapped.retain(|_, (_, looked)| now.since(*looked) < Span(MAPPED_KNOWN_MS));
        table.mapped.insert(ino, (caller, now));
    }
}
