//! The worker's side: a key, and the project connected by `mount-scripts/connect.sh`.
//!
//! Must never: hang with a mount. Every command has a time limit, and every connection is removed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Ran, detach_below, run, until};

/// A worker. The server knows it by its key.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) key: PathBuf,
    pub(crate) known: PathBuf,
    pub(crate) port: u16,
    /// USER@HOST:PROJECT
    pub(crate) remote: String,
    /// The command that runs a program on the worker's machine, if the worker has a machine of its own.
    pub(crate) enter: Vec<String>,
}

/// The path of a script of `mount-scripts`.
pub(crate) fn path_of(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mount-scripts").join(script)
}

/// A script of `mount-scripts`, as a command.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new(path_of(name));
    command.env_remove("CREWFS_WORKER");
    command
}

impl Worker {
    /// `connect.sh` with everything that this worker needs, and these arguments.
    pub(crate) fn connecting<A: AsRef<OsStr>>(&self, more: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.on_its_machine(path_of("connect.sh"));
        command.args(["--port", &self.port.to_string(), "--identity"]).arg(&self.key);
        command.arg("-o").arg(format!("UserKnownHostsFile=\"{}\"", self.known.display())).args(more);
        command
    }

    /// Run a program on the worker's machine.
    fn on_its_machine(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.enter.split_first() {
            None => Command::new(program),
            Some((enter, arguments)) => {
                let mut command = Command::new(enter);
                command.args(arguments).arg(program);
                command
            }
        };
        command.env_remove("CREWFS_WORKER");
        command
    }

    /// Connect at this directory.
    #[track_caller]
    pub(crate) fn connect(&self, dir: &Path) -> Connection {
        self.connect_by(self.connecting::<&str>([]), dir)
    }

    /// Connect at this directory by a command that lacks only the last two arguments.
    #[track_caller]
    pub(crate) fn connect_by(&self, mut command: Command, dir: &Path) -> Connection {
        let connection = self.connection_at(dir);
        command.arg(&self.remote).arg(dir);
        let said = run(command).ok();
        assert!(said.contains(&format!("you are {}.", self.name)), "{said}");
        connection
    }

    /// The connection at this directory, whether it is made already or not.
    pub(crate) fn connection_at(&self, dir: &Path) -> Connection {
        Connection { dir: dir.to_path_buf(), key: self.key.clone() }
    }

    /// `ssh` or a related program with this key. The caller adds the host and what follows it.
    pub(crate) fn ssh(&self, program: &str) -> Command {
        let mut command = self.on_its_machine(program);
        let port = if program == "ssh" { "-p" } else { "-P" };
        command.args([
            "-F",
            "none",
            port,
            &self.port.to_string(),
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ]);
        command.arg("-o").arg(format!("UserKnownHostsFile=\"{}\"", self.known.display()));
        command.arg("-i").arg(&self.key);
        command
    }

    /// USER@HOST.
    pub(crate) fn host(&self) -> &str {
        self.remote.split(':').next().unwrap()
    }
}

/// A connected directory. Dropping it removes the mount.
pub(crate) struct Connection {
    pub(crate) dir: PathBuf,
    key: PathBuf,
}

impl Connection {
    /// A file of the desk.
    pub(crate) fn desk(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join("tasks").join(name)
    }

    /// `bash -c` in the connected directory; the caller adds the script.
    pub(crate) fn shell(&self) -> Command {
        let mut command = Command::new("bash");
        command.arg("-c").current_dir(&self.dir).env_remove("CREWFS_WORKER").env("LC_ALL", "C");
        command
    }

    /// Run a script in the connected directory.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> Ran {
        let mut command = self.shell();
        command.arg(script);
        run(command)
    }

    /// The ssh processes of this worker, whichever of its connections they carry.
    fn ssh_clients(&self) -> Vec<Pid> {
        let key = format!("IdentityFile=\"{}\"", self.key.display());
        running("ssh", |word| word.contains(&key))
    }

    /// The sshfs processes that serve this connection.
    fn sshfs(&self) -> Vec<Pid> {
        let (tree, desk) = (self.dir.clone(), self.dir.join("tasks"));
        running("sshfs", |word| [&tree, &desk].iter().any(|place| place.as_os_str() == word))
    }

    /// Send a signal to the ssh processes of this worker.
    pub(crate) fn signal_ssh(&self, signal: Signal) -> Vec<Pid> {
        let all = self.ssh_clients();
        all.iter().for_each(|pid| kill_process(*pid, signal).unwrap());
        all
    }

    /// Send a signal to the sshfs processes of this connection.
    pub(crate) fn signal_sshfs(&self, signal: Signal) {
        self.sshfs().iter().for_each(|pid| kill_process(*pid, signal).unwrap());
    }

    /// `disconnect.sh`.
    #[track_caller]
    pub(crate) fn disconnect(&self) -> Ran {
        let mut command = script("disconnect.sh");
        command.arg(&self.dir);
        run(command)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        detach_below(&self.dir);
        // If the mount point is still immutable, the directory of the test cannot be removed.
        let _ = Command::new("chattr").args(["-i", "--"]).arg(&self.dir).stderr(Stdio::null()).status();
        until("sshfs ends", || {
            let left = self.sshfs();
            for pid in &left {
                let _ = kill_process(*pid, Signal::TERM);
            }
            left.is_empty()
        });
    }
}

/// The ids of all processes for which this is true.
pub(crate) fn processes(is_one: impl Fn(i32) -> bool) -> Vec<Pid> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| is_one(*pid)).filter_map(Pid::from_raw).collect()
}

/// The processes that run a program of this name with an argument like this.
fn running(program: &str, has: impl Fn(&str) -> bool) -> Vec<Pid> {
    processes(|pid| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split('\0');
        words.next() == Some(program) && words.any(&has)
    })
}
