//! Starting a daemon: both mounts answer when this returns, or nothing is mounted.
//!
//! May assume: it runs alone in its process.
//! Must never: leave half of the mounts behind.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use super::config::Config;
use super::error::{StartError, cannot};
use super::mounts::{check_places, desk_place, mountpoint, prove_create, tasks_directory};
use super::project_lock::Project;
use super::requirements;
use super::status::status;
use crate::engine::{self, Engine};
use crate::fs::desk::{self, Desk, DeskWatch};
use crate::fs::files::{Files, Opens};
use crate::fs::identity::callers::Callers;
use crate::fs::identity::exits::ExitStatusSource;
use crate::fs::identity::process_watch::ProcessWatch;
use crate::fs::recorder::Recorder;
use crate::fs::tree::{Tree, TreeConfig};
use crate::fs::{FsError, Kernel, SessionInfo};
use crate::fuse::{MountOptions, Session};
use crate::limits::{DESK_THREADS_MIN, Descriptors, READ_AHEAD_KIB, TREE_NODES_KEPT};
use crate::mountpoint::MountPoint;
use crate::{clock, mounts, sys};

/// A project that is mounted and served.
pub struct Daemon {
    pub(super) place: MountPoint,
    /// The name of the tasks directory.
    pub(super) tasks: String,
    pub(super) tree: Arc<Tree>,
    pub(super) tree_files: Arc<Files>,
    pub(super) tree_session: Session,
    pub(super) desk_files: Arc<Files>,
    pub(super) desk_session: Session,
    pub(super) desk_watch: DeskWatch,
    /// Of both sessions.
    pub(super) session_infos: Vec<Arc<SessionInfo>>,
    pub(super) process_watch: Arc<ProcessWatch>,
    pub(super) engine: Arc<Engine>,
    pub(super) recorder: Option<Arc<Recorder>>,
    /// Held until the log is closed, so that no other daemon serves the project before that.
    _project: Project,
}

impl Daemon {
    /// Mount the project. When this returns, both mounts answer.
    pub fn start(config: &Config, project: Project) -> Result<Daemon, StartError> {
        check_places(config)?;
        let exits = prepare_process()?;
        let engine = start_engine(config, &project)?;
        let owner = rustix::process::geteuid().as_raw();
        let process_watch = ProcessWatch::start(engine.clone(), config.remote_grace, exits.heard())
            .map_err(|error| cannot("processes cannot be followed", error))?;
        let (tasks, names) = (config.tasks.clone(), config.names.clone());
        let callers = Arc::new(Callers::new(engine.clone(), process_watch.clone(), owner, tasks, names));

        let tasks = tasks_directory(project.root(), &config.tasks)?;
        let tree_files = files_below(copied(project.root())?, Opens::Unreported(nodes_kept()))?;
        let desk_files = files_below(tasks, Opens::Reported)?;
        let tree_config = TreeConfig { tasks: config.tasks.clone().into(), guard: config.guard.clone() };
        let recorder = config.history.clone().map(|history| {
            Recorder::start(history, tree_files.clone(), engine.clone(), project.state().clone()).map_err(
                |error| {
                    cannot(
                        "the history of changes cannot be kept; it can be turned off: -o history=off",
                        error,
                    )
                },
            )
        });
        let recorder = recorder.transpose()?;
        let tree =
            Tree::new(tree_files.clone(), tree_config, callers.clone(), engine.clone(), recorder.clone())
                .map(Arc::new)
                .map_err(not_shown)?;
        let desk_threads = config.threads.max(DESK_THREADS_MIN);
        let desk = Desk::new(
            desk_files.clone(),
            copied(project.root())?,
            engine.clone(),
            callers.clone(),
            tree.guard().clone(),
            recorder.clone(),
            desk_config(config, owner, desk_threads),
        );
        let desk_watch = desk.watch().map_err(|error| cannot("the tasks directory cannot be read", error))?;

        let in_place = (config.mountpoint == config.source).then(|| project.root());
        let (place, target) = mountpoint(&config.mountpoint, in_place)?;
        let options = |source: &Path, threads| MountOptions {
            fsname: source.to_string_lossy().into_owned(),
            read_only: false,
            allow_other: config.allow_other,
            threads,
        };
        let tree_options = options(&config.source, config.threads);
        let tree_session = Session::mount(tree.clone(), callers.clone(), &place, &target, &tree_options)
            .map_err(|error| requirements::refused(config.mountpoint.display(), &error))?;
        drop(target);
        if let Err(error) = tree.mounted(tree_session.device(), Arc::new(tree_session.notifier())) {
            let _ = tree_session.unmount(&place, true);
            return Err(cannot("changes cannot be guarded", error));
        }
        if let Some(info) = tree.terms() {
            desk.beside(info);
        }
        let desk_options = options(&config.source.join(&config.tasks), desk_threads);
        let desk = Arc::new(desk);
        tree.tell_more(status(config, &project, &engine, desk_files.clone(), &exits, Arc::downgrade(&desk))?);
        let mounted = desk_place(&place, tree_session.device(), &config.tasks).and_then(|(place, target)| {
            let session = Session::mount(desk.clone(), callers, &place, &target, &desk_options)?;
            prove_create(&desk, &place);
            Ok(session)
        });
        let desk_session = match mounted {
            Ok(session) => session,
            Err(error) => {
                let _ = tree_session.unmount(&place, true);
                return Err(requirements::refused(config.mountpoint.join(&config.tasks).display(), &error));
            }
        };
        let notifier = desk_session.notifier();
        desk.tell(move |ino| notifier.forget_attributes(ino));
        project
            .announce(&config.mountpoint)
            .map_err(|error| cannot("the lock file cannot be written", error))?;
        log::info!("{} is mounted at {}", config.source.display(), config.mountpoint.display());
        if let Err(error) = mounts::read_ahead(tree_session.device(), READ_AHEAD_KIB) {
            log::debug!("the kernel reads ahead as far as it likes: {error}");
        }
        log::info!("in force: {}", tree.session());
        Ok(Daemon {
            place,
            tasks: config.tasks.clone(),
            session_infos: [tree.terms(), desk.terms()].into_iter().flatten().collect(),
            tree,
            tree_files,
            tree_session,
            desk_files,
            desk_session,
            desk_watch,
            process_watch,
            engine,
            recorder,
            _project: project,
        })
    }
}

