//! A desk with content that a test writes: a directory shown by sshfs, like the desk of a server that is not trusted.
//!
//! May assume: sshfs and OpenSSH's sftp-server, which CI has. Must never: leave the mount behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

use crate::harness::Project;
use crate::process::{Ran, run, until};

/// A line of should-stop.
pub(crate) const HELD: &str = "{\"decision\":\"block\",\"reason\":\"You hold a. Read tasks/workers/self/task, do what it says, then finish with: echo 'what you did' > tasks/completed/a\"}\n";
/// A status, with the fields that hooks read.
pub(crate) const STATUS: &str = "{\n  \"worker\": \"w1\",\n  \"last_heard\": \"2026-11-25T16:01:00.500Z\",\n  \"task\": \"a\",\n  \"claims\": [\n    \"a\"\n  ]\n}\n";
/// The summary of the queue.
pub(crate) const SUMMARY: &str = "{\n  \"tasks\": {\"ready\":1,\"total\":1},\n  \"stuck\": []\n}\n";

/// Write a file of a desk that is a directory; creates the directories above it.
pub(crate) fn write(desk: &Path, file: &str, content: impl AsRef<[u8]>) {
    let file = desk.join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

/// Make a directory that looks like the desk of `w1`, which holds `a`.
pub(crate) fn looks_like_a_desk(desk: &Path) {
    write(desk, "workers/self/status", STATUS);
    write(desk, "workers/self/should-stop", HELD);
    write(desk, "summary.json", SUMMARY);
    write(desk, "queue.json", "{}\n");
    write(desk, "claim/a", "");
}

/// The project's directory, mounted by sshfs at the project's mount point.
pub(crate) struct Shown(PathBuf);

impl Shown {
    /// `None` where sshfs is missing; prints the reason on standard error.
    pub(crate) fn new(project: &Project) -> Option<Shown> {
        const SERVER: &str = "#!/bin/sh\nfor server in /usr/lib/openssh /usr/libexec/openssh /usr/lib/ssh /usr/libexec; do\n    [ ! -x $server/sftp-server ] || exec $server/sftp-server\ndone\n";
        let line = project.dir().join("line");
        fs::write(&line, SERVER).unwrap();
        fs::set_permissions(&line, fs::Permissions::from_mode(0o755)).unwrap();
        let mut sshfs = Command::new("sshfs");
        sshfs.arg(format!("there:{}", project.source().display())).arg(project.mountpoint());
        sshfs.arg("-o").arg(format!("ssh_command={}", line.display()));
        sshfs.args(["-o", "dir_cache=no,attr_timeout=0,entry_timeout=0,negative_timeout=0,direct_io"]);
        if Command::new("sshfs").arg("--version").output().is_err() {
            assert!(std::env::var_os("CI").is_none(), "sshfs is not installed");
            eprintln!("skipped: sshfs is not installed");
            return None;
        }
        run(sshfs).ok();
        let shown = Shown(project.mountpoint().to_path_buf());
        until("sshfs answers", || shown.0.join("tasks").exists());
        Some(shown)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if unmount(&self.0, UnmountFlags::NOFOLLOW).is_err() {
            let mut command = Command::new("fusermount3");
            command.arg("-u").arg(&self.0);
            let Ran { .. } = run(command);
        }
    }
}
