//! The identity of a caller: names from the environment, the program and the login, and the users that own names (C40, C41, C45, C46).

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::{Mounted, as_root, project};
use crate::process::{run, until};

/// The name that the script's `readlink tasks/workers/self` prints.
fn name(mounted: &Mounted, worker: &str, script: &str) -> String {
    mounted.sh(worker, script).ok().trim().to_string()
}

#[test]
fn c40_a_name_comes_from_the_environment_of_the_process_or_its_nearest_ancestor() {
    let project = project!();
    let mounted = project.mount(&[]);
    assert_eq!(name(&mounted, "w1", "readlink tasks/workers/self"), "w1");
    assert_eq!(name(&mounted, "w1", "env -u CREWFS_WORKER readlink tasks/workers/self; true"), "w1");
    assert_eq!(name(&mounted, "w1", "CREWFS_WORKER=w2 readlink tasks/workers/self"), "w2");
    let nested =
        "CREWFS_WORKER=w2 sh -c 'env -u CREWFS_WORKER sh -c \"readlink tasks/workers/self; true\"; true'";
    assert_eq!(name(&mounted, "w1", nested), "w2");
    assert_eq!(name(&mounted, "w1", "CREWFS_WORKER= readlink tasks/workers/self; true"), "w1");
}

#[test]
fn c40_a_process_that_becomes_another_program_is_looked_at_again() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let script = "echo x > tasks/claim/a; exec env CREWFS_WORKER=w2 bash -c 'echo x > tasks/claim/b'";
    mounted.sh("w1", script).ok();
    assert_eq!(mounted.json("status/a")["worker"], "w1");
    assert_eq!(mounted.json("status/b")["worker"], "w2");
    let python = "python3 -c \"
import os
print(os.readlink('tasks/workers/self'), flush=True)
os.environ['CREWFS_WORKER'] = 'w3'
print(os.readlink('tasks/workers/self'), flush=True)
os.execvp('readlink', ['readlink', 'tasks/workers/self'])\"";
    assert_eq!(mounted.sh("w1", python).ok(), "w1\nw1\nw3\n", "what counts is the environment at the start");
}

