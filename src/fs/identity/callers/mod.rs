//! The caller of a request: the only place where a process becomes a worker (C40).
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs. The calling thread waits in the kernel for the answer, so
//! no process holds a lock that a read of `/proc/<tid>/stat` of that thread takes. Other processes may hold such locks.
//! Must never: use a cached caller without checking that the process image is the same: the kernel reuses pids, and `exec` changes the
//! environment. Must never read from another process on a thread that serves the kernel (C44).
//!
//! A request of a known caller is served at once ([`Callers::admit`]). Otherwise another thread serves it after a look-up
//! ([`Callers::find_out`]). If the look-up takes too long, the request is served as one of an unknown caller.
//!
//! This file has the table of callers, and what happens to a request. [`naming`] makes a caller from a look-up, [`claims`] ties claims to
//! processes, and [`processes`] answers what the guard asks of processes.

mod claims;
mod naming;
mod processes;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::engine::{Engine, Heartbeat};
use crate::fs::identity::ancestry::{self, Ancestry};
use crate::fs::identity::lookups::{Job, Lane, LookupEvent, LookupPromise, Lookups};
use crate::fs::identity::nameless::Nameless;
use crate::fs::identity::names::{self, Names};
use crate::fs::identity::process::{Image, Stat, thread_group};
use crate::fs::identity::process_watch::{Anchor, ProcessWatch};
use crate::fs::{CallerCheck, FsError, Request, Result};
use crate::limits::{CALLERS_REMEMBERED, CROWD, SIGN_OF_LIFE_MS};
use crate::queue::{Actor, Instant, Span, WorkerName};

/// The caller of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Name, uid and rights.
    pub actor: Actor,
    /// Whether the name was set or follows from the program, so that this is a worker even before it claims anything.
    pub is_worker: bool,
    /// The process that the calling thread belongs to; 0 if it is not visible in `/proc`.
    pub process: u32,
    /// Whether the process serves a remote worker, one request at a time. A wait would delay all requests of that worker.
    pub is_sftp: bool,
    /// The process whose end is the end of this worker, if there is one.
    pub anchor: Option<Anchor>,
    /// Why the caller has no name. Such a caller reads as its user, and changes nothing in the queue.
    pub nameless: Option<Nameless>,
    /// The program, if it is one that replaces whole trees.
    pub tree_program: Option<&'static str>,
}

/// The look-up took too long. The next one may be faster.
const LATE: &str = "who asks could not be found out in time, because its process, or one above it, cannot be looked at; try again";
/// The look-up would take too much memory.
const TOO_MUCH: &str =
    "who asks cannot be found out: its environment, with those of the processes above it, is too large";

thread_local! {
    /// The caller of the request that this thread serves, once it is known.
    static SERVING: RefCell<Option<(u32, u32, Arc<Caller>)>> = const { RefCell::new(None) };
}

/// While this value lives, its thread serves a request of a known caller.
#[must_use = "the request is known only while this lives"]
pub struct Serving(());

impl Serving {
    fn unknown() -> Serving {
        Serving(())
    }

    fn of(req: &Request, caller: Arc<Caller>) -> Serving {
        SERVING.set(Some((req.tid, req.uid, caller)));
        Serving(())
    }

    fn caller(req: &Request) -> Option<Arc<Caller>> {
        SERVING.with_borrow(|serving| {
            let (tid, uid, caller) = serving.as_ref()?;
            ((*tid, *uid) == (req.tid, req.uid)).then(|| caller.clone())
        })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVING.set(None);
    }
}

struct KnownThread {
    /// Its `/proc/<tid>/stat`, kept open: the file never becomes that of another process, and one read identifies the image.
    stat: Arc<File>,
    image: Image,
    uid: u32,
    caller: Arc<Caller>,
    presence: Option<Arc<Heartbeat>>,
    /// The last time its request counted as a sign of life.
    seen_at: Option<Instant>,
}

impl KnownThread {
    fn is_recent(&self, now: Instant) -> bool {
        self.seen_at.is_some_and(|seen_at| now.since(seen_at) < Span(SIGN_OF_LIFE_MS))
    }
}

/// Identifies a look-up by tid, uid and image. The image is `None` for a thread that may not wait for its answer.
type Key = (u32, u32, Option<Image>);

/// A look-up that is under way.
#[derive(Default)]
struct PendingLookup {
    late: bool,
    waiting: Vec<(Request, Job)>,
}

