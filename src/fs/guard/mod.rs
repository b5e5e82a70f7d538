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
//! the crowd has read the file: each open then requests them ([`Guard::before_read`]). If the opening worker has not read the file, the
//! guard drops the cached pages first, so that the read itself reaches the daemon ([`Guard::reading`]). A read that arrives in between
//! costs one refused change and one more read.
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
mod patience;
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
use self::locks::{ChangingProcess, LockHolder, Locks, Mode};
pub use self::open_files::DeviceNumber;
use self::open_files::{OpenFiles, OpenState};
use self::owned::{Owned, Reach};
use self::patience::Patience;
pub use self::refusal::GuardRefusal;
use self::sweeping::Sweeper;
use self::versions::{ReadPurpose, Versions};
use self::waiting::ParkedChanges;
use super::files::Files;
use super::identity::callers::{Caller, Callers};
use super::recorder::Recorder;
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
    /// Refuse a forbidden change.
    fn permits(&self, change: &Change) -> Result<()>;
}

/// The result of a change, with what the guard needs of it.
pub trait ChangeOutcome {
    /// The file that was created.
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

/// The guard's records about files.
struct FileTable {
    locks: Locks,
    fences: Fences,
    changes: Versions,
    /// Files that lost their last name and may still be open.
    orphans: HashMap<Ino, Orphan>,
    /// The last caller that stored through a mapping, if it was found, and when the finder ran.
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
    /// It may be made now, by [`Guard::finish`].
    Granted(Grant),
    /// It may not be made.
    Refused(FsError),
    /// Another worker holds the file, or the caller is not known. The change waits, in [`Guard::park`].
    Wait(Patience),
}

/// Counters of the guard.
#[derive(Debug)]
pub struct GuardCounters {
    /// Changes that were refused, by reason.
    pub refusals: Tally<GuardRefusal>,
    /// Changes that had to wait for another worker's lock.
    pub waited: AtomicU64,
    /// How often the guard made the kernel drop the cached pages of a file, to notice a read.
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

/// Permits or refuses changes. See the module's documentation.
pub struct Guard {
    config: Config,
    policy: Box<dyn Policy>,
    files: Arc<Files>,
    callers: Arc<Callers>,
    clock: Clock,
    exempt: GitIgnore,
    /// Keeps what changes destroy; `None` with `-o history=off`.
    recorder: Option<Arc<Recorder>>,
    owned: Owned,
    descriptors: OpenFiles,
    table: Arc<Mutex<FileTable>>,
    invalidator: OnceLock<Invalidator>,
    parked: ParkedChanges,
    sweeper: Sweeper,
    counters: GuardCounters,
    /// The size of the crowd when the attributes of all recently changed files were last invalidated for it.
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
        recorder: Option<Arc<Recorder>>,
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
            recorder,
            owned: Owned::new(engine),
            table: Arc::new(Mutex::new(FileTable {
                locks: Locks::default(),
                fences: Fences::default(),
                changes: Versions::new(RECENT_FILES, stale_window),
                orphans: Default::default(),
                mapped: Default::default(),
            })),
            invalidator: OnceLock::new(),
            parked: ParkedChanges::default(),
            sweeper: Sweeper::default(),
            counters: GuardCounters::default(),
            crowd: AtomicUsize::new(0),
        }
    }

    /// The tree is mounted as this device, by a kernel that can invalidate its cache. Changes can be parked from now on.
    pub fn start(self: &Arc<Self>, device: DeviceNumber, kernel: Arc<dyn Kernel>) -> std::io::Result<()> {
        self.descriptors.mounted(device);
        let _ = self.invalidator.set(Invalidator::start(kernel)?);
        sweeping::start(self)?;
        waiting::start(self)
    }

    /// Answer every parked change with EIO.
    pub fn stop(&self) {
        self.parked.close();
        self.sweeper.close();
    }

    /// The numbers since the start.
    pub fn counters(&self) -> &GuardCounters {
        &self.counters
    }

    /// Record a sign of life of this caller.
    pub fn seen(&self, req: &Request) {
        self.callers.seen(req);
        self.notice_crowd();
    }

