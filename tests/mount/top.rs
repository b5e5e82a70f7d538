//! `crewfs top` in a real terminal: it shows what the queue holds, and it restores the terminal when it ends,
//! however it ends (C70).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Mounted, Project, project};
use crate::process::{LIMIT, run, until};
use crate::sides::needs;

/// A tmux terminal that runs `crewfs top`. After its end the terminal shows the exit code if the terminal's settings are as
/// before.
struct Terminal {
    dir: PathBuf,
}

impl Terminal {
    fn new(project: &Project, mounted: &Mounted, size: (u16, u16), locale: &str) -> Terminal {
        let dir = project.dir().join(format!("terminal-{}x{}", size.0, size.1));
        fs::create_dir(&dir).unwrap();
        let script = "stty -g > before; sh -c 'echo $$ > pid; exec \"$0\" \"$@\"' \"$@\"; code=$?; stty -g > after; \
                      cmp before after && echo \"ended with $code\"; read -r _";
        let terminal = Terminal { dir };
        let mut tmux = terminal.tmux();
        tmux.args([
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &size.0.to_string(),
            "-y",
            &size.1.to_string(),
        ]);
        // The locale comes only from this test, not from its environment.
        tmux.args(["env", "-u", "LC_ALL", "-u", "NO_COLOR", &format!("LC_CTYPE={locale}"), "TERM=screen"]);
        tmux.args(["sh", "-c", script, "sh", env!("CARGO_BIN_EXE_crewfs"), "top"]).arg(mounted.path());
        run(tmux).ok();
        terminal
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.env_remove("TMUX").current_dir(&self.dir).args(["-u", "-S"]).arg(self.dir.join("socket"));
        command
    }

    #[track_caller]
    fn ask(&self, arguments: &[&str]) -> String {
        let mut tmux = self.tmux();
        tmux.args(arguments);
        run(tmux).ok()
    }

    #[track_caller]
    fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// Wait until the screen shows this text.
    #[track_caller]
    fn shows(&self, what: &str) -> String {
        self.shows_that(what, |screen| screen.contains(what))
    }

    #[track_caller]
    fn shows_that(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let seen = crate::process::within(LIMIT, || {
            screen = self.screen();
            is(&screen)
        });
        assert!(seen, "waited in vain for {what:?} on\n{screen}");
        screen
    }

    /// The process of `crewfs top`.
    fn pid(&self) -> Pid {
        let pid = fs::read_to_string(self.dir.join("pid")).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap()).unwrap()
    }

    /// Check that it ended with this code and restored the terminal.
    #[track_caller]
    fn ended(&self, code: i32) -> String {
        let screen = self.shows(&format!("ended with {code}"));
        let state = self.ask(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state.trim(), "0 1", "the usual screen and the cursor are back");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux().arg("kill-server").status();
    }
}

/// The text that the line of counts must show: each state's number in `queue.json`.
fn counts(mounted: &Mounted) -> Vec<String> {
    let queue = mounted.json("queue.json");
    let count = |state| queue.as_object().unwrap().values().filter(|task| task["status"] == state).count();
    ["completed", "claimed", "ready", "blocked", "failed", "rejected"]
        .map(|state| (count(state), state))
        .into_iter()
        .filter(|(count, state)| *count > 0 || !["failed", "rejected"].contains(state))
        .map(|(count, state)| format!("{count} {state}"))
        .collect()
}

fn work(project: &Project) {
    for n in 0..20 {
        project
            .task(&format!("task-{n:02}"), &format!("---\npriority: high\n---\n# Task: Part {n} für alle\n"));
    }
    project.task("deploy", "---\nneeds: [task-00, task-19]\n---\n# Deploy\n");
    project.task("bad", "---\npriority: soon\n---\n# Bad\n");
}

/// A text on the screen before any worker works.
const READY: &str = "20 ready";

#[test]
fn top_shows_what_the_queue_says_in_every_size() {
    needs!("tmux");
    let project = project!();
    work(&project);
    let mut mounted = project.mount(&[]);
    let small = Terminal::new(&project, &mounted, (80, 24), "C.UTF-8");
    let large = Terminal::new(&project, &mounted, (200, 60), "C.UTF-8");
    let plain = Terminal::new(&project, &mounted, (80, 25), "C");
    for (n, worker) in ["w1", "w2", "w3"].into_iter().enumerate() {
        mounted
            .sh(worker, &format!("touch tasks/claim/task-0{n} && echo 'half done' > tasks/claim/task-0{n}"))
            .ok();
    }
    mounted.sh("w1", "echo done > tasks/completed/task-00").ok();
    mounted.sh("w2", "echo done > tasks/completed/task-01 && touch tasks/claim/task-11").ok();
    mounted.sh("w1", "touch tasks/claim/task-10 && echo 'no compiler' > tasks/failed/task-10").ok();
    let mut shown = counts(&mounted);
    assert_eq!(shown.len(), 6, "something is in each state: {shown:?}");
    // `top` reads the files one after the other, so one look may not show all of it yet.
    let more = ["2 of 22 done, 9 %", "Workers 3: 2 working, 1 idle", "w1 gave task-10 up"];
    shown.extend(more.map(str::to_owned));
    for terminal in [&small, &large, &plain] {
        terminal
            .shows_that(&shown.join(", "), |screen| shown.iter().all(|part| screen.contains(part.as_str())));
    }
    let screen = plain.screen();
    assert!(screen.is_ascii() && screen.contains("Part"), "{screen}");
    let screen = large.screen();
    let all = (0..20).all(|n| screen.contains(&format!("task-{n:02}")));
    assert!(all && screen.contains("Part 7 für alle") && screen.contains("PRIORITY"), "{screen}");

    // Keys for a filter, details, and another order.
    small.press(&["/", "d", "e", "p", "l", "o", "y", "Enter"]);
    small.shows("Tasks 1 of 22");
    small.press(&["Enter"]);
    small.shows("why");
    small.shows("waits_for");
    small.press(&["Escape"]);
    small.shows_that("no details", |screen| !screen.contains("waits_for"));
    small.press(&["Escape"]);
    small.shows("Tasks 22");
    small.press(&["s"]);
    small.shows("by last change");

    // The window grows, then shrinks, in both directions.
    small.ask(&["resize-window", "-x", "160", "-y", "50"]);
    small.shows_that("two columns", |screen| {
        screen.lines().any(|line| line.contains("Workers 3") && line.contains("Stuck"))
    });
    small.ask(&["resize-window", "-x", "60", "-y", "20"]);
    small.shows_that("60 columns", |screen| {
        screen.lines().nth(19).is_some_and(|line| line.starts_with(" q quit"))
    });

    // The mount dies while all of them run.
    mounted.kill9();
    for terminal in [&small, &large, &plain] {
        let screen = terminal.ended(3);
        assert!(screen.contains("is a dead mount, its daemon"), "{screen}");
    }
}