/// All recent callers.
pub struct Callers {
    engine: Arc<Engine>,
    process_watch: Arc<ProcessWatch>,
    /// The uid that mounted. Its processes without a name are operators.
    owner: u32,
    /// The name of the tasks directory, for messages.
    tasks: String,
    known: Mutex<HashMap<u32, KnownThread>>,
    lookups: Lookups,
    pending: Mutex<HashMap<Key, PendingLookup>>,
    names: Names,
    crowd: Mutex<Arc<[WorkerName]>>,
}

impl Callers {
    /// An empty table. `owner` is the uid that mounted.
    pub fn new(
        engine: Arc<Engine>,
        process_watch: Arc<ProcessWatch>,
        owner: u32,
        tasks: String,
        names: names::Config,
    ) -> Callers {
        let crowd = Mutex::new(Arc::new([]) as Arc<[WorkerName]>);
        Callers {
            engine,
            process_watch,
            owner,
            tasks,
            known: Mutex::default(),
            lookups: Lookups::default(),
            pending: Mutex::default(),
            names: Names::new(names),
            crowd,
        }
    }

    /// Every recent worker, and every other caller that changed a file or read a changed one, by the names under which they change files.
    pub fn crowd(&self) -> Arc<[WorkerName]> {
        self.crowd.lock().clone()
    }

    /// Whether the caller is known, so that this thread can serve the request while the answer lives. Waits for nothing.
    pub fn admit(&self, req: &Request, check: CallerCheck) -> Option<Serving> {
        if req.tid == 0 || check == CallerCheck::Recent && self.is_known_recently(req) {
            return Some(Serving::unknown());
        }
        if check == CallerCheck::ExactUnwaited {
            return None;
        }
        let caller = self.recall(req).or_else(|| self.recall_process(req))?;
        // The anchor has ended and the caller still runs: its parent is another process now, so its name may differ.
        let orphaned = check == CallerCheck::Exact && caller.anchor.as_ref().is_some_and(Anchor::has_ended);
        (!orphaned).then(|| Serving::of(req, caller))
    }

    /// Look the caller up, and serve the request after that, or when the look-up takes too long.
    pub fn find_out(self: &Arc<Self>, req: &Request, check: CallerCheck, serve: Job) {
        let stat = if check == CallerCheck::ExactUnwaited { None } else { Stat::open(req.tid) };
        if check != CallerCheck::ExactUnwaited && stat.is_none() {
            return self.serve(req, self.by_login(req, 0), serve);
        }
        let (stat, image) = match stat {
            Some((file, stat)) => (Some(Arc::new(file)), Some(stat.image)),
            None => (None, None),
        };
        let key = (req.tid, req.uid, image);
        {
            let mut pending = self.pending.lock();
            match pending.get_mut(&key) {
                Some(lookup) if !lookup.late => return lookup.waiting.push((*req, serve)),
                Some(_) => {
                    drop(pending);
                    return self.serve(req, self.unknown(req, LATE), serve);
                }
                None => pending.insert(key, PendingLookup { late: false, waiting: vec![(*req, serve)] }),
            };
        }
        let (callers, tid, caller) = (self.clone(), req.tid, *req);
        let handler = move |event, found: Option<Ancestry>| {
            callers.finish_lookup(&caller, key, stat.as_ref(), event, found)
        };
        let promise = self.lookups.ask(Lane::of(req.tid, req.uid), move || ancestry::read(tid), handler);
        if promise != LookupPromise::Awaited {
            let waiting = match promise {
                LookupPromise::Unawaited => self.give_up(key),
                _ => self.pending.lock().remove(&key).map_or_else(Vec::new, |pending| pending.waiting),
            };
            waiting.into_iter().for_each(|(req, serve)| self.serve(&req, self.unknown(&req, LATE), serve));
        }
    }

    fn serve(&self, req: &Request, caller: Arc<Caller>, serve: Job) {
        let _serving = Serving::of(req, caller);
        serve();
    }

    /// Stop waiting for a look-up. The answer is the requests that waited for it.
    fn give_up(&self, key: Key) -> Vec<(Request, Job)> {
        let mut pending = self.pending.lock();
        let Some(pending) = pending.get_mut(&key) else { return Vec::new() };
        pending.late = true;
        std::mem::take(&mut pending.waiting)
    }

