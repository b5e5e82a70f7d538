//! Reading: true sizes, times that move with the content, one document for one open, and no change by reading (C1, C2).

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::harness::{Mounted, Project, project};
use crate::process::{some_of, until};

/// A project with a task in every state.
fn of_every_state(project: &Project) -> Mounted {
    project.task("waits", "---\nneeds: [never]\n---\n");
    project.task("wrong", "---\nlease: long\n---\n");
    ["free", "held", "done", "lost"].iter().for_each(|id| project.task(id, "# A task\n\ntext\n"));
    fs::write(project.tasks().join("notes.txt"), "notes\n").unwrap();
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/done && echo 'it is done' > tasks/completed/done").ok();
    mounted.sh("w1", "touch tasks/claim/lost && echo 'it is lost' > tasks/failed/lost").ok();
    mounted.sh("w1", "touch tasks/claim/held && echo note > tasks/claim/held").ok();
    mounted.sh("w2", "touch tasks/claim/held").refused("File exists");
    mounted.operator("touch tasks/paused tasks/workers/w2/drain").ok();
    mounted
}

/// The state of a file as `stat` and `read` show it.
#[derive(Debug, PartialEq)]
struct Seen {
    content: Vec<u8>,
    mtime: (i64, i64),
}

/// Every file below a directory, each checked for its size. Links are not followed.
fn all_files(top: &Path, seen: &mut BTreeMap<PathBuf, Seen>) {
    for entry in fs::read_dir(top).unwrap() {
        let path = entry.unwrap().path();
        let before = fs::symlink_metadata(&path).unwrap();
        if before.is_dir() {
            all_files(&path, seen);
        } else if before.is_file() {
            let mut file = fs::File::open(&path).unwrap();
            let (mut content, open) = (Vec::new(), file.metadata().unwrap());
            file.read_to_end(&mut content).unwrap();
            assert_eq!(before.len(), content.len() as u64, "{}: stat", path.display());
            assert_eq!(open.len(), content.len() as u64, "{}: fstat", path.display());
            seen.insert(path, Seen { content, mtime: (before.mtime(), before.mtime_nsec()) });
        } else if before.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            assert_eq!(before.len(), target.as_os_str().len() as u64, "{}", path.display());
            assert!(
                target.is_relative() && !target.starts_with(".."),
                "{} leads to {target:?}",
                path.display()
            );
        }
    }
}

