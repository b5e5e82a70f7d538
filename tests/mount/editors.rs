//! How editors and agents save tasks, results and files (C25).

use crate::harness::{Mounted, project};

/// Claude's Edit and Write: a temporary file beside the target, through a descriptor of the directory, then a rename;
/// if certain errors refuse that, they write in place.
const CLAUDE: &str = r#"
import errno, os, sys
target, text = sys.argv[1], sys.argv[2].encode()
directory, name = os.path.split(target)
fd = os.open(directory or '.', os.O_PATH | os.O_DIRECTORY)
temporary = f'/proc/self/fd/{fd}/{name}.tmp.{os.getpid()}.0123456789ab'
out = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
os.write(out, text); os.fchmod(out, 0o644); os.fsync(out); os.close(out)
try:
    os.rename(temporary, f'/proc/self/fd/{fd}/{name}')
except OSError as error:
    first = error
    try:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EEXIST, errno.EBUSY): raise
        out = os.open(target, os.O_RDWR)
        os.write(out, text); os.ftruncate(out, len(text)); os.fsync(out); os.close(out)
    except OSError:
        os.unlink(temporary)
        sys.exit(str(first))
    os.unlink(temporary)
"#;

fn claude(mounted: &Mounted, worker: &str, target: &str, text: &str) -> crate::process::Ran {
    let mut command = mounted.worker(worker);
    command.arg(r#"python3 -c "$CLAUDE" "$0" "$1""#).args([target, text]).env("CLAUDE", CLAUDE);
    crate::process::run(command)
}

fn names(mounted: &Mounted, directory: &str) -> Vec<String> {
    let mut names = mounted.list(directory);
    names.sort();
    names
}

#[test]
fn c25_claude_writes_a_result() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    claude(&mounted, "w1", "tasks/completed/a", "the result\n").ok();
    assert_eq!(
        (mounted.state("a"), mounted.read("completed/a")),
        ("completed".into(), "the result\n".into())
    );
    assert_eq!(names(&mounted, "completed"), ["a"], "nothing temporary is left");
    claude(&mounted, "w1", "tasks/completed/a", "a better result\n").ok();
    assert_eq!(mounted.read("completed/a"), "a better result\n");
    // A task of another worker: the write is refused, and no temporary file is left.
    claude(&mounted, "w2", "tasks/completed/a", "mine\n").refused("Permission denied");
    claude(&mounted, "w2", "tasks/failed/b", "mine\n").refused("Permission denied");
    assert_eq!((names(&mounted, "completed"), names(&mounted, "failed")), (vec!["a".to_string()], vec![]));
    assert_eq!(
        (mounted.state("b"), mounted.read("completed/a")),
        ("ready".into(), "a better result\n".into())
    );
    mounted.sh("w1", "touch tasks/claim/b").ok();
    claude(&mounted, "w1", "tasks/failed/b", "no network\n").ok();
    assert_eq!(mounted.json("status/b")["why"], "no network");
}

#[test]
fn c25_claude_writes_and_edits_tasks_and_files() {
    let project = project!();
    let mounted = project.mount(&[]);
    claude(&mounted, "w1", "tasks/new.md", "# New\n").ok();
    assert_eq!(names(&mounted, "ready"), ["new"]);
    claude(&mounted, "w1", "tasks/new.md", "---\npriority: high\n---\n# New\n").ok();
    assert_eq!(mounted.json("status/new")["priority"], "high");
    mounted.sh("w1", "echo old > file").ok();
    claude(&mounted, "w1", "file", "text\n").ok();
    assert_eq!(mounted.sh("w1", "cat file; ls").ok().lines().next(), Some("text"));
    // A claim cannot be written in this way, and the refusal says what a claim is.
    claude(&mounted, "w1", "tasks/claim/new", "x").refused("");
    claude(&mounted, "w1", "tasks/queue.json", "{}").refused("");
    mounted.json("queue.json");
    assert_eq!(names(&mounted, "claim"), [""; 0]);
}

#[test]
fn c25_sed_in_place() {
    let project = project!();
    project.task("a", "---\npriority: low\n---\n# A\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "sed -i s/low/critical/ tasks/a.md").ok();
    assert_eq!(
        (mounted.state("a"), &mounted.json("status/a")["priority"]),
        ("ready".into(), &"critical".into())
    );
    mounted.sh("w1", "touch tasks/claim/a && echo 'resutl' > tasks/completed/a").ok();
    mounted.sh("w1", "sed -i s/utl/ult/ tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a"), "result\n");
    assert_eq!(names(&mounted, "completed"), ["a"]);
    mounted.sh("w2", "sed -i s/result/mine/ tasks/completed/a").refused("Permission denied");
    assert_eq!(
        (mounted.read("completed/a"), names(&mounted, "completed")),
        ("result\n".into(), vec!["a".into()])
    );
}

