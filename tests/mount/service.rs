//! The messages that a service manager receives from the daemon: sd_notify(3), on a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::harness::project;
use crate::process::{crewfs, within};

#[test]
fn a_service_manager_hears_of_the_start_the_state_life_and_the_end() {
    let project = project!();
    let path = project.dir().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let hear = || {
        let mut news = [0; 4096];
        let length = loop {
            match manager.recv(&mut news) {
                // A signal interrupted the wait, which goes on.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                received => break received.expect("the daemon says something within 10 s"),
            }
        };
        String::from_utf8_lossy(&news[..length]).into_owned()
    };
    let mut command = crewfs();
    command.args(["mount", "-f", "-o", "allow_other"]).arg(project.source()).arg(project.mountpoint());
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "4000000");
    let mut daemon = command.spawn().unwrap();
    assert_eq!(hear().trim_end(), "READY=1");
    assert!(project.mountpoint().join("tasks/queue.json").exists(), "what is ready answers");

    std::fs::write(project.mountpoint().join("tasks/a.md"), "# A\n").unwrap();
    let (mut beats, mut status) = (0, String::new());
    assert!(
        within(Duration::from_secs(20), || {
            match hear() {
                news if news.starts_with("WATCHDOG=1") => beats += 1,
                news => status = news,
            }
            beats >= 3 && status.starts_with("STATUS=1 ready, 0 claimed, 0 blocked, 0 completed")
        }),
        "{beats} signs of life, and {status}"
    );
    project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]).ok();
    assert!(within(Duration::from_secs(10), || hear().starts_with("STOPPING=1")));
    assert!(daemon.wait().unwrap().success());
}
