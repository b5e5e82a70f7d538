//! `crewfs sftp-server`: the forced command of a remote worker's ssh key. It fixes the worker's name, and what the worker sees (C42).
//!
//! May assume: it is the forced command of a key, so the client chooses neither the program nor its arguments.
//! Must never: pass on anything of its environment. The client may have sent some of it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::beneath::{self, Links};
use super::error::{CliError, dead_mount};
use crate::confine::{self, ConfineError};
use crate::mounts::{self, Mount, MountTable};
use crate::queue::WorkerName;

#[derive(Args)]
pub(super) struct Arguments {
    /// The name of the worker at the other end.
    #[arg(long, value_name = "NAME")]
    worker: String,
    /// Show nothing but this directory, which must be mounted by crewfs, or lie in such a mount. The connection ends with
    /// that mount, so that a client that reconnects never works beside the next one.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// The paths of OpenSSH's server, by distribution.
pub(super) const SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

pub(super) fn run(arguments: &Arguments) -> Result<(), CliError> {
    let worker = WorkerName::parse(&arguments.worker).ok_or_else(|| {
        CliError::usage(format!(
            "{:?} is no worker name: use letters, digits, '.', '_' and '-', 64 of them at most",
            arguments.worker
        ))
    })?;
    let environment = [("PATH", "/usr/bin:/bin"), ("CREWFS_WORKER", worker.as_str())];
    if !is_mine(&environment) {
        return Err(begin_anew(&environment));
    }
    let server = server(&SERVERS.map(Path::new))?;
    let mut command = Command::new(server);
    match &arguments.root {
        None => Err(CliError::failed(format!("{} cannot be run: {}", server.display(), command.exec()))),
        Some(root) => confined(command, root),
    }
}

/// Whether this process was started with exactly this environment.
fn is_mine(environment: &[(&str, &str)]) -> bool {
    let mut mine: Vec<_> = std::env::vars_os().collect();
    let mut wanted: Vec<_> = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    mine.sort();
    wanted.sort();
    mine == wanted
}

/// Execute this program again with that environment. The daemon sees the environment with which a program was started, and this program
/// must not touch the mount under a name that the client sent.
fn begin_anew(environment: &[(&str, &str)]) -> CliError {
    let failed = |error| CliError::failed(format!("crewfs cannot start itself anew: {error}"));
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return failed(error),
    };
    let arguments = std::env::args_os().skip(1);
    failed(Command::new(program).args(arguments).env_clear().envs(environment.iter().copied()).exec())
}

fn server<'a>(places: &[&'a Path]) -> Result<&'a Path, CliError> {
    places.iter().copied().find(|place| place.is_file()).ok_or_else(|| {
        CliError::failed("OpenSSH's sftp-server is not there; install it: apt install openssh-sftp-server")
    })
}

/// Serve only `root`, for as long as it is mounted.
fn confined(mut command: Command, root: &Path) -> Result<(), CliError> {
    let mut table = MountTable::open().map_err(CliError::failed)?;
    let (directory, root) = open(root, &table.ours().map_err(CliError::failed)?)?;
    let served = table.around(&root).map_err(CliError::failed)?;
    let served: Vec<u64> = served.iter().map(|mount| mount.id).collect();
    confine::to(&directory, &root).map_err(|error| {
        let next = match &error {
            ConfineError::NotAllowed(_) => "; what is in the way: crewfs doctor",
            ConfineError::Step { .. } => "",
        };
        CliError::failed(format!(
            "nothing is served, because it cannot be kept to {}: {error}{next}",
            root.display()
        ))
    })?;
    let mut server = command
        .args([OsStr::new("-d"), root.as_os_str()])
        .spawn()
        .map_err(|error| CliError::failed(format!("sftp-server cannot be run: {error}")))?;
    match wait(&mut server, &mut table, &root, &served) {
        Ok(ConnectionEnd::Server(status)) if status.success() => Ok(()),
        Ok(ConnectionEnd::Server(status)) => Err(CliError::failed(format!("sftp-server failed: {status}"))),
        Ok(ConnectionEnd::Mount) => {
            let _ = server.kill();
            let _ = server.wait();
            Err(CliError {
                code: 3,
                message: format!("{} is mounted no longer; connect again when it is", root.display()),
            })
        }
        Err(error) => {
            let _ = server.kill();
            Err(CliError::failed(format!("the mount cannot be watched: {error}")))
        }
    }
}

/// The directory to serve, and its path without links. It is opened once and checked by its descriptor, because members of the project
/// may replace it at any moment.
///
/// Links that lead to the mount are followed, links within it are not.
fn open(root: &Path, ours: &[Mount]) -> Result<(OwnedFd, PathBuf), CliError> {
    let path = std::path::absolute(root).map_err(CliError::failed)?;
    let cannot = |error: Errno| {
        CliError::failed(match error {
            Errno::NOTCONN => dead_mount(&path),
            Errno::LOOP | Errno::XDEV => format!(
                "{0} is not served, because a link in the mount leads to it, or another directory is put in its place at this moment; \
             name the directory itself",
                path.display()
            ),
            _ => format!("{}: {error}", path.display()),
        })
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above: Vec<&Path> = path.ancestors().collect();
    for above in above.into_iter().rev() {
        let there = rustix::fs::open(above, flags, Mode::empty()).map_err(cannot)?;
        let Some(mount) = mount_of(&there, ours)? else { continue };
        let there_path = path_of(&there)?;
        if there_path != mount.mountpoint {
            return Err(cannot(Errno::LOOP));
        }
        let below = path.strip_prefix(above).unwrap_or(Path::new(""));
        let directory = beneath::open(&there, below, flags, Links::Refused).map_err(cannot)?;
        // The kernel may have cached the attributes of a dead mount.
        rustix::fs::fstatfs(&directory).map_err(cannot)?;
        // Another filesystem may be mounted within.
        if mount_of(&directory, ours)?.is_none() {
            break;
        }
        let shown = path_of(&directory)?;
        return Ok((directory, shown));
    }
    Err(not_mounted(&path))
}

/// The mount of crewfs that an open file lies in.
fn mount_of<'a>(file: &OwnedFd, ours: &'a [Mount]) -> Result<Option<&'a Mount>, CliError> {
    let id = mounts::of_descriptor(file).map_err(CliError::failed)?;
    Ok(ours.iter().find(|mount| mount.id == id))
}

/// The path of an open file.
fn path_of(file: &OwnedFd) -> Result<PathBuf, CliError> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(CliError::failed)
}

fn not_mounted(root: &Path) -> CliError {
    let message = format!("{0} is not mounted by crewfs; mount it first: crewfs mount {0}", root.display());
    CliError { code: 3, message }
}

/// Why a connection ended.
enum ConnectionEnd {
    /// The server exited.
    Server(ExitStatus),
    /// One of the served mounts was unmounted.
    Mount,
}

fn wait(
    server: &mut Child,
    table: &mut MountTable,
    root: &Path,
    served: &[u64],
) -> Result<ConnectionEnd, Errno> {
    let process: OwnedFd = pidfd_open(Pid::from_child(server), PidfdFlags::empty())?;
    loop {
        let there: Vec<u64> = table
            .around(root)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?
            .iter()
            .map(|mount| mount.id)
            .collect();
        if !served.iter().all(|id| there.contains(id)) {
            return Ok(ConnectionEnd::Mount);
        }
        let mut news = [
            PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(table.as_fd(), PollFlags::PRI),
        ];
        match poll(&mut news, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if let Ok(Some(status)) = server.try_wait() {
            return Ok(ConnectionEnd::Server(status));
        }
    }
}
