//! Mounts that always end: crewfs, and other filesystems in user space.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Outcome;
use super::server::Server;

/// A mounted filesystem. Dropping it ends the process and removes the mount.
pub(crate) struct Mount {
    /// The process that serves the mount. When it ends, every hanging call on the mount fails.
    pub(crate) server: Server,
    /// The mount point.
    pub(crate) mountpoint: PathBuf,
}

/// Mounts `source` with crewfs, which prints into a log in `dir`. Returns when `ready` is true.
pub(crate) fn crewfs(
    source: &Path,
    mountpoint: &Path,
    dir: &Path,
    lifetime: Duration,
    ready: impl FnMut() -> Outcome<bool>,
) -> Outcome<Mount> {
    let program = program();
    if !program.is_file() {
        return Err(format!("{} is not built; CREWFS_BIN names another", program.display()).into());
    }
    let args: [OsString; 4] = ["mount".into(), source.into(), mountpoint.into(), "-f".into()];
    Mount::start(program, args, mountpoint, dir, lifetime, ready)
}

/// The program under test: the one that the user chose, or the one that cargo built beside this benchmark.
pub(crate) fn program() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_crewfs").unwrap_or("target/release/crewfs");
    std::env::var_os("CREWFS_BIN").unwrap_or_else(|| built.into()).into()
}

impl Mount {
    /// Runs `program`, which mounts something at `mountpoint` and stays in the foreground.
    pub(crate) fn start<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
        mountpoint: &Path,
        dir: &Path,
        lifetime: Duration,
        ready: impl FnMut() -> Outcome<bool>,
    ) -> Outcome<Self> {
        fs::create_dir_all(mountpoint)?;
        let server = Server::spawn(program, args, dir, lifetime)?;
        let mut mount = Self { server, mountpoint: mountpoint.to_owned() };
        mount.server.wait_until(ready)?;
        Ok(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A daemon that ends well unmounts first. After its end, no process can hang on the mount.
        self.server.stop();
        for options in [&[][..], &["-l"][..]] {
            for mount in mounts_in(&self.mountpoint) {
                eprintln!("{mount} was left mounted");
                let _ = Command::new("timeout")
                    .args(["--kill-after", "5", "10", "umount"])
                    .args(options)
                    .arg(mount)
                    .stderr(Stdio::null())
                    .status();
            }
        }
    }
}

/// The mounts at `path` and below, the innermost first.
fn mounts_in(path: &Path) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    // The kernel writes a space as an octal escape.
    let mut found: Vec<String> = places.map(|place| place.replace("\\040", " ")).collect();
    found.retain(|place| Path::new(place).starts_with(path));
    found.reverse();
    found
}
