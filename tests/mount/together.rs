//! Many workers at once: their views agree, the log holds what they did, and the daemon ends when it should (C12, C20, C27).

use std::collections::BTreeMap;
use std::fs;

use crate::harness::{Mounted, as_root, project};
use crate::process::{mounts_below, until};

/// Everything that a worker does, repeatedly, on tasks that other workers use too.
const WORK: &str = "for n in $(seq 25); do
        touch tasks/claim/next 2>/dev/null && case $((RANDOM % 5)) in
            0) rm tasks/claim/next ;;
            1) echo note $n > tasks/claim/next; mv tasks/claim/next tasks/failed/t$n ;;
            *) t=$(sed -n 's/.*\"task\": \"\\(.*\\)\".*/\\1/p' tasks/claim/next); echo \"$CREWFS_WORKER did $t\" > tasks/completed/$t ;;
        esac
        t=t$((RANDOM % 30)); touch tasks/claim/$t; mv tasks/failed/$t tasks/ready/; mv tasks/completed/$t tasks/ready/
        printf -- '---\\nneeds: [t%s]\\n---\\n' $((RANDOM % 30)) > tasks/u$((RANDOM % 10)).md; rm -f tasks/u$((RANDOM % 10)).md
        cat tasks/queue.json tasks/workers/self/should-stop > /dev/null; ls tasks/* > /dev/null; echo $n > file$n
    done 2>/dev/null; true";

fn state_of_all(mounted: &Mounted) -> BTreeMap<String, String> {
    let mut states = BTreeMap::new();
    for (directory, state) in [
        ("ready", "ready"),
        ("blocked", "blocked"),
        ("claim", "claimed"),
        ("completed", "completed"),
        ("failed", "failed"),
        ("rejected", "rejected"),
    ] {
        for id in mounted.list(directory) {
            assert_eq!(states.insert(id.clone(), state.to_string()), None, "{id} is in two places");
        }
    }
    states
}

#[test]
fn c12_c27_what_many_do_adds_up_and_survives() {
    let project = project!();
    (0..30).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    let mut mounted = project.mount(&[]);
    std::thread::scope(|scope| {
        for n in 0..5 {
            let mounted = &mounted;
            scope.spawn(move || mounted.sh(&format!("w{n}"), WORK).ok());
        }
    });
    // The daemon handles the last closes of the ended workers before this one.
    mounted.sh("w0", "echo '# Last' > tasks/last.md && ls tasks/ready/last").ok();
    let (states, queue) = (state_of_all(&mounted), mounted.json("queue.json"));
    let told: BTreeMap<String, String> = queue
        .as_object()
        .unwrap()
        .iter()
        .map(|(id, task)| (id.clone(), task["status"].as_str().unwrap().to_string()))
        .collect();
    assert_eq!(states, told);
    let mut holders = BTreeMap::<String, Vec<String>>::new();
    for (id, task) in queue.as_object().unwrap().iter().filter(|(_, task)| task["status"] == "claimed") {
        holders.entry(task["worker"].as_str().unwrap().into()).or_default().push(id.clone());
    }
    let workers = mounted.json("workers.json");
    for (name, worker) in workers.as_object().unwrap() {
        let claims = worker.get("claims").and_then(|claims| claims.as_array()).cloned().unwrap_or_default();
        let mut claims: Vec<_> = claims.iter().map(|id| id.as_str().unwrap().to_string()).collect();
        claims.sort();
        assert_eq!(claims, holders.remove(name).unwrap_or_default(), "{name}");
    }
    assert!(holders.is_empty(), "{holders:?}");
    // The log names each holder: no worker claims a task that is held.
    let mut held = BTreeMap::new();
    for line in project.log().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let task = event["task"].as_str().unwrap_or_default().to_string();
        match event["event"].as_str().unwrap() {
            "claimed" => assert_eq!(held.insert(task, event["worker"].clone()), None, "{line}"),
            "returned" | "completed" | "failed" => {
                assert_eq!(held.remove(&task).unwrap_or_default(), event["worker"], "{line}")
            }
            "withdrawn" => drop(held.remove(&task)),
            _ => {}
        }
    }
    mounted.kill9();
    drop(mounted);
    let mounted = project.mount(&[]);
    for (id, task) in mounted.json("queue.json").as_object().unwrap() {
        assert_eq!(Some(task), queue.get(id), "{id}");
    }
    assert_eq!(state_of_all(&mounted), states);
}

#[test]
fn c71_the_daemon_ends_in_the_midst_of_work() {
    let project = project!();
    (0..30).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    for _ in 0..3 {
        let mut mounted = project.mount(&[]);
        let mut workers: Vec<_> = (0..4)
            .map(|n| {
                mounted
                    .worker(&format!("w{n}"))
                    .arg(WORK)
                    .stderr(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        until("they are at work", || mounted.read("events.jsonl").matches("claimed").count() > 3);
        mounted.stop();
        for worker in &mut workers {
            until("the worker ends", || worker.try_wait().unwrap().is_some());
        }
    }
    assert_eq!(mounts_below(project.dir()), []);
    let mounted = project.mount(&[]);
    state_of_all(&mounted);
}

#[test]
fn c21_of_several_claims_the_youngest_is_the_current_one() {
    let project = project!();
    ["a", "b", "c"].iter().for_each(|id| project.task(id, &format!("# {id}\n")));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a tasks/claim/c tasks/claim/b").ok();
    assert_eq!(mounted.sh("w1", "cat tasks/workers/self/task").ok(), "# b\n");
    let give_back =
        "rm tasks/claim/next; cat tasks/workers/self/task; rm tasks/claim/a; cat tasks/workers/self/task";
    assert_eq!(mounted.sh("w1", give_back).ok(), "# c\n# c\n");
    mounted.sh("w1", "mv tasks/claim/next tasks/completed/c").ok();
    mounted.sh("w1", "cat tasks/workers/self/task").refused("No such file");
    assert_eq!(mounted.list("ready"), ["a", "b"]);
}

#[test]
fn c1_what_was_just_made_has_a_true_size_for_its_maker_too() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let script = "set -e; exec 3> tasks/claim/a; test $(stat -c %s tasks/claim/a) = $(cat tasks/claim/a | wc -c)
        echo note >&3; exec 3>&-; test $(stat -c %s tasks/claim/a) = $(cat tasks/claim/a | wc -c)
        exec 3> tasks/completed/a; printf 12345 >&3; exec 3>&-; stat -c %s tasks/completed/a; cat tasks/completed/a
        exec 3<> tasks/completed/a; echo -n 6 >&3; exec 3>&-; cat tasks/completed/a";
    assert_eq!(mounted.sh("w1", script).ok(), "5\n1234562345");
}

#[test]
fn c1_a_directorys_time_moves_with_what_is_in_it() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let times = || {
        let time = |name: &str| fs::metadata(mounted.desk(name)).unwrap().modified().unwrap();
        [time("ready"), time("claim"), time("completed"), time("status")]
    };
    for (change, moved) in [
        ("touch tasks/claim/a", [0, 1, 3].as_slice()),
        ("echo done > tasks/completed/a", &[1, 2, 3]),
        ("rm tasks/b.md", &[0, 3]),
        ("echo '# C' > tasks/c.md; ls tasks/ready", &[0, 3]),
    ] {
        let before = times();
        mounted.sh("w1", change).ok();
        let after = times();
        moved.iter().for_each(|n| assert!(before[*n] < after[*n], "{change}: {n}"));
    }
}

#[test]
fn c15_exchanged_task_files_exchange_their_tasks() {
    let project = project!();
    project.task("a", "---\npriority: low\n---\n# Was A\n");
    project.task("b", "# Was B\n");
    let mounted = project.mount(&[]);
    let exchange = "python3 -c \"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.renameat2(-100, b'tasks/a.md', -100, b'tasks/b.md', 2) == 0\"";
    mounted.sh("w1", exchange).ok();
    until("both are seen", || {
        mounted.json("status/a")["title"] == "Was B" && mounted.json("status/b")["title"] == "Was A"
    });
    assert_eq!(mounted.list("ready"), ["a", "b"]);
}

#[test]
fn noallow_other_keeps_others_out() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&["noallow_other"]);
    mounted.sh("w1", "ls tasks > /dev/null").ok();
    let look = format!("cd / && ls {}", mounted.path().display());
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=1001", "--regid=1001", "--clear-groups", "sh", "-c", &look]);
    crate::process::run(command).refused("Permission denied");
}
