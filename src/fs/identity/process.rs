//! What `/proc` says about one process: its program, its start, the name that it carries, and how it ended.
//!
//! May assume: `/proc` is that of the pid namespace in which the daemon runs.
//! Must never: identify a process by its pid alone: the kernel reuses pids.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;

use crate::history::undo::UNDO_PROGRAM;
use crate::limits::{ENVIRONMENT_BYTES, ENVIRONMENT_PIECE, WORKER_NAME_BYTES};
use crate::queue::{ProcessEnding, Span};

/// The variable that names a worker.
const VARIABLE: &[u8] = b"CREWFS_WORKER=";
/// How much of its value is kept: enough to recognise an invalid name, and to show it.
const VALUE_KEPT: usize = 4 * WORKER_NAME_BYTES;
/// How much is read of an interpreter's arguments: enough for its path and that of its script.
const ARGUMENTS_READ: u64 = 16 << 10;
/// Programs that are agents.
pub(super) const AGENTS: [&str; 8] =
    ["claude", "codex", "gemini", "opencode", "cursor-agent", "aider", "goose", "amp"];
/// Programs that run agents; the agent is the script that they run.
const INTERPRETERS: [&str; 6] = ["node", "bun", "deno", "python", "python3", "MainThread"];
/// The flag of a thread that is exiting (`include/linux/sched.h`; the flags are field 9 of the line).
const PF_EXITING: u64 = 0x4;
/// The line of `/proc/<tid>/status` that only a thread with memory has.
const MEMORY: &[u8] = b"\nVmSize:";
/// Longer than any line of `/proc/<tid>/stat`: 52 numbers and a command of 64 bytes.
const STAT_BYTES: usize = 2048;

/// One process image. If these numbers are the same, neither the process nor its program has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Image {
    /// When the process began, in ticks of the kernel's clock since the machine started.
    pub(super) started: u64,
    stack: u64,
    environment: u64,
}

/// The content of `/proc/<tid>/stat`.
pub(super) struct Stat {
    /// The name of its program, or a name that the process has set.
    pub(super) command: Vec<u8>,
    /// Its parent process, or the process that adopted it.
    pub(super) parent: u32,
    /// The process and its program.
    pub(super) image: Image,
    /// The status as wait(2) gives it, of a process that has ended and whose parent has not waited for it yet.
    status: Option<i32>,
    /// The same, of a thread that is exiting. 0 if the daemon may not read it.
    exiting: Option<i32>,
}

impl Stat {
    /// The stat of a thread, and the open file: it never becomes that of another thread.
    pub(super) fn open(tid: u32) -> Option<(File, Stat)> {
        if tid == 0 {
            return None;
        }
        let file = File::open(format!("/proc/{tid}/stat")).ok()?;
        let stat = Stat::of(&file)?;
        Some((file, stat))
    }

    /// The current content of the file; `None` if the process is gone.
    pub(super) fn of(file: &File) -> Option<Stat> {
        let mut content = [0; STAT_BYTES];
        let length = file.read_at(&mut content, 0).ok()?;
        Stat::parse(&content[..length])
    }

    /// The fields are in proc_pid_stat(5). The command is in parentheses and may itself contain some.
    fn parse(content: &[u8]) -> Option<Stat> {
        let open = content.iter().position(|b| *b == b'(')?;
        let close = content.iter().rposition(|b| *b == b')')?;
        let mut rest = content.get(close + 2..)?.trim_ascii_end().split(|b| *b == b' ');
        // The field with this number in the manual page. Numbers must increase from call to call; the first two fields precede `rest`.
        let mut passed = 2;
        let mut field = |number: usize| {
            let skipped = number - passed - 1;
            passed = number;
            rest.nth(skipped)
        };
        let number = |field: Option<&[u8]>| std::str::from_utf8(field?).ok()?.parse::<u64>().ok();
        let has_ended = field(3)? == b"Z";
        let parent = number(field(4))? as u32;
        let is_exiting = number(field(9))? & PF_EXITING != 0;
        let started = number(field(22))?;
        let stack = number(field(28))?;
        let environment = number(field(50))?;
        let status = number(field(52)).map(|status| status as i32);
        Some(Stat {
            command: content[open + 1..close].to_vec(),
            parent,
            image: Image { started, stack, environment },
            status: status.filter(|_| has_ended),
            exiting: status.filter(|_| is_exiting),
        })
    }
}

