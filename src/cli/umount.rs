//! `crewfs umount`: takes both mounts away, and returns when the daemon has let go of the project.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::{Failure, place};
use crate::daemon::{Project, TakeError};
use crate::mounts;

#[derive(Args)]
pub(super) struct Arguments {
    /// Where the project is mounted.
    mountpoint: PathBuf,
    /// Take it away although somebody still uses it: they keep what they have open, nobody else finds it.
    #[arg(short, long)]
    lazy: bool,
}

/// How long the daemon may take to write its last snapshot.
const LETTING_GO: Duration = Duration::from_secs(20);

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mountpoint = place(&arguments.mountpoint)?;
    let tree = mounts::at(&mountpoint).map_err(Failure::failed)?;
    let tree = tree.ok_or_else(|| Failure::not_mounted(&mountpoint))?;
    if is_dead(&mountpoint) || arguments.lazy {
        // Detaching takes the desk along; a dead tree could not even be asked for it.
        take_away(&mountpoint, true)?;
    } else {
        if let Some(desk) = mounts::desk_of(&mountpoint).map_err(Failure::failed)? {
            take_away(&desk.mountpoint, false)?;
        }
        match take_away(&mountpoint, false) {
            // Whoever serves them takes the tree away when the desk is gone.
            Err(_) if gone_within(&mountpoint, Duration::from_secs(2)) => {}
            outcome => outcome?,
        }
    }
    wait_for_daemon(&tree.source)
}

fn is_dead(mountpoint: &Path) -> bool {
    std::fs::metadata(mountpoint).is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
}

fn take_away(mountpoint: &Path, detach: bool) -> Result<(), Failure> {
    let shown = mountpoint.display();
    let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match unmount(mountpoint, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(Failure::failed(format!(
            "{shown} is in use; who uses it: fuser -vm {shown}; take it away all the same: crewfs umount --lazy"
        ))),
        // It went away by itself.
        Err(Errno::INVAL) => Ok(()),
        Err(Errno::PERM) => {
            // An ordinary user may take away what is theirs, with the help of fusermount.
            let mut helper = Command::new("fusermount3");
            helper.arg("-u").args(detach.then_some("-z")).arg(mountpoint);
            match helper.output() {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(Failure::failed(format!(
                    "{shown}: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                ))),
                Err(error) => {
                    Err(Failure::failed(format!("fusermount3 cannot be run: {error}; install fuse3")))
                }
            }
        }
        Err(error) => Err(Failure::failed(format!("{shown} cannot be unmounted: {error}"))),
    }
}

fn gone_within(mountpoint: &Path, limit: Duration) -> bool {
    within(limit, || mounts::at(mountpoint).is_ok_and(|mount| mount.is_none()))
}

/// Wait until the project is free: then it can be mounted again, moved or backed up.
fn wait_for_daemon(source: &Path) -> Result<(), Failure> {
    let free = || !matches!(Project::take(source, false), Err(TakeError::Held(_)));
    if within(LETTING_GO, free) {
        return Ok(());
    }
    Err(Failure::failed(format!("the mount is gone, but its daemon still holds {}", source.display())))
}

fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
