//! Who is calling: the only place where a process becomes a worker (C40).
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: decide from a remembered answer without looking whether it is still the same process image. A pid is used
//! again, and `exec` changes the environment.
//!
//! A name is looked for in this order: `CREWFS_WORKER` in the environment of the process or its nearest ancestor that has
//! it; the nearest of them that is a known agent program; the login name of the user.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{FsError, Request, Result};
use crate::engine::{Engine, Presence};
use crate::limits::{ANCESTORS, CALLERS_REMEMBERED, CROWD, SIGN_OF_LIFE_MS};
use crate::queue::{Actor, Instant, Refusal, Span, WorkerName};

/// The variable that names a worker.
const VARIABLE: &[u8] = b"CREWFS_WORKER=";
/// Programs that are agents.
const AGENTS: [&str; 8] = ["claude", "codex", "gemini", "opencode", "cursor-agent", "aider", "goose", "amp"];
/// Programs that run agents: the script that they were given counts.
const INTERPRETERS: [&str; 6] = ["node", "bun", "deno", "python", "python3", "MainThread"];

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
}

/// One process image: the same numbers mean that neither the process nor its program has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Image {
    started: u64,
    stack: u64,
    environment: u64,
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
    /// The uid that mounted: its people are operators.
    owner: u32,
    known: Mutex<HashMap<u32, Known>>,
    logins: Mutex<HashMap<u32, WorkerName>>,
    crowd: Mutex<Arc<[WorkerName]>>,
}

