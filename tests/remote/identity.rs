//! Only the line of a worker's key decides its identity and what it can reach (C42). The sshd here permits everything that an sshd can.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::Worker;
use crate::harness::project;
use crate::process::{Ran, mounts_below, run};
use crate::server::server;

/// Settings that let a client choose as much as a server can permit.
macro_rules! credulous {
    ($project:expr, $mounted:expr) => {
        server!(
            $project,
            $mounted,
            "AcceptEnv *",
            "PermitUserEnvironment yes",
            "PermitUserRC yes",
            "PermitTTY yes",
            "DisableForwarding no",
            "AllowTcpForwarding yes",
            "AllowStreamLocalForwarding yes",
            "AllowAgentForwarding yes",
            "PermitTunnel yes",
            "GatewayPorts yes"
        )
    };
}

#[test]
fn c42_a_client_cannot_choose_its_name() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = credulous!(project, mounted);
    let worker = server.worker("w1");
    // The project is the user's home, so a worker can write all of these files.
    let home = worker.connect(&project.dir().join("home"));
    home.sh("mkdir .ssh; for file in .ssh/rc .bashrc .profile .bash_profile; do
             echo 'export CREWFS_WORKER=boss; touch $HOME/was-run' > $file; done
         echo CREWFS_WORKER=boss > .ssh/environment; cp .ssh/environment .pam_environment")
        .ok();
    home.disconnect().ok();
    let own_server = "sftp_server=/usr/bin/env CREWFS_WORKER=boss /usr/lib/openssh/sftp-server";
    for option in
        ["ssh_command=ssh -oSetEnv=CREWFS_WORKER=boss", "ssh_command=ssh -oSendEnv=CREWFS_WORKER", own_server]
    {
        let mut command = worker.connecting(["-o", option]);
        command.env("CREWFS_WORKER", "boss");
        // The client claims a name, which must be the name of the key's worker.
        let connection = worker.connect_by(command, &project.dir().join("remote"));
        connection.sh("echo '# T' > tasks/t.md; touch tasks/claim/next").ok();
        assert_eq!(mounted.json("status/t")["worker"], "w1", "{option}");
        connection.sh("rm tasks/claim/t tasks/t.md").ok();
    }
    assert!(!mounted.path().join("was-run").exists());
    assert!(!project.log().contains("boss"));
}