/// Set what holds for the whole process, before there are threads. The source of exits is opened with a capability that is dropped
/// then.
fn prepare_process() -> Result<ExitStatusSource, StartError> {
    sys::widen_descriptor_table(Descriptors::in_all(sys::raise_descriptor_limit()));
    sys::clear_umask();
    sys::ignore_lease_breaks();
    let exits = ExitStatusSource::find();
    sys::keep_capabilities()
        .and_then(|()| sys::drop_network_capability())
        .map_err(|error| cannot("capabilities cannot be kept", error))?;
    Ok(exits)
}

fn start_engine(config: &Config, project: &Project) -> Result<Arc<Engine>, StartError> {
    let log = project.open_log().map_err(|error| cannot("the event log does not open", error))?;
    let engine_config = engine::Config {
        default_lease: config.lease,
        rules: config.rules,
        budget: config.budget,
        clock: clock::system(),
        directory: Some(project.state().clone()),
    };
    Engine::start(Box::new(log), engine_config)
        .map_err(|error| cannot("the queue cannot be rebuilt from the event log", error))
}

fn desk_config(config: &Config, owner: u32, threads: usize) -> desk::Config {
    desk::Config {
        tasks: config.tasks.clone(),
        lease: config.lease,
        idle_timeout: config.idle_timeout,
        file_grace: config.file_grace,
        owner_uid: owner,
        owner_gid: rustix::process::getegid().as_raw(),
        workers: config.workers.clone(),
        threads,
        roots: [&config.source, &config.mountpoint].map(|path| path.to_string_lossy().into_owned()).into(),
    }
}

fn copied(fd: &OwnedFd) -> Result<OwnedFd, StartError> {
    fd.try_clone().map_err(|error| cannot("a descriptor cannot be copied", error))
}

fn files_below(root: OwnedFd, opens: Opens) -> Result<Arc<Files>, StartError> {
    Files::new(root, opens).map(Arc::new).map_err(not_shown)
}

fn not_shown(error: FsError) -> StartError {
    StartError(format!("the tree cannot be shown: errno {}", error.errno()))
}

/// How many nodes of the tree may have a descriptor: at most a quarter of the files that the whole machine may have open.
fn nodes_kept() -> usize {
    let machine =
        std::fs::read_to_string("/proc/sys/fs/file-max").ok().and_then(|most| most.trim().parse().ok());
    machine.map_or(TREE_NODES_KEPT, |most: usize| TREE_NODES_KEPT.min(most / 4))
}
