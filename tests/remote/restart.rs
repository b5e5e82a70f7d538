//! The server's daemon ends and starts again while workers are connected.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::harness::project;
use crate::process::{until, within};
use crate::server::server;

/// Works without checking any outcome, as an agent does that retries.
const RESTLESS: &str = "n=0; while :; do n=$((n + 1)); echo $n > file; touch tasks/claim/next; echo $n > tasks/extra-$n.md; done";

#[test]
fn workers_go_on_by_themselves_and_write_nothing_beneath_the_mount() {
    let project = project!(Duration::from_secs(100));
    project.task("a", "# Alpha\n");
    let mut mounted = project.mount_in_place(&[]);
    let server = server!(project, mounted);
    let connection = server.worker("w1").connect(&project.dir().join("remote"));
    connection.sh("touch tasks/claim/a").ok();
    let mut command = connection.shell();
    command.arg(RESTLESS).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut restless = command.spawn().unwrap();

    for kill in [false, true] {
        until("the worker writes", || {
            fs::read_to_string(mounted.path().join("file")).is_ok_and(|text| text.len() > 1)
        });
        if kill {
            mounted.kill9();
            project.crewfs(["umount".as_ref(), mounted.path().as_os_str()]).ok();
        } else {
            mounted.stop();
        }
        until("the connections end", || server.sftp_servers().is_empty());
        // The directory is bare now. A change written to it in the next second would reach no daemon.
        let bare = listing(&project.behind());
        assert!(
            !within(Duration::from_secs(1), || listing(&project.behind()) != bare),
            "written beneath the mount"
        );
        // The old mount takes along what is mounted over it.
        drop(mounted);
        mounted = project.mount_in_place(&[]);
        assert_eq!(mounted.json("status/a")["worker"], "w1");
        let before = fs::read_to_string(mounted.path().join("file")).unwrap();
        until("the worker goes on", || fs::read_to_string(mounted.path().join("file")).unwrap() != before);
    }
    restless.kill().unwrap();
    restless.wait().unwrap();
    connection.sh("echo done > tasks/completed/a").ok();
    assert_eq!(mounted.state("a"), "completed");
}

/// All names, with sizes and times.
fn listing(dir: &std::path::Path) -> String {
    let mut find = std::process::Command::new("find");
    find.arg(dir).args(["-path", "*/.crewfs", "-prune", "-o", "-printf", "%P %s %T@\n"]);
    crate::process::run(find).ok()
}