#[test]
fn c1_sizes_are_true_and_times_move_with_the_content() {
    let project = project!();
    let mounted = of_every_state(&project);
    let look = || {
        let mut seen = BTreeMap::new();
        all_files(&mounted.tasks(), &mut seen);
        seen
    };
    let mut before = look();
    for documents in ["queue.json", "workers/w1/should-stop", "workers/w2/why", "status/waits", "claim/held"]
    {
        assert!(before.contains_key(&mounted.desk(documents)), "{documents}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    for (path, seen) in &before {
        assert!((now - 60..=now + 1).contains(&seen.mtime.0), "{}: {:?}", path.display(), seen.mtime);
    }
    for change in [
        "echo 'another note' > tasks/claim/held",
        "touch tasks/completed/held",
        "echo result > tasks/completed/held",
        "echo Result > tasks/completed/held",
        "echo 'it was found' > tasks/failed/lost",
        "touch tasks/claim/waits; true",
        "touch tasks/claim/nothing; true",
        "printf -- '---\\nneeds: [other]\\n---\\n' > tasks/waits.md",
        "sed -i s/long/longer/ tasks/wrong.md",
        "mv tasks/failed/lost tasks/ready/",
        "touch tasks/workers/self/drain && rm tasks/workers/self/drain",
        "echo '# Other' > tasks/other.md",
        "rm tasks/free.md",
    ] {
        mounted.sh("w1", change).ok();
        let after = look();
        for (path, now) in &after {
            if let Some(then) = before.get(path).filter(|then| then.content != now.content) {
                assert!(then.mtime < now.mtime, "{change}: {} {:?}", path.display(), (then, now));
            }
        }
        assert_ne!(before, after, "{change} changes something");
        before = after;
    }
}

#[test]
fn c1_nothing_on_an_empty_desk_is_older_than_the_desk() {
    let project = project!();
    for _ in 0..2 {
        let start = std::time::SystemTime::now();
        let mut mounted = project.mount(&[]);
        mounted.sh("w1", "cat tasks/workers/self/*").ok();
        let mut seen = BTreeMap::new();
        all_files(&mounted.tasks(), &mut seen);
        assert!(seen.contains_key(&mounted.desk("workers/w1/should-stop")));
        for path in seen.keys() {
            // The kernel's clock ticks in milliseconds, as the daemon's does.
            let old = start - std::time::Duration::from_millis(20);
            assert!(fs::metadata(path).unwrap().modified().unwrap() >= old, "{}", path.display());
        }
        mounted.stop();
    }
}

#[test]
fn c1_one_open_is_one_document() {
    let project = project!();
    let mounted = of_every_state(&project);
    let mut open = fs::File::open(mounted.desk("queue.json")).unwrap();
    let mut text = vec![0; 20];
    open.read_exact(&mut text).unwrap();
    let size = open.metadata().unwrap().len();
    mounted.sh("w1", "echo 'a much longer note than before' > tasks/claim/held").ok();
    mounted.sh("w1", "touch tasks/completed/held").ok();
    open.read_to_end(&mut text).unwrap();
    // fstat(2) shows the newest document: the kernel does not tell the daemon for which open it asks.
    assert_eq!(text.len() as u64, size);
    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(document["held"]["status"], "claimed");
    assert_eq!(document["held"]["note"], "note");
    open.seek(SeekFrom::Start(0)).unwrap();
    assert_eq!(open.read(&mut [0; 1]).unwrap(), 1);
    assert_eq!(mounted.json("queue.json")["held"]["status"], "completed");
}

#[test]
fn c1_events_grow_while_they_are_followed() {
    let project = project!();
    let mounted = of_every_state(&project);
    let follow =
        "tail -n +1 -F tasks/events.jsonl > out & tail=$!; exec 3< tasks/events.jsonl; cat <&3 > /dev/null
        echo new > tasks/claim/held; cat <&3
        until grep -q 'noted.*new' out; do sleep 0.05; done; kill $tail";
    let read = mounted.sh("w1", follow).ok();
    assert!(
        read.contains(r#""event":"noted""#) && read.contains("new") && read.lines().count() == 1,
        "{read}"
    );
    let events = mounted.read("events.jsonl");
    for (line, seq) in events.lines().zip(1..) {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["seq"], seq, "positions have no gaps");
    }
    assert_eq!(events, project.log());
}

#[test]
fn c2_reading_changes_nothing() {
    let project = project!();
    let mounted = of_every_state(&project);
    fs::write(project.source().join("file.txt"), "text\n").unwrap();
    let before = project.log();
    // A worker may read everything, and so may an operator and a worker that is new to the daemon.
    for worker in ["w1", "nobody-knows-me"] {
        mounted.sh(worker, "grep -r . . > /dev/null").ok();
        mounted.sh(worker, "find -L . -type f -exec cat {} + > /dev/null").ok();
        mounted.sh(worker, "tar -cf - . | cat > /dev/null; exit ${PIPESTATUS[0]}").ok();
        mounted.sh(worker, "ls -laR . > /dev/null && du -s . > /dev/null").ok();
    }
    let copy = format!("rsync -a ./ {}/copy/", project.dir().display());
    mounted.operator(&copy).ok();
    // A refused write leaves no event either.
    mounted.sh("w1", "echo x > tasks/queue.json").refused("Permission denied");
    assert_eq!(project.log(), before);
    let again = format!("rsync -ai --out-format=%n ./ {}/copy/", project.dir().display());
    let changed = mounted.operator(&again).ok();
    // These documents show the remaining time and the silent workers, so they change by themselves.
    let with_time = ["workers", "tasks/dashboard.html", "tasks/summary.json", "tasks/metrics.prom"];
    let moved = |line: &&str| !line.ends_with('/') && !with_time.iter().any(|name| line.contains(name));
    assert_eq!(changed.lines().find(moved), None, "a second copy finds nothing new");
}

#[test]
fn many_opens_leave_no_descriptor_open() {
    let project = project!();
    let mounted = of_every_state(&project);
    let times = some_of(40).count();
    let use_it = format!("for n in $(seq {times}); do
            cat tasks/queue.json tasks/status/* tasks/workers/*/* tasks/*.md tasks/events.jsonl file > /dev/null
            echo $n >> file; echo $n > tasks/claim/held; echo $n > tasks/notes.txt; ls tasks/* > /dev/null
            touch tasks/completed/nothing tasks/claim/free; echo $n > tasks/t.md; mv tasks/t.md tasks/u.md
        done 2>/dev/null; true");
    mounted.sh("w1", &use_it).ok();
    // The daemon keeps two descriptors of each recent process, up to a limit that few attempts do not reach.
    let of_processes = |to: &str| to.starts_with("/proc/") || to == "anon_inode:[pidfd]";
    let open = || mounted.daemon_fds().iter().filter(|to| !of_processes(to)).count();
    let few = open();
    (0..3).for_each(|_| drop(mounted.sh("w1", &use_it).ok()));
    // The daemon closes descriptors that were unused for a second.
    until("descriptors are closed", || open() <= few);
}
