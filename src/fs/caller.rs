//! Who is calling: the only place where a process becomes a worker (C40).
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: decide from a remembered answer without looking whether it is still the same process image. A pid is used
//! again, and `exec` changes the environment.
//!
//! On the way, the process is found whose end is that of the worker ([`super::followed`]).
//!
//! A name is looked for in this order: `CREWFS_WORKER` in the environment of the process or its nearest ancestor that has
//! it; the nearest of them that is a known agent program; the login name of the user.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::followed::{Alive, Anchor, Follower, Kind};
use super::process::{Image, Stat, age, agent_program, serves_sftp, thread_group, variable_of};
use super::{FsError, Request, Result};
use crate::engine::{Engine, Presence};
use crate::limits::{ANCESTORS, CALLERS_REMEMBERED, CROWD, SIGN_OF_LIFE_MS, SURELY_BEFORE_MS};
use crate::queue::{Actor, Instant, Now, Refusal, Seq, Span, State, Task, WorkerName};

/// Somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name, uid and rights.
    pub actor: Actor,
    /// Whether the name was given or follows from the program, so that this is a worker even before it claims anything.
    pub is_worker: bool,
    /// The process that the calling thread belongs to; 0 if it cannot be seen.
    pub process: u32,
    /// Whether it serves a remote worker, one request at a time: to let it wait would hold up everything of that worker.
    pub is_sftp: bool,
    /// The process whose end is the end of this worker, if there is one.
    pub anchor: Option<Anchor>,
    /// Why the name that the process was given is none. Such a caller reads as the user that it is, and changes nothing of the
    /// queue.
    pub misnamed: Option<Arc<str>>,
}

struct Known {
    /// Its `/proc/<tid>/stat`, kept open: it never becomes that of another process, and one read tells the image.
    stat: File,
    image: Image,
    uid: u32,
    caller: Arc<Caller>,
    presence: Option<Arc<Presence>>,
    looked: Instant,
}

/// All callers seen lately.
pub struct Callers {
    engine: Arc<Engine>,
    follower: Arc<Follower>,
    /// The uid that mounted: its people are operators.
    owner: u32,
    known: Mutex<HashMap<u32, Known>>,
    logins: Mutex<HashMap<u32, WorkerName>>,
    crowd: Mutex<Arc<[WorkerName]>>,
}

impl Callers {
    /// Nobody was seen yet. `owner` is the uid that mounted.
    pub fn new(engine: Arc<Engine>, follower: Arc<Follower>, owner: u32) -> Callers {
        let crowd = Mutex::new(Arc::new([]) as Arc<[WorkerName]>);
        Callers { engine, follower, owner, known: Mutex::default(), logins: Mutex::default(), crowd }
    }

    /// Every worker who was seen lately, and everybody else who changed a file or looked at one that was, by the names under
    /// which they change files.
    pub fn crowd(&self) -> Arc<[WorkerName]> {
        self.crowd.lock().clone()
    }

    /// Who changes a file of the project. Whoever uses a name that is none, or another user's (C41), acts as the user that
    /// they are.
    pub fn acting(&self, req: &Request) -> Arc<Caller> {
        let caller = self.identify(req).unwrap_or_else(|_| {
            let actor = Actor { worker: self.login(req.uid), uid: req.uid, operator: false };
            let process = thread_group(req.tid);
            let (is_sftp, anchor, misnamed) = (false, None, None);
            Arc::new(Caller { actor, is_worker: false, process, is_sftp, anchor, misnamed })
        });
        // Workers joined when they were identified.
        if !caller.is_worker {
            self.join(&caller.actor.worker);
        }
        caller
    }

    fn join(&self, worker: &WorkerName) {
        let mut crowd = self.crowd.lock();
        if !crowd.contains(worker) {
            // Whoever was first may be long gone, and joins again if not.
            let stay = crowd.iter().skip((crowd.len() + 1).saturating_sub(CROWD));
            *crowd = stay.chain([worker]).cloned().collect();
        }
    }

    /// Who asks, if that is known of the process already. Unlike the others this may be called while the caller's memory is
    /// locked: it looks at nothing that takes that lock.
    pub fn glance(&self, req: &Request) -> Option<Arc<Caller>> {
        self.recall(req).or_else(|| {
            let (file, stat) = Stat::open(req.tid)?;
            let caller = self.of_process(req, thread_group(req.tid))?;
            self.keep(req, file, stat.image, caller.clone());
            Some(caller)
        })
    }

    /// Whom a process works for, whatever it has asked so far. It may wait for the memory lock of that process.
    pub fn caller_of(&self, process: u32) -> Option<Arc<Caller>> {
        self.recognise(&request_of(process)?).ok()
    }

