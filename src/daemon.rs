//! The daemon: takes a project, serves its two mounts, and lets go of them again.
//!
//! May assume: it runs alone in its process.
//! Must never: touch its own mounts while it serves them, or leave half of them behind.
//!
//! Start, in this order: the project's directory by descriptor, the lock, the log, the queue in step with the files, the
//! tree, the desk on it. Stop: the desk, the tree, the writer.

pub mod needs;
mod project;
mod service;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstat, openat};
use rustix::io::Errno;
use serde_json::{Map, Value, json};
use thiserror::Error;

pub use self::project::{Holder, Project, TakeError, state_place};
use self::service::Service;
use crate::engine::{self, Engine};
use crate::fs::desk::{self, Desk, DeskWatch};
use crate::fs::files::{Files, Opens, make_directory_like};
use crate::fs::guard;
use crate::fs::identity::callers::Callers;
use crate::fs::identity::exits::ExitStatusSource;
use crate::fs::identity::names;
use crate::fs::identity::process_watch::ProcessWatch;
use crate::fs::tree::{DESK, Tree, TreeConfig};
use crate::fs::{FsError, Kernel, SessionInfo};
use crate::fuse::{MountOptions, Session};
use crate::limits::{DESK_THREADS_MIN, Descriptors, READ_AHEAD_KIB, REQUEST_HANGS_MS, TREE_NODES_KEPT};
use crate::mountpoint::{Device, Place, device_of};
use crate::queue::{Budget, Rules, Span};
use crate::state_directory::FileId;
use crate::{clock, mounts, sys};

/// How often the daemon looks whether its mounts are still there.
const LOOK: Duration = Duration::from_millis(100);
/// After how long at one request a thread that serves the kernel hangs.
const REQUEST_HANGS: Duration = Duration::from_millis(REQUEST_HANGS_MS);
/// After how many looks the service manager is told how things stand, and descriptors are closed that nobody used since: what
/// was written and is kept open for writing could not be executed from the disk.
const LOOKS_BEFORE_TIDYING: u64 = 10;

/// What to serve, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// The project's directory, absolute.
    pub source: PathBuf,
    /// Where to mount it, absolute; the same as `source` to mount in place.
    pub mountpoint: PathBuf,
    /// Where the state is kept, absolute; in the project when that is not said.
    pub state: Option<PathBuf>,
    /// The name of the tasks directory.
    pub tasks: String,
    /// The lease of a task that names none.
    pub lease: Span,
    /// In which order tasks go to workers, how many to one, and for how long at most.
    pub rules: Rules,
    /// The users who may change the queue whatever the rights of the tasks directory are.
    pub workers: desk::Users,
    /// How much each worker and user may add to the event log.
    pub budget: Budget,
    /// How long a worker without work is kept.
    pub idle_timeout: Span,
    /// How long a task outlives its instruction file before it is withdrawn.
    pub file_grace: Span,
    /// How long a worker may be without its connection.
    pub remote_grace: Span,
    /// Whether other users may use the mount.
    pub allow_other: bool,
    /// How many threads serve each of the two mounts.
    pub threads: usize,
    /// Whom names belong to, and who are operators.
    pub names: names::Config,
    /// How changes of the project's files are let through.
    pub guard: guard::Config,
}

/// Why the daemon does not start: what, why, and what to do next.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct StartError(String);

fn cannot(what: impl std::fmt::Display, error: impl std::fmt::Display) -> StartError {
    StartError(format!("{what}: {error}"))
}

fn not_shown(error: FsError) -> StartError {
    StartError(format!("the tree cannot be shown: errno {}", error.errno()))
}

/// A project that is mounted and served.
pub struct Daemon {
    place: Place,
    tasks: String,
    tree: Session,
    shown: Arc<Tree>,
    desk: Session,
    watch: DeskWatch,
    follower: Arc<ProcessWatch>,
    engine: Arc<Engine>,
    files: [Arc<Files>; 2],
    /// Those of both sessions.
    terms: Vec<Arc<SessionInfo>>,
    /// Held until the end: nobody else may serve the project before the log is closed.
    _project: Project,
}

