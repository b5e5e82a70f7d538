//! A server process that always ends: when it is dropped, or by its own time limit if the benchmark is killed first.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Outcome, wait};

/// Seconds from SIGTERM until SIGKILL.
const GRACE: &str = "5";
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends the process and waits for it.
pub(crate) struct Server {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Server {
    /// Starts `program`, for `lifetime` at most. Its output goes to a log in `dir`.
    ///
    /// It runs under timeout(1), which passes SIGTERM on, sends SIGKILL after the grace, and leads a process group of its own. So
    /// Ctrl-C at the terminal reaches only the benchmark.
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

    /// Waits until the server is ready, or fails with the server's output.
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

    /// Ends the server and waits for its end, which the grace bounds.
    pub(crate) fn stop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // The process has not been waited for, so its id cannot be reused yet.
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
