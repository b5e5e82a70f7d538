//! The stop hook while the desk answers. It prints the answer of should-stop, waits while there is nothing to do, and never keeps an
//! agent running without end.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::agent::{Agent, CLIENTS, SHELLS, install, stop_answer};
use crate::harness::project;
use crate::process::until;

const READY: &str = "{\"decision\":\"block\",\"reason\":\"a is ready. Claim it with: touch tasks/claim/next and then read tasks/workers/self/task\"}\n";
const HELD: &str = "{\"decision\":\"block\",\"reason\":\"You hold a. Read tasks/workers/self/task, do what it says, then finish with: echo 'what you did' > tasks/completed/a\"}\n";
const WAIT: &str = "{\"decision\":\"block\",\"reason\":\"No task is ready yet. Wait a little, then look again: sleep 15; ls tasks/ready\"}\n";

#[test]
fn every_client_in_every_shell_is_told_what_should_stop_says() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    fs::create_dir(project.source().join("src")).unwrap();
    let mounted = project.mount(&[]);
    let below = mounted.path().join("src");
    for (client, _) in CLIENTS {
        for shell in SHELLS {
            let agent = |place| Agent::new(client, "w1", &project, place).shell(shell);
            agent(mounted.path()).stop(60).is(&stop_answer(client, READY));
            // Also from a directory below the project.
            agent(&below).stop(60).is(&stop_answer(client, READY));
            mounted.sh("w1", "touch tasks/claim/a").ok();
            agent(mounted.path()).stop(60).is(&stop_answer(client, HELD));
            // The agent completes the tasks that it holds. Draining only stops new claims.
            mounted.sh("w1", "touch tasks/workers/self/drain").ok();
            agent(mounted.path()).stop(60).is(&stop_answer(client, HELD));
            mounted.sh("w1", "rm tasks/claim/a").ok();
            agent(mounted.path()).stop(60).is("");
            mounted.sh("w1", "rm tasks/workers/self/drain").ok();
        }
    }
}

#[test]
fn it_waits_for_as_long_as_it_may_and_then_says_so() {
    let project = project!();
    install(&project);
    project.task("waits", "---\nneeds: [never]\n---\n");
    let mounted = project.mount(&[]);
    for (client, _) in CLIENTS {
        let answer = Agent::new(client, "w1", &project, mounted.path()).stop(2);
        answer.is(&stop_answer(client, WAIT));
        assert!(answer.took >= Duration::from_secs(1), "{answer:?}");
    }
    // A ready task cannot be claimed while the queue is paused, so the hook waits as usual.
    project.task("a", "# A\n");
    mounted.until_state("a", "ready");
    mounted.operator("touch tasks/paused").ok();
    Agent::new("claude", "w1", &project, mounted.path()).stop(1).is(WAIT);
}

#[test]
fn it_waits_until_the_idle_time_is_over_and_no_longer() {
    let project = project!();
    install(&project);
    let mounted = project.mount(&["idle_timeout=2s"]);
    for (client, worker) in [("claude", "w1"), ("cursor", "w2")] {
        let agent = Agent::new(client, worker, &project, mounted.path());
        let answer = agent.stop(60);
        answer.is("");
        assert!(answer.took >= Duration::from_secs(1), "{answer:?}");
        let answer = agent.stop(60);
        answer.is("");
        assert!(answer.took < Duration::from_secs(2), "{answer:?}");
    }
}

#[test]
fn a_task_that_becomes_ready_ends_the_wait() {
    let project = project!();
    install(&project);
    let mounted = project.mount(&[]);
    for (client, _) in CLIENTS {
        let agent = Agent::new(client, client, &project, mounted.path());
        let (sender, receiver) = channel();
        std::thread::spawn(move || sender.send((agent.stop(60), Instant::now())));
        until("the worker was heard of", || mounted.desk("workers").join(client).exists());
        let published = Instant::now();
        mounted.sh("w0", "echo '# A' > tasks/a.md").ok();
        let (answer, answered) = receiver.recv().unwrap();
        answer.is(&stop_answer(client, READY));
        // One pause of a second, and the time that a busy machine takes to read the desk.
        assert!(answered - published < Duration::from_secs(4), "{answer:?}");
        mounted.sh("w0", "rm tasks/a.md").ok();
    }
}

