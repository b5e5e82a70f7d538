//! Liveness: the daemon watches the process that identifies a worker, and the worker's claims end with that process (C31).

use std::fs;
use std::io::{BufRead, BufReader, PipeWriter, Write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Mounted, Project, project};
use crate::process::{slow, until};

/// The time within which a claim must have returned.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A shell that runs orders line by line and reports when each is done. Dropping it kills it.
struct Shell {
    child: Child,
    orders: Option<PipeWriter>,
    said: BufReader<std::process::ChildStdout>,
}

impl Shell {
    fn start(mut command: Command, mounted: &Mounted) -> Shell {
        let (orders, writer) = std::io::pipe().unwrap();
        let mut child = command
            .args(["-c", r#"while read -r order; do eval "$order"; echo "done $?"; done"#])
            .current_dir(mounted.path())
            .stdin(orders)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Shell { child, orders: Some(writer), said }
    }

    /// A shell whose program has this name, for a worker of that name. An empty worker name means none.
    fn named(project: &Project, mounted: &Mounted, program: &str, worker: &str) -> Shell {
        let mut command = Command::new(program_named(project, program));
        command.env("CREWFS_WORKER", worker);
        Shell::start(command, mounted)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Run an order that must succeed. Returns its output.
    #[track_caller]
    fn does(&mut self, order: &str) -> String {
        self.say(order);
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(self.said.read_line(&mut line).unwrap() > 0, "it ended while it was to {order}: {said}");
            match line.strip_prefix("done ") {
                Some(code) => {
                    assert_eq!(code.trim(), "0", "{order}: {said}");
                    return said;
                }
                None => said += &line,
            }
        }
    }

    /// Send an order, and do not wait for its end.
    fn say(&self, order: &str) {
        writeln!(self.orders.as_ref().unwrap(), "{order}").unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Let the shell exit with this code.
    fn exit(mut self, code: i32) {
        self.say(&format!("exit {code}"));
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shell under another name. It is a link: a copy cannot run while a test that is just forking has it open for writing.
fn program_named(project: &Project, name: &str) -> PathBuf {
    let program = project.dir().join(name);
    if !program.exists() {
        symlink("/bin/bash", &program).unwrap();
    }
    program
}

/// Whether the daemon can learn how a process ended after another process has waited for it: on Linux 6.15 and later, or as root
/// outside of namespaces.
fn endings_are_told(mounted: &Mounted) -> bool {
    let endings = &mounted.session()["endings"];
    let told = endings["by"] != "nothing";
    if !told {
        assert!(std::env::var_os("CI").is_none(), "{endings}");
        eprintln!("skipped: it cannot be known how a process ended: {}", endings["why"]);
    }
    told
}

/// Check that a claim returns at once and for this reason, as far as the kernel reports how a process ended.
#[track_caller]
fn returns(mounted: &Mounted, task: &str, reason: &str) {
    let start = Instant::now();
    mounted.until_state(task, "ready");
    assert!(start.elapsed() < slow(AT_ONCE), "{:?}", start.elapsed());
    let status = mounted.json(&format!("status/{task}"));
    let lost = status["lost_claims"].as_array().unwrap().last().unwrap();
    if lost["reason"] != reason {
        // An older kernel reports it only until the parent has waited for the process.
        let untold = reason.split_once(") ").map(|(process, _)| format!("{process}) ended"));
        assert!(
            !endings_are_told(mounted) && lost["reason"].as_str() == untold.as_deref(),
            "{lost} for {reason}"
        );
    }
}

/// Check that a claim still stands after the daemon has handled all earlier events. For that, another process claims a probe task and is
/// killed, and the check waits until the probe returns.
#[track_caller]
fn stays(project: &Project, mounted: &Mounted, task: &str, worker: &str) {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let (probe, name) = (format!("probe{number}"), format!("prober{number}"));
    project.task(&probe, "# Probe\n");
    mounted.until_state(&probe, "ready");
    let mut shell = Shell::named(project, mounted, "claude", &name);
    shell.does(&format!("touch tasks/claim/{probe}"));
    shell.kill9();
    mounted.until_state(&probe, "ready");
    mounted.operator(&format!("rm tasks/{probe}.md")).ok();
    let status = mounted.json(&format!("status/{task}"));
    assert_eq!((&status["status"], &status["worker"]), (&"claimed".into(), &worker.into()), "{status}");
}

#[test]
fn c31_the_end_of_an_agent_is_the_end_of_its_claims() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let mut agent = Shell::named(&project, &mounted, "claude", "");
    agent.does("touch tasks/claim/a; mv tasks/ready/b tasks/claim/");
    let (pid, name) = (agent.pid(), format!("claude-{}", agent.pid()));
    assert_eq!(mounted.json("status/a")["worker"], name);
    agent.kill9();
    let reason = format!("its process (claude, {pid}) was killed by signal 9");
    returns(&mounted, "a", &reason);
    returns(&mounted, "b", &reason);
    // The exit code does not matter: an agent that ends with success leaves its task behind too.
    let mut agent = Shell::named(&project, &mounted, "codex", "w1");
    agent.does("mkdir tasks/claim/a");
    let pid = agent.pid();
    agent.exit(0);
    let how = if endings_are_told(&mounted) { "ended with exit code 0" } else { "ended" };
    returns(&mounted, "a", &format!("its process (codex, {pid}) {how}"));
    let why = mounted.read("workers/w1/why");
    assert!(
        why.contains("your claim of a ended: its process (codex, ") && why.ends_with("; it is ready\n"),
        "{why}"
    );
}

#[test]
fn c31_an_agent_counts_above_the_shells_that_it_starts_and_above_its_own_kind() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    let codex = program_named(&project, "codex");
    let mut agent = Shell::named(&project, &mounted, "claude", "w1");
    agent.does(&format!("{} -c 'bash -c \"touch tasks/claim/a; true\"; true'", codex.display()));
    // The agent's children have ended; the agent has not.
    stays(&project, &mounted, "a", "w1");
    agent.kill9();
    returns(&mounted, "a", &format!("its process (claude, {}) was killed by signal 9", agent.pid()));
    // An agent that does not carry the worker's name itself but passes it to its children.
    let mut agent = Shell::named(&project, &mounted, "claude", "");
    agent.does("CREWFS_WORKER=w2 bash -c 'touch tasks/claim/a; exit 3'; true");
    stays(&project, &mounted, "a", "w2");
    agent.exit(1);
    until("it is ready", || mounted.state("a") == "ready");
}

#[test]
fn c31_a_command_that_ends_well_keeps_what_it_claimed() {
    let project = project!();
    ["a", "b", "c"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/a").ok();
    mounted.sh("w1", "bash -c 'mv tasks/ready/b tasks/claim/; true'; true").ok();
    stays(&project, &mounted, "a", "w1");
    stays(&project, &mounted, "b", "w1");
    // A later process that claims nothing is not watched, however it ends.
    let looks = format!("{}; cat tasks/claim/a tasks/claim/next; exit 1", "sleep 0.2");
    mounted.sh("w1", &looks).exits(1, "");
    stays(&project, &mounted, "a", "w1");
    // Two processes: the first has ended by the time of the claim.
    mounted.sh("w3", "setsid bash -c 'sleep 0.1; touch tasks/claim/c' & exit 1").exits(1, "");
    mounted.until_state("c", "claimed");
    stays(&project, &mounted, "c", "w3");
}

#[test]
fn c31_a_program_that_ends_badly_loses_what_it_claimed() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    if !endings_are_told(&mounted) {
        return;
    }
    for (worker, script, how) in [
        ("w1", "touch tasks/claim/a; echo $$; exit 3", "ended with exit code 3"),
        ("w2", "touch tasks/claim/a; echo $$; kill -9 $$", "was killed by signal 9"),
        ("w3", "ln tasks/ready/a tasks/claim/a; echo $$; exec false", "ended with exit code 1"),
    ] {
        let ran = mounted.sh(worker, script);
        returns(&mounted, "a", &format!("its process (bash, {}) {how}", ran.stdout.trim()));
        // Each lost claim is one attempt (C32). An operator completes the task and makes it ready anew.
        let lost = mounted.json("status/a")["lost_claims"].as_array().unwrap().len();
        assert_eq!(lost, 1);
        mounted
            .operator(
                "touch tasks/claim/a && echo x > tasks/completed/a && mv tasks/completed/a tasks/ready/",
            )
            .ok();
    }
}

#[test]
fn c31_a_killed_parent_takes_the_claim_along_though_its_child_lives_and_the_child_is_told() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    let mut agent = Shell::named(&project, &mounted, "claude", "w1");
    let fifo = project.dir().join("fifo");
    let order = format!(
        "mkfifo {0}; (read -r go < {0}; echo late > tasks/completed/a; echo $? > {0}.code) & touch tasks/claim/a",
        fifo.display()
    );
    agent.does(&order);
    agent.kill9();
    returns(&mounted, "a", &format!("its process (claude, {}) was killed by signal 9", agent.pid()));
    // The agent's surviving child may no longer end the task (C24), whichever worker holds it.
    mounted.sh("w2", "touch tasks/claim/a").ok();
    fs::write(&fifo, "go\n").unwrap();
    let code = fifo.with_extension("code");
    until("the child tried", || fs::read_to_string(&code).is_ok_and(|code| code.ends_with('\n')));
    assert_ne!(fs::read_to_string(&code).unwrap(), "0\n");
    assert_eq!(mounted.json("status/a")["worker"], "w2");
    let why = mounted.read("workers/w1/why");
    assert!(why.contains("was killed by signal 9; w2 holds it since"), "{why}");
}

#[test]
fn c31_what_follows_an_exec_is_the_same_process() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let mut agent = Shell::named(&project, &mounted, "claude", "w1");
    agent.does("touch tasks/claim/a");
    agent.say("exec bash -c 'touch tasks/claim/b; sleep 60'");
    mounted.until_state("b", "claimed");
    stays(&project, &mounted, "a", "w1");
    agent.kill9();
    let reason = format!("its process (claude, {}) was killed by signal 9", agent.pid());
    returns(&mounted, "a", &reason);
    returns(&mounted, "b", &reason);
}

#[test]
fn c31_of_two_processes_the_last_one_counts() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let mut first = Shell::named(&project, &mounted, "claude", "w1");
    let mut second = Shell::named(&project, &mounted, "codex", "w1");
    first.does("touch tasks/claim/a");
    second.does("cat tasks/claim/a > file");
    first.kill9();
    stays(&project, &mounted, "a", "w1");
    second.does("touch tasks/claim/b");
    second.kill9();
    let reason = format!("its process (codex, {}) was killed by signal 9", second.pid());
    returns(&mounted, "a", &reason);
    returns(&mounted, "b", &reason);
}