#[test]
fn top_gives_the_terminal_back_however_it_ends() {
    needs!("tmux");
    let project = project!();
    work(&project);
    let mut mounted = project.mount(&[]);
    let looks = || {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let commands = pids.filter_map(|pid| fs::read_to_string(pid.path().join("cmdline")).ok());
        let place = mounted.path().display().to_string();
        commands.filter(|command| command.contains("--feed") && command.contains(&place)).count()
    };
    for (n, way) in (0..).zip(["q", "C-c", "TERM", "HUP", "INT"]) {
        let terminal = Terminal::new(&project, &mounted, (80, 24 + n), "C.UTF-8");
        terminal.shows(READY);
        let signal = |signal| kill_process(terminal.pid(), signal).unwrap();
        match way {
            "TERM" => signal(Signal::TERM),
            "HUP" => signal(Signal::HUP),
            "INT" => signal(Signal::INT),
            key => terminal.press(&[key]),
        }
        terminal.ended(0);
    }
    // The terminal closes with the process, as when a connection ends.
    let terminal = Terminal::new(&project, &mounted, (80, 30), "C.UTF-8");
    terminal.shows(READY);
    let stat = format!("/proc/{}/stat", terminal.pid().as_raw_nonzero());
    drop(terminal);
    // The parent process may never wait for it, so a zombie counts as ended.
    until("it ends with its terminal", || {
        !fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "))
    });
    until("nobody looks any more", || looks() == 0);
    // A mount that hangs blocks neither the screen nor the program's end.
    let terminal = Terminal::new(&project, &mounted, (81, 24), "C.UTF-8");
    terminal.shows(READY);
    let daemon = Pid::from_raw(mounted.pid() as i32).unwrap();
    kill_process(daemon, Signal::STOP).unwrap();
    terminal.shows("no answer for ");
    terminal.press(&["?"]);
    terminal.shows("Help");
    // Escape is pressed alone: both keys together would be one key, Alt-q.
    terminal.press(&["Escape"]);
    terminal.shows_that("no help", |screen| !screen.contains("Help"));
    terminal.press(&["q"]);
    terminal.ended(0);
    kill_process(daemon, Signal::CONT).unwrap();
    // The mount goes away while `top` shows it.
    let terminal = Terminal::new(&project, &mounted, (82, 24), "C.UTF-8");
    terminal.shows(READY);
    mounted.stop();
    terminal.ended(3);
}

#[test]
fn c70_one_look_is_plain_text() {
    let project = project!();
    work(&project);
    let top =
        |place: &std::path::Path| project.crewfs(["top".as_ref(), "--once".as_ref(), place.as_os_str()]);
    top(project.mountpoint()).exits(3, "is not a mount of crewfs");
    top(&project.dir().join("missing")).exits(3, "is not a mount of crewfs");
    let mut mounted = project.mount(&["tasks=crew"]);
    top(project.mountpoint()).ok();
    mounted.stop();
    let mut mounted = project.mount(&[]);
    mounted.sh("w1", "touch tasks/claim/task-03 && echo 'half done' > tasks/claim/task-03").ok();
    for place in [mounted.path(), &mounted.tasks()] {
        let said = top(place).ok();
        let counts = counts(&mounted);
        assert!(counts.contains(&"1 claimed".to_string()), "{counts:?}");
        assert!(counts.iter().all(|count| said.contains(count.as_str())), "{counts:?} in\n{said}");
        assert!(said.contains("w1  working  task-03") && said.contains("half done"), "{said}");
        assert!(said.contains("w1 claimed task-03"), "{said}");
    }
    assert_eq!(mounted.json("workers.json").as_object().unwrap().len(), 1, "looking makes nobody a worker");
    // Without a terminal, `top` has no place for its screen.
    project.crewfs(["top".as_ref(), mounted.path().as_os_str()]).exits(2, "crewfs top --once");
    project.crewfs(["top", "--interval", "1ms", "/"]).exits(2, "at least 100ms");
    mounted.kill9();
    top(mounted.path()).exits(3, "is a dead mount, its daemon is gone");
}
