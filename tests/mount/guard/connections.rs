//! Several connections of one worker do not exclude each other. But once a younger connection has changed a file, an older connection's
//! late writes to it are refused (C42).

use super::Agent;
use crate::harness::{Mounted, project};
use crate::process::until;

/// A process that looks like the server of a connection of this worker.
fn connection(mounted: &Mounted, worker: &str) -> Agent {
    let mut agent = Agent::with(mounted, worker, |command| {
        command.env("AGENT_IS_CALLED", "sftp-server");
    });
    agent.why();
    agent
}

#[test]
fn c42_what_an_older_connection_still_sends_is_not_written() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut old = connection(&mounted, "w1");
    let mut young = connection(&mounted, "w1");
    let mut other = Agent::new(&mounted, "w2");
    old.ok("new('f', 'before')");
    old.ok("fd = opened_for('f', os.O_WRONLY)");
    old.ok("os.write(fd, b'old')");
    young.ok("put('f', 'young', os.O_TRUNC)");
    for ghost in
        ["os.write(fd, b'ghost')", "os.pwrite(fd, b'ghost', 7)", "os.ftruncate(fd, 0)", "os.truncate('f', 0)"]
    {
        old.busy(ghost);
        assert_eq!(
            old.why().split_once(' ').unwrap().1.trim_end(),
            "f was changed through a younger connection of w1; open it again"
        );
        assert_eq!(young.ok("get('f')"), "young", "after {ghost}");
    }
    young.ok("put('f', 'younger', os.O_TRUNC)");
    // The old connection no longer holds the file: another worker need not wait for it to close.
    other.ok("get('f')");
    other.ok("put('f', 'other', os.O_TRUNC)");
    old.ok("get('f')");
    old.busy("os.write(fd, b'ghost')");
    assert_eq!(other.ok("get('f')"), "other");
    old.ok("os.close(fd)");
    old.ok("put('f', 'alive', os.O_TRUNC)");
    assert_eq!(other.ok("get('f')"), "alive");
}

#[test]
fn c42_to_empty_what_is_empty_is_to_go_on_with_it() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut old = connection(&mounted, "w1");
    let mut young = connection(&mounted, "w1");
    old.ok("fd = opened_for('f', os.O_WRONLY | os.O_CREAT)");
    young.ok("fd = opened_for('f', os.O_WRONLY | os.O_TRUNC)");
    old.busy("os.write(fd, b'what was sent before the connection was lost')");
    old.busy("os.ftruncate(fd, 0)");
    young.ok("os.write(fd, b'sent again')");
    assert_eq!(young.ok("get('f')"), "sent again");
}

#[test]
fn c42_a_connection_that_closed_the_file_is_free_and_an_older_one_stands_in_nobody_s_way() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut old = connection(&mounted, "w1");
    let mut young = connection(&mounted, "w1");
    old.ok("new('f', 'before')");
    // In turns, as a client does that opens each file through its least busy connection.
    for text in ["a", "b", "c"] {
        old.ok(&format!("put('f', 'old {text}', os.O_TRUNC)"));
        young.ok(&format!("put('f', 'young {text}', os.O_TRUNC)"));
    }
    young.ok("fd = opened_for('f', os.O_WRONLY)");
    young.ok("os.write(fd, b'1')");
    old.ok("put('f', '2', at=1)");
    young.ok("os.write(fd, b'345')");
    // A connection closes a file and opens it again between two looks. For at most a second the guard takes the new open for the old one.
    old.ok("ghost = opened_for('f', os.O_WRONLY)");
    old.ok("os.write(ghost, b'5')");
    young.ok("os.write(fd, b'6')");
    old.busy("os.write(ghost, b'7')");
    old.ok("os.close(ghost)");
    until("the old one may write again", || {
        let again = old.tell("put('f', '8', at=1)").is_ok();
        again && old.tell("put('f', '9', at=2)").is_ok()
    });
}

#[test]
fn c42_a_connection_that_lost_a_claim_cannot_end_the_one_that_followed() {
    let project = project!();
    project.task("a", "---\nlease: 1s\nattempts: 100\n---\n");
    project.task("b", "# B\n");
    let mounted = project.mount(&[]);
    let mut old = connection(&mounted, "w1");
    old.ok("put('tasks/claim/a', '', os.O_CREAT)");
    mounted.until_state("a", "ready");
    let mut young = connection(&mounted, "w1");
    young.ok("put('tasks/claim/a', '', os.O_CREAT)");
    for late in [
        "put('tasks/completed/a', 'late', os.O_CREAT)",
        "os.mkdir('tasks/failed/a')",
        "os.rename('tasks/claim/a', 'tasks/failed/a')",
        "os.unlink('tasks/claim/a')",
        "[new('tasks/completed/.late', 'late'), os.rename('tasks/completed/.late', 'tasks/completed/a')]",
    ] {
        assert_eq!(old.tell(late), Err("EACCES".into()), "{late}");
        let why = old.why();
        assert!(why.contains("a is not yours: your claim ended at "), "{late}: {why}");
        assert!(why.contains("another connection of yours has claimed it again since"), "{late}: {why}");
        assert_eq!(mounted.state("a"), "claimed");
    }
    young.ok("new('tasks/completed/a', 'done')");
    assert_eq!(mounted.read("completed/a"), "done");

    // The younger connection gives the task back and claims it again.
    old.ok("put('tasks/claim/b', '', os.O_CREAT)");
    young.ok("[os.unlink('tasks/claim/b'), put('tasks/claim/b', '', os.O_CREAT)]");
    assert_eq!(old.tell("put('tasks/completed/b', 'late', os.O_CREAT)"), Err("EACCES".into()));
    let why = old.why();
    assert!(why.contains(": given back; another connection of yours has claimed it again since"), "{why}");
    young.ok("new('tasks/completed/b', 'done')");
}
