//! A task is its id: every task keeps its state, whatever program saves or replaces its file, and however it does so (C14).
//!
//! One table: each way of replacing a file, by the holder, an operator and another worker, through the mount and beneath it, on a task
//! in each state.

mod ways;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use self::ways::{How, PRELUDE, WAYS, Way};
use crate::harness::{Mounted, Project, as_root, project};
use crate::process::{LIMIT, Ran, run_within, until, within};
use crate::sides::find;

/// A task in each state. The ready one comes last.
const TASKS: [&str; 6] = ["blocked", "claimed", "completed", "failed", "rejected", "the-ready"];
/// The events that may occur while files are replaced.
const EVENTS: [&str; 4] = ["published", "file_opened", "file_missing", "joined"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    /// The worker that holds or has finished the tasks that are not open.
    Holder,
    Operator,
    AnotherWorker,
    /// A program that changes the files beneath the mount.
    Beneath,
}

const ACTORS: [Actor; 4] = [Actor::Holder, Actor::Operator, Actor::AnotherWorker, Actor::Beneath];

struct Table {
    project: Project,
    mounted: Mounted,
    in_place: bool,
    /// A directory of another filesystem.
    elsewhere: tempfile::TempDir,
    count: u32,
    events: fs::File,
    /// The part of the last line that was read so far.
    unread: String,
    /// The stamp of each task's last publication.
    published: BTreeMap<String, (u64, u64)>,
    /// The facts about each task that an edit must not change.
    facts: BTreeMap<String, Value>,
}

impl Table {
    fn new(project: Project, in_place: bool) -> Table {
        let elsewhere = tempfile::Builder::new().prefix("crewfs-").tempdir_in("/dev/shm").unwrap();
        let text = |more: &str| format!("---\ntitle: v0\n{more}---\n# Text\n\nMore text.\n");
        for id in ["claimed", "completed", "failed", "the-ready"] {
            project.task(id, &text(""));
        }
        project.task("blocked", &text("needs: [never]\n"));
        project.task("rejected", &text("priority: soon\n"));
        project.task("after-completed", &text("needs: [completed]\npriority: low\n"));
        project.task("after-failed", &text("needs: [failed]\n"));
        let ignored = "tasks/*\n!tasks/*.md\n.crewfs\nworkers\ntask-queue.json\nworker-status.json\n";
        if find("git").is_some() {
            let mut git = Command::new("git");
            git.args(["init", "-q", "-b", "main"]).current_dir(project.source());
            crate::process::run(git).ok();
            fs::write(project.source().join(".git/info/exclude"), ignored).unwrap();
        }
        // The grace is so long that nothing is withdrawn, however slow the machine is.
        let options = &["file_grace=60s"];
        let mounted = if in_place { project.mount_in_place(options) } else { project.mount(options) };
        let script = "set -e; touch tasks/claim/the-ready; rm tasks/claim/the-ready; cd tasks
            touch claim/completed; echo 'a result' > completed/completed; touch claim/failed; echo 'a reason' > failed/failed
            echo 'a note' > claim/claimed";
        mounted.sh("w1", script).ok();
        let events = fs::File::open(mounted.desk("events.jsonl")).unwrap();
        let (unread, published) = (String::new(), BTreeMap::new());
        let mut table = Table {
            project,
            mounted,
            in_place,
            elsewhere,
            count: 0,
            events,
            unread,
            published,
            facts: BTreeMap::new(),
        };
        table.read_events(false);
        table.facts = table.look();
        let states = json!({
            "after-completed": "ready", "after-failed": "blocked", "blocked": "blocked", "claimed": "claimed",
            "completed": "completed", "failed": "failed", "rejected": "rejected", "the-ready": "ready"});
        let found: BTreeMap<_, _> = table.facts.iter().map(|(id, task)| (id, &task["status"])).collect();
        assert_eq!(json!(found), states);
        table
    }

    /// The facts about each task, without those that an edit changes.
    fn look(&self) -> BTreeMap<String, Value> {
        let queue = self.mounted.json("queue.json");
        let facts = |(id, task): (&String, &Value)| {
            let mut task = task.clone();
            ["changed", "title", "warnings"]
                .iter()
                .for_each(|key| drop(task.as_object_mut().unwrap().remove(*key)));
            (id.clone(), task)
        };
        queue.as_object().unwrap().iter().map(facts).collect()
    }

