//! A ghost is the server's end of a connection whose worker has died or works through another connection, and which still has requests.
//! It must change nothing that another worker has taken over.
//!
//! A test makes a ghost in four steps. It stops the server's end of a connection, sends a request to it, and kills the client. After
//! another worker has changed what the request concerns, the server's end is resumed.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, kill_process, pidfd_getfd, pidfd_open};

use crate::client::Worker;
use crate::harness::{Mounted, project};
use crate::process::until;
use crate::server::{Server, server};

/// A connection that speaks SFTP without a filesystem around it, so that the test decides when each request is sent.
struct Raw {
    ssh: Child,
    to: ChildStdin,
    from: ChildStdout,
    /// The process at the server's end.
    server: Pid,
}

const OPEN_WRITE_CREATE: u32 = 0x02 | 0x08;
const HANDLE: u8 = 102;
const STATUS: u8 = 101;

impl Raw {
    fn new(server: &Server, worker: &Worker) -> Raw {
        let before = server.sftp_servers();
        let mut command = worker.ssh("ssh");
        command.args(["-s", worker.host(), "sftp"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ssh = command.spawn().unwrap();
        let (to, from) = (ssh.stdin.take().unwrap(), ssh.stdout.take().unwrap());
        let mut raw = Raw { ssh, to, from, server: Pid::INIT };
        // SSH_FXP_INIT, version 3.
        raw.send(&[1, 0, 0, 0, 3]);
        assert_eq!(raw.receive()[0], 2);
        raw.server = *server.sftp_servers().iter().find(|pid| !before.contains(pid)).unwrap();
        raw
    }

    fn send(&mut self, packet: &[u8]) {
        self.to.write_all(&string(packet)).unwrap();
        self.to.flush().unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).unwrap();
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        self.from.read_exact(&mut packet).unwrap();
        packet
    }

    fn send_open(&mut self, path: &str) {
        let numbers = [OPEN_WRITE_CREATE.to_be_bytes(), [0; 4]].concat();
        self.send(&[&[3, 0, 0, 0, 1], &*string(path.as_bytes()), &numbers].concat());
    }

    /// Open a file for writing.
    fn open(&mut self, path: &str) -> Vec<u8> {
        self.send_open(path);
        let answer = self.receive();
        assert_eq!(answer[0], HANDLE, "{answer:?}");
        answer[9..].to_vec()
    }

    fn send_write(&mut self, handle: &[u8], text: &str) {
        self.send(&[&[6, 0, 0, 0, 2], &*string(handle), &[0; 8], &string(text.as_bytes())].concat());
    }

    fn write(&mut self, handle: &[u8], text: &str) {
        self.send_write(handle, text);
        let answer = self.receive();
        assert_eq!((answer[0], &answer[5..9]), (STATUS, &[0; 4][..]), "{answer:?}");
    }

    /// Stop the process at the server's end.
    fn stop(&self) {
        kill_process(self.server, Signal::STOP).unwrap();
    }

    /// Wait until the request has reached the stopped server's end, then kill the client.
    fn die(&mut self) -> Ghost {
        let process = pidfd_open(self.server, PidfdFlags::empty()).unwrap();
        let waiting = pidfd_getfd(process, 0, PidfdGetfdFlags::empty()).unwrap();
        until("the request is at the server", || rustix::io::ioctl_fionread(&waiting).unwrap() > 0);
        self.ssh.kill().unwrap();
        self.ssh.wait().unwrap();
        Ghost(self.server)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// The server's end of a connection whose client is dead. A request is waiting for it.
struct Ghost(Pid);

impl Ghost {
    /// A ghost that was writing to a file, with another write waiting.
    fn of_a_write(server: &Server, worker: &Worker, file: &str) -> Ghost {
        let mut old = Raw::new(server, worker);
        let handle = old.open(file);
        old.write(&handle, "begun");
        old.stop();
        old.send_write(&handle, "GHOST");
        old.die()
    }

    /// Resume the ghost: it executes its requests and ends.
    fn walk(self) {
        kill_process(self.0, Signal::CONT).unwrap();
        until("the old connection ends", || kill_process(self.0, Signal::CONT).is_err());
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn text(mounted: &Mounted, name: &str) -> String {
    fs::read_to_string(mounted.path().join(name)).unwrap()
}

#[test]
fn a_write_of_an_old_connection_changes_nothing_that_the_new_one_has_changed() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    server.file(&project, "file", "first");
    let ghost = Ghost::of_a_write(&server, &worker, "file");

    let connection = worker.connect(&project.dir().join("remote"));
    connection.sh("cat file; printf newer > file").ok();
    ghost.walk();
    assert_eq!(text(&mounted, "file"), "newer");
}

#[test]
fn a_result_of_an_old_connection_does_not_finish_what_was_claimed_anew() {
    let project = project!();
    project.task("a", "---\nlease: 3s\n---\n# Alpha\n");
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    let mut old = Raw::new(&server, &worker);
    old.open("tasks/claim/a");
    old.stop();
    old.send_open("tasks/completed/a");
    let ghost = old.die();

    let connection = worker.connect(&project.dir().join("remote"));
    mounted.until_state("a", "ready");
    connection.sh("touch tasks/claim/a").ok();
    ghost.walk();
    assert_eq!(mounted.state("a"), "claimed", "{:?}", mounted.json("status/a"));
    connection.sh("echo mine > tasks/completed/a").ok();
    // sshfs does not wait for the server to close a file.
    until("the result is there", || mounted.read("completed/a") == "mine\n");
}

#[test]
fn a_ghost_holds_the_file_as_long_as_it_can_write_to_it() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    server.file(&project, "file", "first");
    let ghost = Ghost::of_a_write(&server, &worker, "file");

    assert_ne!(mounted.sh("w2", "read -r line < file; printf taken > file").code, Some(0));
    ghost.walk();
    assert_eq!(text(&mounted, "file"), "GHOST");
    mounted.sh("w2", "cat file; printf taken > file").ok();
    assert_eq!(text(&mounted, "file"), "taken");
}

#[test]
fn a_result_of_an_old_connection_does_not_finish_what_somebody_else_has_claimed() {
    let project = project!();
    project.task("a", "# Alpha\n");
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let worker = server.worker("w1");
    let mut old = Raw::new(&server, &worker);
    old.open("tasks/claim/a");
    let result = old.open("tasks/completed/a");
    old.stop();
    old.send_write(&result, "GHOST");
    let ghost = old.die();

    mounted
        .sh("w2", "mv tasks/completed/a tasks/ready/ && touch tasks/claim/a && echo mine > tasks/completed/a")
        .ok();
    ghost.walk();
    assert_eq!(mounted.read("completed/a"), "mine\n");
}
