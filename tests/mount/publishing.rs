//! Publishing: a task is offered once its file is complete, and follows its file from then on (C4, C10, C11, C14, C15).

use std::fs;
use std::io::Write;

use crate::harness::project;
use crate::process::{is_slow, until};

#[test]
fn c10_a_file_is_offered_when_it_is_closed_and_not_before() {
    let project = project!();
    let mounted = project.mount(&[]);
    let script =
        "exec 3> tasks/a.md; echo '# Half' >&3; ls tasks/ready tasks/status; exec 3>&-; ls tasks/ready";
    assert_eq!(mounted.sh("w1", script).ok(), "tasks/ready:\n\ntasks/status:\na\n");
    // After each close, `test -e` finds the task at once.
    let many = "for n in $(seq 60); do echo '# T' > tasks/t$n.md; test -e tasks/ready/t$n || echo $n; done";
    assert_eq!(mounted.sh("w1", many).ok(), "");
    let held = "cat > tasks/b.md <<< '# B'; cat tasks/ready/b; cp tasks/b.md tasks/c.md; readlink tasks/next";
    assert_eq!(mounted.sh("w1", held).ok(), "# B\nready/a\n");
}

#[test]
fn c10_a_file_that_is_written_anew_is_not_offered_empty() {
    let project = project!();
    project.task("a", "---\nneeds: [never]\n---\n");
    let mounted = project.mount(&[]);
    let script = "exec 3> tasks/a.md; for n in $(seq 20); do ls tasks/ready; done; printf -- '---\nneeds: [nothing]\n---\n' >&3; exec 3>&-; cat tasks/blocked/a 2>&1";
    let said = mounted.sh("w1", script).ok();
    assert!(said.contains("nothing") && !said.starts_with("a\n"), "{said}");
    // An empty file that is closed says nothing, so it is no task.
    mounted.sh("w1", "> tasks/a.md; ls tasks/rejected/a").ok();
    let by_path = "python3 -c \"import os; os.truncate('tasks/a.md', 0); os.link('tasks/a.md', 'tasks/b.md')\"; ls tasks/rejected/b";
    (0..5).for_each(|_| drop(mounted.sh("w1", &format!("{by_path}; rm tasks/b.md")).ok()));
}

#[test]
fn c10_a_rename_puts_a_task_in_place() {
    let project = project!();
    let mounted = project.mount(&[]);
    let script = "echo '# A' > tasks/.a.tmp; ls tasks/ready; mv tasks/.a.tmp tasks/a.md; ls tasks/ready";
    assert_eq!(mounted.sh("w1", script).ok(), "a\n");
    mounted.sh("w1", "echo '# New' > tasks/new && mv tasks/new tasks/a.md").ok();
    assert_eq!(mounted.json("status/a")["title"], "New");
    mounted.sh("w1", "mv tasks/a.md tasks/b.md").ok();
    assert_eq!(mounted.list("ready"), ["b"]);
    mounted.sh("w1", "mv tasks/b.md tasks/b.txt").ok();
    assert_eq!(mounted.list("ready"), [""; 0]);
    // From elsewhere in the project, mv copies the file, as between any two filesystems.
    mounted.sh("w1", "echo '# C' > c.md && mv c.md tasks/ && ls tasks/ready/c").ok();
    mounted.sh("w1", "ln tasks/c.md tasks/d.md && ls tasks/ready/d").ok();
}

#[test]
fn c10_files_behind_the_mount_are_found() {
    let project = project!();
    project.task("before", "# Before\n");
    let mounted = project.mount(&["file_grace=200ms"]);
    assert_eq!(mounted.list("ready"), ["before"]);
    let tasks = project.tasks();
    let mut half = fs::File::create(tasks.join("written.md")).unwrap();
    half.write_all(b"# Written\n").unwrap();
    project.task("renamed", "# Renamed\n");
    mounted.until_state("renamed", "ready");
    assert_eq!(mounted.state("written"), "", "a half-written file is not offered");
    drop(half);
    mounted.until_state("written", "ready");
    fs::hard_link(tasks.join("written.md"), tasks.join("linked.md")).unwrap();
    mounted.until_state("linked", "ready");
    fs::remove_file(tasks.join("linked.md")).unwrap();
    mounted.until_state("linked", "");
    fs::write(tasks.join("written.md"), "---\ntitle: Changed\n---\n").unwrap();
    until("the change is seen", || mounted.json("status/written")["title"] == "Changed");
}