    fn read_events(&mut self, strict: bool) {
        self.events.read_to_string(&mut self.unread).unwrap();
        let whole = self.unread.rfind('\n').map_or(0, |at| at + 1);
        for line in self.unread.drain(..whole).collect::<String>().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let name = event["event"].as_str().unwrap();
            assert!(!strict || EVENTS.contains(&name), "nothing else may happen to a task: {line}");
            if name == "published" {
                let number = |key: &str| event["stamp"][key].as_u64().unwrap();
                let stamp = (number("ino"), number("size"));
                self.published.insert(event["task"].as_str().unwrap().into(), stamp);
            }
        }
    }

    /// The deviations: a task whose facts changed, or whose newest content the queue has not published.
    fn differences(&mut self) -> Vec<String> {
        let now = self.look();
        self.read_events(true);
        let mut found = Vec::new();
        for (id, before) in &self.facts {
            let after = now.get(id).unwrap_or(&Value::Null);
            if before != after {
                found.push(format!("{id} was {before} and is {after}"));
            }
            let stat = fs::metadata(self.project.tasks().join(format!("{id}.md")));
            // The mtime may have been set since. That is no edit.
            let stamp = stat.map(|stat| (stat.ino(), stat.size())).ok();
            if stamp != self.published.get(id).copied() {
                found.push(format!(
                    "{id} is published as {:?}, its file is {stamp:?}",
                    self.published.get(id)
                ));
            }
        }
        found.extend(now.keys().filter(|id| !self.facts.contains_key(*id)).map(|id| format!("{id} is new")));
        found
    }

    fn script(&self, way: &Way, tasks: &[&str]) -> String {
        let body = match way.how {
            How::All(script) => script.to_string(),
            How::Each(script) => {
                format!("for T in $TASKS; do F=tasks/$T.md; new; {script}; rm -f here.$T; done")
            }
        };
        let (elsewhere, number) = (self.elsewhere.path().display(), self.count);
        format!("TASKS='{}' E={elsewhere} N={number}\n{PRELUDE}{body}\n", tasks.join(" "))
    }

    fn run(&self, actor: Actor, script: &str) -> Ran {
        match actor {
            Actor::Holder => self.mounted.sh("w1", script),
            Actor::AnotherWorker => self.mounted.sh("w2", script),
            Actor::Operator => self.mounted.operator(script),
            Actor::Beneath if self.in_place => {
                // In a mount namespace of its own, where nothing is mounted on the project.
                let mut command = Command::new("unshare");
                let apart = r#"umount -l "$1/tasks" && umount -l "$1" && cd "$1" && exec bash -c "$0""#;
                command.args(["-m", "--propagation", "private", "bash", "-c", apart, script]);
                command.arg(self.project.source()).current_dir("/");
                run_within(LIMIT, command)
            }
            Actor::Beneath => {
                let mut command = Command::new("bash");
                command.args(["-c", script]).current_dir(self.project.source());
                run_within(LIMIT, command)
            }
        }
    }

    fn replace(&mut self, way: &Way, actor: Actor) {
        self.count += 1;
        let place = if self.in_place { "in place" } else { "elsewhere" };
        let what = format!("{}, by {actor:?}, mounted {place}", way.name);
        let before = self.contents();
        let not_held = TASKS.iter().copied().filter(|id| *id != "claimed").collect::<Vec<_>>();
        let tasks = if actor == Actor::AnotherWorker { &not_held[..] } else { &TASKS };
        let ran = self.run(actor, &self.script(way, tasks));
        assert_eq!(ran.code, Some(0), "{what}: {}", ran.stderr);
        if actor == Actor::AnotherWorker {
            // A way that removes the file is refused. Any other way is an edit.
            drop(self.run(actor, &self.script(way, &["claimed"])));
        }
        let mut found = Vec::new();
        let agree = within(Duration::from_secs(10), || {
            found = self.differences();
            found.is_empty()
        });
        assert!(agree, "{what}: {found:#?}");
        if !["vim with nothing to save", "python, rename aside and back", "git checkout -- FILE"]
            .contains(&way.name)
        {
            let after = self.contents();
            let same: Vec<_> = tasks.iter().filter(|id| before[**id] == after[**id]).collect();
            assert!(same.is_empty() || way.name.starts_with("git "), "{what}: nothing was written: {same:?}");
        }
        // A change beneath that keeps the size of the file shows only here that the watch has published it.
        until(&format!("the queue has the title of the file: {what}"), || {
            let title = self.mounted.json("status/the-ready")["title"].clone();
            self.contents()["the-ready"].contains(&format!("title: {}\n", title.as_str().unwrap()))
        });
    }

    fn contents(&self) -> BTreeMap<&'static str, String> {
        let text =
            |id: &'static str| fs::read_to_string(self.project.tasks().join(format!("{id}.md"))).unwrap();
        TASKS.iter().map(|id| (*id, text(id))).collect()
    }
}

fn all_ways(project: Project, in_place: bool, actors: &[Actor]) {
    let mut table = Table::new(project, in_place);
    let chosen = std::env::var("CREWFS_WAY").unwrap_or_default();
    for way in WAYS.iter().filter(|way| way.name.contains(&chosen)) {
        if way.needs.iter().any(|program| find(program).is_none()) {
            assert!(std::env::var_os("CI").is_none(), "{} needs {:?}", way.name, way.needs);
            eprintln!("skipped: {} needs {:?}", way.name, way.needs);
            continue;
        }
        let start = std::time::Instant::now();
        actors.iter().for_each(|actor| table.replace(way, *actor));
        println!("{:>6} ms  {}", start.elapsed().as_millis(), way.name);
    }
    table.mounted.stop();
}

#[test]
fn c14_a_task_is_what_it_was_however_its_file_is_replaced() {
    as_root!();
    all_ways(project!(Duration::from_secs(240)), false, &ACTORS);
}

#[test]
fn c14_a_task_is_what_it_was_also_where_the_mount_covers_its_project() {
    as_root!();
    all_ways(project!(Duration::from_secs(240)), true, &[Actor::Holder, Actor::Beneath]);
}
