//! Listing: each task is in exactly one directory, the best first, however many there are (C12, C13).

use std::collections::BTreeMap;

use crate::harness::{Mounted, project};

const STATES: [&str; 6] = ["ready", "blocked", "claim", "completed", "failed", "rejected"];

fn places(mounted: &Mounted) -> BTreeMap<String, Vec<&'static str>> {
    let mut places = BTreeMap::<_, Vec<_>>::new();
    for state in STATES {
        for id in mounted.list(state) {
            assert!(mounted.desk(state).join(&id).exists(), "{state}/{id} is listed and not there");
            places.entry(id).or_default().push(state);
        }
    }
    places
}

#[test]
fn c12_each_task_is_in_one_directory_and_is_found_in_no_other() {
    let project = project!();
    project.task("waits", "---\nneeds: [never]\n---\n");
    project.task("wrong", "---\nlease: long\n---\n");
    ["free", "held", "done", "lost"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/done tasks/completed/done tasks/claim/lost tasks/failed/lost").ok();
    mounted.sh("w1", "touch tasks/claim/held").ok();
    let places = places(&mounted);
    let expected = [
        ("done", "completed"),
        ("free", "ready"),
        ("held", "claim"),
        ("lost", "failed"),
        ("waits", "blocked"),
        ("wrong", "rejected"),
    ];
    assert_eq!(places, expected.map(|(id, state)| (id.to_string(), vec![state])).into());
    for (id, state) in expected {
        let known = mounted.state(id);
        assert_eq!(known, if state == "claim" { "claimed" } else { state });
        assert_eq!(mounted.json("queue.json")[id]["status"], known.as_str());
        for other in STATES.iter().filter(|other| **other != state) {
            assert!(!mounted.desk(other).join(id).exists(), "{id} is in {other}/ too");
        }
    }
    let mut all = mounted.list("status");
    all.sort();
    assert_eq!(all, ["done", "free", "held", "lost", "waits", "wrong"]);
}

#[test]
fn c13_the_best_comes_first() {
    let project = project!();
    let mounted = project.mount(&[]);
    for (id, priority) in
        [("z", "normal"), ("y", "background"), ("x", "normal"), ("w", "P0"), ("v", "low"), ("u", "high")]
    {
        mounted.sh("c", &format!("printf -- '---\\npriority: {priority}\\n---\\n' > tasks/{id}.md")).ok();
    }
    assert_eq!(mounted.sh("w1", "ls -U tasks/ready | tr '\\n' ' '").ok(), "w u z x v y ");
    assert_eq!(mounted.sh("w1", "readlink tasks/next").ok(), "ready/w\n");
    for expected in ["w", "u", "z", "x", "v", "y"] {
        mounted.sh("w1", "touch tasks/claim/next").ok();
        assert_eq!(mounted.list("claim"), [expected]);
        mounted.sh("w1", &format!("touch tasks/completed/{expected}")).ok();
    }
    mounted.sh("w1", "test -L tasks/next").exits(1, "");
}

#[test]
fn c13_what_is_found_at_the_start_has_the_age_of_its_file() {
    let project = project!();
    let ids: Vec<String> = (0..30).map(|n| format!("{}{n}", ["x", "b", "q"][n % 3])).collect();
    for (id, seconds) in ids.iter().zip(1..) {
        project.task(id, "# T\n");
        let file =
            std::fs::File::options().write(true).open(project.tasks().join(format!("{id}.md"))).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
    }
    let mounted = project.mount(&[]);
    assert_eq!(mounted.list("ready"), ids);
}

#[test]
fn c12_big_directories_are_listed_whole_while_they_change() {
    const TASKS: usize = 3_000;
    let project = project!();
    let name = |n| format!("a-task-with-quite-a-long-name-{n:05}");
    for n in 0..TASKS {
        std::fs::write(project.tasks().join(format!("{}.md", name(n))), "# T\n").unwrap();
    }
    let mounted = project.mount(&[]);
    let mut listed = mounted.list("ready");
    listed.sort();
    assert_eq!(listed, (0..TASKS).map(name).collect::<Vec<_>>());
    assert_eq!(mounted.sh("w1", "ls -l tasks/ready | wc -l").ok().trim(), (TASKS + 1).to_string());
    assert_eq!(mounted.json("queue.json").as_object().unwrap().len(), TASKS);

    // One listing shows one moment, however long a process takes to read it.
    let mut reading = std::fs::read_dir(mounted.desk("ready")).unwrap();
    let first = reading.next().unwrap().unwrap();
    let claim = "for n in $(seq -w 1000 1100); do touch tasks/claim/a-task-with-quite-a-long-name-0$n; done";
    mounted.sh("w1", claim).ok();
    let mut seen: Vec<_> = reading.map(|entry| entry.unwrap().file_name()).collect();
    seen.push(first.file_name());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), TASKS);
    assert_eq!(mounted.list("ready").len() + mounted.list("claim").len(), TASKS);
    assert_eq!(mounted.list("claim").len(), 101);
}

#[test]
fn listings_agree_with_stat_and_can_be_read_again() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    let script = r#"
import os
for top, dirs, files in os.walk('tasks'):
    for entry in os.scandir(top):
        stat = entry.stat(follow_symlinks=False)
        kind = os.path.isdir(entry.path) if not entry.is_symlink() else False
        assert entry.is_dir(follow_symlinks=False) == kind, entry.path
fd = os.open('tasks/ready', os.O_RDONLY)
assert os.listdir(fd) == ['b'], os.listdir(fd)
os.close(os.open('tasks/claim/b', os.O_CREAT | os.O_WRONLY))
assert os.listdir(fd) == [], 'rewinding shows the new moment'
"#;
    mounted.sh("w1", &format!("python3 - <<'END'\n{script}\nEND")).ok();
    let kinds =
        mounted.sh("w1", "cd tasks && stat -c %F ready queue.json workers/self workers/self/status").ok();
    assert_eq!(kinds, "directory\nregular file\nsymbolic link\nregular file\n");
}
