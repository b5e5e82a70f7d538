//! The network link is cut, or the ssh client is killed, while a worker has a file open for writing and holds a claim. The tests
//! measure when both are free again, and check that the worker goes on when it is back.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::Connection;
use crate::harness::{Mounted, project};
use crate::machine::machine;
use crate::process::within;
use crate::server::server;

const LONG: Duration = Duration::from_secs(100);
/// How long claims are kept for a lost connection.
const GRACE: &str = "remote_grace=2s";

/// The server's `ClientAliveInterval`; the server ends a connection that misses two. `CREWFS_ALIVE_INTERVAL` sets another value, in
/// seconds.
fn alive_interval() -> String {
    std::env::var("CREWFS_ALIVE_INTERVAL").unwrap_or("1".into())
}

/// A program of the worker that has a file open for writing and holds a claim.
fn program_at_work(connection: &Connection) -> Child {
    let mut command = connection.shell();
    command.arg(
        "touch tasks/claim/a && cat file >/dev/null && exec 3<>file && printf begun >&3 && echo at work
         read -r line; printf more >&3; exec 3>&-; sync file; echo done",
    );
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// How long it took until another worker could change the file, and until the task was ready again.
fn until_free(mounted: &Mounted, since: Instant) -> (Duration, Duration) {
    let (mut file, mut claim) = (None, None);
    let both = within(LONG, || {
        if file.is_none() && mounted.sh("w2", "read -r line < file; printf taken > file").code == Some(0) {
            file = Some(since.elapsed());
        }
        if claim.is_none() && mounted.state("a") == "ready" {
            claim = Some(since.elapsed());
        }
        file.is_some() && claim.is_some()
    });
    assert!(both, "file: {file:?}, claim: {claim:?}");
    (file.unwrap(), claim.unwrap())
}

fn at_work(program: &mut Child, mounted: &Mounted) {
    let mut line = String::new();
    BufReader::new(program.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "at work\n");
    let sent = || fs::read_to_string(mounted.path().join("file")).unwrap().starts_with("begun");
    assert!(within(Duration::from_secs(5), sent));
    assert_eq!(mounted.sh("w2", "printf taken > file").code, Some(1), "the lock holds");
}

#[test]
fn a_cut_line_frees_files_and_claims_and_the_worker_comes_back() {
    let project = project!(Duration::from_secs(150));
    let machine = machine!();
    project.task("a", "# Alpha\n");
    let mounted = project.mount(&[GRACE, "lock_wait=0"]);
    let alive = format!("ClientAliveInterval {}", alive_interval());
    let server = server!(project, mounted, &alive);
    server.file(&project, "file", "text of the beginning");
    let connection = machine.with(&server.worker("w1")).connect(&project.dir().join("remote"));
    let mut program = program_at_work(&connection);
    at_work(&mut program, &mounted);

    machine.cable("down");
    let (file, claim) = until_free(&mounted, Instant::now());
    println!("cut, ClientAliveInterval {}: file {file:?}, claim {claim:?} with {GRACE}", alive_interval());
    mounted.sh("w2", "touch tasks/claim/a").ok();
    machine.cable("up");
    let up = Instant::now();
    assert!(within(LONG, || fs::read_to_string(connection.dir.join("file")).is_ok()));
    println!("back after {:?}", up.elapsed());
    // A file that was open stays unusable; a file that is opened now works.
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    program.wait().unwrap();
    assert_eq!(fs::read_to_string(mounted.path().join("file")).unwrap(), "taken");
    assert_ne!(connection.sh("echo mine > tasks/completed/a").code, Some(0));
    assert_eq!(mounted.json("status/a")["worker"], "w2");
    connection.sh("cat file; printf again > file").ok();
    assert_eq!(fs::read_to_string(mounted.path().join("file")).unwrap(), "again");
}

#[test]
fn a_killed_ssh_client_frees_the_file_at_once_and_the_claim_after_the_grace() {
    let project = project!(Duration::from_secs(150));
    project.task("a", "# Alpha\n");
    let mounted = project.mount(&[GRACE, "lock_wait=0"]);
    let server = server!(project, mounted);
    server.file(&project, "file", "text of the beginning");
    let connection = server.worker("w1").connect(&project.dir().join("remote"));
    let mut program = program_at_work(&connection);
    at_work(&mut program, &mounted);

    let start = Instant::now();
    assert!(connection.signal_ssh(Signal::KILL).len() >= 2);
    let (file, claim) = until_free(&mounted, start);
    println!("killed: file {file:?}, claim {claim:?} with {GRACE}");
    assert!(file < Duration::from_secs(1), "the file was held for {file:?}");
    assert!(
        claim > Duration::from_secs(2) && claim < Duration::from_secs(5),
        "the claim was held for {claim:?}"
    );
    // sshfs reconnects by itself.
    connection.sh("cat file; touch tasks/claim/a; printf again > file").ok();
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    program.wait().unwrap();
    assert_eq!(fs::read_to_string(mounted.path().join("file")).unwrap(), "again");
}
