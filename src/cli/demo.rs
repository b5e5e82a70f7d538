//! `crewfs demo`: the whole story in a minute, on a real mount. A coordinator writes three tasks; three workers claim them, complete
//! them, and stop by themselves.
//!
//! May assume: a shell, and the programs of every shell script.
//! Must never: do for the workers what they could not do themselves. Everything here goes through files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;

use super::error::CliError;
use super::out::say;
use crate::daemon::requirements;
use crate::mounts;
use crate::queue::{Event, Record};

#[derive(Args)]
pub(super) struct Arguments {
    /// Leave the project and its mount in place afterwards, to look around.
    #[arg(long)]
    keep: bool,
}

/// The coordinator's tasks: the request "build a REST API with authentication, database and tests", taken apart.
const TASKS: [(&str, &str); 3] = [
    ("task-1-auth", include_str!("demo/task-1-auth.md")),
    ("task-2-database", include_str!("demo/task-2-database.md")),
    ("task-3-tests", include_str!("demo/task-3-tests.md")),
];
const WORKERS: [&str; 3] = ["worker-backend", "worker-data", "worker-testing"];
/// A worker of the demo: a loop in a shell. An agent does the same with its own tools.
const WORKER: &str = include_str!("demo/worker.sh");

/// A worker that has found no task for this long may stop.
const IDLE: &str = "idle_timeout=4s";
/// How long the demo may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The demo's project. It is removed when this is dropped.
struct DemoProject {
    directory: PathBuf,
    mountpoint: PathBuf,
    workers: Vec<Child>,
    keep: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    requirements::check().map_err(CliError::failed)?;
    let mut stage = DemoProject::set(arguments.keep)?;
    let start = Instant::now();
    let tell = |line: &str| say!("{:5.1}s  {line}", start.elapsed().as_secs_f32());

    tell(&format!("a project is mounted at {}", stage.mountpoint.display()));
    let tasks = stage.mountpoint.join("tasks");
    for (id, instructions) in TASKS {
        fs::write(tasks.join(format!("{id}.md")), instructions).map_err(failed(&tasks))?;
        tell(&format!("coordinator: wrote tasks/{id}.md"));
    }
    stage.start_workers()?;
    stage.watch(&tell)?;

    let queue = stage.mountpoint.join("task-queue.json");
    let shown = fs::read_to_string(&queue).map_err(failed(&queue))?;
    say!("\n$ cat task-queue.json\n{shown}");
    say!("$ find src tests -type f");
    for file in ["src/auth.txt", "src/database.txt", "tests/results.txt"] {
        let content = fs::read_to_string(stage.mountpoint.join(file)).map_err(failed(Path::new(file)))?;
        say!("{file}: {}", content.trim_end().replace('\n', " | "));
    }
    check(&shown)?;
    say!(
        "\nAll three tasks are done, each by one worker. Mount your own project:\n\n    crewfs mount /path/to/project\n\n\
         Then write tasks as tasks/<id>.md, and have each worker start with CREWFS_WORKER set to a name of its own:\n\n    \
         touch tasks/claim/next; cat tasks/workers/self/task\n    echo 'what I did' > tasks/completed/<id>\n"
    );
    Ok(())
}

fn failed(path: &Path) -> impl Fn(io::Error) -> CliError {
    let shown = path.display().to_string();
    move |error| CliError::failed(format!("{shown}: {error}"))
}

/// Check that each task was completed by a worker.
fn check(queue: &str) -> Result<(), CliError> {
    let queue: BTreeMap<String, serde_json::Value> = serde_json::from_str(queue).map_err(CliError::failed)?;
    for (id, _) in TASKS {
        let task = queue.get(id).ok_or_else(|| CliError::failed(format!("{id} is missing")))?;
        let by_a_worker = task["worker"].as_str().is_some_and(|worker| WORKERS.contains(&worker));
        if task["status"] != "completed" || !by_a_worker {
            return Err(CliError::failed(format!("{id} was not completed by a worker: {task}")));
        }
    }
    Ok(())
}