#[test]
fn c31_an_orphan_is_followed_by_itself() {
    let project = project!();
    ["a", "b"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&[]);
    let fifo = project.dir().join("fifo");
    let mut parent = Shell::named(&project, &mounted, "parent", "w1");
    // The daemon saw the child while the child had a parent.
    let order = format!(
        "mkfifo {0}; {1} -c 'touch tasks/claim/a; read -r go < {0}; touch tasks/claim/b; echo $$ > {0}.pid; sleep 60' &",
        fifo.display(),
        program_named(&project, "gemini").display(),
    );
    parent.does(&order);
    mounted.until_state("a", "claimed");
    parent.exit(1);
    stays(&project, &mounted, "a", "w1");
    fs::write(&fifo, "go\n").unwrap();
    mounted.until_state("b", "claimed");
    let file = fifo.with_extension("pid");
    let pid = || fs::read_to_string(&file).ok()?.trim().parse::<i32>().ok();
    until("the child tells its number", || pid().is_some());
    kill_process(Pid::from_raw(pid().unwrap()).unwrap(), Signal::KILL).unwrap();
    returns(&mounted, "b", &format!("its process (gemini, {}) was killed by signal 9", pid().unwrap()));
}

#[test]
fn c31_after_a_restart_the_process_is_found_again_and_why_is_still_known() {
    let project = project!();
    project.task("a", "# T\n");
    let mut mounted = project.mount(&[]);
    let place = mounted.path().display().to_string();
    let mut agent = Shell::named(&project, &mounted, "claude", "w1");
    agent.does("touch tasks/claim/a; cd /");
    mounted.kill9();
    drop(mounted);
    let mounted = project.mount(&[]);
    agent.does(&format!("ls {place} > /dev/null"));
    stays(&project, &mounted, "a", "w1");
    agent.kill9();
    returns(&mounted, "a", &format!("its process (claude, {}) was killed by signal 9", agent.pid()));
    drop(mounted);
    let mounted = project.mount(&[]);
    let why = mounted.sh("w1", "cat tasks/workers/self/why").ok();
    assert!(why.contains("your claim of a ended: its process (claude, "), "{why}");
    assert!(why.ends_with("was killed by signal 9; it is ready\n"), "{why}");
    // `why` then shows the later refusal.
    mounted.sh("w1", "touch tasks/claim/zzz").refused("No such file");
    assert!(mounted.read("workers/w1/why").ends_with("there is no task zzz\n"));
}

