//! The right to change the queue (C17), and that no claim keeps root or operators out of the project (C53).

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{XattrFlags, setxattr};

use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{Ran, run};

/// Every way to change the queue, all open to a member. They run in this order and start with one ready task.
const CHANGES: [&str; 17] = [
    "touch tasks/claim/a",
    "echo note > tasks/claim/a",
    "echo note > tasks/workers/self/note",
    "mv tasks/claim/a tasks/ready/",
    "mkdir tasks/claim/a",
    "rm tasks/claim/a",
    "mv tasks/ready/a tasks/claim/",
    "echo done > tasks/completed/a",
    "echo more >> tasks/completed/a",
    "mv tasks/completed/a tasks/ready/",
    "touch tasks/claim/next",
    "echo reason > tasks/failed/.a.tmp && mv tasks/failed/.a.tmp tasks/failed/a",
    "truncate -s 0 tasks/failed/a",
    "mv tasks/failed/a tasks/ready/",
    "echo rust > tasks/workers/self/capabilities",
    "touch tasks/workers/self/drain",
    "rm tasks/workers/self/drain",
];
/// A user and a group that have no name on any machine.
const USER: u32 = 4_321;
const GROUP: u32 = 4_400;

/// Run a script as that user in these groups. The first group is the user's primary group.
fn as_member(mounted: &Mounted, groups: &[u32], script: &str) -> Ran {
    let mut command = std::process::Command::new("setpriv");
    let rest: Vec<String> = groups[1..].iter().map(u32::to_string).collect();
    command.arg(format!("--reuid={USER}")).arg(format!("--regid={}", groups[0]));
    match rest.as_slice() {
        [] => command.arg("--clear-groups"),
        rest => command.arg(format!("--groups={}", rest.join(","))),
    };
    command.args(["bash", "-c", script]).env("CREWFS_WORKER", "u1").current_dir(mounted.path());
    run(command)
}