    /// The same, if it is known already; it waits for nobody.
    pub fn glance_at(&self, process: u32) -> Option<Arc<Caller>> {
        self.glance(&request_of(process)?)
    }

    /// The processes of a worker that have asked for something lately, and those that they stand and fall with.
    pub fn processes_of(&self, worker: &WorkerName) -> (Vec<u32>, Vec<u32>) {
        let known = self.known.lock();
        let callers = known.values().map(|known| &known.caller);
        let theirs: Vec<_> = callers.filter(|caller| caller.actor.worker == *worker).collect();
        let processes = theirs.iter().map(|caller| caller.process).filter(|process| *process != 0);
        let anchors = theirs.iter().filter_map(|caller| Some(caller.anchor.as_ref()?.pid));
        (processes.collect(), anchors.collect())
    }

    /// Every process that has asked for something lately.
    pub fn processes(&self) -> Vec<u32> {
        let known = self.known.lock();
        let mut all: Vec<u32> = known.values().map(|known| known.caller.process).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The owner of a name was refused something; it can read why (C55).
    pub fn refused(&self, caller: &Caller, why: &str) {
        if let Some(presence) = self.engine.roster().get(caller.actor.worker.as_str()) {
            presence.refused((self.engine.clock())().wall, why.to_owned());
        }
    }

    /// Who asks. To be asked counts as a sign of life of a worker.
    ///
    /// # Errors
    /// EACCES when CREWFS_WORKER is set to something that is no name.
    pub fn identify(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = self.recognise(req)?;
        match &caller.misnamed {
            Some(why) => Err(FsError::because(libc::EACCES, why.to_string())),
            None => self.heard_of(req, caller),
        }
    }

    /// A caller with a proper name asks: that is a sign of life of a worker.
    fn heard_of(&self, req: &Request, caller: Arc<Caller>) -> Result<Arc<Caller>> {
        let (name, now) = (&caller.actor.worker, (self.engine.clock())());
        let state = self.engine.state();
        match self.check_name(&state, &caller.actor) {
            Ok(()) => {
                let presence = caller.is_worker.then(|| {
                    self.join(name);
                    self.engine.roster().heard(name, caller.actor.uid, now)
                });
                self.remember(req, presence, now.instant);
                self.go_on_following(req, &caller, &state, now);
                Ok(caller)
            }
            // A stolen name is no sign of life of its owner; who uses it can read why where that one would.
            Err(error) => {
                self.remember(req, None, now.instant);
                if let (Some(presence), Some(why)) = (self.engine.roster().get(name.as_str()), &error.why) {
                    presence.refused(now.wall, why.to_string());
                }
                Err(error)
            }
        }
    }

    /// For whom something is shown: also for a caller whose name is none, so that it can read why.
    ///
    /// # Errors
    /// EACCES when the name belongs to another user (C41).
    pub fn reader(&self, req: &Request) -> Result<Arc<Caller>> {
        let caller = self.recognise(req)?;
        if caller.misnamed.is_some() { Ok(caller) } else { self.heard_of(req, caller) }
    }

    /// The caller, if its name is none. To ask that is no sign of life of a worker.
    pub fn misnamed(&self, req: &Request) -> Option<Arc<Caller>> {
        self.recognise(req).ok().filter(|caller| caller.misnamed.is_some())
    }

    /// A worker that holds something is followed, also after a restart of the daemon, or when another process of it is seen.
    fn go_on_following(&self, req: &Request, caller: &Caller, state: &State, now: Now) {
        let (Some(anchor), worker) = (&caller.anchor, &caller.actor.worker) else { return };
        let claims = state.worker(worker.as_str()).map_or(&[][..], |known| &known.claims);
        let claim = claims.last().and_then(|id| state.task(id.as_str())?.claim());
        let Some(claim) = claim.filter(|_| !self.follower.follows(worker, anchor)) else { return };
        // What came later is perhaps only a command that has nothing to do with the claim.
        let held = Span(now.wall.0.saturating_sub(claim.since.at.0).max(0) as u64 + SURELY_BEFORE_MS);
        if (anchor.kind != Kind::Program || age(anchor.started).is_some_and(|age| age > held))
            && let Some(process) = self.alive(req, caller)
        {
            self.follower.follow(worker, process, claim.epoch());
        }
    }

    /// The claim was made: from now on it ends with that process.
    pub fn claimed(&self, caller: &Caller, process: Alive, epoch: Seq) {
        self.follower.follow(&caller.actor.worker, process, epoch);
    }

    /// The process that the caller stands and falls with. For a claim, to be taken before that is decided.
    pub fn alive(&self, req: &Request, caller: &Caller) -> Option<Alive> {
        let worker = &caller.actor.worker;
        if let Some(alive) = self.follower.hold(worker, caller.anchor.as_ref()?) {
            return Some(alive);
        }
        // It is gone, and who asks is not: somebody else stands above now.
        let (file, stat) = Stat::open(req.tid)?;
        let image = stat.image;
        let anew = self.look(req, caller.process, Some(stat)).ok().filter(|anew| anew.actor == caller.actor);
        let anchor = anew.and_then(|anew| anew.anchor);
        self.keep(req, file, image, Arc::new(Caller { anchor: anchor.clone(), ..caller.clone() }));
        self.follower.hold(worker, &anchor?)
    }

    /// Why a connection may not end a claim of its own worker, if that is so: its own claim of that task is over, and another
    /// connection has claimed it again. What it still sends, perhaps long after its client is gone, was meant for the claim that is over.
    pub fn superseded(&self, caller: &Caller, task: &Task) -> Option<String> {
        let worker = &caller.actor.worker;
        let anchor = caller.anchor.as_ref().filter(|anchor| anchor.kind == Kind::Connection)?;
        let claim = task.claim().filter(|claim| claim.worker == *worker)?;
        let last = self.follower.last_claim(worker, anchor).filter(|last| *last < claim.epoch())?;
        let lost = task.losses.iter().rev().find(|loss| loss.worker == *worker && loss.epoch <= last)?;
        Some(format!(
            "your claim ended at {}: {}; another connection of yours has claimed it again since",
            lost.at, lost.reason
        ))
    }

    /// Whose sign of life the requests of this thread are, for the next moments.
    fn remember(&self, req: &Request, presence: Option<Arc<Presence>>, looked: Instant) {
        if let Some(known) = self.known.lock().get_mut(&req.tid) {
            (known.presence, known.looked) = (presence, looked);
        }
    }

    /// A name belongs to the uid that used it first (C41).
    fn check_name(&self, state: &State, actor: &Actor) -> Result<()> {
        match state.worker(actor.worker.as_str()) {
            Some(worker) if worker.uid != actor.uid && actor.uid != 0 => {
                let (worker, owner) = (actor.worker.clone(), worker.uid);
                Err(FsError::because(libc::EACCES, Refusal::NameTaken { worker, owner }.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// What was found out about this thread, if it is still the same program.
    fn recall(&self, req: &Request) -> Option<Arc<Caller>> {
        let known = self.known.lock();
        let known = known.get(&req.tid).filter(|known| known.uid == req.uid)?;
        Stat::of(&known.stat).is_some_and(|stat| stat.image == known.image).then(|| known.caller.clone())
    }

    /// What was found out about the process that a thread belongs to.
    fn of_process(&self, req: &Request, process: u32) -> Option<Arc<Caller>> {
        if process == req.tid { None } else { self.recall(&Request { tid: process, ..*req }) }
    }

    fn recognise(&self, req: &Request) -> Result<Arc<Caller>> {
        if let Some(caller) = self.recall(req) {
            return Ok(caller);
        }
        let Some((file, stat)) = Stat::open(req.tid) else { return Ok(Arc::new(self.look(req, 0, None)?)) };
        let (image, process) = (stat.image, thread_group(req.tid));
        let caller = match self.of_process(req, process) {
            Some(caller) => caller,
            None => Arc::new(self.look(req, process, Some(stat))?),
        };
        self.keep(req, file, image, caller.clone());
        Ok(caller)
    }

    fn keep(&self, req: &Request, stat: File, image: Image, caller: Arc<Caller>) {
        let mut known = self.known.lock();
        if known.len() >= CALLERS_REMEMBERED {
            known.clear();
        }
        let looked = Instant::default();
        known.insert(req.tid, Known { stat, image, uid: req.uid, caller, presence: None, looked });
    }

    /// Somebody did something somewhere: a sign of life of that worker (C30). Cheap enough for every request.
    pub fn seen(&self, req: &Request) {
        let now = (self.engine.clock())();
        if let Some(known) = self.known.lock().get(&req.tid)
            && now.instant.since(known.looked) < Span(SIGN_OF_LIFE_MS)
        {
            if let Some(presence) = &known.presence {
                presence.heard(now);
            }
            return;
        }
        // A name that is none is refused where it matters.
        let _ = self.identify(req);
    }

    fn look(&self, req: &Request, process: u32, stat: Option<Stat>) -> Result<Caller> {
        let is_sftp = stat.as_ref().is_some_and(|stat| serves_sftp(&stat.command));
        let connection = || if is_sftp { anchor(process, Kind::Connection) } else { None };
        let given = |worker, anchor: Option<Anchor>| {
            let actor = Actor { worker, uid: req.uid, operator: false };
            let anchor = connection().or(anchor);
            Caller { actor, is_worker: true, process, is_sftp, anchor, misnamed: None }
        };
        let mut program = None;
        let mut at = stat.map(|stat| (req.tid, stat));
        for _ in 0..ANCESTORS {
            let Some((pid, stat)) = at else { break };
            if let Some(name) = variable_of(pid) {
                return match std::str::from_utf8(&name).ok().and_then(WorkerName::parse) {
                    Some(worker) => Ok(given(worker, carrier(thread_group(pid), &name))),
                    None => {
                        let why = format!(
                            "CREWFS_WORKER is {:?}, which is no worker name: use letters, digits, '.', '_' and '-'",
                            String::from_utf8_lossy(&name)
                        );
                        let actor = Actor { worker: self.login(req.uid), uid: req.uid, operator: false };
                        let misnamed = Some(why.into());
                        Ok(Caller { actor, is_worker: false, process, is_sftp, anchor: None, misnamed })
                    }
                };
            }
            if program.is_none() {
                program = agent_program(pid, &stat.command).map(|agent| (agent, thread_group(pid)));
            }
            at = parent(&stat);
        }
        if let Some((agent, pid)) = program
            && let Some(worker) = WorkerName::parse(&format!("{agent}-{pid}"))
        {
            return Ok(given(worker, anchor(pid, Kind::Agent)));
        }
        let operator = req.uid == 0 || req.uid == self.owner;
        let actor = Actor { worker: self.login(req.uid), uid: req.uid, operator };
        Ok(Caller { actor, is_worker: false, process, is_sftp, anchor: connection(), misnamed: None })
    }

    fn login(&self, uid: u32) -> WorkerName {
        self.logins.lock().entry(uid).or_insert_with(|| login_name(uid)).clone()
    }
}

/// The process that a worker stands and falls with who was given its name. `pid` is the nearest that carries it.
///
/// All above it that carry the name too are the same worker: the topmost agent among them, or else the topmost of all. But
/// an agent may have been told to give the name to what it starts, and not carry it itself.
fn carrier(pid: u32, name: &[u8]) -> Option<Anchor> {
    let (mut top, mut at, mut agent) = (pid, Stat::open(pid)?.1, None);
    for _ in 0..ANCESTORS {
        if agent_program(top, &at.command).is_some() {
            agent = Some(top);
        }
        let Some((above, stat)) = parent(&at) else { break };
        if variable_of(above).as_deref() != Some(name) {
            if agent.is_none() && agent_program(above, &stat.command).is_some() {
                agent = Some(above);
            }
            break;
        }
        (top, at) = (above, stat);
    }
    match agent {
        Some(agent) => anchor(agent, Kind::Agent),
        None => anchor(top, Kind::Program),
    }
}

fn anchor(pid: u32, kind: Kind) -> Option<Anchor> {
    let (_, stat) = Stat::open(pid)?;
    // A process may call itself anything.
    let program = String::from_utf8_lossy(&stat.command).replace(char::is_control, "?");
    Some(Anchor { pid, started: stat.image.started, program, kind })
}

/// The process above, if it is one of those that a worker can be known by.
fn parent(stat: &Stat) -> Option<(u32, Stat)> {
    (stat.parent > 1).then(|| Stat::open(stat.parent).map(|(_, above)| (stat.parent, above))).flatten()
}

/// A request as the process would make it.
fn request_of(process: u32) -> Option<Request> {
    let uid = fs::metadata(format!("/proc/{process}")).ok()?.uid();
    Some(Request { tid: process, uid, gid: 0 })
}

/// The login name of a uid, or `uid-N` where there is none that could name a worker.
fn login_name(uid: u32) -> WorkerName {
    let users = fs::read("/etc/passwd").unwrap_or_default();
    let found = users.split(|b| *b == b'\n').find_map(|line| {
        let mut fields = line.split(|b| *b == b':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        let id: u32 = OsStr::from_bytes(id).to_str()?.parse().ok()?;
        if id == uid { WorkerName::parse(std::str::from_utf8(name).ok()?) } else { None }
    });
    found.unwrap_or_else(|| WorkerName::parse(&format!("uid-{uid}")).expect("letters and digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_login_name() {
        assert_eq!(login_name(0).as_str(), "root");
        assert_eq!(login_name(4_000_000_000).as_str(), "uid-4000000000");
    }
}
