//! `crewfs mount`: returns when the mount answers, or says why it does not (C71).

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use daemonize::{Daemonize, Outcome};
use rustix::fs::OFlags;

use super::error::CliError;
use super::exit_wait;
use super::find_daemon::RunningDaemon;
use super::options::Options;
use super::paths::{canonical, mount_place};
use super::settings::Settings;
use super::umount::unmount;
use crate::daemon::{Config, Daemon, Project, TakeError, requirements, state_place};
use crate::mountpoint::{Unresolved, resolve};
use crate::mounts::{self, Mount};
use crate::queue::Budget;
use crate::shown;
use crate::state_directory::{InodeId, StateDirectory};

#[derive(Args)]
pub(super) struct Arguments {
    /// The project's directory.
    #[arg(required_unless_present = "config", conflicts_with = "config")]
    source: Option<PathBuf>,
    /// Where to mount it; over itself when left out.
    mountpoint: Option<PathBuf>,
    /// Take project, place and options from this file, /etc/crewfs/NAME.toml as a rule; -o goes above it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Stay in the foreground, and log to standard error.
    #[arg(short)]
    foreground: bool,
    /// Options, separated by commas: state=DIR, tasks=NAME, lease=30m, lease_max=24h, ageing=1h, claims_per_worker=N,
    /// workers=NAME:NAME, operators=NAME:NAME, keys=USER:FILE, idle_timeout=10m, file_grace=3s, remote_grace=60s, allow_other,
    /// threads=N, lock_wait=2s, stale_window=1h, stale_writes=refuse, unguarded=FILE.
    #[arg(short, value_name = "OPTION[,OPTION…]")]
    options: Vec<String>,
}

/// The log file of a daemon in the background, in the state directory. The previous one is kept.
const LOG: &str = "crewfs.log";
const LOG_BEFORE: &str = "crewfs.log.1";

pub(super) fn run(arguments: Arguments) -> Result<(), CliError> {
    let config = configure(&arguments)?;
    if arguments.foreground {
        log_to(env_logger::Target::Stderr);
        let project = take(&config)?;
        return serve(&config, project, |_| {});
    }
    // Early errors are reported here. The daemon sends later ones through the pipe.
    let (mut news, report) = io::pipe().map_err(CliError::failed)?;
    match Daemonize::new().working_directory("/").execute() {
        Outcome::Parent(Ok(_)) => {
            drop(report);
            let mut said = String::new();
            news.read_to_string(&mut said).map_err(CliError::failed)?;
            match said.split_once('\n') {
                Some(("mounted", _)) => Ok(()),
                Some(("failed", said)) => {
                    let (daemon, why) = said.split_once('\n').unwrap_or(("", said));
                    // Until the daemon has exited it may have the project locked, and another mount would be refused.
                    daemon.parse().into_iter().for_each(exit_wait::wait_for);
                    Err(CliError::failed(why))
                }
                _ => {
                    Err(CliError::failed("the daemon ended before it could say why; try: crewfs mount -f …"))
                }
            }
        }
        Outcome::Parent(Err(error)) => Err(CliError::failed(format!("no daemon could be started: {error}"))),
        Outcome::Child(outcome) => {
            drop(news);
            let mut report = Some(report);
            let mut tell = |word: &str, why: &str| {
                if let Some(mut report) = report.take() {
                    let _ = write!(report, "{word}\n{why}");
                }
            };
            let served = match outcome {
                Ok(_) => take(&config).and_then(|project| {
                    log_to(env_logger::Target::Pipe(Box::new(LogFile::begin(project.state())?)));
                    serve(&config, project, |word| tell(word, ""))
                }),
                Err(error) => Err(CliError::failed(error)),
            };
            if let Err(failure) = &served {
                tell("failed", &format!("{}\n{}", std::process::id(), failure.message));
            }
            served
        }
    }
}

fn configure(arguments: &Arguments) -> Result<Config, CliError> {
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
    let is_root = rustix::process::geteuid().is_root();
    let mut options = Options::defaults(is_root, cores);
    let settings = arguments.config.as_deref().map(Settings::read).transpose()?;
    let (source, mountpoint) = match &settings {
        Some(settings) => {
            options = settings.apply(options)?;
            (settings.source.as_path(), settings.mountpoint.as_path())
        }
        None => {
            let source = arguments.source.as_deref().expect("clap asks for it when there is no file");
            (source, arguments.mountpoint.as_deref().unwrap_or(source))
        }
    };
    let options = arguments.options.iter().try_fold(options, |options, list| options.apply(list))?;
    options.check(is_root)?;
    let (lease, guard) = (options.lease(), options.guard()?);
    requirements::check().map_err(CliError::failed)?;
    // A dead mount over the project itself does not answer.
    clear_dead(source, mountpoint)?;
    let full_source = resolved(source, is_root, canonical)?;
    let mountpoint =
        if mountpoint == source { full_source.clone() } else { resolved(mountpoint, is_root, mount_place)? };
    let source = full_source;
    let state = options.state.as_deref().map(|state| state_place(state, &source, &mountpoint));
    Ok(Config {
        state: state.transpose().map_err(CliError::failed)?,
        source,
        mountpoint,
        tasks: options.tasks,
        lease,
        rules: options.rules,
        workers: options.workers,
        budget: Budget { owner: rustix::process::geteuid().as_raw(), ..options.budget },
        idle_timeout: options.idle_timeout,
        file_grace: options.file_grace,
        remote_grace: options.remote_grace,
        allow_other: options.allow_other,
        threads: options.threads,
        names: options.names,
        history: options.history,
        guard,
    })
}