#[test]
fn c40_threads_belong_to_their_process() {
    let project = project!();
    (0..4).for_each(|n| project.task(&format!("t{n}"), "# T\n"));
    let mounted = project.mount(&[]);
    let script = "python3 -c \"
import threading
def claim(n):
    open(f'tasks/claim/t{n}', 'x').close()
threads = [threading.Thread(target=claim, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]\"";
    mounted.sh("w1", script).ok();
    assert_eq!(mounted.json("workers/w1/status")["claims"].as_array().unwrap().len(), 4);
}

#[test]
fn c40_an_agent_program_is_known_by_its_name() {
    let project = project!();
    project.task("a", "# T\n");
    project.task("b", "# T\n");
    let mounted = project.mount(&[]);
    let claude = project.dir().join("claude");
    fs::copy("/bin/bash", &claude).unwrap();
    let script =
        r#""$0" -c 'echo $$; bash -c "touch tasks/claim/a; readlink tasks/workers/self; true"; true'"#;
    let mut command = mounted.worker("");
    command.arg(script).arg(&claude);
    let output = run(command).ok();
    let (pid, name) = output.trim().split_once('\n').unwrap();
    assert_eq!(name, format!("claude-{pid}"));
    // The agent has ended, and its claim with it.
    let claimed = format!(r#""event":"claimed","task":"a","worker":"{name}"}}"#);
    assert!(mounted.read("events.jsonl").contains(&claimed));

    // A name in the environment precedes the program's name.
    let mut command = mounted.worker("");
    command.arg(r#"CREWFS_WORKER=w1 "$0" -c 'readlink tasks/workers/self; true'"#).arg(&claude);
    assert_eq!(run(command).ok(), "w1\n");

    // The script that an interpreter runs counts as the program.
    let codex = project.dir().join("codex.py");
    fs::write(&codex, "import os\nprint(os.getpid(), os.readlink('tasks/workers/self'))\n").unwrap();
    let mut command = mounted.worker("");
    command.arg(r#"python3 "$0"; true"#).arg(&codex);
    let output = run(command).ok();
    let (pid, name) = output.trim().split_once(' ').unwrap();
    assert_eq!(name, format!("codex-{pid}"));
}

#[test]
fn c40_else_it_is_the_login_name() {
    as_root!();
    let project = project!();
    let mounted = project.mount(&[]);
    assert_eq!(mounted.operator("readlink tasks/workers/self").ok().trim(), "root");
    let mut nobody = String::new();
    for (uid, expected) in [(65534, "nobody"), (4242, "uid-4242")] {
        let script = format!("setpriv --reuid={uid} --clear-groups readlink tasks/workers/self");
        nobody = mounted.operator(&script).ok();
        assert_eq!(nobody.trim(), expected);
    }
    assert!(!nobody.is_empty());
}

#[test]
fn c40_what_is_no_name_is_refused() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    for bad in ["two words", "self", "../w1", "-w", &"x".repeat(65), "wörker"] {
        mounted.sh(bad, "touch tasks/claim/a").refused("Permission denied");
        // The message is in the `why` of the login name.
        assert_eq!(mounted.sh(bad, "cat tasks/workers/self/should-stop").ok(), "");
        assert_ne!(mounted.sh(bad, "cat tasks/workers/self/why").ok(), "");
        mounted.sh(bad, "cat tasks/queue.json > /dev/null").ok();
    }
    assert_eq!(mounted.state("a"), "ready");
}

#[test]
fn c40_everybody_meets_their_own_directory() {
    let project = project!();
    project.task("a", "# Do A\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    assert_eq!(mounted.sh("w1", "cat tasks/workers/self/task workers/self/task").ok(), "# Do A\n# Do A\n");
    mounted.sh("w2", "cat tasks/workers/self/task").refused("No such file");
    assert_eq!(mounted.sh("w2", "cat tasks/workers/w1/task").ok(), "# Do A\n");
    mounted.sh("w2", "ls tasks/workers/nobody").refused("No such file");
    assert_eq!(mounted.sh("w2", "ls tasks/workers").ok(), "self\nw1\nw2\n");
    let workers = mounted.json("workers.json");
    assert_eq!((&workers["w1"]["status"], &workers["w2"]["status"]), (&"working".into(), &"idle".into()));
}

#[test]
fn c41_a_name_belongs_to_the_user_who_used_it_first() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    ["a", "b", "c"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    mounted.sh_as(1001, "w1", "touch tasks/claim/a").ok();
    mounted.sh_as(1002, "w1", "touch tasks/claim/b").refused("Permission denied");
    mounted.sh_as(1002, "w1", "echo stolen > tasks/completed/a").refused("Permission denied");
    mounted.sh_as(1002, "w1", "rm -f tasks/claim/a").refused("Permission denied");
    mounted.sh_as(1002, "w1", "echo stolen > tasks/claim/a").refused("Permission denied");
    // `why` shows the message to the user that made the request, not to the owner of the name.
    let sentence = "the name w1 belongs to uid 1001; set CREWFS_WORKER to a name of your own";
    let why = mounted.read("workers/uid-1002/why");
    assert!(why.contains(sentence), "{why}");
    let why = mounted.read("workers/w1/why");
    assert!(!why.contains(sentence), "{why}");
    let status = mounted.json("status/a");
    assert_eq!((&status["status"], &status["note"]), (&"claimed".into(), &serde_json::Value::Null));
    mounted.sh("w1", "echo 'root may' > tasks/claim/a").ok();
    mounted.sh_as(1002, "w2", "touch tasks/claim/b").ok();
    mounted.sh_as(1001, "w1", "touch tasks/completed/a").ok();
    // The name still belongs to that user after a restart.
    drop(mounted);
    let mounted = project.mount(&[]);
    mounted.sh_as(1001, "w2", "touch tasks/claim/c").refused("Permission denied");
}

#[test]
fn c22_c24_operators_are_those_who_mounted_without_a_workers_name() {
    as_root!();
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/paused").refused("Permission denied");
    assert!(mounted.read("workers/w1/why").contains("pausing the queue is for operators"));
    mounted.sh("w1", "touch tasks/workers/w2/drain").refused("");
    let other = "setpriv --reuid=1001 --clear-groups touch tasks/paused";
    mounted.operator(other).refused("Permission denied");
    mounted.operator("touch tasks/paused").ok();
    mounted.sh("w1", "rm -f tasks/paused").refused("Permission denied");
    assert_eq!(mounted.sh("w1", "cat tasks/paused").ok().lines().count(), 1);
    mounted.operator("rm tasks/paused && touch tasks/claim/a").ok();
    assert_eq!(mounted.json("status/a")["worker"], "root");
}

#[test]
fn c45_names_of_users_and_of_keys_are_taken_by_no_other_user() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let keys = project.dir().join("keys");
    let line = "restrict,command=\"crewfs sftp-server --worker far-1 --root '/p'\" ssh-ed25519 AAAA far-1\n";
    fs::write(&keys, line).unwrap();
    let mounted = project.mount(&[&format!("keys=nobody:{}", keys.display())]);
    for name in ["root", "nobody", "uid-1002", "claude-12.1002", "far-1"] {
        mounted.sh_as(1001, name, "touch tasks/claim/a").refused("Permission denied");
        mounted.sh_as(1001, name, "mkdir tasks/workers/self/drain").refused("Permission denied");
        mounted.sh_as(1001, name, &format!("touch tasks/workers/{name}/drain")).refused("Permission denied");
        mounted.sh_as(1001, name, &format!("echo gpu > tasks/workers/{name}/capabilities")).refused("");
    }
    let why = mounted.read("workers/uid-1001/why");
    assert!(why.contains("the name far-1 belongs to uid 65534"), "{why}");
    assert_eq!(mounted.state("a"), "ready");
    mounted.sh_as(65534, "far-1", "touch tasks/claim/a && touch tasks/completed/a").ok();
    mounted.sh_as(1002, "", "touch tasks/claim/b && touch tasks/completed/b").ok();
    assert_eq!(mounted.json("status/b")["worker"], "uid-1002");
}

#[test]
fn c45_a_generated_name_that_was_taken_in_advance_is_another_one() {
    as_root!();
    let project = project!();
    project.is_for_everybody();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    let claude = project.dir().join("claude");
    fs::copy("/bin/bash", &claude).unwrap();
    let (said, go) = (project.dir().join("said"), project.dir().join("go"));
    fs::write(&said, "").unwrap();
    fs::set_permissions(&said, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let script = format!(
        "echo $$ > {}; until [ -e {} ]; do sleep 0.05; done; cd {} && touch tasks/claim/a && readlink tasks/workers/self; true",
        said.display(),
        go.display(),
        mounted.path().display()
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid=1002", "--regid=1002", "--clear-groups"]).arg(&claude).args(["-c", &script]);
    command.env_remove("CREWFS_WORKER").current_dir("/").stdout(Stdio::piped());
    let agent = command.spawn().unwrap();
    until("the agent runs", || fs::read_to_string(&said).unwrap().ends_with('\n'));
    let pid = fs::read_to_string(&said).unwrap().trim().to_owned();
    let taken = format!("claude-{pid}");
    mounted.sh_as(1001, &taken, &format!("touch tasks/workers/{taken}/drain")).ok();
    fs::write(&go, "").unwrap();
    let output = agent.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{taken}.1002"));
    let claimed = format!(r#""event":"claimed","task":"a","worker":"{taken}.1002""#);
    assert!(mounted.read("events.jsonl").contains(&claimed));
}

#[test]
fn c46_operators_may_be_named_users_alone() {
    as_root!();
    let project = project!();
    // Operators also need the permission to create the name.
    project.is_for_everybody();
    let mounted = project.mount(&["operators=nobody"]);
    mounted.operator("touch tasks/paused").refused("Permission denied");
    let operator = |script: &str| mounted.operator(&format!("setpriv --reuid=65534 --clear-groups {script}"));
    operator("touch tasks/paused").ok();
    mounted.operator("rm -f tasks/paused").refused("Permission denied");
    operator("rm tasks/paused").ok();
}