#[test]
fn c31_a_program_is_found_again_only_if_it_is_older_than_the_claim() {
    let project = project!();
    project.task("a", "# T\n");
    let mut mounted = project.mount(&[]);
    let place = mounted.path().display().to_string();
    if !endings_are_told(&mounted) {
        return;
    }
    let mut program = Shell::named(&project, &mounted, "program", "w1");
    std::thread::sleep(Duration::from_millis(200));
    program.does("touch tasks/claim/a; cd /");
    mounted.stop();
    drop(mounted);
    let mounted = project.mount(&[]);
    // Another command of the worker, which fails.
    mounted.sh("w1", "cat tasks/claim/a; exit 1").exits(1, "");
    stays(&project, &mounted, "a", "w1");
    program.does(&format!("ls {place} > /dev/null"));
    program.kill9();
    returns(&mounted, "a", &format!("its process (program, {}) was killed by signal 9", program.pid()));
}

#[test]
fn c31_a_process_that_stands_still_keeps_its_claim_until_the_lease_ends() {
    let project = project!();
    project.task("a", "# T\n");
    project.task("long", "---\nlease: 1h\n---\n");
    let mounted = project.mount(&["lease=1s"]);
    let mut agent = Shell::named(&project, &mounted, "claude", "w1");
    agent.does("touch tasks/claim/a tasks/claim/long");
    agent.signal(Signal::STOP);
    mounted.until_state("a", "ready");
    let reason = &mounted.json("status/a")["lost_claims"][0]["reason"];
    assert!(reason.as_str().unwrap().starts_with("its lease ran out"), "{reason}");
    assert_eq!(mounted.state("long"), "claimed");
    agent.signal(Signal::CONT);
    let order = "! echo late > tasks/completed/a; echo done > tasks/completed/long";
    agent.does(order);
    assert_eq!((mounted.state("a"), mounted.state("long")), ("ready".into(), "completed".into()));
}