#[test]
fn c42_a_client_gets_nothing_but_sftp() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = credulous!(project, mounted);
    let worker = server.worker("w1");
    let ssh = |arguments: &[&str], command: &[&str]| {
        let mut ssh = worker.ssh("ssh");
        run({
            ssh.args(arguments).arg(worker.host()).args(command);
            ssh
        })
    };
    // For any requested command, the server speaks SFTP, and ends with its input.
    for (arguments, command) in
        [(&[][..], &["id"][..]), (&[], &[]), (&["-tt"], &["sh"]), (&["-s"], &["shell"])]
    {
        let ran = ssh(arguments, command);
        assert!(!ran.stdout.contains("uid=") && !ran.stdout.contains('$'), "{ran:?}");
    }
    assert!(ssh(&["-tt"], &["id"]).stderr.contains("PTY allocation request failed"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let to_it = format!("127.0.0.1:{port}");
    ssh(&["-W", &to_it], &[]).refused("stdio forwarding failed");
    let socket = project.dir().join("socket");
    for (what, from_to) in [("-R", format!("0:{to_it}")), ("-R", format!("{}:{to_it}", socket.display()))] {
        let ran = ssh(&["-N", "-o", "ExitOnForwardFailure=yes", what, &from_to], &[]);
        ran.refused("remote port forwarding failed");
    }
    assert!(!socket.exists());
    for target in [to_it.clone(), "/run/dbus/system_bus_socket".to_string()] {
        let near = project.dir().join("near");
        let mut command = worker.ssh("ssh");
        command.args(["-N", "-L", &format!("{}:{target}", near.display()), worker.host()]);
        let mut forwarder = command.stderr(Stdio::null()).spawn().unwrap();
        crate::process::until("ssh listens", || near.exists());
        let mut stream = std::os::unix::net::UnixStream::connect(&near).unwrap();
        // sshd refuses the channel, and the stream ends.
        let mut answer = Vec::new();
        let _ = stream.write_all(b"hello");
        let _ = std::io::Read::read_to_end(&mut stream, &mut answer);
        assert_eq!(answer, b"");
        forwarder.kill().unwrap();
        forwarder.wait().unwrap();
        fs::remove_file(near).unwrap();
    }
    assert!(listener.accept().is_err(), "something came through");
}

/// `sftp` with these commands; it goes on after a command that fails.
fn sftp(worker: &Worker, commands: &[String]) {
    let mut command = worker.ssh("sftp");
    command
        .args(["-b", "-", worker.host()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut to = child.stdin.take().unwrap();
    commands.iter().for_each(|line| writeln!(to, "-{line}").unwrap());
    drop(to);
    assert!(child.wait().unwrap().success());
}

/// `scp` with a time limit: the old protocol waits for an answer that SFTP never gives.
fn scp(worker: &Worker, how: &str, from: &str, to: &str) -> Ran {
    let scp = worker.ssh("scp");
    let mut command = Command::new("timeout");
    command.args(["3"]).arg(scp.get_program()).args(scp.get_args()).args([how, from, to]);
    run(command)
}

#[test]
fn c42_nothing_outside_of_the_root_is_read_or_written() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = credulous!(project, mounted);
    let worker = server.worker("w1");
    let (root, outside) = (mounted.path(), project.dir().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    server.file(&project, "inside", "inside");
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../outside", root.join("upwards")).unwrap();
    symlink("/etc/hostname", root.join("hostname")).unwrap();
    let got = project.dir().join("got");
    let from = root.join("inside").display().to_string();
    let away = outside.display().to_string();
    let mut commands = Vec::new();
    for place in [&away, "../outside", "absolute", "upwards", "inside/../../outside", "tasks/../../outside"] {
        commands.extend([
            format!("get {place}/secret {}", got.display()),
            format!("put {from} {place}/planted"),
            format!("rename inside {place}/planted"),
            format!("mkdir {place}/planted"),
            format!("rm {place}/secret"),
            format!("ln inside {place}/planted"),
        ]);
    }
    for file in ["hostname", "/etc/hostname", "/etc/shadow", "/proc/self/environ", "/proc/1/environ"] {
        commands.push(format!("get {file} {}", got.display()));
    }
    // Both names of the root work, through the last command.
    let allowed = [format!("get inside {}.1", got.display()), format!("get {from} {}.2", got.display())];
    commands.extend(allowed.into_iter().chain(["mkdir the-end".to_string()]));
    sftp(&worker, &commands);
    for copy in ["got.1", "got.2"] {
        assert_eq!(fs::read_to_string(project.dir().join(copy)).unwrap(), "inside");
    }
    assert!(root.join("the-end").is_dir() && root.join("inside").exists());
    let host = worker.host();
    for how in ["-O", "-s"] {
        assert_ne!(scp(&worker, how, &format!("{host}:{away}/secret"), got.to_str().unwrap()).code, Some(0));
        let ran = scp(&worker, how, &from, &format!("{host}:{away}/planted"));
        assert_ne!(ran.code, Some(0), "{ran:?}");
    }
    let mut command = worker.connecting::<&str>([]);
    let elsewhere = project.dir().join("remote");
    command.arg(format!("{host}:{away}")).arg(&elsewhere);
    run(command).exits(1, "does not exist on the server, is not mounted, or is not visible");
    assert_eq!(mounts_below(&elsewhere), []);
    assert!(!got.exists(), "{:?}", fs::read_to_string(&got));
    assert_eq!(names(&outside), ["secret"]);
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "secret");
    assert!(!names(root).contains(&".crewfs".into()));
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