impl Callers {
    /// Nobody was seen yet. `owner` is the uid that mounted.
    pub fn new(engine: Arc<Engine>, owner: u32) -> Callers {
        let crowd = Mutex::new(Arc::new([]) as Arc<[WorkerName]>);
        Callers { engine, owner, known: Mutex::default(), logins: Mutex::default(), crowd }
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
            Arc::new(Caller { actor, is_worker: false, process, is_sftp: false })
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
        let (name, now) = (&caller.actor.worker, (self.engine.clock())());
        match self.check_name(&caller.actor) {
            Ok(()) if caller.is_worker => {
                self.join(name);
                let presence = self.engine.roster().heard(name, caller.actor.uid, now);
                self.remember(req, Some(presence), now.instant);
                Ok(caller)
            }
            Ok(()) => {
                self.remember(req, None, now.instant);
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

    /// Whose sign of life the requests of this thread are, for the next moments.
    fn remember(&self, req: &Request, presence: Option<Arc<Presence>>, looked: Instant) {
        if let Some(known) = self.known.lock().get_mut(&req.tid) {
            (known.presence, known.looked) = (presence, looked);
        }
    }

    /// A name belongs to the uid that used it first (C41).
    fn check_name(&self, actor: &Actor) -> Result<()> {
        match self.engine.state().worker(actor.worker.as_str()) {
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
        let given = |worker| {
            let actor = Actor { worker, uid: req.uid, operator: false };
            Caller { actor, is_worker: true, process, is_sftp }
        };
        let mut program = None;
        let mut at = stat.map(|stat| (req.tid, stat));
        for _ in 0..ANCESTORS {
            let Some((pid, stat)) = at else { break };
            if let Some(name) = variable_of(pid) {
                return match std::str::from_utf8(&name).ok().and_then(WorkerName::parse) {
                    Some(name) => Ok(given(name)),
                    None => Err(FsError::because(
                        libc::EACCES,
                        format!(
                            "CREWFS_WORKER is {:?}, which is no worker name: use letters, digits, '.', '_' and '-'",
                            String::from_utf8_lossy(&name)
                        ),
                    )),
                };
            }
            if program.is_none() {
                program = agent_program(pid, &stat.command).map(|agent| (agent, pid));
            }
            at =
                (stat.parent > 1).then(|| Stat::open(stat.parent).map(|(_, up)| (stat.parent, up))).flatten();
        }
        if let Some((agent, pid)) = program
            && let Some(name) = WorkerName::parse(&format!("{agent}-{}", thread_group(pid)))
        {
            return Ok(given(name));
        }
        let operator = req.uid == 0 || req.uid == self.owner;
        let actor = Actor { worker: self.login(req.uid), uid: req.uid, operator };
        Ok(Caller { actor, is_worker: false, process, is_sftp })
    }

    fn login(&self, uid: u32) -> WorkerName {
        self.logins.lock().entry(uid).or_insert_with(|| login_name(uid)).clone()
    }
}

/// Longer than any line of `/proc/<tid>/stat`: 52 numbers and a command of 64 bytes.
const STAT_BYTES: usize = 2048;

/// What `/proc/<tid>/stat` says.
struct Stat {
    command: Vec<u8>,
    parent: u32,
    image: Image,
}

impl Stat {
    fn open(tid: u32) -> Option<(File, Stat)> {
        if tid == 0 {
            return None;
        }
        let file = File::open(format!("/proc/{tid}/stat")).ok()?;
        let stat = Stat::of(&file)?;
        Some((file, stat))
    }

    /// What the file says now; nothing if the process is gone.
    fn of(file: &File) -> Option<Stat> {
        let mut content = [0; STAT_BYTES];
        let length = file.read_at(&mut content, 0).ok()?;
        Stat::parse(&content[..length])
    }

    /// The fields are in proc_pid_stat(5). The command stands in parentheses and may itself hold some.
    fn parse(content: &[u8]) -> Option<Stat> {
        let open = content.iter().position(|b| *b == b'(')?;
        let close = content.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(content.get(close + 2..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Field n of the manual page, which counts from 1, and of which the first two are before `rest`.
        let number = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
        Some(Stat {
            command: content[open + 1..close].to_vec(),
            parent: number(4)? as u32,
            image: Image { started: number(22)?, stack: number(28)?, environment: number(50)? },
        })
    }
}

/// The value of CREWFS_WORKER in a process's environment, as it was when its program started.
fn variable_of(pid: u32) -> Option<Vec<u8>> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = environment.split(|b| *b == 0).find_map(|entry| entry.strip_prefix(VARIABLE))?;
    (!value.is_empty()).then(|| value.to_vec())
}

/// The agent that a process is, if it is one: by its command name, or by the script that its interpreter runs.
fn agent_program(pid: u32, command: &[u8]) -> Option<&'static str> {
    let known = |name: &[u8]| AGENTS.into_iter().find(|agent| agent.as_bytes() == name);
    if let Some(agent) = known(command) {
        return Some(agent);
    }
    if !INTERPRETERS.iter().any(|name| name.as_bytes() == command) {
        return None;
    }
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    arguments.split(|b| *b == 0).take(2).find_map(|argument| {
        let file = argument.rsplit(|b| *b == b'/').next()?;
        known(file.split(|b| *b == b'.').next()?)
    })
}

/// A request as the process would make it.
fn request_of(process: u32) -> Option<Request> {
    let uid = fs::metadata(format!("/proc/{process}")).ok()?.uid();
    Some(Request { tid: process, uid, gid: 0 })
}

/// Whether a program of this name serves files to an SFTP client: OpenSSH's own, or the one inside sshd.
fn serves_sftp(command: &[u8]) -> bool {
    command == b"sftp-server" || command.starts_with(b"sshd")
}

/// The process that a thread belongs to.
fn thread_group(tid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|tgid| tgid.trim().parse().ok()).unwrap_or(tid)
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
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let tail = (5..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for command in ["sh", "a) b (c", "x y", ")"] {
            let stat = Stat::parse(format!("77 ({command}) S 42 {tail}\n").as_bytes()).unwrap();
            assert_eq!(stat.command, command.as_bytes());
            assert_eq!(stat.parent, 42);
            assert_eq!(stat.image, Image { started: 22, stack: 28, environment: 50 });
        }
        assert!(Stat::parse(b"").is_none());
        assert!(Stat::parse(b"1 (x").is_none());
    }

    #[test]
    fn this_process_has_an_image_and_root_a_login_name() {
        let (_, mine) = Stat::open(std::process::id()).unwrap();
        assert!(mine.image.environment > 0);
        assert_eq!(thread_group(std::process::id()), std::process::id());
        assert_eq!(login_name(0).as_str(), "root");
        assert_eq!(login_name(4_000_000_000).as_str(), "uid-4000000000");
    }
}
