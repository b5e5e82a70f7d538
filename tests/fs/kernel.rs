//! A stand-in for the kernel: it sends the two filesystems the requests that Linux sends, in the same order, on behalf of live processes
//! of workers.
//!
//! Must never: wait for an answer without a limit.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crewfs::engine::{self, Engine};
use crewfs::fs::desk::{self, Desk};
use crewfs::fs::files::{Files, Opens};
use crewfs::fs::guard;
use crewfs::fs::identity::callers::Callers;
use crewfs::fs::identity::names;
use crewfs::fs::identity::process_watch::ProcessWatch;
use crewfs::fs::tree::{Tree, TreeConfig};
use crewfs::fs::{
    Attr, CallerCheck, Entry, Filesystem, Found, FsError, Ino, Kernel, NewMode, Opened, ROOT, Reply, Request,
    Result,
};
use crewfs::queue::{Budget, Rules, Span};
use parking_lot::Mutex;

use crate::fault::Control;

const LIMIT: Duration = Duration::from_secs(30);
/// How often the look at a process is repeated when it takes too long.
const TRIES: usize = 100;
const FILE: NewMode = NewMode { mode: libc::S_IFREG | 0o644, umask: 0 };

/// An answer that may still be outstanding.
pub struct Answer<T>(Receiver<Result<T>>);

impl<T> Answer<T> {
    /// The answer. The test fails if it does not arrive within the limit.
    pub fn get(&self) -> Result<T> {
        self.0.recv_timeout(LIMIT).expect("the kernel is answered")
    }

    /// Whether the request stays parked for a while. The absence of an answer has no event to wait for.
    pub fn stays_parked(&self) -> bool {
        matches!(self.0.recv_timeout(Duration::from_millis(100)), Err(RecvTimeoutError::Timeout))
    }
}

/// A process that belongs to a worker.
pub struct Process(Child);