/// An ACL as `setfacl` would write it: tag, permissions and id of each entry.
fn set_acl(path: &Path, entries: &[(u16, u16, u32)]) -> bool {
    let entries = entries.iter().flat_map(|(tag, allows, id)| {
        [&tag.to_le_bytes()[..], &allows.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    let value: Vec<u8> = 2u32.to_le_bytes().into_iter().chain(entries).collect();
    let set = setxattr(path, "system.posix_acl_access", &value, XattrFlags::empty());
    set.inspect_err(|error| eprintln!("skipped: no ACL can be set here: {error}")).is_ok()
}

const NOT_NAMED: u32 = u32::MAX;
const USER_OBJ: u16 = 1;
const NAMED_USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const NAMED_GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

fn give(project: &Project, mode: u32, uid: u32, gid: u32) {
    chown(project.tasks(), Some(uid), Some(gid)).unwrap();
    std::fs::set_permissions(project.tasks(), PermissionsExt::from_mode(mode)).unwrap();
}

/// Whether the user in these groups can change the queue. Checks that all ways agree.
#[track_caller]
fn may_change(mounted: &Mounted, groups: &[u32]) -> bool {
    let outcomes: Vec<bool> =
        CHANGES.iter().map(|change| as_member(mounted, groups, change).code == Some(0)).collect();
    assert!(
        outcomes.iter().all(|done| *done == outcomes[0]),
        "{:?}",
        CHANGES.iter().zip(&outcomes).collect::<Vec<_>>()
    );
    outcomes[0]
}

#[test]
fn c17_who_may_not_write_in_the_tasks_directory_changes_nothing() {
    as_root!();
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    assert!(!may_change(&mounted, &[USER]));
    as_member(&mounted, &[USER], "ln tasks/ready/a tasks/claim/a").refused("");
    as_member(&mounted, &[USER], "touch tasks/paused").refused("Permission denied");
    assert_eq!(mounted.state("a"), "ready");
    let why = mounted.read("workers/u1/why");
    let sentence = "changing the queue takes the right to write in the directory tasks/, which uid 4321 lacks; ask its owner";
    assert!(why.contains(sentence), "{why}");
    // The user can read what exists, and cannot change what a member has done.
    mounted.sh("w1", "echo done > tasks/claim/a && echo done > tasks/completed/a").ok();
    assert_eq!(as_member(&mounted, &[USER], "cat tasks/completed/a").ok(), "done\n");
    for change in
        ["rm -f tasks/completed/a", "echo x > tasks/completed/a", "mv tasks/completed/a tasks/ready/"]
    {
        as_member(&mounted, &[USER], change).refused("Permission denied");
    }
    assert_eq!(mounted.read("completed/a"), "done\n");
    let metrics = mounted.read("metrics.prom");
    assert!(
        metrics
            .lines()
            .any(|line| line.starts_with("crewfs_refusals_total{reason=\"no_member\"}")
                && !line.ends_with(" 0"))
    );
}

#[test]
fn c17_the_right_comes_from_owner_group_or_option() {
    as_root!();
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    for (mode, uid, gid, groups, may) in [
        (0o755, USER, 0, &[USER][..], true),
        (0o577, USER, 0, &[USER], false),
        (0o775, 0, GROUP, &[USER], false),
        (0o775, 0, GROUP, &[GROUP], true),
        (0o775, 0, GROUP, &[USER, 7, GROUP, 9], true),
        (0o757, 0, GROUP, &[USER, GROUP], false),
        (0o757, 0, GROUP, &[USER], true),
    ] {
        give(&project, mode, uid, gid);
        assert_eq!(may_change(&mounted, groups), may, "{mode:o} {uid}:{gid}, as one in {groups:?}");
    }
    // The kernel decides on the right to publish, and its decision agrees.
    give(&project, 0o775, 0, GROUP);
    as_member(&mounted, &[USER, GROUP], "echo '# T' > tasks/b.md").ok();
    as_member(&mounted, &[USER], "echo '# T' > tasks/c.md").refused("Permission denied");
    drop(mounted);
    give(&project, 0o755, 0, 0);
    let mounted = project.mount(&[&format!("workers=root:{USER}")]);
    assert!(may_change(&mounted, &[USER]));
    as_member(&mounted, &[USER], "echo '# T' > tasks/d.md").refused("Permission denied");
    mounted.sh_as(USER + 1, "u2", "touch tasks/claim/a").refused("Permission denied");
}

#[test]
fn c17_an_acl_gives_the_right_and_takes_it() {
    as_root!();
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    let tasks = project.tasks();
    let rest = |group: u16, mask: u16| {
        [(GROUP_OBJ, group, NOT_NAMED), (MASK, mask, NOT_NAMED), (OTHER, 5, NOT_NAMED)]
    };
    let owner = (USER_OBJ, 7, NOT_NAMED);
    for (named, [group, mask, other], groups, may) in [
        ((NAMED_USER, 7, USER), rest(5, 7), &[USER][..], true),
        ((NAMED_USER, 7, USER), rest(5, 5), &[USER], false),
        ((NAMED_USER, 5, USER), rest(7, 7), &[USER, GROUP], false),
        ((NAMED_USER, 7, USER + 1), rest(5, 7), &[USER], false),
        // The mode shows the ACL's mask as the group's rights, and the group has fewer.
        ((NAMED_USER, 7, USER + 1), rest(5, 7), &[USER, GROUP], false),
        ((NAMED_GROUP, 7, GROUP + 1), rest(5, 7), &[USER, GROUP + 1], true),
    ] {
        give(&project, 0o755, 0, GROUP);
        if !set_acl(&tasks, &[owner, named, group, mask, other]) {
            return;
        }
        assert_eq!(may_change(&mounted, groups), may, "{named:?} {mask:?}, as one in {groups:?}");
        let published = as_member(&mounted, groups, "echo '# T' > tasks/b.md && rm tasks/b.md");
        assert_eq!(published.code == Some(0), may, "{named:?} {mask:?}: to publish, as one in {groups:?}");
    }
}

#[test]
fn c53_no_claim_keeps_root_or_operators_out_of_the_project() {
    as_root!();
    let project = project!();
    give(&project, 0o777, 0, 0);
    std::fs::write(project.source().join("f"), "").unwrap();
    std::fs::set_permissions(project.source().join("f"), PermissionsExt::from_mode(0o666)).unwrap();
    project.task("all", "---\nowns: [\"**\"]\nlease: 365d\n---\n");
    let mounted = project.mount(&[]);
    mounted.sh_as(1_001, "u1", "touch tasks/claim/all").ok();
    mounted.sh_as(1_002, "u2", "echo u2 >> f").refused("busy");
    mounted.operator("echo operator >> f && mkdir d && mv f d/ && mv d/f . && rmdir d").ok();
    mounted.sh("w1", "echo root, as a worker >> f && touch g && rm g").ok();
    // As a worker, root waits for other workers like any other worker.
    mounted.operator("rm tasks/claim/all").ok();
    mounted.sh("w1", "touch tasks/claim/all").ok();
    mounted.sh("w2", "echo w2 >> f").refused("busy");
    mounted.operator("echo operator >> f").ok();
    assert_eq!(std::fs::read_to_string(project.behind().join("f")).unwrap().lines().count(), 3);
}
