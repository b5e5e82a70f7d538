//! Time limits on programs, and on calls into a mount that no longer answers.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::common::{Outcome, wait};

/// The interval of the checks for the user's signal to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Does something when the time is over or the user stops the benchmark, unless it is dropped before.
pub(crate) struct Watchdog {
    done: Option<Sender<()>>,
    watching: Option<JoinHandle<()>>,
    barked: Arc<AtomicBool>,
}

impl Watchdog {
    /// Starts to watch.
    pub(crate) fn new(limit: Duration, bark: impl FnOnce() + Send + 'static) -> Self {
        let (done, ended) = channel::<()>();
        let barked = Arc::<AtomicBool>::default();
        let noted = Arc::clone(&barked);
        let watching = std::thread::spawn(move || {
            let end = Instant::now() + limit;
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if Instant::now() > end || wait::check().is_err() {
                    noted.store(true, Ordering::Relaxed);
                    return bark();
                }
            }
        });
        Self { done: Some(done), watching: Some(watching), barked }
    }

    /// Whether it acted.
    pub(crate) fn barked(&self) -> bool {
        self.barked.load(Ordering::Relaxed)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(watching) = self.watching.take() {
            let _ = watching.join();
        }
    }
}

/// Runs a program to its end. Returns its output.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Outcome<Vec<u8>> {
    let mut printed = Vec::new();
    run(command, limit, |stdout| stdout.read_to_end(&mut printed))?;
    Ok(printed)
}

/// Runs a program to its end and discards its output. Returns the size of the output.
pub(crate) fn drained(command: &mut Command, limit: Duration) -> Outcome<u64> {
    run(command, limit, |stdout| {
        let (mut block, mut total) = (vec![0; 1 << 16], 0);
        loop {
            match stdout.read(&mut block)? {
                0 => return Ok(total),
                length => total += length as u64,
            }
        }
    })
}

/// Runs a program, to which `write` writes, to its end.
pub(crate) fn fed(
    command: &mut Command,
    limit: Duration,
    write: impl FnOnce(&mut std::process::ChildStdin) -> io::Result<()>,
) -> Outcome<()> {
    with_child(command.stdin(Stdio::piped()).stdout(Stdio::null()), limit, |child| {
        child.stdin.take().map_or(Ok(()), |mut stdin| write(&mut stdin))
    })
}

fn run<T>(
    command: &mut Command,
    limit: Duration,
    read: impl FnOnce(&mut dyn Read) -> io::Result<T>,
) -> Outcome<T> {
    with_child(command.stdin(Stdio::null()).stdout(Stdio::piped()), limit, |child| {
        let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        read(&mut stdout)
    })
}

fn with_child<T>(
    command: &mut Command,
    limit: Duration,
    talk: impl FnOnce(&mut Child) -> io::Result<T>,
) -> Outcome<T> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut said = File::from(memfd_create("stderr", MemfdFlags::CLOEXEC)?);
    let mut child = command
        .stderr(said.try_clone()?)
        // A signal must reach the program's children too.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{name}: {error}"))?;
    let pid = Pid::from_child(&child);
    let watchdog = Watchdog::new(limit, move || {
        let _ = kill_process_group(pid, Signal::KILL);
    });
    let talked = talk(&mut child);
    drop((child.stdin.take(), child.stdout.take()));
    // Wait without releasing the process id, so that the watchdog cannot signal another process.
    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let late = watchdog.barked();
    drop(watchdog);
    let status = child.wait()?;
    wait::check()?;
    if late {
        return Err(format!("{name} took longer than {} s", limit.as_secs()).into());
    }
    if !status.success() {
        let mut text = String::new();
        said.rewind()?;
        let _ = said.read_to_string(&mut text);
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(format!("{name} ended with {status}: {last}").into());
    }
    Ok(talked?)
}
