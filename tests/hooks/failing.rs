//! Hooks while the desk does not answer. Every hook soon lets the agent continue or stop. It leaves no process that the client would
//! wait for, and none that outlives the mount.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Agent, CLIENTS, SHELLS, install, stop_input};
use crate::harness::project;
use crate::process::until;
use crate::shown::{HELD, Shown, looks_like_a_desk};

pub(crate) const HOOKS: [&str; 4] = ["stop", "session-start", "session-end", "failed-write"];
/// The time limit of a hook that gives up after 0.8 s, on a machine where all other tests run at the same time.
const SOON: Duration = Duration::from_millis(2500);

/// Input that makes every hook read the desk.
pub(crate) fn input(client: &str, hook: &str) -> &'static str {
    if hook == "stop" { stop_input(client) } else { r#"{"hook_event_name":"X","error":"EBUSY"}"# }
}

/// The processes that have this entry in their environment.
pub(crate) fn with_variable(entry: &str) -> Vec<String> {
    let carries = |pid: &Path| {
        let environment = fs::read(pid.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
    };
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let found = processes.filter(|pid| carries(pid));
    found
        .map(|pid| format!("{} {}", pid.display(), fs::read_to_string(pid.join("comm")).unwrap_or_default()))
        .collect()
}

#[test]
fn without_a_mount_there_is_nothing_to_say() {
    let project = project!();
    let bare = project.dir().join("bare");
    fs::create_dir(&bare).unwrap();
    install(&project);
    for (client, _) in CLIENTS {
        for shell in SHELLS {
            for hook in HOOKS {
                // Without a mount, and in a project without hooks.
                for place in [project.source(), &bare] {
                    let answer = Agent::new(client, "w1", &project, place).shell(shell).ask(
                        hook,
                        60,
                        input(client, hook),
                    );
                    answer.is("");
                    assert!(answer.took < SOON, "{answer:?}");
                }
            }
        }
    }
}

#[test]
fn a_dead_mount_lets_everybody_stop() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mut mounted = project.mount(&[]);
    let mut standing = Vec::new();
    for (client, _) in CLIENTS {
        for shell in SHELLS {
            let agent = Agent::new(client, "w1", &project, mounted.path()).shell(shell);
            standing.extend(HOOKS.map(|hook| (client, hook, agent.stands(hook, 60))));
        }
    }
    mounted.kill9();
    for (client, hook, standing) in standing {
        let answer = standing.ask(input(client, hook));
        answer.is("");
        assert!(answer.took < SOON, "{client} {hook}: {answer:?}");
    }
}

#[test]
fn a_mount_that_hangs_lets_everybody_stop_within_a_second_or_so() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mut mounted = project.mount(&[]);
    let mark = project.dir().display().to_string();
    let mut standing = Vec::new();
    for (client, _) in CLIENTS {
        for shell in SHELLS {
            let agent = Agent::new(client, "w1", &project, mounted.path()).shell(shell);
            let agent = agent.set("CREWFS_PATIENCE", "0.8").set("CREWFS_TEST_MARK", &mark);
            standing.extend(HOOKS.map(|hook| (client, hook, agent.stands(hook, 60))));
        }
    }
    let daemon = Pid::from_raw(mounted.pid() as i32).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    // If the kernel has the tree cached, the hook script can be read. Only root may drop the caches.
    let _ = fs::write("/proc/sys/vm/drop_caches", "2");
    // When a hook has answered, all its outputs were closed, while its process that reads the mount still hangs.
    let asked: Vec<_> = standing
        .into_iter()
        .map(|(client, hook, standing)| {
            (client, hook, std::thread::spawn(move || standing.ask(input(client, hook))))
        })
        .collect();
    for (client, hook, asked) in asked {
        let answer = asked.join().unwrap();
        answer.is("");
        assert!(answer.took < SOON * 4, "{client} {hook}: {answer:?}");
    }
    let mark = format!("CREWFS_TEST_MARK={mark}");
    assert!(!with_variable(&mark).is_empty(), "nothing hangs, so nothing was tested");
    // The daemon's death ends its connection, so every waiting call returns.
    mounted.kill9();
    until("what was left behind has ended", || with_variable(&mark).is_empty());
}

#[test]
fn one_hook_on_a_mount_that_hangs_takes_a_second() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let agent = Agent::new("claude", "w1", &project, mounted.path()).set("CREWFS_PATIENCE", "0.8");
    // First with the tree cached, so that the desk hangs; then not cached, so that reading the hook script hangs.
    agent.stands("stop", 60).ask(stop_input("claude"));
    let daemon = Pid::from_raw(mounted.pid() as i32).unwrap();
    for forget in ["", "2"] {
        let standing = agent.stands("stop", 60);
        kill_process(daemon, Signal::STOP).unwrap();
        let _ = fs::write("/proc/sys/vm/drop_caches", forget);
        let answer = standing.ask(stop_input("claude"));
        kill_process(daemon, Signal::CONT).unwrap();
        answer.is("");
        assert!(answer.took >= Duration::from_millis(700) && answer.took < SOON, "{answer:?}");
    }
}

#[test]
fn what_is_no_answer_is_not_passed_on() {
    let project = project!();
    install(&project);
    let desk = project.source().join("tasks/workers/self");
    looks_like_a_desk(&project.source().join("tasks"));
    let Some(shown) = Shown::new(&project) else { return };
    let agents = SHELLS.map(|shell| Agent::new("claude", "w1", &project, shown.path()).shell(shell));
    let twice = HELD.repeat(2);
    let answers: [&[u8]; 9] = [
        b"",
        b"\n",
        b"garbage\n",
        b"{\"decision\":\"block\"",
        b"{\"decision\":\"block\",\"reason\":\"\"}\n",
        twice.as_bytes(),
        b"{\"decision\":\"block\",\"reason\":\"go on\"}, \n",
        b"{\"decision\":\"block\",\"reason\":\"go\n on\"}\n",
        b"\xff\x00\xfe\n",
    ];
    for agent in &agents {
        for answer in answers {
            fs::write(desk.join("should-stop"), answer).unwrap();
            agent.stop(0).is("");
        }
        fs::remove_file(desk.join("should-stop")).unwrap();
        agent.stop(0).is("");
        fs::write(desk.join("should-stop"), HELD).unwrap();
        agent.stop(0).is(HELD);
    }
}

#[test]
fn a_hook_that_is_no_script_keeps_nobody() {
    let project = project!();
    install(&project);
    for shell in SHELLS {
        for text in ["if (\n", "exit 2\n", ")\n", "\u{0}\u{1}\n"] {
            fs::write(project.source().join(".crew/hooks/stop.sh"), text).unwrap();
            let answer = Agent::new("claude", "w1", &project, project.source()).shell(shell).stop(0);
            assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), ""), "{shell} {text:?}");
        }
    }
}