/// Make a directory for this user alone. An existing one is not used: in the directory for temporary files any user can make any name.
fn make_directory(parent: &Path) -> Result<PathBuf, CliError> {
    let name = |n: usize| parent.join(format!("crewfs-demo-{}-{n}", std::process::id()));
    let mut n = 0;
    loop {
        match fs::DirBuilder::new().mode(0o700).create(name(n)) {
            Ok(()) => return Ok(name(n)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            Err(error) => return Err(failed(&name(n))(error)),
        }
    }
}

impl DemoProject {
    /// A new project, mounted beside itself.
    fn set(keep: bool) -> Result<DemoProject, CliError> {
        let directory = make_directory(&std::env::temp_dir())?;
        let (project, mountpoint) = (directory.join("project"), directory.join("mnt"));
        for place in [&project, &mountpoint] {
            fs::create_dir(place).map_err(failed(place))?;
        }
        let stage = DemoProject { directory, mountpoint, workers: Vec::new(), keep };
        let mut mount = Command::new(std::env::current_exe().map_err(CliError::failed)?);
        mount.arg("mount").arg(&project).arg(&stage.mountpoint).args(["-o", IDLE, "-o", "allow_other"]);
        let mounted = mount.stderr(Stdio::piped()).output().map_err(CliError::failed)?;
        if !mounted.status.success() {
            // Only the reason is printed.
            let why = String::from_utf8_lossy(&mounted.stderr);
            let why = why.trim_end().trim_start_matches("crewfs: ");
            return Err(CliError::failed(format!("the demo cannot be mounted: {why}")));
        }
        for directory in ["src", "tests", "docs"] {
            let directory = stage.mountpoint.join(directory);
            fs::create_dir(&directory).map_err(failed(&directory))?;
        }
        let standards = stage.mountpoint.join("docs/api-standards.md");
        fs::write(&standards, "# API standards\n\nJSON in, JSON out.\n").map_err(failed(&standards))?;
        Ok(stage)
    }

    fn start_workers(&mut self) -> Result<(), CliError> {
        for name in WORKERS {
            let mut shell = Command::new("sh");
            shell.args(["-c", WORKER]).env("CREWFS_WORKER", name).current_dir(&self.mountpoint);
            let worker = shell.stdin(Stdio::null()).spawn().map_err(CliError::failed)?;
            self.workers.push(worker);
        }
        Ok(())
    }

    /// Print events of `tasks/events.jsonl` until all workers have stopped.
    fn watch(&mut self, tell: &impl Fn(&str)) -> Result<(), CliError> {
        let path = self.mountpoint.join("tasks/events.jsonl");
        let (mut told, start) = (0, Instant::now());
        loop {
            let all_stopped = self.workers.iter_mut().all(|worker| matches!(worker.try_wait(), Ok(Some(_))));
            let mut events = BufReader::new(fs::File::open(&path).map_err(failed(&path))?);
            events.seek(SeekFrom::Start(told)).map_err(failed(&path))?;
            let mut line = String::new();
            while events.read_line(&mut line).map_err(failed(&path))? > 0 {
                told += line.len() as u64;
                if let Some(text) = serde_json::from_str(&line).ok().as_ref().and_then(sentence) {
                    tell(&text);
                }
                line.clear();
            }
            if all_stopped {
                tell("all workers have stopped: should-stop let them go");
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                return Err(CliError::failed("the workers did not stop in time"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// An event as a sentence, if the demo shows it.
fn sentence(record: &Record) -> Option<String> {
    match &record.event {
        Event::Claimed { task, worker } => Some(format!("{worker}: claimed {task}")),
        Event::Noted { task, text } => Some(format!("  progress of {task}: {}", text.shown())),
        Event::Completed { task, worker: Some(worker), .. } => Some(format!("{worker}: completed {task}")),
        Event::Reported { task, text } => Some(format!("  result of {task}: {}", text.shown().trim_end())),
        _ => None,
    }
}

impl Drop for DemoProject {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
        let is_mounted = || !mounts::at(&self.mountpoint).is_ok_and(|mount| mount.is_none());
        if self.keep && is_mounted() {
            say!("It is still mounted at {}. When done: crewfs umount there.", self.mountpoint.display());
            return;
        }
        if is_mounted() {
            let program = std::env::current_exe().unwrap_or_else(|_| "crewfs".into());
            let _ = Command::new(program).arg("umount").arg(&self.mountpoint).status();
        }
        if !is_mounted() {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
