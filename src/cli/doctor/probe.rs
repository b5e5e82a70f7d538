//! Probes: checks that may never end, or that cannot be undone, each made by a child of `crewfs doctor`.
//!
//! Must never: wait longer for a program than the caller allows, neither for its answer nor for its end.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What a child checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Probe {
    /// Whether a mount answers.
    Liveness,
    /// Whether a user may have namespaces.
    Namespaces,
    /// The hooks of a project.
    Hooks,
    /// Mount something in a mount namespace of its own.
    TrialMount,
}

/// The command that starts this program as a probe.
pub(super) fn command(probe: Probe) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let name = probe.to_possible_value().map(|value| value.get_name().to_owned());
    command.args(["doctor", "--probe"]).args(name);
    Ok(command)
}

/// A program that was started for its answer on standard output.
pub(super) struct ProbeProcess {
    process: OwnedFd,
    answer: Receiver<io::Result<Output>>,
}

impl ProbeProcess {
    pub(super) fn start(mut command: Command) -> io::Result<ProbeProcess> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn()?;
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        let (sender, answer) = sync_channel(1);
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        Ok(ProbeProcess { process, answer })
    }

    /// The answer of the program, if it ends within the limit. Otherwise the program is killed and not waited for: a call on the mount
    /// of a dead daemon may never return.
    pub(super) fn answer(self, limit: Duration) -> Option<Output> {
        let answer = self.answer.recv_timeout(limit);
        if answer.is_err() {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
        }
        answer.ok()?.ok()
    }
}