/// How a process ended, as long as its parent has not waited for it.
pub(super) fn ending_of(pid: u32, started: u64) -> Option<ProcessEnding> {
    let (_, stat) = Stat::open(pid)?;
    if stat.image.started == started { stat.status.map(ending) } else { None }
}

/// How the process of a thread ends, if the thread is exiting: the thread then closes its files because of that, not by a close(2).
///
/// The daemon may call this while the thread waits for its answer. Reading `/proc/<tid>/stat` is not always safe then: a thread that closes
/// files in the middle of execve(2) holds a lock which that read takes. So `status` is read first, which takes no lock of the process: a
/// thread that has released its memory is in no execve(2).
pub(in crate::fs) fn leaving(tid: u32) -> Option<ProcessEnding> {
    let status = fs::read(format!("/proc/{tid}/status")).ok()?;
    let has_memory = status.windows(MEMORY.len()).any(|line| line == MEMORY);
    if has_memory { None } else { Stat::open(tid)?.1.exiting.map(ending) }
}

/// The meaning of a status as wait(2) gives it.
pub(super) fn ending(status: i32) -> ProcessEnding {
    if libc::WIFSIGNALED(status) {
        ProcessEnding::Killed(libc::WTERMSIG(status))
    } else {
        ProcessEnding::Exited(libc::WEXITSTATUS(status))
    }
}

/// The time since a process started at this tick.
pub(super) fn age(started: u64) -> Option<Span> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let ticks_a_second = rustix::param::clock_ticks_per_second() as f64;
    // The numbers are rounded, so a process that started a moment ago may seem to start in the future.
    Some(Span(((uptime - started as f64 / ticks_a_second) * 1000.0).max(0.0) as u64))
}

/// The name in the environment of a process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// CREWFS_WORKER has this value. A long one is cut.
    Value(Vec<u8>),
    /// It is missing, or empty, or cannot be read.
    Absent,
    /// The environment is larger than the limit.
    TooMuch,
}

/// The value of CREWFS_WORKER in a process's environment, as it was when its program started. The bytes read are subtracted from `budget`.
/// This may never return (see [`super::lookups`]).
pub(super) fn variable_of(pid: u32, budget: &mut usize) -> Variable {
    let Ok(environment) = File::open(format!("/proc/{pid}/environ")) else { return Variable::Absent };
    let limit = ENVIRONMENT_BYTES.min(*budget);
    let mut left = limit;
    let found = variable_in(environment, &mut left);
    *budget -= limit - left;
    found
}

/// At any time, no more than one piece and the value are in memory.
fn variable_in(mut environment: impl Read, budget: &mut usize) -> Variable {
    let mut piece = vec![0; ENVIRONMENT_PIECE];
    let (mut name, mut value) = (Some(0), Vec::new());
    loop {
        // One byte more shows whether the environment is larger.
        let room = piece.len().min(*budget + 1);
        let length = match environment.read(&mut piece[..room]) {
            Ok(length) => length,
            // The process is gone, or its memory is.
            Err(_) => return Variable::Absent,
        };
        if length > *budget {
            return Variable::TooMuch;
        }
        *budget -= length;
        let ended = length == 0;
        for byte in piece[..length].iter().copied().chain(ended.then_some(0)) {
            match (byte, name) {
                (0, Some(matched)) if matched == VARIABLE.len() && !value.is_empty() => {
                    return Variable::Value(value);
                }
                (0, Some(matched)) if matched == VARIABLE.len() => return Variable::Absent,
                (0, _) => name = Some(0),
                (byte, Some(matched)) if matched == VARIABLE.len() => {
                    if value.len() < VALUE_KEPT {
                        value.push(byte);
                    }
                }
                (byte, Some(matched)) => name = (byte == VARIABLE[matched]).then_some(matched + 1),
                (_, None) => {}
            }
        }
        if ended {
            return Variable::Absent;
        }
    }
}

/// The agent program that a process runs, if it runs one: by its command name, or by the script that its interpreter runs.
pub(super) fn agent_program(pid: u32, command: &[u8]) -> Option<&'static str> {
    let known = |name: &[u8]| AGENTS.into_iter().find(|agent| agent.as_bytes() == name);
    if let Some(agent) = known(command) {
        return Some(agent);
    }
    if !INTERPRETERS.iter().any(|name| name.as_bytes() == command) {
        return None;
    }
    let mut arguments = Vec::new();
    File::open(format!("/proc/{pid}/cmdline")).ok()?.take(ARGUMENTS_READ).read_to_end(&mut arguments).ok()?;
    arguments.split(|b| *b == 0).take(2).find_map(|argument| {
        let file = argument.rsplit(|b| *b == b'/').next()?;
        known(file.split(|b| *b == b'.').next()?)
    })
}