impl Daemon {
    /// Mount the project. When this returns, both mounts answer.
    pub fn start(config: &Config, project: Project) -> Result<Daemon, StartError> {
        check_places(config)?;
        sys::widen_descriptor_table(Descriptors::in_all(sys::raise_descriptor_limit()));
        sys::clear_umask();
        sys::ignore_lease_breaks();
        // Threads have the capabilities of the one that starts them: this is settled before there are any.
        let endings = ExitStatusSource::find();
        sys::keep_capabilities()
            .and_then(|()| sys::drop_network_capability())
            .map_err(|error| cannot("capabilities cannot be kept", error))?;

        let log = project.open_log().map_err(|error| cannot("the event log does not open", error))?;
        let engine_config = engine::Config {
            default_lease: config.lease,
            rules: config.rules,
            budget: config.budget,
            clock: clock::system(),
            directory: Some(project.state().clone()),
        };
        let engine = Engine::start(Box::new(log), engine_config)
            .map_err(|error| cannot("the queue cannot be rebuilt from the event log", error))?;

        let owner = rustix::process::geteuid().as_raw();
        let follower = ProcessWatch::start(engine.clone(), config.remote_grace, endings.heard())
            .map_err(|error| cannot("processes cannot be followed", error))?;
        let (tasks, names) = (config.tasks.clone(), config.names.clone());
        let callers = Arc::new(Callers::new(engine.clone(), follower.clone(), owner, tasks, names));
        let opened =
            |fd: &OwnedFd| fd.try_clone().map_err(|error| cannot("a descriptor cannot be copied", error));
        let tasks = tasks_directory(project.root(), &config.tasks)?;
        let below = |root: OwnedFd, opens: Opens| Files::new(root, opens).map(Arc::new).map_err(not_shown);
        let files = [
            below(opened(project.root())?, Opens::Unreported(nodes_kept()))?,
            below(tasks, Opens::Reported)?,
        ];
        let shown = {
            let tree_config = TreeConfig { tasks: config.tasks.clone().into(), guard: config.guard.clone() };
            Tree::new(files[0].clone(), tree_config, callers.clone(), engine.clone())
                .map(Arc::new)
                .map_err(not_shown)?
        };
        let desk_threads = config.threads.max(DESK_THREADS_MIN);
        let desk_config = desk::Config {
            tasks: config.tasks.clone(),
            lease: config.lease,
            idle_timeout: config.idle_timeout,
            file_grace: config.file_grace,
            owner_uid: owner,
            owner_gid: rustix::process::getegid().as_raw(),
            workers: config.workers.clone(),
            threads: desk_threads,
            roots: [&config.source, &config.mountpoint]
                .map(|path| path.to_string_lossy().into_owned())
                .into(),
        };
        let guard = shown.guard().clone();
        let desk = Desk::new(
            files[1].clone(),
            opened(project.root())?,
            engine.clone(),
            callers.clone(),
            guard,
            desk_config,
        );
        let watch = desk.watch().map_err(|error| cannot("the tasks directory cannot be read", error))?;

        let in_place = (config.mountpoint == config.source).then(|| project.root());
        let (place, target) = mountpoint(&config.mountpoint, in_place)?;
        let options = |source: &Path, threads| MountOptions {
            fsname: source.to_string_lossy().into_owned(),
            read_only: false,
            allow_other: config.allow_other,
            threads,
        };
        let tree_options = options(&config.source, config.threads);
        let tree = Session::mount(shown.clone(), callers.clone(), &place, &target, &tree_options)
            .map_err(|error| needs::refused(config.mountpoint.display(), &error))?;
        drop(target);
        if let Err(error) = shown.mounted(tree.device(), Arc::new(tree.notifier())) {
            let _ = tree.unmount(&place, true);
            return Err(cannot("changes cannot be guarded", error));
        }
        if let Some(terms) = shown.terms() {
            desk.beside(terms);
        }
        let desk_options = options(&config.source.join(&config.tasks), desk_threads);
        let desk = Arc::new(desk);
        shown.tell_more(told(config, &project, &engine, files[1].clone(), &endings, Arc::downgrade(&desk))?);
        let mounted = desk_place(&place, tree.device(), &config.tasks).and_then(|(place, target)| {
            let session = Session::mount(desk.clone(), callers, &place, &target, &desk_options)?;
            prove_create(&desk, &place);
            Ok(session)
        });
        let session = match mounted {
            Ok(session) => session,
            Err(error) => {
                let _ = tree.unmount(&place, true);
                return Err(needs::refused(config.mountpoint.join(&config.tasks).display(), &error));
            }
        };
        let notifier = session.notifier();
        desk.tell(move |ino| notifier.forget_attributes(ino));
        project
            .announce(&config.mountpoint)
            .map_err(|error| cannot("the lock file cannot be written", error))?;
        log::info!("{} is mounted at {}", config.source.display(), config.mountpoint.display());
        if let Err(error) = mounts::read_ahead(tree.device(), READ_AHEAD_KIB) {
            log::debug!("the kernel reads ahead as far as it likes: {error}");
        }
        log::info!("in force: {}", shown.session());
        let terms = [shown.terms(), desk.terms()].into_iter().flatten().collect();
        Ok(Daemon {
            place,
            tasks: config.tasks.clone(),
            terms,
            tree,
            shown,
            desk: session,
            watch,
            follower,
            engine,
            files,
            _project: project,
        })
    }