/// Resolve a path. Root follows no link of an ordinary user, because the link could make root mount anywhere. If the path cannot be
/// resolved, `find` reports why, or the later opening does, which follows no link.
fn resolved(
    path: &Path,
    is_root: bool,
    find: impl Fn(&Path) -> Result<PathBuf, CliError>,
) -> Result<PathBuf, CliError> {
    if !is_root {
        return find(path);
    }
    match resolve(path) {
        Ok(path) => Ok(path),
        Err(Unresolved::LinkOf(link, user)) => Err(CliError::failed(format!(
            "{} is a symbolic link of user {user}, who could lead it anywhere, so that root does not follow it; name the directory itself",
            link.display()
        ))),
        Err(Unresolved::Failed(_)) => {
            find(path)?;
            std::path::absolute(path).map_err(CliError::failed)
        }
    }
}

/// Unmount what a killed daemon of this project left at this place. No process can use it any more.
fn clear_dead(source: &Path, mountpoint: &Path) -> Result<(), CliError> {
    // If the place does not exist, the daemon's own check reports that.
    let Ok(mountpoint) = mount_place(mountpoint) else { return Ok(()) };
    let left = || mounts::at(&mountpoint).map_err(CliError::failed);
    while let Some(mount) = left()?
        && mount.source == mount_place(source)?
        && has_ended(&mount)
    {
        // Detaching unmounts the desk too.
        unmount(&mount, true)?;
    }
    Ok(())
}

/// Whether the daemon of a mount has exited. One that was killed a moment ago may still have answered, and is waited for.
fn has_ended(mount: &Mount) -> bool {
    let is_dead = || mounts::is_dead(&mount.mountpoint);
    is_dead()
        || RunningDaemon::find(&mount.source).is_none_or(|daemon| exit_wait::has_exited(daemon.pid))
            && is_dead()
}

fn take(config: &Config) -> Result<Project, CliError> {
    crate::daemon::check_places(config).map_err(CliError::failed)?;
    let (source, state) = (&config.source, config.state.as_deref());
    let take = || Project::take(source, state, true);
    let is_over = |daemon: Option<u32>| daemon.is_none_or(exit_wait::has_exited);
    let taken = match take() {
        // A killed daemon has the project locked until the kernel has closed its files.
        Err(TakeError::Held(_))
            if is_over(Project::last_owner(source, state).map(|holder| holder.pid))
                && is_over(RunningDaemon::find(source).map(|daemon| daemon.pid)) =>
        {
            take()
        }
        taken => taken,
    };
    taken.map_err(|error| match error {
        TakeError::Held(_) => CliError::failed(format!("{error}; one daemon at a time serves a project")),
        TakeError::Other(error) => CliError::failed(error),
    })
}

/// Serve until a signal or an unmount ends it.
fn serve(config: &Config, project: Project, mut mounted: impl FnMut(&str)) -> Result<(), CliError> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).map_err(CliError::failed)?;
    }
    let daemon = Daemon::start(config, project).map_err(CliError::failed)?;
    mounted("mounted");
    daemon.serve(|| stop.load(Ordering::Acquire));
    Ok(())
}

/// The daemon's log file. It is made again if it was removed with the state directory.
struct LogFile {
    state: Arc<StateDirectory>,
    file: File,
}

impl LogFile {
    fn begin(state: &Arc<StateDirectory>) -> Result<LogFile, CliError> {
        let _ = state.rename(LOG, LOG_BEFORE);
        Ok(LogFile { state: state.clone(), file: LogFile::open(state).map_err(CliError::failed)? })
    }

    fn open(state: &StateDirectory) -> io::Result<File> {
        Ok(state.open(LOG, OFlags::RDWR | OFlags::CREATE | OFlags::APPEND)?)
    }

    /// Make the file again if it was removed, with what was logged before.
    fn follow(&mut self) -> io::Result<()> {
        if state_has(&self.state, &self.file) || !self.state.is_in_place() {
            return Ok(());
        }
        let mut anew = LogFile::open(&self.state)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut anew)?;
        self.file = anew;
        Ok(())
    }
}

fn state_has(state: &StateDirectory, file: &File) -> bool {
    state.id(LOG).is_some_and(|there| InodeId::of(file) == Ok(there))
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // If that fails, the line goes into the removed file.
        let _ = self.follow();
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// `CREWFS_LOG` chooses what is logged, as env_logger reads it: `warn`, `debug`, `crewfs::fs=trace`.
fn log_to(target: env_logger::Target) {
    let wanted = env_logger::Env::new().filter_or("CREWFS_LOG", "info");
    env_logger::Builder::from_env(wanted).target(target).format(entry).init();
}

/// An entry is one line, whatever names and texts of users are in it.
fn entry(out: &mut env_logger::fmt::Formatter, record: &log::Record) -> io::Result<()> {
    let message = record.args().to_string();
    writeln!(out, "[{} {:<5} {}] {}", out.timestamp(), record.level(), record.target(), shown::line(&message))
}
