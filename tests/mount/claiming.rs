//! Claiming: one winner, in every form (C20–C22).

use crate::harness::project;

#[test]
fn c20_touch_claims() {
    let project = project!();
    project.task("a", "# A\n");
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.sh("w2", "touch tasks/claim/a").refused("File exists");
    assert_eq!(mounted.json("status/a")["worker"], "w1");
    mounted.operator("touch tasks/paused").ok();
    assert_eq!(mounted.operator("exit 3").code, Some(3));
    mounted.stop();
}

#[test]
fn c71_in_place() {
    let project = project!();
    let mounted = project.mount_in_place(&["tasks=work"]);
    assert!(mounted.desk("queue.json").exists());
}