/// The program of this command name, if it is one that replaces whole trees of files: each run of it makes a step of its own in the
/// history.
pub(super) fn tree_program(command: &[u8]) -> Option<&'static str> {
    ["git", "hg", "jj", UNDO_PROGRAM].into_iter().find(|program| command == program.as_bytes())
}

/// Whether a program of this name serves an SFTP client: OpenSSH's own, or the one inside sshd.
pub(super) fn serves_sftp(command: &[u8]) -> bool {
    command == b"sftp-server" || command.starts_with(b"sshd")
}

/// The process that a thread belongs to.
pub(super) fn thread_group(tid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|tgid| tgid.trim().parse().ok()).unwrap_or(tid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let tail = (5..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for command in ["sh", "a) b (c", "x y", ")"] {
            let stat = Stat::parse(format!("77 ({command}) S 42 {tail}\n").as_bytes()).unwrap();
            assert_eq!(stat.command, command.as_bytes());
            assert_eq!(stat.parent, 42);
            assert_eq!(stat.image, Image { started: 22, stack: 28, environment: 50 });
            assert_eq!(stat.status, None, "it lives");
        }
        let ended = Stat::parse(format!("77 (sh) Z 42 {tail}\n").as_bytes()).unwrap();
        assert_eq!(ended.status, Some(52));
        assert!(Stat::parse(b"").is_none());
        assert!(Stat::parse(b"1 (x").is_none());
    }

    #[test]
    fn a_name_is_found_at_any_position_within_the_budget() {
        let find = |environment: &[u8]| {
            let mut budget = 3 * ENVIRONMENT_PIECE;
            variable_in(environment, &mut budget)
        };
        let value = |name: &str| Variable::Value(name.as_bytes().to_vec());
        let filler = |length: usize| [vec![b'C'; length], vec![0]].concat();
        for before in [0, 1, 5, ENVIRONMENT_PIECE - 20, ENVIRONMENT_PIECE - 8, ENVIRONMENT_PIECE - 1] {
            assert_eq!(
                find(&[&filler(before)[..], b"CREWFS_WORKER=w1\0X=y\0"].concat()),
                value("w1"),
                "{before}"
            );
            assert_eq!(find(&[&filler(before)[..], b"CREWFS_WORKER=w1"].concat()), value("w1"), "{before}");
        }
        for absent in
            [&b""[..], b"A=b\0", b"CREWFS_WORKER=\0", b"XCREWFS_WORKER=a\0", b"CREWFS_WORKE=a\0", b"\0\0"]
        {
            assert_eq!(find(absent), Variable::Absent, "{absent:?}");
        }
        let last = filler(3 * ENVIRONMENT_PIECE - b"CREWFS_WORKER=w1\0".len() - 1);
        assert_eq!(find(&[&last[..], b"CREWFS_WORKER=w1\0"].concat()), value("w1"));
        assert_eq!(find(&filler(4 * ENVIRONMENT_PIECE)), Variable::TooMuch);
        let long = [b"CREWFS_WORKER=".to_vec(), filler(ENVIRONMENT_PIECE)].concat();
        assert_eq!(find(&long), Variable::Value(vec![b'C'; VALUE_KEPT]));
    }

    #[test]
    fn this_process_has_an_image_and_an_age() {
        let (_, mine) = Stat::open(std::process::id()).unwrap();
        assert!(mine.image.environment > 0);
        assert_eq!(thread_group(std::process::id()), std::process::id());
        let mine = age(mine.image.started).unwrap();
        assert!(mine < Span(24 * 3_600_000) && mine < age(0).unwrap(), "{mine}");
    }

    #[test]
    fn an_exit_status_is_visible_until_the_parent_has_waited() {
        for (script, expected) in
            [("exit 7", ProcessEnding::Exited(7)), ("kill -9 $$", ProcessEnding::Killed(9))]
        {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let started = Stat::open(child.id()).unwrap().1.image.started;
            while Stat::open(child.id()).unwrap().1.status.is_none() {
                std::thread::yield_now();
            }
            assert_eq!(ending_of(child.id(), started), Some(expected));
            assert_eq!(ending_of(child.id(), started + 1), None, "another process of that number");
            child.wait().unwrap();
            assert_eq!(ending_of(child.id(), started), None);
        }
    }
}
