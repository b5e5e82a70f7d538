//! A result that is written again: the new text stands, and none of the old (C23, C26).

use crate::harness::project;

#[test]
fn c26_a_shorter_result_leaves_nothing_of_the_longer_one() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let write = "touch tasks/claim/a; echo a long result > tasks/completed/a; echo short > tasks/completed/a";
    mounted.sh("w1", write).ok();
    assert_eq!(mounted.read("completed/a"), "short\n");
    // There is one file: a descriptor that was open before writes after the content that the other one left.
    let both = "exec 3>> tasks/completed/a; : > tasks/completed/a; echo more >&3; exec 3>&-";
    mounted.sh("w1", both).ok();
    assert_eq!(mounted.read("completed/a"), "more\n");
    assert_eq!(mounted.sh("w1", "truncate -s 0 tasks/completed/a; cat tasks/completed/a").ok(), "");
}