    /// Make a change when it is permitted, and answer.
    pub fn run<T: ChangeOutcome + Send + 'static>(
        self: &Arc<Self>,
        req: &Request,
        change: Change,
        reply: Reply<T>,
        make: impl FnMut() -> Result<T> + Send + 'static,
    ) {
        match self.judge(req, &change) {
            Verdict::Granted(grant) => self.finish(grant, req.uid, make, move |outcome| reply.send(outcome)),
            Verdict::Refused(error) => reply.send(Err(error)),
            Verdict::Wait(patience) => self.park(patience, change, reply, make),
        }
    }

    /// Keep what a granted change destroys. The caller makes the change after this, and before the kernel has its answer.
    ///
    /// # Errors
    /// Those of [`Recorder::keep`]. The change must not be made then.
    pub fn keep(&self, grant: &Grant) -> Result<()> {
        let Some(recorder) = &self.recorder else { return Ok(()) };
        let is_exempt = |parent, name: &OsStr, is_directory| self.exempt.name(parent, name, is_directory);
        recorder.keep(grant.by.as_deref(), &grant.touched, &is_exempt)
    }

    /// Record a granted change that was made.
    pub fn record_made<T: ChangeOutcome>(&self, grant: &Grant, outcome: Result<T>) -> Result<T> {
        let made = outcome?;
        self.record(grant, made.made());
        if let Some(recorder) = &self.recorder {
            recorder.made(&grant.touched);
        }
        Ok(made)
    }

    /// Keep what a granted change destroys, make the change, and record it, once no lease blocks it. The kernel keeps the file locked
    /// until the answer, so the verdict stays valid.
    pub fn finish<T: ChangeOutcome + Send + 'static>(
        self: &Arc<Self>,
        grant: Grant,
        uid: u32,
        mut make: impl FnMut() -> Result<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        let (guard, grant) = (self.clone(), Arc::new(grant));
        let attempt = {
            let (guard, grant) = (guard.clone(), grant.clone());
            move || guard.keep(&grant).and_then(|()| make())
        };
        self.files.leases().run(uid, attempt, move |outcome| done(guard.record_made(&grant, outcome)));
    }

    /// Park a change until the other worker is done; then make it and answer.
    pub fn park<T: ChangeOutcome + Send + 'static>(
        self: &Arc<Self>,
        patience: Patience,
        change: Change,
        reply: Reply<T>,
        make: impl FnMut() -> Result<T> + Send + 'static,
    ) {
        self.counters.waited.fetch_add(1, Ordering::Relaxed);
        let guard = self.clone();
        let requested = (self.clock)().instant;
        let written = if let Change::Write { ino, .. } = change { Some(ino) } else { None };
        let mapped = if let Change::WriteMapped { ino } = change { Some(ino) } else { None };
        let caller = patience.caller();
        let uid = caller.as_ref().map_or(0, |caller| caller.actor.uid);
        let after = {
            let guard = guard.clone();
            move |outcome: Result<T>| {
                if let (Ok(_), Some(ino)) = (&outcome, written) {
                    // Another worker may have made the kernel drop the written pages and read the earlier content again.
                    guard.drop_pages(ino, || {});
                }
                if let (Err(_), Some(ino), Some(caller)) = (&outcome, written, &caller) {
                    // In the meantime every reader could see the write in the cache.
                    guard.refused_write_shown(ino, &caller.actor.worker, requested);
                }
                reply.send(outcome);
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
        self.parked.enter(self, patience, change, Box::new(resume));
    }

    /// Discard the records of a node that the kernel has forgotten: no process has it open.
    pub fn forget(&self, ino: Ino) {
        self.exempt.forget(ino);
        if let Some(recorder) = &self.recorder {
            recorder.forget(ino);
        }
        let mut table = self.table.lock();
        table.locks.forget(ino);
        table.fences.forget(ino);
        table.orphans.remove(&ino);
        table.mapped.remove(&ino);
    }

    /// The caller runs this about once a second: a connection that has closed a file may open and change it again.
    pub fn lower_fences(&self) {
        let raised = self.table.lock().fences.all();
        for (ino, process) in raised {
            if !self.has_open(process, ino) {
                self.table.lock().fences.lower(ino, process);
            }
        }
    }

    /// Whether a process has a file open for writing, or a reading of its descriptors is under way.
    fn has_open(&self, process: u32, ino: Ino) -> bool {
        let now = (self.clock)().instant;
        !matches!(self.descriptors.open_state(process, ino, now), OpenState::Done | OpenState::Hidden)
    }

    /// An entry of this name changed beneath the mount; `None`: any entry.
    pub fn changed_behind(&self, name: Option<&OsStr>) {
        if name.is_none_or(gitignore::makes_rules) {
            self.exempt.rules_changed();
        }
    }

    /// How long the kernel may cache the attributes of a file; `as_a_rule` if there is no recent change.
    pub fn attr_ttl(&self, ino: Ino, as_a_rule: Duration) -> Duration {
        let now = (self.clock)().instant;
        let table = self.table.lock();
        if table.changes.recent(ino, now).is_none() {
            as_a_rule
        } else if table.changes.is_unread_in(ino, &self.callers.crowd(), now) {
            Duration::ZERO
        } else {
            // A worker that is not in the crowd yet may read it next.
            as_a_rule.min(Duration::from_millis(RECENT_BELIEVED_MS))
        }
    }

    /// A caller requests the attributes of a file, and may read it next. `then` is called when the kernel is ready for that; it reads the
    /// attributes, so that any earlier change counts as unread. `anew`: the request is for an open, and not during a read.
    pub fn before_read(&self, req: &Request, ino: Ino, anew: bool, then: impl FnOnce() + Send + 'static) {
        let now = (self.clock)().instant;
        if self.table.lock().changes.recent(ino, now).is_none() {
            return then();
        }
        // An unknown caller counts as a worker that has not read the file.
        let Ok(caller) = self.acting(req) else { return then() };
        let mut table = self.table.lock();
        // A process that opens it may store through a mapping next.
        if table.mapped.get(&ino).is_some_and(|(known, _)| {
            known.as_ref().is_none_or(|known| known.actor.worker != caller.actor.worker)
        }) {
            table.mapped.remove(&ino);
        }
        let purpose = match (anew, table.locks.is_opening(ino, &caller.actor.worker)) {
            (true, false) => ReadPurpose::Open,
            (true, true) => ReadPurpose::CreatingOpen,
            (false, _) => ReadPurpose::ReadOn,
        };
        table.changes.attributes_requested(ino, &caller.actor.worker, purpose, now);
        // Not during a read: dropping the pages would invalidate this answer, and the kernel reads as far as the size in it.
        let renew = anew
            && (table.changes.unread(ino, &caller.actor.worker, now).is_some()
                || table.changes.may_show_wrong_content(ino, now));
        drop(table);
        let (table, files) = (self.table.clone(), self.files.clone());
        let then = move || {
            let is_empty = || files.getattr(ino).is_ok_and(|attr| attr.size == 0);
            if anew && is_empty() {
                // The file is empty, so no read will reach the daemon. But the file may have been written just before this.
                table.lock().changes.mark_read(ino, &caller.actor.worker, now);
                if !is_empty() {
                    table.lock().changes.mark_unread(ino, &caller.actor.worker);
                }
            }
            then();
        };
        if renew { self.drop_pages(ino, then) } else { then() }
    }

    /// Make the kernel invalidate the attributes of a node, so that the next open requests them.
    fn forget_attributes(&self, ino: Ino) {
        if let Some(invalidator) = self.invalidator.get() {
            invalidator.attributes(ino);
            self.table.lock().changes.attributes_invalidated(ino);
        }
    }

    /// Make the kernel drop the cached pages of a file, and call `then` afterwards.
    ///
    /// The kernel may also drop writes from now until a little later, and read the earlier content again. So the guard records both ends.
    pub fn drop_pages(&self, ino: Ino, then: impl FnOnce() + Send + 'static) {
        let Some(invalidator) = self.invalidator.get() else { return then() };
        self.counters.pages_dropped.fetch_add(1, Ordering::Relaxed);
        let (table, clock) = (self.table.clone(), self.clock.clone());
        let record = move || table.lock().changes.content_invalidated(ino, clock().instant);
        record();
        invalidator.content(ino, move || {
            record();
            then();
        });
    }

    /// A caller is about to read a file. Called before the disk is read, so that a change in between counts as unread. `writable`: the
    /// descriptor permits writing too. Safe while the caller's memory is locked.
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

    /// The path of a file for messages.
    fn shown(&self, ino: Ino) -> String {
        self.files.path(ino).map_or_else(|| "a deleted file".to_owned(), |path| path.display().to_string())
    }

    fn acting(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = self.callers.acting(req)?;
        self.notice_crowd();
        Ok(caller)
    }

    /// A new worker has read no file. Invalidate the attributes that were cached because every worker had read the file.
    fn notice_crowd(&self) {
        let crowd = self.callers.crowd().len();
        if self.crowd.swap(crowd, Ordering::AcqRel) < crowd && crowd > 1 {
            let all = self.table.lock().changes.all();
            if let Some(invalidator) = self.invalidator.get().filter(|_| !all.is_empty()) {
                invalidator.attributes_of(all);
            }
        }
    }

    /// Record a change that was made.
    fn record(&self, grant: &Grant, made: Option<Ino>) {
        let now = (self.clock)();
        for ino in [grant.gone, grant.moved].into_iter().flatten() {
            self.exempt.forget(ino);
        }
        if let Some(ino) = grant.gone {
            // The file may be open, also beneath the mount, where the guard does not see its changes from now on.
            self.forget_attributes(ino);
        }
        if grant.rules {
            self.exempt.rules_changed();
        }
        // The kernel may have cached this file's attributes. Invalidate them, so that the next open by a worker that has not read this
        // version reaches us.
        let crowd = self.callers.crowd();
        let (unread, dropped) = {
            let mut table = self.table.lock();
            if let Some(ino) = grant.gone.or(grant.freed) {
                table.locks.forget(ino);
                table.changes.forget(ino);
            }
            let Some(by) = &grant.by else { return };
            if let (Some(ino), Some(path)) = (grant.gone, grant.orphan.clone()) {
                // The kernel forgets nearly all of them at once.
                if table.orphans.len() >= RECENT_FILES {
                    table.orphans.clear();
                }
                table.orphans.insert(ino, Orphan { path, by: by.actor.worker.clone(), at: now.wall });
            }
            if let (true, Some(ino)) = (grant.makes, made) {
                // The earlier file of this number is gone.
                table.locks.forget(ino);
                table.orphans.remove(&ino);
                // A creator without a descriptor for writing does not hold the file.
                if let Some(mode) = grant.opens {
                    table.locks.make(ino, &by.actor.worker, mode, ChangingProcess::of(by), now);
                }
                table.changes.changed(ino, &by.actor.worker, false, now);
            }
            let changed = grant.changed.into_iter().flatten();
            // The kernel may have dropped this write and read the earlier content again.
            let dropped = changed.clone().filter(|ino| table.changes.is_just_invalidated(*ino, now.instant));
            let dropped: Vec<Ino> = dropped.collect();
            let unread = changed.filter(|ino| {
                let was_read = !table.changes.is_unread_in(*ino, &crowd, now.instant);
                table.changes.changed(*ino, &by.actor.worker, grant.blind, now);
                was_read && table.changes.is_unread_in(*ino, &crowd, now.instant)
            });
            let unread = unread.collect::<Vec<Ino>>();
            dropped.iter().for_each(|ino| table.changes.page_drop_begins(*ino));
            (unread, dropped)
        };
        unread.into_iter().for_each(|ino| self.forget_attributes(ino));
        for ino in dropped {
            let table = self.table.clone();
            self.drop_pages(ino, move || table.lock().changes.page_drop_ends(ino));
        }
    }

    /// Whether a holder still needs its lock of a file. If not, the lock is released.
    fn still_holds(&self, ino: Ino, holder: &LockHolder, scan: &mut ProcessScan) -> bool {
        let now = (self.clock)().instant;
        let opener_lives = self.descriptors.exists(holder.opener);
        if now < holder.opening && opener_lives {
            return true;
        }
        // A reading before this moment may be outdated.
        let since = if opener_lives { holder.last.max(holder.opening) } else { holder.last };
        let (mut hidden, mut appends) = (false, false);
        // A fenced process may no longer change the file, so it does not hold it.
        let fenced = |process: &u32| self.table.lock().fences.is_fenced(ino, *process);
        for process in holder.processes.iter().filter(|process| !fenced(process)) {
            match scan.open_state(&self.descriptors, *process, ino, since) {
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
            let state = scan.open_state(&self.descriptors, *process, ino, since);
            match state {
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
                    self.table.lock().locks.add_process(ino, &holder.worker, *process);
                    if state == OpenState::Writing {
                        return true;
                    }
                    appends = true;
                }
                Some(_) => {}
                // A thread that may wait identifies the process, or the next call does.
                None => return true,
            }
        }
        if appends {
            if !hidden {
                self.table.lock().locks.only_appends(ino, holder);
            }
            return true;
        }
        if hidden && now.since(holder.last) < Span(UNSEEN_LOCK_MS) {
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

    /// The caller that stores through a mapping of a file, if the finder has just run; the inner `None`: it found none.
    fn known_mapper(&self, ino: Ino) -> Option<Option<Arc<Caller>>> {
        let now = (self.clock)().instant;
        let table = self.table.lock();
        let (caller, found_at) = table.mapped.get(&ino)?;
        (now.since(*found_at) < Span(MAPPED_KNOWN_MS)).then(|| caller.clone())
    }

    fn record_mapper(&self, ino: Ino, caller: Option<Arc<Caller>>) {
        let now = (self.clock)().instant;
        let mut table = self.table.lock();
        table.mapped.retain(|_, (_, found_at)| now.since(*found_at) < Span(MAPPED_KNOWN_MS));
        table.mapped.insert(ino, (caller, now));
    }
}
