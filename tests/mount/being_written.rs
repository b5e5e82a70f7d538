//! A task whose file is open for writing: it cannot be claimed, and its last writer's content decides its state (C16).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Mounted, project};
use crate::process::{is_slow, some_of, until};

const WRITTEN: &str = "its file is being written";
const TORN: &str = "its writer was killed before it was done; write it again";

/// A shell that opens a file in its first step and writes to it in its second.
struct Writer {
    child: Child,
}

impl Writer {
    /// Run the step in this directory. The step opens the file as descriptor 3.
    fn open(directory: &Path, worker: &str, step: &str) -> Writer {
        let mut command = Command::new("bash");
        command.args([
            "-c",
            "eval \"$1\" || exit; echo done; while read -r step; do eval \"$step\"; echo done; done",
            "",
            step,
        ]);
        command.env("CREWFS_WORKER", worker).current_dir(directory);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut writer = Writer { child };
        writer.hear();
        writer
    }

    fn hear(&mut self) {
        let mut line = String::new();
        // Byte by byte, so that the rest stays in the pipe for the next reader.
        BufReader::with_capacity(1, self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    fn step(&mut self, step: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{step}").unwrap();
        self.hear();
    }

    fn end(mut self, with: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{with}").unwrap();
        until("the writer ends", || self.child.try_wait().unwrap().is_some());
    }

    fn kill(mut self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        until("the writer ends", || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cannot_be_claimed(mounted: &Mounted, id: &str, how: &str) {
    for claim in [
        "touch tasks/claim/$T",
        "echo note > tasks/claim/$T",
        "set -C; > tasks/claim/$T",
        "mkdir tasks/claim/$T",
        "mv tasks/blocked/$T tasks/claim/",
        "ln tasks/blocked/$T tasks/claim/$T",
    ] {
        mounted.sh("w1", &claim.replace("$T", id)).refused("busy");
        assert!(mounted.read("workers/w1/why").contains(WRITTEN), "{how}: {claim}");
    }
    for claim in ["mv tasks/ready/$T tasks/claim/", "ln tasks/ready/$T tasks/claim/$T"] {
        mounted.sh("w1", &claim.replace("$T", id)).refused("No such file");
    }
    assert_eq!(mounted.read(&format!("blocked/{id}")), format!("{WRITTEN}\n"), "{how}");
    assert!(
        mounted.list("blocked").contains(&id.to_string()) && !mounted.list("ready").contains(&id.to_string())
    );
    let status = mounted.json(&format!("status/{id}"));
    assert_eq!((&status["status"], &status["file"]), (&json!("blocked"), &json!("being written")), "{how}");
}

#[test]
fn c16_a_task_whose_file_is_open_for_writing_cannot_be_claimed() {
    let project = project!();
    project.task("a", "# T\n");
    project.task("worse", "# Worse\n");
    let mounted = project.mount(&[]);
    let published = mounted.json("status/a")["published"].clone();
    for (beneath, open) in [
        (false, "exec 3>> tasks/a.md"),
        (false, "exec 3<> tasks/a.md"),
        (false, "exec 3> tasks/a.md"),
        (true, "exec 3>> tasks/a.md; echo more >&3"),
        (true, "exec 3<> tasks/a.md; echo more >&3"),
        (true, "exec 3> tasks/a.md; echo more >&3"),
        (true, "exec 3> tasks/a.md"),
    ] {
        let directory = if beneath { project.source() } else { mounted.path() };
        let mut writer = Writer::open(directory, "w2", open);
        if !beneath {
            mounted.sh("w1", "touch tasks/claim/a").refused("busy");
        }
        // The state shows once it is on disk.
        mounted.until_state("a", "blocked");
        cannot_be_claimed(&mounted, "a", open);
        assert_eq!(
            mounted.sh("w1", "readlink tasks/next; touch tasks/claim/next; rm tasks/claim/worse").ok(),
            "ready/worse\n"
        );
        writer.step("echo '# T' > tasks/.new; cat tasks/.new >&3");
        cannot_be_claimed(&mounted, "a", open);
        // Another writer opens the file and closes it.
        mounted.sh("w3", "echo more >> tasks/a.md; cat tasks/ready/worse > /dev/null").ok();
        if !beneath {
            assert_eq!(mounted.state("a"), "blocked", "{open}");
        }
        // The writer keeps a second descriptor of the same file and closes the first.
        writer.step("exec 4>&3 3>&-");
        if !beneath {
            assert_eq!(mounted.state("a"), "blocked", "{open}");
            mounted.sh("w1", "touch tasks/claim/a").refused("busy");
        }
        writer.step("exec 4>&-");
        if beneath {
            mounted.until_state("a", "ready");
        }
        mounted.sh("w1", "touch tasks/claim/a && rm tasks/claim/a").ok();
        writer.end("exit 0");
        assert_eq!(mounted.json("status/a")["published"], published);
    }
    // With no other open task, no task is ready.
    mounted.sh("w1", "touch tasks/claim/worse").ok();
    let _writer = Writer::open(mounted.path(), "w2", "exec 3>> tasks/a.md");
    mounted.sh("w3", "touch tasks/claim/next").refused("No such file");
    assert!(mounted.read("workers/w3/why").contains("no task is ready: 1 blocked, 1 claimed by others"));
}

#[test]
fn c16_a_file_that_is_opened_and_closed_is_ready_at_once() {
    let project = project!();
    project.task("a", "# T\n");
    project.task("done", "# T\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/done; touch tasks/completed/done").ok();
    let times = some_of(20).count();
    // On a slow machine publishing may take longer than a worker waits.
    let attempts = if is_slow() { 50 } else { 1 };
    for change in [
        ": >> $F",
        "exec 3<> $F; exec 3>&-",
        "touch $F",
        "chmod 644 $F",
        "cat $F > .copy && cat .copy > $F",
        "echo >> $F",
    ] {
        let script = format!(
            "claim() {{ for attempt in $(seq {attempts}); do touch tasks/claim/a && return; sleep 0.1; done
                        cat tasks/workers/self/why tasks/status/a >&2; exit 1; }}
             for n in $(seq {times}); do F=tasks/a.md; {change}; claim; rm tasks/claim/a; F=tasks/done.md; {change}; done"
        );
        mounted.sh("w1", &script).ok();
        until(&format!("nothing is written any more: {change}"), || {
            mounted.json("status/done")["file"].is_null()
        });
        assert_eq!(mounted.json("status/a")["file"], Value::Null, "{change}");
    }
}

#[test]
fn c16_a_claimed_or_finished_task_stays_what_it_is_while_its_file_is_written() {
    let project = project!();
    ["held", "done"].iter().for_each(|id| project.task(id, "# T\n"));
    project.task("after", "---\nneeds: [done]\n---\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/held tasks/claim/done; echo result > tasks/completed/done").ok();
    let held = Writer::open(mounted.path(), "w2", "exec 3> tasks/held.md; echo half >&3");
    let done = Writer::open(mounted.path(), "w2", "exec 3> tasks/done.md; echo half >&3");
    for (id, state) in [("held", "claimed"), ("done", "completed")] {
        let status = mounted.json(&format!("status/{id}"));
        assert_eq!(
            (&status["status"], &status["file"]),
            (&json!(state), &json!("being written")),
            "{status}"
        );
    }
    assert_eq!(mounted.state("after"), "ready");
    mounted.sh("w1", "echo note > tasks/claim/held; rm tasks/claim/held").ok();
    cannot_be_claimed(&mounted, "held", "given back");
    mounted.sh("w1", "mv tasks/completed/done tasks/ready/").ok();
    cannot_be_claimed(&mounted, "done", "retried");
    done.end("exit 0");
    held.kill(Signal::KILL);
    mounted.until_state("done", "ready");
    mounted.until_state("held", "rejected");
}

#[test]
fn c16_a_file_is_known_while_it_is_renamed_and_open() {
    let project = project!();
    project.task("b", "# B\n");
    let mounted = project.mount(&["file_grace=60s"]);
    let mut writer = Writer::open(mounted.path(), "w2", "exec 3> tasks/.a; echo '# Half' >&3");
    writer.step("mv tasks/.a tasks/a.md");
    assert_ne!(mounted.state("a"), "ready", "it is not complete");
    mounted.sh("w1", "touch tasks/claim/a").refused("");
    writer.step("mv tasks/b.md tasks/c.md; mv tasks/a.md tasks/b.md");
    mounted.sh("w1", "touch tasks/claim/b").refused("busy");
    mounted.sh("w1", "touch tasks/claim/c; rm tasks/claim/c").ok();
    writer.step("exec 3>&-");
    mounted.sh("w1", "touch tasks/claim/b").ok();
    assert_eq!(mounted.json("status/b")["title"], "Half");
    writer.end("exit 0");
}

/// The ways in which a writer begins to write a new or an existing file.
const BEGUN: [&str; 4] = [
    "exec 3> tasks/$T.md; printf -- '---\\ntitle: Half' >&3",
    "exec 3>> tasks/$T.md; printf half >&3",
    "exec 3<> tasks/$T.md; printf half >&3",
    "exec 3> tasks/$T.md; exec 4>&3; printf half >&3; exec 3>&-",
];

#[test]
fn c16_what_a_killed_writer_left_behind_is_rejected() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    let mut ids = Vec::new();
    for (n, begun) in BEGUN.iter().enumerate() {
        for (name, signal) in [("kill", Signal::KILL), ("term", Signal::TERM), ("int", Signal::INT)] {
            for old in [false, true] {
                let id = format!("{name}-{n}-{}", if old { "old" } else { "new" });
                if old {
                    mounted.sh("w1", &format!("echo '# Old' > tasks/{id}.md; ls tasks/ready/{id}")).ok();
                }
                let writer = Writer::open(mounted.path(), "w2", &begun.replace("$T", &id));
                writer.kill(signal);
                mounted.until_state(&id, "rejected");
                assert!(mounted.read(&format!("rejected/{id}")).contains(TORN), "{id}: {begun}");
                mounted.sh("w1", &format!("touch tasks/claim/{id}")).refused("No such file");
                ids.push(id);
            }
        }
    }
    // The state stays so through a stop and a crash of the daemon.
    mounted.stop();
    let mut mounted = project.mount(&[]);
    ids.iter().for_each(|id| assert_eq!(mounted.state(id), "rejected", "{id}"));
    mounted.kill9();
    drop(mounted);
    let mounted = project.mount(&[]);
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(mounted.state(id), "rejected", "{id}");
        let mend = [
            "echo '# Mended' > $F",
            "echo '# Mended' > tasks/.new; mv tasks/.new $F",
            "rm $F; echo '# Mended' > $F",
            "sed -i '1i # Mended' $F",
        ];
        let mend = mend[n % mend.len()];
        mounted.sh("w1", &format!("F=tasks/{id}.md; {mend}; ls tasks/ready/{id}")).ok();
    }
}

#[test]
fn c16_a_file_that_a_killed_writer_made_or_emptied_is_rejected() {
    let project = project!();
    project.task("emptied", "# Old\n");
    let mounted = project.mount(&[]);
    for id in ["made", "emptied"] {
        Writer::open(mounted.path(), "w2", &format!("exec 3> tasks/{id}.md")).kill(Signal::KILL);
        let of = |key: &str| mounted.json(&format!("status/{id}"))[key].clone();
        until(&format!("{id} is closed"), || !mounted.state(id).is_empty() && of("file").is_null());
        assert_eq!(mounted.state(id), "rejected", "{id}");
    }
}

#[test]
fn c16_a_half_written_file_stays_half_written_wherever_it_is_moved() {
    let project = project!();
    let mounted = project.mount(&["file_grace=100ms"]);
    for name in ["a.md", ".b.tmp"] {
        Writer::open(mounted.path(), "w2", &format!("exec 3> tasks/{name}; echo '# Half' >&3"))
            .kill(Signal::KILL);
        mounted.sh("w1", &format!("mv tasks/{name} tasks/moved.md")).ok();
        mounted.until_state("moved", "rejected");
        assert!(mounted.read("rejected/moved").contains(TORN), "{name}");
    }
    mounted.sh("w1", "echo '# Whole' > tasks/moved.md").ok();
    mounted.until_state("moved", "ready");
}

#[test]
fn c16_what_a_killed_writer_did_not_touch_is_as_it_was() {
    let project = project!();
    ["a", "held"].iter().for_each(|id| project.task(id, "# Old\n"));
    let mounted = project.mount(&[]);
    for open in ["exec 3>> tasks/a.md", "exec 3<> tasks/a.md", "exec 3<> tasks/a.md; exec 4>&3"] {
        Writer::open(mounted.path(), "w2", open).kill(Signal::KILL);
        mounted.until_state("a", "ready");
        assert_eq!(mounted.json("status/a")["title"], "Old");
    }
    // A process writes a whole file, renames it, and is killed.
    Writer::open(mounted.path(), "w2", "echo '# New' > tasks/.new; mv tasks/.new tasks/a.md")
        .kill(Signal::KILL);
    assert_eq!(
        (mounted.state("a"), mounted.json("status/a")["title"].clone()),
        ("ready".into(), json!("New"))
    );
    // A claim stands, although the file is left half written.
    mounted.sh("w1", "touch tasks/claim/held").ok();
    Writer::open(mounted.path(), "w2", "exec 3> tasks/held.md; echo half >&3").kill(Signal::KILL);
    until("it is closed", || mounted.json("status/held")["file"].is_null());
    assert_eq!(mounted.state("held"), "claimed");
    mounted.sh("w1", "rm tasks/claim/held").ok();
    mounted.until_state("held", "rejected");
    assert!(mounted.read("rejected/held").contains(TORN));
}

#[test]
fn c16_a_writer_that_ends_by_itself_publishes() {
    let project = project!();
    let mounted = project.mount(&[]);
    for (n, end) in
        ["exit 0", "exit 3", "exec true", "exec false", "exec 3>&-; kill -9 $$"].iter().enumerate()
    {
        let id = format!("t{n}");
        for title in ["First", "Second"] {
            let writer =
                Writer::open(mounted.path(), "w2", &format!("exec 3> tasks/{id}.md; echo '# {title}' >&3"));
            writer.end(end);
            until(&format!("{id} is published: {end}"), || {
                mounted.state(&id) == "ready" && mounted.json(&format!("status/{id}"))["title"] == title
            });
        }
    }
}
