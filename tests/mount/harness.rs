//! A project in a temporary directory, the real program that serves it, and workers that use it.
//!
//! May assume: nothing about other tests, which run at the same time. Every wait is for an event or a condition, and has a limit.
//! Must never: leave a mount or a process behind, or hang. Each project has a watchdog that ends its daemons, and a call
//! on a filesystem without its daemon fails.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::process::{
    LIMIT, Ran, abort_below, crewfs, crewfs_with_descriptors, detach_below, mounts_below, run, slow, until,
    within,
};

/// The time limit of one test. `CREWFS_TEST_LIMIT` overrides it, in seconds.
fn test_limit() -> Duration {
    let chosen = std::env::var("CREWFS_TEST_LIMIT").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(chosen.unwrap_or(60))
}

/// A project. Where there is no FUSE, the test ends.
macro_rules! project {
    () => {
        match crate::harness::Project::new() {
            Some(project) => project,
            None => return,
        }
    };
    ($limit:expr) => {
        match crate::harness::Project::lasting($limit) {
            Some(project) => project,
            None => return,
        }
    };
}
pub(crate) use project;

/// Ends the test unless it runs as root: the test switches users or mounts other filesystems.
macro_rules! as_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: this test needs root");
        }
    };
}
pub(crate) use as_root;

/// A project's directory, an empty directory to mount it at, and room beside them.
pub(crate) struct Project {
    dir: tempfile::TempDir,
    source: PathBuf,
    mountpoint: PathBuf,
    /// Leads to the project on the disk, even while a mount covers it.
    root: fs::File,
    /// The daemons that were started and not yet waited for.
    daemons: Arc<Mutex<Vec<Pid>>>,
    watchdog: Option<(Sender<()>, JoinHandle<()>)>,
    late: Arc<AtomicBool>,
}

impl Project {
    /// A new empty project. `None`, with the reason on standard error, where nothing can be mounted.
    pub(crate) fn new() -> Option<Project> {
        Project::lasting(test_limit())
    }

    /// As [`Project::new`], for a test with this time limit.
    pub(crate) fn lasting(limit: Duration) -> Option<Project> {
        if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
            assert!(std::env::var_os("CI").is_none(), "/dev/fuse cannot be used: {error}");
            eprintln!("skipped: /dev/fuse cannot be used: {error}");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("crewfs-").tempdir().unwrap();
        // Workers of other users must reach it.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let dir_path = dir.path().canonicalize().unwrap();
        let (source, mountpoint) = (dir_path.join("source"), dir_path.join("mount"));
        fs::create_dir_all(source.join("tasks")).unwrap();
        fs::create_dir(&mountpoint).unwrap();
        let root = fs::File::open(&source).unwrap();
        let mut project = Project {
            dir,
            source,
            mountpoint,
            root,
            daemons: Arc::default(),
            watchdog: None,
            late: Arc::default(),
        };
        project.watchdog = Some(project.watch(limit));
        Some(project)
    }