#[test]
fn c10_what_changed_while_nobody_served_is_found_at_the_start() {
    let project = project!();
    for id in ["goes", "changes", "stays"] {
        project.task(id, "# T\n");
    }
    project.mount(&[]).stop();
    fs::remove_file(project.tasks().join("goes.md")).unwrap();
    project.task("changes", "---\npriority: high\ntitle: Changed\n---\n");
    project.task("comes", "# T\n");
    let mounted = project.mount(&[]);
    assert_eq!(mounted.list("ready"), ["changes", "stays", "comes"]);
    assert_eq!(mounted.json("status/changes")["title"], "Changed");
}

#[test]
fn c11_front_matter_is_shown() {
    let project = project!();
    project.task(
        "a",
        "---\ntitle: Build it\npriority: P1\nlease: 90s\nattempts: 5\nrequires: [rust]\nowns: ['src/**']\n\
         context: [README.md]\ndeadline: 2h\ncolour: red\n---\n# Not the title\n",
    );
    project.task("b", "text\n\n## The first heading\n");
    let mounted = project.mount(&[]);
    let a = mounted.json("status/a");
    assert_eq!(
        (&a["title"], &a["priority"], &a["attempts"]),
        (&"Build it".into(), &"high".into(), &5.into())
    );
    assert_eq!((&a["requires"][0], &a["owns"][0]), (&"rust".into(), &"src/**".into()));
    assert!(a["warnings"][0].as_str().unwrap().contains("colour"), "{a}");
    assert!(a["deadline"].is_string() && a["lease"].is_string(), "{a}");
    assert_eq!(mounted.json("status/b")["title"], "The first heading");
    assert_eq!(mounted.read("ready/a"), mounted.read("a.md"));
}

#[test]
fn c11_needs_block_until_all_are_completed() {
    let project = project!();
    project.task("last", "---\nneeds: [one, two]\n---\n");
    project.task("one", "# One\n");
    let mounted = project.mount(&[]);
    let why = mounted.read("blocked/last");
    assert!(why.contains("one") && why.contains("two") && why.lines().count() == 1, "{why}");
    mounted.sh("w1", "touch tasks/claim/one && touch tasks/completed/one").ok();
    assert_eq!(mounted.json("status/last")["waits_for"], serde_json::json!(["two"]));
    project.task("two", "# Two\n");
    mounted.until_state("two", "ready");
    mounted.sh("w1", "touch tasks/claim/two && touch tasks/failed/two").ok();
    assert_eq!(mounted.state("last"), "blocked", "failed is not completed");
    mounted.sh("w1", "mv tasks/failed/two tasks/ready/ && touch tasks/claim/two tasks/completed/two").ok();
    assert_eq!(mounted.state("last"), "ready");
    // A completed task stays completed when its file is removed, and its dependents stay ready when its record is removed too.
    mounted.sh("w1", "rm tasks/one.md").ok();
    assert_eq!((mounted.state("one"), mounted.state("last")), ("completed".into(), "ready".into()));
    mounted.operator("rm tasks/completed/one").ok();
    assert_eq!((mounted.state("one"), mounted.state("last")), (String::new(), "ready".into()));
}

#[test]
fn c11_a_rejected_task_comes_back_when_it_is_mended() {
    let project = project!();
    project.task("a", "---\ntitle: A\npriority: soon\n---\n");
    let mounted = project.mount(&[]);
    let said = mounted.read("rejected/a");
    assert!(said.contains("line 3") && said.contains("priority is \"soon\""), "{said}");
    assert!(mounted.read("a.md").contains("soon"), "nothing is lost");
    mounted.sh("w1", "mv tasks/rejected/a tasks/ready/").refused("No such file");
    mounted.sh("w1", "sed -i s/soon/high/ tasks/a.md").ok();
    assert_eq!(mounted.list("ready"), ["a"]);
    mounted.sh("w1", "touch tasks/claim/a && echo '---' > tasks/a.md").ok();
    assert_eq!(mounted.state("a"), "claimed", "work in progress is not taken away by a bad edit");
}

#[test]
fn c14_removing_the_file_withdraws_the_task_unless_another_works_on_it() {
    let project = project!();
    ["a", "b", "c"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&["file_grace=200ms"]);
    mounted.sh("w1", "rm tasks/a.md && ! test -e tasks/ready/a && test -e tasks/blocked/a").ok();
    mounted.until_state("a", "");
    mounted.sh("w1", "touch tasks/claim/b tasks/claim/c").ok();
    for script in ["rm -f tasks/b.md", "mv tasks/b.md tasks/x.md", "mv tasks/b.md tasks/b.txt"] {
        mounted.sh("w2", script).refused("busy");
        assert_eq!(mounted.state("b"), "claimed", "{script}");
    }
    assert!(mounted.read("workers/w2/why").contains("b is being worked on by w1"));
    mounted.sh("w1", "rm tasks/b.md").ok();
    mounted.operator("rm tasks/c.md").ok();
    assert_eq!(mounted.list("claim"), ["b", "c"], "the claims stand");
    mounted.sh("w1", "rm tasks/claim/b tasks/claim/c").ok();
    ["b", "c"].iter().for_each(|id| mounted.until_state(id, ""));
}