    /// Handle an event of a look-up. The answer is the first of the requests that waited; other threads serve the rest.
    fn finish_lookup(
        self: &Arc<Self>,
        req: &Request,
        key: Key,
        stat: Option<&Arc<File>>,
        event: LookupEvent,
        found: Option<Ancestry>,
    ) -> Vec<Job> {
        let caller = match found {
            Some(found) => {
                let image = found.image;
                let caller = Arc::new(self.caller(req, found));
                if let (Some(stat), Some(image)) = (stat, image.filter(|image| key.2 == Some(*image))) {
                    self.keep(req, stat.clone(), image, caller.clone());
                }
                caller
            }
            None => self.unknown(req, LATE),
        };
        let waiting = match event {
            LookupEvent::Late => self.give_up(key),
            _ => self.pending.lock().remove(&key).map_or_else(Vec::new, |pending| pending.waiting),
        };
        let mut waiting = waiting.into_iter().map(|(req, serve)| {
            let (callers, caller) = (self.clone(), caller.clone());
            Box::new(move || callers.serve(&req, caller, serve)) as Job
        });
        // This thread serves the first request, other threads serve the rest.
        let first = waiting.next();
        waiting.for_each(|work| self.lookups.run(Lane::of(req.tid, req.uid), work));
        first.into_iter().collect()
    }

    /// The caller that changes a file of the project. A caller with an invalid name, or with another user's name (C41), acts as its user.
    ///
    /// # Errors
    /// EAGAIN for an unknown caller (C44).
    pub fn acting(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = match self.identify(req) {
            Ok(caller) => caller,
            Err(error @ FsError::Nameless(Nameless::Unknown(_))) => return Err(error),
            Err(_) => {
                let process = self.recognise(req).process;
                let user = Caller { nameless: None, ..(*self.by_login(req, process)).clone() };
                let actor = Actor { operator: false, ..user.actor.clone() };
                Arc::new(Caller { actor, is_sftp: false, ..user })
            }
        };
        // A worker was added when it was identified.
        if !caller.is_worker {
            self.join(&caller.actor.worker);
        }
        Ok(caller)
    }

    fn join(&self, worker: &WorkerName) {
        let mut crowd = self.crowd.lock();
        if !crowd.contains(worker) {
            // The first may have ended long ago. If it has not, its next request adds it again.
            let kept = crowd.iter().skip((crowd.len() + 1).saturating_sub(CROWD));
            *crowd = kept.chain([worker]).cloned().collect();
        }
    }

    /// The caller, as it was at the last other request of this thread or process. Safe while the caller's memory is locked, and when the
    /// caller does not wait for the answer: it reads only `/proc/<tid>/status`, which takes no lock of the process.
    pub fn glance(&self, req: &Request) -> Option<Arc<Caller>> {
        let process = thread_group(req.tid);
        let known = self.known.lock();
        let of = |tid: u32| {
            known.get(&tid).filter(|known| known.uid == req.uid && known.caller.process == process)
        };
        let known = of(req.tid).or_else(|| of(process))?;
        Some(known.caller.clone()).filter(|caller| caller.nameless.is_none())
    }

    /// Record that a request of this caller was refused. The worker can read why (C55).
    pub fn refused(&self, caller: &Caller, error: &FsError) {
        if let Some(presence) = self.engine.roster().get(caller.actor.worker.as_str())
            && let Some(why) = error.sentence(&self.tasks)
        {
            presence.refused((self.engine.clock())().wall, why);
        }
    }

    /// Record that a request of an unidentified caller was refused. Its user can read why.
    pub fn refused_unknown(&self, req: &Request, error: &FsError) {
        if matches!(error, FsError::Nameless(Nameless::Unknown(_))) {
            self.record_for_user(req.uid, error);
        }
    }

    /// Record a refusal under the login name of its user, because no worker should read it.
    fn record_for_user(&self, uid: u32, error: &FsError) {
        if let Some(why) = error.sentence(&self.tasks) {
            let now = (self.engine.clock())();
            self.engine.roster().heard(&self.login(uid), uid, now).refused(now.wall, why);
        }
    }

    /// The caller. The request counts as a sign of life of a worker.
    ///
    /// # Errors
    /// EACCES when CREWFS_WORKER is set to an invalid name; EAGAIN for an unknown caller (C44).
    pub fn identify(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = self.recognise(req);
        match &caller.nameless {
            Some(nameless) => Err(nameless.clone().into()),
            None => self.count_sign_of_life(req, caller),
        }
    }

