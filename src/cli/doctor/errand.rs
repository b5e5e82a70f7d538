//! Asking another program, which may never answer.
//!
//! Must never: wait longer than it was told, for an answer or for the end of the program.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::Errand;

/// A program that was asked something.
pub(super) struct Asked {
    process: OwnedFd,
    answer: Receiver<io::Result<Output>>,
}

/// Start a program that says something on standard output.
pub(super) fn ask(mut command: Command) -> io::Result<Asked> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let (sender, answer) = sync_channel(1);
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    Ok(Asked { process, answer })
}

/// Start this program on an errand.
pub(super) fn send(errand: Errand) -> io::Result<Command> {
    let word = match errand {
        Errand::Look => "look",
        Errand::Namespaces => "namespaces",
        Errand::Mount => "mount",
        Errand::Hooks => "hooks",
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["doctor", "--errand", word]);
    Ok(command)
}

impl Asked {
    /// What it said, if it ends in time. If not, it is told to end, and left behind: who waits for a dead daemon cannot.
    pub(super) fn answer(self, limit: Duration) -> Option<Output> {
        let answer = self.answer.recv_timeout(limit);
        if answer.is_err() {
            let _ = pidfd_send_signal(&self.process, Signal::KILL);
        }
        answer.ok()?.ok()
    }
}