#[test]
fn c31_a_connection_may_come_back() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&["remote_grace=2s"]);
    let mut connection = Shell::named(&project, &mounted, "sftp-server", "w1");
    connection.does(": > tasks/claim/a");
    let start = Instant::now();
    connection.exit(0);
    let mut connection = Shell::named(&project, &mounted, "sftp-server", "w1");
    connection.does("read -r line < tasks/claim/a");
    while start.elapsed() < Duration::from_millis(2_500) {
        assert_eq!(mounted.state("a"), "claimed");
        std::thread::sleep(Duration::from_millis(50));
    }
    let start = Instant::now();
    connection.kill9();
    mounted.until_state("a", "ready");
    let away = start.elapsed();
    assert!((Duration::from_millis(1_900)..Duration::from_secs(4)).contains(&away), "{away:?}");
    let reason = &mounted.json("status/a")["lost_claims"][0]["reason"];
    assert_eq!(reason, "its connection ended and did not come back for 2s");
}

#[test]
fn c32_attempts_by_processes_that_end_make_a_task_fail() {
    let project = project!();
    project.task("a", "---\nattempts: 2\n---\n");
    let mounted = project.mount(&[]);
    for worker in ["w1", "w2"] {
        let mut agent = Shell::named(&project, &mounted, "claude", worker);
        agent.does("touch tasks/claim/next");
        agent.kill9();
        until("it is over", || mounted.state("a") != "claimed");
    }
    assert_eq!(mounted.state("a"), "failed");
    let reason = mounted.read("failed/a");
    assert!(reason.contains("given up after 2 claims that were lost; the last one by w2"), "{reason}");
    let status = mounted.json("status/a");
    assert_eq!(status["lost_claims"].as_array().unwrap().len(), 2);
}

#[test]
fn c31_a_person_at_a_shell_is_not_followed() {
    let project = project!();
    project.task("a", "# T\n");
    let mounted = project.mount(&[]);
    mounted.operator("touch tasks/claim/a; exit 1");
    let owner = mounted.json("status/a")["worker"].as_str().unwrap().to_string();
    stays(&project, &mounted, "a", &owner);
}
