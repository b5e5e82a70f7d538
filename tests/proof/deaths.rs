//! Workers die, are stopped and resume, and so does the daemon. Each task is completed once, by its holder (C24, C31–C33).
//!
//! A worker is a shell named like an agent. It claims a task, works for a while, and completes it with a line that names its claim. So
//! the log shows whether a worker completed a task that it had lost.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crewfs::queue::{Event, LossReason, Record, Seq, State, TaskId};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Mounted, Project, project};
use crate::process::slow;
use crate::random::{Random, number, seed};

const WORKERS: usize = 200;
const LEASE: Duration = Duration::from_secs(3);
/// Each beat, one worker is killed or stopped.
const BEAT: Duration = Duration::from_millis(40);
/// The daemon is usually killed after this many beats.
const DAEMON_LIVES: usize = 40;

/// The script of a worker. It sleeps by reading a pipe that never has data, so that it needs no other program.
const LIFE: &str = r#"
exec 8>>"$REPORT" 9<>"$SILENCE"
while :; do
    id= epoch=
    if { : > "$TASKS/claim/next"; } 2>/dev/null; then
        while read -r key value; do
            value=${value%,}
            case $key in
                '"task":') id=${value//\"/} ;;
                '"epoch":') epoch=$value ;;
            esac
        done 2>/dev/null < "$TASKS/claim/next"
    fi
    if [ -z "$epoch" ]; then
        read -r -t 0.2 -u 9
        continue
    fi
    read -r -t "$((RANDOM % 2)).$((RANDOM % 9 + 1))" -u 9
    if { echo "$id $epoch $CREWFS_WORKER" > "$TASKS/completed/$id"; } 2>/dev/null; then
        echo "ok $id $epoch" >&8
    else
        echo "refused $id $epoch" >&8
    fi
done
"#;

/// The workers, and what the test has done to them.
struct Crew<'a> {
    project: &'a Project,
    program: PathBuf,
    workers: Vec<(String, Child)>,
    /// When each killed process was killed, in milliseconds since 1970.
    killed: HashMap<u32, i64>,
    /// The stopped workers, and when each resumes.
    stopped: Vec<(u32, Instant)>,
    names: usize,
    stops: usize,
}