impl Process {
    pub fn of(worker: &str) -> Process {
        let mut program = Program::new("cat");
        program.env("CREWFS_WORKER", worker).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().expect("cat is there");
        // Once it echoes the byte, the process runs cat and is no longer a copy of the test program.
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Process(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that a filesystem told the kernel to invalidate.
#[derive(Default)]
pub struct Forgotten(pub Mutex<Vec<(&'static str, Ino)>>);

impl Kernel for Forgotten {
    fn forget_attributes(&self, ino: Ino) {
        self.0.lock().push(("attributes", ino));
    }

    fn forget_content(&self, ino: Ino) {
        self.0.lock().push(("content", ino));
    }

    fn forget_name(&self, parent: Ino, _name: &OsStr) {
        self.0.lock().push(("name", parent));
    }
}

/// A project whose two filesystems serve this stand-in.
pub struct Machine {
    pub engine: Arc<Engine>,
    pub desk: Arc<Desk>,
    pub tree: Arc<Tree>,
    pub forgotten: Arc<Forgotten>,
    pub project: tempfile::TempDir,
    callers: Arc<Callers>,
    process_watch: Arc<ProcessWatch>,
}

impl Machine {
    /// A project with these files and this log.
    pub fn new(control: &Control, files: &[(&str, &str)]) -> Machine {
        let project = tempfile::tempdir().unwrap();
        std::fs::create_dir(project.path().join("tasks")).unwrap();
        for (name, text) in files {
            std::fs::write(project.path().join(name), text).unwrap();
        }
        let opened = |path: &std::path::Path| {
            use rustix::fs::{Mode, OFlags, open};
            open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
        };
        let config = engine::Config {
            default_lease: Span(60_000),
            rules: Rules::default(),
            budget: Budget::default(),
            clock: crewfs::clock::system(),
            directory: None,
        };
        let engine = Engine::start(control.log(), config).unwrap();
        let process_watch = ProcessWatch::start(engine.clone(), Span(60_000), None).unwrap();
        let owner = rustix::process::geteuid().as_raw();
        let callers = Callers::new(
            engine.clone(),
            process_watch.clone(),
            owner,
            "tasks".into(),
            names::Config::default(),
        );
        let callers = Arc::new(callers);
        let tree_files = Arc::new(Files::new(opened(project.path()), Opens::Unreported(1_000)).unwrap());
        let guard = guard::Config { lock_wait: Span(0), ..guard::Config::default() };
        let tree_config = TreeConfig { tasks: "tasks".into(), guard };
        let tree =
            Arc::new(Tree::new(tree_files, tree_config, callers.clone(), engine.clone(), None).unwrap());
        let forgotten = Arc::new(Forgotten::default());
        // (0, 0): no process has a file of this device open.
        tree.mounted((0, 0), forgotten.clone()).unwrap();
        let desk_files =
            Arc::new(Files::new(opened(&project.path().join("tasks")), Opens::Reported).unwrap());
        let desk_config = desk::Config {
            tasks: "tasks".into(),
            lease: Span(60_000),
            idle_timeout: Span(60_000),
            file_grace: Span(3_000),
            owner_uid: owner,
            owner_gid: rustix::process::getegid().as_raw(),
            workers: desk::Users::default(),
            threads: 2,
            roots: Vec::new(),
        };
        let desk = Desk::new(
            desk_files,
            opened(project.path()),
            engine.clone(),
            callers.clone(),
            tree.guard().clone(),
            None,
            desk_config,
        );
        Machine { engine, desk: Arc::new(desk), tree, forgotten, project, callers, process_watch }
    }

    /// Make a request for a process: look the caller up as the adapter does, and serve the request on this thread.
    pub fn ask<T: Send + 'static>(&self, by: &Process, serve: impl FnOnce(&Request, Reply<T>)) -> Answer<T> {
        let uid = rustix::process::geteuid().as_raw();
        let req = Request { tid: by.0.id(), uid, gid: rustix::process::getegid().as_raw() };
        let serving = (0..TRIES).find_map(|_| {
            let (known, is_known) = channel();
            self.callers.find_out(&req, CallerCheck::Exact, Box::new(move || drop(known)));
            let _ = is_known.recv_timeout(LIMIT) as std::result::Result<(), _>;
            self.callers.admit(&req, CallerCheck::Exact)
        });
        let serving = serving.expect("the caller is looked up");
        let (sender, receiver) = channel();
        serve(&req, Reply::new(move |answer| drop(sender.send(answer))));
        drop(serving);
        Answer(receiver)
    }

    fn at_once<T: Send + 'static>(
        &self,
        by: &Process,
        serve: impl FnOnce(&Request) -> Result<T>,
    ) -> Result<T> {
        self.ask(by, |req, reply| reply.send(serve(req))).get()
    }

    /// LOOKUP.
    pub fn lookup(&self, fs: &dyn Lookup, by: &Process, parent: Ino, name: &str) -> Result<Entry> {
        match self.at_once(by, |req| fs.find(req, parent, name.as_ref()))? {
            Found::Entry(entry) => Ok(entry),
            Found::Nothing(_) => Err(FsError::from(rustix::io::Errno::NOENT)),
        }
    }

    /// The inode of `tasks/claim`.
    pub fn claims(&self, by: &Process) -> Ino {
        self.lookup(&*self.desk, by, ROOT, "claim").unwrap().attr.ino
    }

    /// CREATE of a file in `tasks/claim`, as `touch` sends it.
    pub fn create_claim(&self, by: &Process, task: &str) -> Answer<(Entry, Opened)> {
        let parent = self.claims(by);
        let flags = libc::O_CREAT | libc::O_WRONLY;
        self.ask(by, |req, reply| self.desk.create(req, parent, task.as_ref(), FILE, flags, reply))
    }

    /// GETATTR of an inode of the desk.
    pub fn getattr(&self, by: &Process, ino: Ino) -> Answer<(Attr, Duration)> {
        self.ask(by, |req, reply| self.desk.getattr(req, ino, None, reply))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.tree.stop();
        self.process_watch.stop();
        self.engine.stop();
    }
}

/// The desk or the tree.
pub trait Lookup {
    fn find(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Found>;
}

impl<F: Filesystem> Lookup for F {
    fn find(&self, req: &Request, parent: Ino, name: &OsStr) -> Result<Found> {
        self.lookup(req, parent, name)
    }
}
