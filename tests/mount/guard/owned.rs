//! The files of a claimed task belong to its holder (C53).

use super::{Agent, two};
use crate::harness::{Mounted, project};
use crate::process::until;

const TASK: &str = "---\nowns: [\"src/api/**\", \"*.sql\", \"/one.txt\", \"!src/api/shared.rs\"]\n---\n# T\n";

/// Every change that touches an owned file. The second table holds changes that do not.
const OWNED: [&str; 16] = [
    "put('src/api/a.rs', 'X')",
    "put('src/api/a.rs', 'X', os.O_APPEND)",
    "os.truncate('src/api/a.rs', 0)",
    "os.chmod('src/api/a.rs', 0o600)",
    "os.unlink('src/api/a.rs')",
    "os.rename('src/api/a.rs', 'moved')",
    "os.rename('free', 'src/api/new.rs')",
    "replace('src/api/a.rs', 'X')",
    "new('src/api/new.rs', 'X')",
    "os.mkdir('src/api/dir')",
    "os.symlink('x', 'src/api/link')",
    "os.link('free', 'src/api/link')",
    "os.link('src/api/a.rs', 'link')",
    "os.rename('src', 'moved')",
    "new('deep/down/schema.sql', 'X')",
    "put('one.txt', 'X')",
];
const FREE: [&str; 5] = [
    "put('src/api/shared.rs', 'X')",
    "new('src/apis', 'X'); os.unlink('src/apis')",
    "os.mkdir('src/other'); os.rmdir('src/other')",
    "put('free', 'X')",
    "new('deep/one.txt', 'X'); os.unlink('deep/one.txt')",
];

fn prepared(mounted: &Mounted) -> (Agent, Agent) {
    let (mut one, two) = two(mounted);
    one.ok("[os.makedirs(d) for d in ('src/api', 'deep/down')]");
    one.ok("[new(f, 'x') for f in ('src/api/a.rs', 'src/api/shared.rs', 'free', 'one.txt')]");
    (one, two)
}

const READ: &str =
    "[get(f) for f in ('src/api/a.rs', 'src/api/shared.rs', 'free', 'one.txt') if os.path.exists(f)]";

#[test]
fn c53_only_the_holder_of_a_task_changes_what_it_owns() {
    let project = project!();
    project.task("t", TASK);
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    two.ok(READ);
    two.ok("put('src/api/a.rs', 'not claimed yet')");
    one.ok(READ);
    one.ok("put('tasks/claim/t', '', os.O_CREAT)");
    two.ok(READ);
    for change in OWNED {
        two.busy(change);
        let why = two.why();
        assert!(
            why.contains(" belongs to t, which w1 works on since ")
                && why.contains("; wait until that is finished"),
            "{why}"
        );
    }
    for change in FREE {
        two.ok(READ);
        two.ok(change);
    }
    let shown = two.ok("os.getxattr('src/api/a.rs', 'user.crewfs.lock').decode()");
    assert!(
        shown.as_str().unwrap().starts_with("w1 since ") && shown.as_str().unwrap().ends_with(" by t"),
        "{shown}"
    );
    mounted.operator("cat src/api/a.rs && echo x > src/api/a.rs").ok();
    // The holder may change its files from all its processes.
    let mut another = Agent::new(&mounted, "w1");
    for change in OWNED {
        one.ok(READ);
        another.ok(change);
        one.ok("os.path.exists('moved') and os.rename('moved', 'src' if os.path.isdir('moved') else 'src/api/a.rs')");
        one.ok("os.path.exists('free') or new('free', 'x'); os.path.exists('src/api/a.rs') or new('src/api/a.rs', 'x')");
        one.ok("[os.unlink(f) for f in ('src/api/new.rs', 'src/api/link', 'link') if os.path.lexists(f)]");
    }
}

#[test]
fn c53_what_was_owned_is_free_when_the_claim_ends() {
    let project = project!();
    for id in ["done", "given", "lost", "taken"] {
        project.task(id, &TASK.replace("api", id));
    }
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    for (id, end) in [
        ("done", "put('tasks/completed/done', 'x', os.O_CREAT)"),
        ("given", "os.unlink('tasks/claim/given')"),
        ("lost", "put('tasks/failed/lost', 'x', os.O_CREAT)"),
        ("taken", "os.rename('tasks/claim/taken', 'tasks/ready/taken')"),
    ] {
        one.ok(&format!("put('tasks/claim/{id}', '', os.O_CREAT); os.makedirs('src/{id}')"));
        // The same holds for a descriptor that was opened before the claim's end.
        one.ok(&format!("new('src/{id}/f', 'x')"));
        two.ok(&format!("get('src/{id}/f'); fd = os.open('src/{id}/f', os.O_RDWR)"));
        two.busy("os.write(fd, b'X')");
        two.busy(&format!("new('src/{id}/g', 'X')"));
        one.ok(end);
        until("it is free", || two.tell(&format!("new('src/{id}/g', 'X')")).is_ok());
        two.ok("os.write(fd, b'X'); os.close(fd)");
    }
}

#[test]
fn c53_what_git_ignores_can_be_owned() {
    let project = project!();
    project.task("t", "---\nowns: [build/**]\n---\n# T\n");
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("os.mkdir('build'); new('.gitignore', 'build/\\n'); new('build/o', 'x')");
    two.ok("put('build/o', 'X')");
    one.ok("put('tasks/claim/t', '', os.O_CREAT)");
    two.busy("put('build/o', 'X')");
    one.ok("put('build/o', 'X')");
}

#[test]
fn c53_a_path_is_guarded_however_it_is_spelled() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("os.mkdir('src'); new('src/x', 'x')");
    let tasks = mounted.tasks();
    let roots = [tasks.parent().unwrap(), project.source()].map(|root| format!("{}/src/x", root.display()));
    for (n, glob) in
        ["./src/x", "src//x", "src/y/../x", "src/{x,y}", &roots[0], &roots[1]].into_iter().enumerate()
    {
        let id = format!("t{n}");
        project.task(&id, &format!("---\nowns: ['{glob}']\n---\n# T\n"));
        mounted.until_state(&id, "ready");
        one.ok(&format!("put('tasks/claim/{id}', '', os.O_CREAT)"));
        two.ok("get('src/x')");
        two.busy("put('src/x', 'X')");
        one.ok(&format!("put('tasks/completed/{id}', '', os.O_CREAT)"));
    }
}