impl Crew<'_> {
    fn start(project: &Project) -> Crew<'_> {
        let program = project.dir().join("claude");
        fs::copy("/bin/bash", &program).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            project.dir().join("silence"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o600),
            0,
        )
        .unwrap();
        fs::create_dir(project.dir().join("reports")).unwrap();
        let (workers, killed, stopped) = (Vec::new(), HashMap::new(), Vec::new());
        let mut crew = Crew { project, program, workers, killed, stopped, names: 0, stops: 0 };
        for _ in 0..WORKERS {
            let name = crew.new_name();
            let worker = crew.spawn(&name);
            crew.workers.push((name, worker));
        }
        crew
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("w{:04}", self.names)
    }

    fn spawn(&self, name: &str) -> Child {
        let mut command = Command::new(&self.program);
        command
            .args(["-c", LIFE])
            .env("CREWFS_WORKER", name)
            .env("TASKS", self.project.mountpoint().join("tasks"))
            .env("REPORT", self.project.dir().join("reports").join(name))
            .env("SILENCE", self.project.dir().join("silence"))
            .current_dir(self.project.dir())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Kill or stop one worker.
    fn beat(&mut self, random: &mut Random) {
        let now = Instant::now();
        let (due, later) = self.stopped.drain(..).partition(|(_, until)| *until <= now);
        self.stopped = later;
        let due: Vec<(u32, Instant)> = due;
        due.iter().for_each(|(pid, _)| signal(*pid, Signal::CONT));
        let at = random.below(WORKERS);
        let pid = self.workers[at].1.id();
        if random.once_in(4) {
            if !self.stopped.iter().any(|(stopped, _)| *stopped == pid) {
                signal(pid, Signal::STOP);
                self.stops += 1;
                self.stopped.push((pid, now + LEASE + Duration::from_millis(random.below(1_500) as u64)));
            }
            return;
        }
        self.stopped.retain(|(stopped, _)| *stopped != pid);
        self.killed.insert(pid, UNIX_EPOCH.elapsed().unwrap().as_millis() as i64);
        self.workers[at].1.kill().unwrap();
        self.workers[at].1.wait().unwrap();
        // Half of the killed workers restart under the same name. They may find their task before the daemon takes it away.
        if random.once_in(2) {
            self.workers[at].0 = self.new_name();
        }
        let name = self.workers[at].0.clone();
        self.workers[at].1 = self.spawn(&name);
    }

    /// The report of each worker name.
    fn reports(&self) -> BTreeMap<String, String> {
        let reports = fs::read_dir(self.project.dir().join("reports")).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())
        });
        reports.collect()
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        for (_, worker) in &mut self.workers {
            let _ = worker.kill();
        }
        for (_, worker) in &mut self.workers {
            let _ = worker.wait();
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

#[test]
fn c31_whoever_dies_every_task_is_done_once_and_by_its_holder() {
    let tasks = number("CREWFS_DEATH_TASKS").unwrap_or(2_000) as usize;
    let limit = Duration::from_secs(number("CREWFS_TEST_LIMIT").unwrap_or(120));
    let project = project!(limit);
    let seed = seed();
    let mut random = Random::new(seed);
    (0..tasks).for_each(|n| project.task(&format!("t{n:05}"), "---\nattempts: 100\n---\n"));
    let lease = format!("lease={}s", LEASE.as_secs());
    let mut mounted = project.mount(&[&lease]);
    let mut crew = Crew::start(&project);
    let (start, mut restarts) = (Instant::now(), 0);
    while done(&mounted) < tasks {
        assert!(start.elapsed() < slow(limit), "{} of {tasks} are done after {limit:?}", done(&mounted));
        std::thread::sleep(BEAT);
        crew.beat(&mut random);
        if random.once_in(DAEMON_LIVES) {
            restarts += 1;
            mounted.kill9();
            drop(mounted);
            mounted = project.mount(&[&lease]);
        }
    }
    let (took, reports) = (start.elapsed(), crew.reports());
    let (killed, stops) = (std::mem::take(&mut crew.killed), crew.stops);
    drop(crew);
    mounted.stop();

    let log = project.log();
    let records: Vec<Record> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let done = completions(&records);
    assert_eq!(done.len(), tasks, "every task is done");
    let (mut accepted, mut refused) = (0, 0);
    for (worker, report) in &reports {
        for line in report.lines() {
            let [outcome, task, epoch] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            let is_done_so = done[task] == (worker.clone(), epoch.parse().unwrap());
            match outcome {
                "ok" => accepted += 1,
                _ => refused += 1,
            }
            assert!(outcome != "ok" || is_done_so, "{worker} was told {line}, the log says {:?}", done[task]);
        }
    }
    assert!(refused > 0, "nobody came too late");

    let mut reasons = BTreeMap::<&str, usize>::new();
    let mut waits = Vec::new();
    for record in &records {
        let Event::Returned { reason, .. } = &record.event else { continue };
        let kind = match reason {
            LossReason::ProcessEnded { pid, .. } => {
                waits.push(record.at.0 - killed[pid]);
                "process ended"
            }
            LossReason::LeaseExpired { .. } => "lease ran out",
            other => panic!("{other}"),
        };
        *reasons.entry(kind).or_default() += 1;
    }
    waits.sort_unstable();
    let part = |percent: usize| waits[(waits.len() * percent / 100).min(waits.len() - 1)];
    println!(
        "{WORKERS} workers, {tasks} tasks in {took:.1?}: {} killed, {stops} stopped, {restarts} restarts of the daemon",
        killed.len()
    );
    println!("  claims that returned: {reasons:?}; {accepted} completions accepted, {refused} refused");
    println!(
        "  from kill to return, ms: half within {}, 99 % within {}, all within {}",
        part(50),
        part(99),
        part(100)
    );
    assert!(part(50) < 1_000, "C31: within a second");
}

fn done(mounted: &Mounted) -> usize {
    mounted.list("completed").len()
}

/// The worker and the claim that completed each task. Asserts that each task is completed once, by its holder, and that the result
/// names that claim.
fn completions(records: &[Record]) -> HashMap<String, (String, Seq)> {
    let (mut state, mut done) = (State::default(), HashMap::new());
    for record in records {
        let claim = |task: &TaskId| state.task(task.as_str()).and_then(|task| task.claim().cloned());
        match &record.event {
            Event::Completed { task, worker, .. } => {
                let claim = claim(task).unwrap_or_else(|| panic!("{task} is completed and nobody holds it"));
                assert_eq!(worker.as_ref(), Some(&claim.worker), "{task}");
                let by = (claim.worker.to_string(), claim.epoch());
                let before = done.insert(task.to_string(), by);
                assert_eq!(before, None, "{task} is completed twice");
            }
            Event::Claimed { task, .. } => assert_eq!(claim(task), None, "{task} is claimed twice"),
            Event::Reported { task, text } => {
                let (worker, epoch) = &done[task.as_str()];
                let written = text.shown();
                assert_eq!(
                    written.trim_end(),
                    format!("{task} {epoch} {worker}"),
                    "what a stale claim wrote"
                );
            }
            Event::Failed { task, .. } => panic!("{task} failed"),
            _ => {}
        }
        state.apply(record);
    }
    assert_eq!(state.count(crewfs::queue::TaskState::Claimed), 0, "nothing is stuck");
    done
}