    /// Count a request of a caller with a valid name as a sign of life of its worker.
    fn count_sign_of_life(&self, req: &Request, caller: Arc<Caller>) -> Result<Arc<Caller>> {
        let (name, now) = (&caller.actor.worker, (self.engine.clock())());
        let state = self.engine.state();
        match self.check_name(&state, &caller.actor) {
            Ok(()) => {
                let presence = caller.is_worker.then(|| {
                    self.join(name);
                    self.engine.roster().heard(name, caller.actor.uid, now)
                });
                self.cache_presence(req, presence, now.instant);
                self.resume_watching(&caller, &state, now);
                Ok(caller)
            }
            // The use of another user's name is no sign of life of that worker. The calling user reads the message.
            Err(error) => {
                self.cache_presence(req, None, now.instant);
                self.record_for_user(req.uid, &error);
                Err(error)
            }
        }
    }

    /// The caller of a read. It may have no name; it can then read why.
    ///
    /// # Errors
    /// EACCES when the name belongs to another user (C41).
    pub fn reader(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = self.recognise(req);
        if caller.nameless.is_some() { Ok(caller) } else { self.count_sign_of_life(req, caller) }
    }

    /// The caller, if it has no name. This is no sign of life of a worker.
    pub fn nameless(&self, req: &Request) -> Option<Arc<Caller>> {
        Some(self.recognise(req)).filter(|caller| caller.nameless.is_some())
    }

    /// Cache the worker whose sign of life the next requests of this thread are.
    fn cache_presence(&self, req: &Request, presence: Option<Arc<Heartbeat>>, seen_at: Instant) {
        if let Some(known) = self.known.lock().get_mut(&req.tid) {
            (known.presence, known.seen_at) = (presence, Some(seen_at));
        }
    }

    /// The cached caller of this thread, if its program is still the same. Only for a thread that waits for its answer.
    fn recall(&self, req: &Request) -> Option<Arc<Caller>> {
        let (stat, image, caller) = {
            let known = self.known.lock();
            let known = known.get(&req.tid).filter(|known| known.uid == req.uid)?;
            (known.stat.clone(), known.image, known.caller.clone())
        };
        Stat::of(&stat).is_some_and(|stat| stat.image == image).then_some(caller)
    }

    /// The cached caller of the process that a thread belongs to. The process cannot be in execve(2) while this thread waits.
    fn recall_process(&self, req: &Request) -> Option<Arc<Caller>> {
        let process = thread_group(req.tid);
        if process == req.tid {
            return None;
        }
        let caller = self.recall(&Request { tid: process, ..*req })?;
        let (file, stat) = Stat::open(req.tid)?;
        self.keep(req, Arc::new(file), stat.image, caller.clone());
        Some(caller)
    }

    /// The caller as admitted or cached; otherwise an unknown one. Requests are admitted when their caller is known.
    fn recognise(&self, req: &Request) -> Arc<Caller> {
        Serving::caller(req).or_else(|| self.recall(req)).unwrap_or_else(|| match req.tid {
            0 => self.by_login(req, 0),
            _ => self.unknown(req, LATE),
        })
    }

    fn is_known_recently(&self, req: &Request) -> bool {
        let now = (self.engine.clock())().instant;
        let known = self.known.lock();
        let known = known.get(&req.tid).filter(|known| known.uid == req.uid);
        known.is_some_and(|known| known.is_recent(now))
    }

    fn keep(&self, req: &Request, stat: Arc<File>, image: Image, caller: Arc<Caller>) {
        let mut known = self.known.lock();
        if known.len() >= CALLERS_REMEMBERED {
            known.clear();
        }
        known.insert(
            req.tid,
            KnownThread { stat, image, uid: req.uid, caller, presence: None, seen_at: None },
        );
    }

    /// Any request is a sign of life of its worker (C30). Fast enough for every request.
    pub fn seen(&self, req: &Request) {
        let now = (self.engine.clock())();
        if let Some(known) = self.known.lock().get(&req.tid)
            && known.is_recent(now.instant)
        {
            if let Some(presence) = &known.presence {
                presence.heard(now);
            }
            return;
        }
        // An invalid name is refused only where a name is needed.
        let _ = self.identify(req);
    }
}
