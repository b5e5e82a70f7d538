//! A hook that has ended leaves nothing behind. A hook that is killed leaves nothing that keeps the mount in use, or for which its
//! client would wait. So the mount can be removed as soon as the agents have stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::agent::{Agent, CLIENTS, SHELLS, install, stop_input};
use crate::failing::{HOOKS, input, with_variable};
use crate::harness::{Project, project};
use crate::process::{run, until};

/// The directory and the open files of a process, or `None` if it has ended.
fn holds(process: &Path) -> Option<Vec<PathBuf>> {
    let mut held = vec![fs::read_link(process.join("cwd")).ok()?];
    for descriptor in fs::read_dir(process.join("fd")).ok()?.flatten() {
        held.push(fs::read_link(descriptor.path()).ok()?);
    }
    Some(held)
}

fn marked(agent: Agent, project: &Project, name: &str) -> (Agent, String) {
    let mark = project.dir().join(name).display().to_string();
    (agent.set("CREWFS_TEST_MARK", &mark), format!("CREWFS_TEST_MARK={mark}"))
}

#[test]
fn nothing_is_left_of_a_hook_that_has_ended() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    for shell in SHELLS {
        let mut mounted = project.mount(&[]);
        for (client, _) in CLIENTS {
            for hook in HOOKS {
                let agent = Agent::new(client, "w1", &project, mounted.path()).shell(shell);
                let (agent, mark) = marked(agent, &project, "ended");
                agent.ask(hook, 60, input(client, hook));
                assert_eq!(with_variable(&mark), [""; 0], "{client} {hook} {shell}");
            }
        }
        // The script itself, which is in the mount, as a user may start it by hand.
        let script =
            format!("cd '{}' && {shell} .crew/hooks/stop.sh claude 0 </dev/null", mounted.path().display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("CREWFS_WORKER", "w1").env("XDG_RUNTIME_DIR", project.dir());
        command.env("CREWFS_PATIENCE", "10");
        assert!(run(command).ok().contains("a is ready"));
        project.crewfs(["umount".as_ref(), mounted.path().as_os_str()]).ok();
        mounted.wait();
    }
}

#[test]
fn what_outlives_a_killed_hook_stands_outside_and_holds_nothing() {
    let project = project!();
    install(&project);
    let mounted = project.mount(&[]);
    let daemon = Pid::from_raw(mounted.pid() as i32).unwrap();
    for shell in SHELLS {
        let worker = format!("w-{}", &shell[..4]);
        let agent = Agent::new("claude", &worker, &project, mounted.path()).shell(shell);
        let (agent, mark) = marked(agent, &project, shell);
        let standing = agent.stands("stop", 60);
        let agent_shell = standing.pid();
        let asked = std::thread::spawn(move || standing.ask(stop_input("claude")));
        let pauses = |pause: &str| {
            until("the hook pauses", || {
                let pauses = with_variable(&mark).into_iter().filter_map(|found| {
                    let process = PathBuf::from(found.split(' ').next()?);
                    let words = fs::read(process.join("cmdline")).ok()?;
                    let words = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
                    words.ends_with(pause).then(|| holds(&process))?
                });
                let pauses: Vec<_> = pauses.collect();
                for held in &pauses {
                    let inside = held.iter().find(|place| place.starts_with(mounted.path()));
                    assert_eq!(inside, None, "{shell}: {pause} holds {held:?}");
                    assert_eq!(held[0], Path::new("/"), "{shell}: {pause}");
                }
                !pauses.is_empty()
            });
        };
        // A pause between two reads of the desk, and one beside a read: a read takes long while the daemon is stopped.
        pauses("sleep 1");
        kill_process(daemon, Signal::STOP).unwrap();
        pauses("sleep 10");
        kill_process(daemon, Signal::CONT).unwrap();
        // The agent's shell has become the hook, or has started it.
        let of_agent = |what: &str| fs::read_to_string(format!("/proc/{agent_shell}/{what}")).unwrap();
        let hook = match of_agent("cmdline").contains("eval \"$COMMAND\"") {
            true => of_agent(&format!("task/{agent_shell}/children")).trim().parse().unwrap(),
            false => agent_shell as i32,
        };
        kill_process(Pid::from_raw(hook).unwrap(), Signal::KILL).unwrap();
        asked.join().unwrap();
        until("all has ended", || with_variable(&mark).is_empty());
    }
}
