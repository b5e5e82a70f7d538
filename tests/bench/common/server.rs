//! A server process that always ends: by our hand, or by its own time limit should we be killed first.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Outcome, wait};

/// From the request to end until SIGKILL, in seconds.
const GRACE: &str = "5";
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends the process and waits for it.
pub(crate) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts `program`, for `lifetime` at most; what it prints goes to a log in `dir`.
    ///
    /// It runs under timeout(1), which passes SIGTERM on, sends SIGKILL after the grace, and leads a process
    /// group of its own, so that Ctrl-C at the terminal reaches only us.
    pub(crate) fn spawn<A: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = A>,
        dir: &Path,
        lifetime: Duration,
    ) -> Outcome<Self> {
        let log = dir.join("server.log");
        let output = File::create(&log)?;
        let child = Command::new("timeout")
            .args(["--kill-after", GRACE, &lifetime.as_secs().to_string()])
            .arg(program.as_ref())
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("timeout(1): {error}"))?;
        Ok(Self { child, name: program.as_ref().to_string_lossy().into_owned(), log })
    }

    /// Waits until the server serves, or fails with what it said.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
        wait::until(&format!("the start of {}", self.name), START_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("{} ended with {status}: {}", self.name, said.trim()).into());
            }
            ready()
        })
    }

    /// The process to signal: it passes SIGTERM on.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends the server and waits for it; the grace bounds how long.
    pub(crate) fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Not yet waited for, so the number is still ours.
            let _ = kill_process(self.pid(), Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