#[test]
fn c25_other_agents_write_in_place() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&["file_grace=200ms"]);
    mounted.sh("w1", "touch tasks/claim/a tasks/claim/b").ok();
    let write = |flags: &str, target: &str, then: &str| {
        let python = format!(
            "python3 -c \"
import os
fd = os.open('{target}', os.O_WRONLY | os.O_CREAT | {flags}, 0o644)
os.write(fd, b'text'); {then}; os.close(fd)\""
        );
        mounted.sh("w1", &python).ok();
        assert_eq!(mounted.read(target.strip_prefix("tasks/").unwrap()), "text", "{flags} {then}");
    };
    // Codex and Gemini truncate in open(2), opencode after the write.
    write("os.O_TRUNC", "tasks/completed/a", "os.fsync(fd)");
    mounted.sh("w1", "echo 'something longer' > tasks/completed/a").ok();
    write("0", "tasks/completed/a", "os.ftruncate(fd, 4)");
    write("os.O_EXCL", "tasks/failed/b", "os.fchmod(fd, 0o600)");
    write("os.O_TRUNC", "tasks/c.md", "os.fsync(fd)");
    assert_eq!(mounted.state("c"), "ready");
    // An agent moves a file by copying and unlinking it.
    mounted.sh("w1", "cp tasks/c.md tasks/d.md && rm tasks/c.md").ok();
    assert_eq!((mounted.state("c"), mounted.state("d")), ("blocked".into(), "ready".into()));
    mounted.until_state("c", "");
}

#[test]
fn c25_temporary_files_are_files() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    let script = "set -e; cd tasks/completed; echo one > .a.swp; echo two >> .a.swp; cat .a.swp; ls -A
        (echo none > sedAbC123) 2>/dev/null || (set -C; echo none > sedAbC123); test $(stat -c %s .a.swp) = 8; truncate -s 3 .a.swp
        mv .a.swp a.tmp.1; cat a.tmp.1; echo; mv -f sedAbC123 a.tmp.1; cat a.tmp.1; rm a.tmp.1; ls -A; touch .x; rm .x
        touch ../failed/.a.x; chmod 600 ../failed/.a.x; rm ../failed/.a.x";
    assert_eq!(mounted.sh("w1", script).ok(), "one\ntwo\n.a.swp\none\nnone\n");
    for elsewhere in [
        "touch tasks/claim/.a",
        "touch tasks/ready/sedX",
        "touch tasks/status/a.tmp.1",
        "touch tasks/completed/other",
    ] {
        mounted.sh("w1", elsewhere).refused("");
    }
    let many = "for n in $(seq 1100); do echo > tasks/failed/.f$n || exit; done; test -e tasks/failed/.f1100";
    mounted.sh("w1", many).ok();
    assert_eq!(mounted.list("failed").len(), 128, "the older ones went (C29)");
    assert_eq!(project.log().lines().count(), 1, "the queue knows nothing of them");
}

#[test]
fn c25_a_result_beyond_the_limit_is_refused_before_it_replaces_anything() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a && echo good > tasks/completed/a").ok();
    mounted.sh("w1", "head -c 2000000 /dev/zero > tasks/completed/.a.new").refused("File too large");
    assert_eq!(mounted.read("completed/a"), "good\n");
}

#[test]
fn c25_vim_saves() {
    if std::process::Command::new("vim").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no vim");
    }
    let project = project!();
    project.task("a", "---\npriority: low\n---\n# A\n");
    let mounted = project.mount(&[]);
    for (how, priority) in [("set backupcopy=no", "high"), ("set backupcopy=yes backup", "critical")] {
        let edit = format!(
            "vim -es -u NONE -c '{how}' -c '2s/.*/priority: {priority}/' -c 'wq!' tasks/a.md < /dev/null"
        );
        mounted.sh("w1", &edit).ok();
        assert_eq!(mounted.json("status/a")["priority"], priority, "{how}");
    }
    mounted.sh("w1", "touch tasks/claim/a && echo draft > tasks/completed/a").ok();
    let edit = "vim -es -u NONE -c 's/draft/final/' -c 'wq!' tasks/completed/a < /dev/null";
    mounted.sh("w1", edit).ok();
    assert_eq!(mounted.read("completed/a"), "final\n");
    assert_eq!(names(&mounted, "completed"), ["a"]);
}

#[test]
fn c23_tools_that_bring_a_result_from_elsewhere() {
    let project = project!();
    let tools = [
        ("mv", "mv result"),
        ("mv within the directory", "mv result tasks/ && mv tasks/result"),
        ("cp", "cp result"),
        ("cp with everything", "cp -a result"),
        ("install", "install -m 644 result"),
        ("rsync", "rsync -a result"),
        ("rsync in place", "rsync -a --inplace result"),
        ("dd", "dd status=none if=result of="),
        ("tee", "< result tee"),
        ("tar", "cp result $T && tar -cf - $T | tar -C tasks/completed -xf - #"),
    ];
    (0..tools.len()).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    let mounted = project.mount(&[]);
    for (n, (tool, how)) in tools.iter().enumerate() {
        let space = if how.ends_with('=') { "" } else { " " };
        let script = format!(
            "T=t{n}; touch tasks/claim/$T; echo 'by {tool}' > result; chmod 640 result; {how}{space}tasks/completed/$T"
        );
        let ran = mounted.sh("w1", &script);
        assert_eq!(mounted.state(&format!("t{n}")), "completed", "{tool}: {ran:#?}");
        assert_eq!(mounted.read(&format!("completed/t{n}")), format!("by {tool}\n"), "{ran:#?}");
        ran.ok();
    }
    assert_eq!(mounted.list("completed").len(), tools.len(), "nothing else is left");
}