#[test]
fn whoever_interrupts_cursor_means_it() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let agent = Agent::new("cursor", "w1", &project, mounted.path());
    for status in ["aborted", "error"] {
        agent
            .ask("stop", 60, &format!(r#"{{"hook_event_name":"stop","status": "{status}","loop_count":0}}"#))
            .is("");
    }
}

#[test]
fn thirty_answers_in_a_row_with_progress_and_ten_without() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    for (client, _) in CLIENTS {
        let agent = Agent::new(client, "w1", &project, mounted.path());
        // The count is the same for all clients, so one full-length run is enough.
        for n in 0..if client == "claude" { 30 } else { 3 } {
            mounted.sh("w1", &format!("echo '{client} {n}' > tasks/claim/a")).ok();
            agent.stop(60).is(&stop_answer(client, HELD));
        }
        // The last answer above was the first of these ten.
        for _ in 1..10 {
            agent.stop(60).is(&stop_answer(client, HELD));
        }
        let said = "crewfs lets this agent stop: it was told 10 times to continue, and it claimed, finished and noted nothing. It still holds a; the claim ends with the session or the lease";
        let answer = agent.stop(60);
        let stdout =
            if client == "cursor" { String::new() } else { format!("{{\"systemMessage\":\"{said}\"}}\n") };
        assert_eq!((answer.stdout, answer.stderr, answer.code), (stdout, format!("{said}\n"), Some(0)));
        // An agent that is started again is told to continue again.
        agent.stop(60).is(&stop_answer(client, HELD));
    }
}

#[test]
fn sessions_count_for_themselves_and_the_number_can_be_chosen() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let agent = Agent::new("claude", "w1", &project, mounted.path()).set("CREWFS_BLOCKS", "2");
    let ask = |session: &str| agent.ask("stop", 60, &format!(r#"{{"session_id":"{session}"}}"#));
    for session in ["one", "two", "one", "two"] {
        ask(session).is(READY);
    }
    let told = "it was told 2 times to continue, and it claimed, finished and noted nothing";
    for session in ["one", "two"] {
        assert_eq!(ask(session).stderr, format!("crewfs lets this agent stop: {told}\n"));
    }
    // A session name that is no valid file name counts as no name.
    ask("../../../x").is(READY);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(agent.kept()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    let kept: Vec<_> = fs::read_dir(agent.kept()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(kept, ["w1."]);
}

#[test]
fn a_place_to_count_that_is_not_its_own_is_not_used() {
    let project = project!();
    install(&project);
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let agent = Agent::new("claude", "w1", &project, mounted.path());
    let elsewhere = project.dir().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, agent.kept()).unwrap();
    let said = "crewfs lets this agent stop: it has no private directory for its count; set XDG_RUNTIME_DIR";
    let answer = agent.stop(60);
    assert_eq!(
        (answer.stdout.as_str(), answer.code),
        (&*format!("{{\"systemMessage\":\"{said}\"}}\n"), Some(0))
    );
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn c61_the_script_alone_says_what_the_file_says() {
    let project = project!();
    project.task("a", "# A\n");
    let mounted = project.mount(&[]);
    let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/hooks/stop.sh");
    let kept = project.dir().display();
    for shell in SHELLS {
        let said = mounted.sh("w1", &format!("XDG_RUNTIME_DIR='{kept}' {shell} '{hook}'")).ok();
        assert_eq!(said, READY);
    }
    assert_eq!(mounted.sh("w1", &format!("cd / && '{hook}'")).ok(), "");
}