    /// Serve until somebody unmounts, or `stopped` says so; then take both mounts away and close the log.
    pub fn serve(self, stopped: impl Fn() -> bool) {
        let mut looks = 0_u64;
        let mut detached = false;
        let mut service = Service::ready();
        while !(stopped() || self.tree.has_ended() && self.desk.has_ended()) {
            // One without the other would let claims be made where nobody sees them. Who has something open keeps it.
            if !detached && (self.tree.has_ended() || self.desk.has_ended()) {
                detached = true;
                let _ = self.unmount_desk(true).and(self.tree.unmount(&self.place, true));
            }
            std::thread::sleep(LOOK);
            looks += 1;
            if looks.is_multiple_of(LOOKS_BEFORE_TIDYING) {
                service.beat(&self.engine, !self.terms.iter().any(|terms| terms.hangs(REQUEST_HANGS)));
                self.files.iter().for_each(|files| files.close_idle());
                self.shown.look_around();
            }
        }
        service.stopping();
        let desk = |detach| self.unmount_desk(detach);
        let tree = |detach| self.tree.unmount(&self.place, detach);
        for unmount in [&desk as &dyn Fn(bool) -> io::Result<()>, &tree] {
            if unmount(false).is_err()
                && let Err(error) = unmount(true)
            {
                log::error!("{} cannot be unmounted: {error}", self.place.shown().display());
            }
        }
        self.shown.stop();
        self.watch.stop();
        self.follower.stop();
        self.engine.stop();
        log::info!("{} is unmounted", self.place.shown().display());
    }

    fn unmount_desk(&self, detach: bool) -> io::Result<()> {
        if self.desk.has_ended() {
            return Ok(());
        }
        self.desk.unmount(&self.place.below(self.tree.device(), &self.tasks)?, detach)
    }
}

/// How many nodes of the tree may have a descriptor: a quarter at most of the files that the whole machine may have open.
fn nodes_kept() -> usize {
    let machine =
        std::fs::read_to_string("/proc/sys/fs/file-max").ok().and_then(|most| most.trim().parse().ok());
    machine.map_or(TREE_NODES_KEPT, |most: usize| TREE_NODES_KEPT.min(most / 4))
}

/// What the daemon tells of itself when it is asked what is in force: where the state is, and whether that and the tasks directory
/// are where the project has them.
fn told(
    config: &Config,
    project: &Project,
    engine: &Arc<Engine>,
    tasks: Arc<Files>,
    endings: &ExitStatusSource,
    desk: Weak<Desk>,
) -> Result<impl Fn() -> Map<String, Value> + Send + Sync + use<>, StartError> {
    let (endings_by, endings_why) = endings.told();
    let root = project.root().try_clone().map_err(|e| cannot("a descriptor cannot be copied", e))?;
    let (state, engine, name) = (project.state().clone(), engine.clone(), config.tasks.clone());
    Ok(move || {
        let tasks_in_place = match (FileId::at(&root, &*name), FileId::of(tasks.root())) {
            (Ok(there), Ok(served)) => there == served,
            _ => false,
        };
        let told = json!({
            "state": {
                "directory": state.shown(),
                "in_place": state.is_in_place(),
                "restored": state.restored(),
                "broken": engine.broken(),
            },
            "tasks": { "name": name, "in_place": tasks_in_place, "replaced": tasks.replaced() },
            "create_waits": desk.upgrade().is_some_and(|desk| desk.create_waits()),
            "endings": { "by": endings_by, "why": endings_why },
        });
        match told {
            Value::Object(told) => told,
            _ => Map::new(),
        }
    })
}