    fn watch(&self, limit: Duration) -> (Sender<()>, JoinHandle<()>) {
        let (place, daemons, late) = (self.dir().to_path_buf(), self.daemons.clone(), self.late.clone());
        let (limit, (sender, receiver)) = (slow(limit), channel());
        let watchdog = std::thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("the test took longer than {limit:?}: its mounts are aborted, its daemons killed");
                late.store(true, Ordering::Release);
                abort_below(&place);
                for pid in daemons.lock().unwrap().iter() {
                    let _ = kill_process(*pid, Signal::KILL);
                }
            }
        });
        (sender, watchdog)
    }

    /// The temporary directory that holds everything. Tests may put more into it.
    pub(crate) fn dir(&self) -> &Path {
        self.source.parent().unwrap()
    }

    /// The project's directory.
    pub(crate) fn source(&self) -> &Path {
        &self.source
    }

    /// The usual mount point.
    pub(crate) fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// The project on the disk, even while a mount covers it.
    pub(crate) fn behind(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.root.as_raw_fd()).into()
    }

    /// The tasks directory on the disk.
    pub(crate) fn tasks(&self) -> PathBuf {
        self.behind().join("tasks")
    }

    /// Let every user of the machine change the queue.
    pub(crate) fn is_for_everybody(&self) {
        fs::set_permissions(self.tasks(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }

    /// Put a task's file into the tasks directory, beneath the mount and in one step.
    pub(crate) fn task(&self, id: &str, text: &str) {
        let unfinished = self.tasks().join(format!(".{id}.new"));
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.tasks().join(format!("{id}.md"))).unwrap();
    }

    /// Mount the project, with options as `-o` takes them.
    pub(crate) fn mount(&self, options: &[&str]) -> Mounted {
        self.mount_at(&self.mountpoint, options)
    }

    /// Mount the project over itself.
    pub(crate) fn mount_in_place(&self, options: &[&str]) -> Mounted {
        self.mount_at(&self.source, options)
    }

    /// Mount the project at this place.
    pub(crate) fn mount_at(&self, place: &Path, options: &[&str]) -> Mounted {
        self.mount_by(crewfs(), place, options)
    }

    /// Mount the project by a daemon with this limit of descriptors.
    pub(crate) fn mount_with_descriptors(&self, most: u64, options: &[&str]) -> Mounted {
        self.mount_by(crewfs_with_descriptors(most), &self.mountpoint, options)
    }

    fn mount_by(&self, mut command: Command, place: &Path, options: &[&str]) -> Mounted {
        command.arg("mount").arg(&self.source);
        if place != self.source {
            command.arg(place);
        }
        // An ordinary user can mount only with `allow_other`.
        command.args(["-f", "-o", "allow_other"]);
        for option in options {
            command.args(["-o", option]);
        }
        Mounted::start(self, command, place, options)
    }

    /// Run `crewfs` with these arguments to its end.
    #[track_caller]
    pub(crate) fn crewfs<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ran {
        let mut command = crewfs();
        command.args(args);
        run(command)
    }

    /// The output of `crewfs log`.
    #[track_caller]
    pub(crate) fn log(&self) -> String {
        self.crewfs(["log".as_ref(), self.source.as_os_str()]).ok()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let left = mounts_below(self.dir());
        // Detach first: removing the directory must not reach through a mount.
        detach_below(self.dir());
        if let Some((sender, watchdog)) = self.watchdog.take() {
            drop(sender);
            let _ = watchdog.join();
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:?}");
            assert!(!self.late.load(Ordering::Acquire), "the test took too long");
        }
        let _ = &self.dir;
    }
}

/// A daemon in the foreground and its mount.
pub(crate) struct Mounted {
    child: Child,
    running: bool,
    mountpoint: PathBuf,
    tasks: String,
    stderr: PathBuf,
    daemons: Arc<Mutex<Vec<Pid>>>,
}

impl Mounted {
    fn start(project: &Project, mut command: Command, place: &Path, options: &[&str]) -> Mounted {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stderr = project.dir().join(format!("daemon-{}.log", COUNT.fetch_add(1, Ordering::Relaxed)));
        command.stdin(Stdio::null()).stderr(fs::File::create(&stderr).unwrap());
        let child = command.spawn().unwrap();
        project.daemons.lock().unwrap().push(Pid::from_child(&child));
        let tasks = options.iter().flat_map(|list| list.split(',')).find_map(|o| o.strip_prefix("tasks="));
        let mut mounted = Mounted {
            child,
            running: true,
            mountpoint: place.to_path_buf(),
            tasks: tasks.unwrap_or("tasks").to_string(),
            stderr,
            daemons: project.daemons.clone(),
        };
        mounted.wait_until_it_answers();
        mounted
    }

    /// Wakes on every change of the kernel's mount table. The wait ends once the daemon itself says that it serves.
    fn wait_until_it_answers(&mut self) {
        let table = fs::File::open("/proc/self/mountinfo").unwrap();
        let a_moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let start = std::time::Instant::now();
        loop {
            let there = mounts_below(&self.mountpoint).iter().any(|(place, _)| *place == self.tasks());
            if there && self.stderr().contains("is mounted at") && self.desk("queue.json").exists() {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                self.running = false;
                panic!("the daemon ended with {status}:\n{}", self.stderr());
            }
            assert!(start.elapsed() < slow(LIMIT), "the mount does not answer");
            let _ = poll(&mut [PollFd::new(&table, PollFlags::PRI)], Some(&a_moment));
        }
    }

    /// The mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// The desk.
    pub(crate) fn tasks(&self) -> PathBuf {
        self.mountpoint.join(&self.tasks)
    }

    /// A file of the desk.
    pub(crate) fn desk(&self, name: impl AsRef<Path>) -> PathBuf {
        self.tasks().join(name)
    }

    /// The daemon's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The daemon's standard error so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// `bash -c` as a worker in the mounted project. The caller adds the script.
    pub(crate) fn worker(&self, name: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg("-c").env("CREWFS_WORKER", name).current_dir(&self.mountpoint);
        command
    }

