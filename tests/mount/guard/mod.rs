//! The guard with two or more workers (C50 to C55). Each worker is a process that runs one step at a time on request and keeps its
//! files open, so the steps of a test happen in order.
//!
//! Must never: sleep where an answer can be awaited.

mod appending;
mod connections;
mod crowded;
mod empty;
mod ends;
mod free;
mod locks;
mod owned;
mod programs;
mod shown;
mod stale;
mod waiting;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::harness::Mounted;
use crate::process::{is_slow, until, within};

const AGENT: &str = include_str!("agent.py");

/// A process of a worker. Dropping it kills it.
pub(super) struct Agent {
    worker: String,
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Agent {
    /// A process of this worker, in the mounted project.
    pub(super) fn new(mounted: &Mounted, worker: &str) -> Agent {
        let mut agent = Agent::with(mounted, worker, |_| ());
        // It asks once, as a worker does that takes a task first: the daemon may miss the first read of a worker that it does not know yet.
        // On a slow machine the first look at the process may come too late, and then the process has no name yet.
        if is_slow() {
            until("it has a name", || agent.tell("get('tasks/workers/self/why')").is_ok());
        }
        agent.why();
        agent
    }

    /// The same, with the command changed before it starts.
    pub(super) fn with(mounted: &Mounted, worker: &str, change: impl FnOnce(&mut Command)) -> Agent {
        let mut command = Command::new("python3");
        command.args(["-c", AGENT]).env("CREWFS_WORKER", worker).env("AGENT_PLACE", mounted.path());
        command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Agent { worker: worker.into(), child, to, from }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Begin a step.
    pub(super) fn begin(&mut self, what: &str) {
        let line = Value::from(what).to_string() + "\n";
        self.to.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// Whether the step ends within this time.
    pub(super) fn ends_within(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).unwrap();
        poll(&mut [PollFd::new(self.from.get_ref(), PollFlags::IN)], Some(&limit)).unwrap() > 0
    }

    /// The outcome of the step: a value, or the name of an errno.
    #[track_caller]
    pub(super) fn end(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} has ended: {line:?}", self.worker));
        assert!(answer["broken"].is_null(), "{}", answer["broken"].as_str().unwrap());
        match answer["errno"].as_str() {
            Some(errno) => Err(errno.to_string()),
            None => Ok(answer["ok"].take()),
        }
    }

    /// Run a step to its end.
    #[track_caller]
    pub(super) fn tell(&mut self, what: &str) -> Result<Value, String> {
        self.begin(what);
        self.end()
    }

    /// Run a step that must succeed. On a slow machine the daemon may need a moment to see that another worker is done.
    #[track_caller]
    pub(super) fn ok(&mut self, what: &str) -> Value {
        let mut came = self.tell(what);
        if is_slow() {
            within(Duration::from_secs(2), || {
                if came == Err("EBUSY".into()) {
                    came = self.tell(what);
                }
                came != Err("EBUSY".into())
            });
        }
        match came {
            Ok(value) => value,
            Err(errno) if errno == "EBUSY" => {
                let why = self.why();
                panic!("{} is refused {what}: {why}", self.worker)
            }
            Err(errno) => panic!("{} is refused {what}: {errno}", self.worker),
        }
    }

    /// Run a step that the guard must refuse because of another worker.
    #[track_caller]
    pub(super) fn busy(&mut self, what: &str) {
        assert_eq!(self.tell(what), Err("EBUSY".into()), "{} does {what}", self.worker);
    }

    /// The reason of this worker's last refusal.
    #[track_caller]
    pub(super) fn why(&mut self) -> String {
        self.ok("get('tasks/workers/self/why')").as_str().unwrap().to_string()
    }

    /// Try all routes of a table. Returns those with another outcome than this.
    #[track_caller]
    pub(super) fn others_than(&mut self, came_to: &str, table: &str, file: &str) -> Vec<(String, String)> {
        let came = self.ok(&format!("come_to({table}, {file:?})"));
        let all = came.as_object().unwrap().iter().map(|(route, to)| (route.clone(), to.as_str().unwrap()));
        all.filter(|(_, to)| *to != came_to).map(|(route, to)| (route, to.to_string())).collect()
    }

    /// The names of all routes in a table.
    #[track_caller]
    pub(super) fn routes(&mut self, table: &str) -> Vec<String> {
        let names = self.ok(&format!("list({table})"));
        names.as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect()
    }

    /// Kill the process and wait for its end.
    pub(super) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.to = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two workers in a mounted project.
pub(super) fn two(mounted: &Mounted) -> (Agent, Agent) {
    (Agent::new(mounted, "w1"), Agent::new(mounted, "w2"))
}