/// Whether the place to mount at is one, free, and no trap.
pub fn check_places(config: &Config) -> Result<(), StartError> {
    let (source, place) = (&config.source, &config.mountpoint);
    let shown = place.display();
    if project::is_state(source) {
        return Err(StartError(format!(
            "{} is the state directory of crewfs, and no project; name the project's directory",
            source.display()
        )));
    }
    if let Ok(Some(mount)) = mounts::at(place) {
        return Err(StartError(if mounts::is_dead(place) {
            format!("{shown} is a dead mount, its daemon is gone; clear it: crewfs umount {shown}")
        } else {
            format!("{shown} is in use: {} is mounted there; crewfs umount {shown}", mount.source.display())
        }));
    }
    match std::fs::metadata(place) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => {
            return Err(StartError(format!("{shown} is not a directory, so nothing can be mounted on it")));
        }
        Err(error) if error.raw_os_error().is_some_and(mounts::is_of_dead) => {
            return Err(StartError(format!(
                "{shown} is a dead mount, its daemon is gone; clear it: umount -l {shown}"
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StartError(format!(
                "the mount point {shown} does not exist; make it: mkdir -p {shown}"
            )));
        }
        Err(error) => return Err(cannot(format!("the mount point {shown} cannot be used"), error)),
    }
    if project::is_state(place) {
        return Err(StartError(format!(
            "{shown} is the state directory of crewfs, where nothing can be mounted; choose another place"
        )));
    }
    if place != source && place.starts_with(source) {
        return Err(StartError(format!(
            "{shown} lies in the project itself; choose a place outside of {}, or leave the mount point out to mount in place",
            source.display()
        )));
    }
    Ok(())
}

/// The place to mount at, and what is there now: to mount in place, that must be the very directory that was taken as the project.
fn mountpoint(path: &Path, in_place_of: Option<&OwnedFd>) -> Result<(Place, OwnedFd), StartError> {
    let shown = path.display();
    let found = Place::at(path).and_then(|place| place.open().map(|target| (place, target)));
    let (place, target) =
        found.map_err(|error| cannot(format!("the mount point {shown} cannot be used"), error))?;
    if in_place_of.is_some_and(|project| FileId::of(&target) != FileId::of(project)) {
        return Err(StartError(format!(
            "{shown} was replaced while it was being mounted; find out who does that, and mount it again"
        )));
    }
    Ok((place, target))
}

/// Have the desk prove what this kernel does between a CREATE and the return of open(2).
fn prove_create(desk: &Desk, place: &Place) {
    let proven = desk.prove_create(|name| {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        openat(place.open()?, Path::new("claim").join(name), flags, Mode::RUSR)?;
        Ok(())
    });
    match proven {
        Err(error) => log::warn!(
            "what this kernel does after a CREATE cannot be seen ({error}), so each one waits for the disk"
        ),
        Ok(()) if desk.create_waits() => {
            log::warn!(
                "this kernel returns from open(2) without asking for attributes, so each CREATE waits for the disk"
            );
        }
        Ok(()) => {}
    }
}

/// The place of the desk, and the directory there. It is looked up in the tree that was just mounted, by descriptor; nothing that
/// happens in the project, or at the mount point, has a part in it.
fn desk_place(tree: &Place, mount: Device, tasks: &str) -> io::Result<(Place, OwnedFd)> {
    let place = tree.below(mount, tasks)?;
    let target = place.open()?;
    let is_desk = device_of(&target)? == mount && fstat(&target)?.st_ino == DESK;
    if is_desk { Ok((place, target)) } else { Err(io::Error::other("it is not the tree's own directory")) }
}

/// The descriptor of the tasks directory, which is made, and owned like the project, where there is none.
fn tasks_directory(root: &OwnedFd, name: &str) -> Result<OwnedFd, StartError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |error: Errno| match error {
        Errno::NOTDIR | Errno::LOOP => StartError(format!(
            "the project has a file named {name}; choose another directory: -o tasks=NAME"
        )),
        error => cannot(format!("the tasks directory {name} cannot be opened or made"), error),
    };
    match openat(root, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => {
            make_directory_like(root, name).map_err(failed)?;
            openat(root, name, flags, Mode::empty()).map_err(failed)
        }
        opened => opened.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_mounted_in_place_on_the_directory_that_was_taken_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let source = dir.join("source");
        fs::create_dir(&source).unwrap();
        let project = Project::take(&source, None, true).unwrap();
        assert!(mountpoint(&source, Some(project.root())).is_ok());
        let why = |outcome: Result<(Place, OwnedFd), StartError>| outcome.unwrap_err().to_string();
        fs::rename(&source, dir.join("moved")).unwrap();
        std::os::unix::fs::symlink("moved", &source).unwrap();
        assert!(
            why(mountpoint(&source, Some(project.root()))).contains("cannot be used"),
            "a link leads to it"
        );
        fs::remove_file(&source).unwrap();
        fs::create_dir(&source).unwrap();
        assert!(why(mountpoint(&source, Some(project.root()))).contains("was replaced while"));
        assert!(mountpoint(&source, None).is_ok(), "elsewhere, any directory will do");
    }
}