    /// Run a script as a worker in the mounted project.
    #[track_caller]
    pub(crate) fn sh(&self, worker: &str, script: &str) -> Ran {
        let mut command = self.worker(worker);
        command.arg(script);
        run(command)
    }

    /// Run a script as a worker of another user, whose only group is that user's own. Needs root.
    #[track_caller]
    pub(crate) fn sh_as(&self, uid: u32, worker: &str, script: &str) -> Ran {
        let mut command = Command::new("setpriv");
        let (user, group) = (format!("--reuid={uid}"), format!("--regid={uid}"));
        command.args([&user, &group, "--clear-groups", "bash", "-c", script]);
        match worker {
            "" => command.env_remove("CREWFS_WORKER"),
            name => command.env("CREWFS_WORKER", name),
        };
        command.current_dir(&self.mountpoint);
        run(command)
    }

    /// Run a script as the user that mounted, without a worker's name. The script has no ancestors above its own shell, so that an agent
    /// program which runs the tests gives it no name.
    #[track_caller]
    pub(crate) fn operator(&self, script: &str) -> Ran {
        const ORPHAN: &str = r#"sh -c 'while read -r _ _ _ parent _ < /proc/self/stat; [ "$parent" = "$0" ]; do :; done
            bash -c "$1"; printf "\n%s" $?' $$ "$1" &"#;
        let mut command = Command::new("sh");
        command.args(["-c", ORPHAN, "operator", script]).env_remove("CREWFS_WORKER");
        command.current_dir(&self.mountpoint);
        let mut ran = run(command);
        let (stdout, code) = ran.stdout.rsplit_once('\n').unwrap();
        (ran.what, ran.code, ran.stdout) = (script.to_string(), code.parse().ok(), stdout.to_string());
        ran
    }

    /// The content of a file of the desk, read by the user that runs the tests.
    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.desk(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A JSON document of the desk.
    #[track_caller]
    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    /// The session document, which the tree's root has as an attribute.
    #[track_caller]
    pub(crate) fn session(&self) -> Value {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::getxattr(self.path(), "user.crewfs.session", &mut value[..]).unwrap();
        serde_json::from_slice(&value[..length]).unwrap()
    }

    /// The names in a directory of the desk, in listing order.
    #[track_caller]
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.desk(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The state of a task; empty when there is no such task.
    pub(crate) fn state(&self, id: &str) -> String {
        let status = fs::read_to_string(self.desk("status").join(id)).unwrap_or_default();
        serde_json::from_str(&status).map_or(String::new(), |v: Value| v["status"].as_str().unwrap().into())
    }

    /// Wait until a task is in this state.
    #[track_caller]
    pub(crate) fn until_state(&self, id: &str, state: &str) {
        until(&format!("{id} is {state}"), || self.state(id) == state);
    }

    /// The daemon's open files: the target of each descriptor.
    pub(crate) fn daemon_fds(&self) -> Vec<String> {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let to = |fd: fs::DirEntry| fs::read_link(fd.path()).ok().map(|to| to.display().to_string());
        fds.filter_map(|fd| to(fd.ok()?)).collect()
    }

    /// Kill the daemon. Its mounts stay, and are dead.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.ended();
    }

    /// Ask the daemon to end, and check that it does and leaves nothing behind.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.wait();
    }

    /// Check that the daemon ends by itself with success and leaves nothing behind.
    #[track_caller]
    pub(crate) fn wait(&mut self) {
        until("the daemon ends", || self.child.try_wait().unwrap().is_some());
        let status = self.ended();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.stderr());
        assert_eq!(mounts_below(&self.mountpoint), []);
    }

    fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.running = false;
        let pid = Pid::from_child(&self.child);
        self.daemons.lock().unwrap().retain(|other| *other != pid);
        status
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        within(limit, || self.child.try_wait().unwrap().is_some())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- what the daemon said ---\n{}", self.stderr());
        }
        if self.running {
            for place in [self.tasks(), self.mountpoint.clone()] {
                let _ = unmount(&place, UnmountFlags::NOFOLLOW);
            }
            if !self.ends_within(Duration::from_secs(5)) {
                detach_below(&self.mountpoint);
                if !self.ends_within(Duration::from_secs(5)) {
                    abort_below(&self.mountpoint);
                    let _ = self.child.kill();
                }
            }
            self.ended();
        }
        detach_below(&self.mountpoint);
    }
}