#[test]
fn c14_a_claimed_task_outlives_a_file_removed_behind_the_mount() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    fs::remove_file(project.tasks().join("a.md")).unwrap();
    project.task("marker", "# T\n");
    mounted.until_state("marker", "ready");
    assert_eq!(mounted.state("a"), "claimed");
    mounted.sh("w1", "echo done > tasks/completed/a").ok();
    assert_eq!(mounted.read("completed/a"), "done\n");
}

#[test]
fn c15_an_edit_takes_effect_at_close() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let edit = "printf -- '---\\npriority: critical\\n---\\n' > tasks/b.md; readlink tasks/next";
    assert_eq!(mounted.sh("w1", edit).ok(), "ready/b\n");
    let append = "exec 3>> tasks/a.md; echo more >&3; cat tasks/ready/a; exec 3>&-; cat tasks/ready/a";
    mounted.sh("w1", append).ok();
    mounted.sh("w1", "truncate -s 0 tasks/b.md && readlink tasks/next").ok();
    assert!(mounted.read("rejected/b").contains("the file is empty"));
    mounted.sh("w1", "printf -- '---\\nneeds: [a]\\n---\\n' > tasks/b.md").ok();
    assert_eq!(mounted.state("b"), "blocked");
}

#[test]
fn c4_everything_else_is_an_ordinary_file() {
    let project = project!();
    fs::create_dir(project.tasks().join("notes")).unwrap();
    for name in ["README.md", "Claude.local.md", "todo.md", "notes.md", "lessons_learned.md"] {
        fs::write(project.tasks().join(name), "text\n").unwrap();
    }
    for name in ["README.md", ".hidden.md", "next.md", "-x.md", "a b.md", "plan.txt", "notes/deep.md"] {
        fs::write(project.tasks().join(name), "text\n").unwrap();
    }
    let mounted = project.mount(&[]);
    assert_eq!(mounted.list("status"), [""; 0]);
    let script = "cd tasks; cat README.md .hidden.md next.md ./-x.md 'a b.md' plan.txt notes/deep.md | wc -l;
        echo more >> plan.txt; mkdir sub; mv plan.txt sub/; ln -s sub/plan.txt link; cat link; rm -r sub link";
    assert_eq!(mounted.sh("w1", script).ok(), "7\ntext\nmore\n");
    assert!(mounted.list("").contains(&"README.md".to_string()));
    for made in ["touch tasks/ready/x", "mkdir tasks/workers/w9", "mkdir tasks/ready", "rm -r tasks/ready"] {
        mounted.sh("w1", made).refused("");
    }
    assert_eq!(mounted.list("status"), [""; 0]);
}

#[test]
fn c10_every_writer_finds_its_task_however_many_write_at_once() {
    let project = project!();
    for threads in ["threads=2", "threads=1"] {
        let mut mounted = project.mount(&[threads]);
        // On a slow machine publishing may take longer than a worker waits.
        let missed = if is_slow() { "until test -e $T; do sleep 0.1; done" } else { "echo missed $T" };
        let script = format!(
            "for n in $(seq 40); do
                echo '# T' > tasks/$CREWFS_WORKER-$n.md; T=tasks/ready/$CREWFS_WORKER-$n; test -e $T || {missed}
            done"
        );
        std::thread::scope(|scope| {
            for worker in ["w1", "w2", "w3", "w4", "w5", "w6"] {
                let (mounted, script) = (&mounted, &script);
                scope.spawn(move || assert_eq!(mounted.sh(worker, script).ok(), "", "{worker}, {threads}"));
            }
        });
        mounted.sh("w1", "rm tasks/*.md").ok();
        mounted.stop();
    }
}

#[test]
fn c10_a_file_that_is_closed_by_becoming_another_program_is_published() {
    let project = project!();
    project.task("held", "# T\n");
    let mounted = project.mount(&[]);
    // The kernel closes the descriptors in the middle of execve(2): a daemon that looked into the process then would wait for ever.
    let script = "touch tasks/claim/held; python3 -c \"
import os
for name in ('tasks/a.md', 'tasks/claim/held', 'tasks/completed/held', 'tasks/notes', 'file'):
    os.write(os.open(name, os.O_WRONLY | os.O_CREAT, 0o644), b'# Text')
os.execvp('ls', ['ls', 'tasks/ready', 'tasks/completed'])\"";
    assert_eq!(mounted.sh("w1", script).ok(), "tasks/completed:\nheld\n\ntasks/ready:\na\n");
    assert_eq!(mounted.read("completed/held"), "# Text");
}
