//! The mount behaves like an ordinary directory: the tests make the same calls in both, and the plain directory is the reference.
//!
//! Three programs use the mount and one changes the project beneath it, while descriptors and mappings stay open. Four other programs
//! make the same calls in a plain directory of the same disk. Every answer must be the same: the result or the error, the data, the
//! size, the mode and the number of names. `ordinary.py` makes the calls.
//!
//! The seeds of the calls are fixed; `CREWFS_PROOF_SEED` chooses another one, `CREWFS_ORDINARY_STEPS` sets more calls.
//!
//! May assume: all programs are one worker, and git ignores every file. So the guard refuses no change and delays none.
//! Must never: compare before the daemon could learn of a change beneath the mount. [`Markers`] ensures that.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Mounted, Project, project};
use crate::lines::Client;
use crate::markers::Markers;
use crate::random::{Random, number};

const PROGRAM: &str = concat!(include_str!("../mount/mappings.py"), include_str!("ordinary.py"));
const SEEDS: [u64; 3] = [1, 2, 3];
const STEPS: u64 = 2_500;

/// The number of the program that works beneath the mount; programs with lower numbers use the mount.
const BENEATH: usize = 3;
const DIRECTORIES: [&str; 5] = [".", "d", "e", "d/s", "e/s"];
const NAMES: [&str; 4] = ["a", "b", "c", "l"];
/// The number of slots that a program has for files. Slots for directories follow.
const FILES: usize = 5;
const SLOTS: usize = FILES + 2;
const MAPPINGS: usize = 2;
const PAGES: usize = 16;
/// More files than a daemon with [`FEW_DESCRIPTORS`] keeps descriptors for.
const OTHERS: usize = 40;
const FEW_DESCRIPTORS: u64 = 256;

/// Values that the mount may show late, with the reason: the place of the value in the answer of `stat`, and the longest delay.
const LATE: [(usize, Duration, &str); 1] = [(
    2,
    Duration::from_secs(3),
    "the attributes of a file that has several names are believed for a second",
)];

/// How the test makes the daemon close the descriptors that it keeps of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pressure {
    /// Not at all: the daemon closes idle descriptors itself.
    None,
    /// The daemon may open few files, and the test uses other files between the steps.
    FewDescriptors,
}

/// A call, and the program that makes it.
struct Step {
    who: usize,
    call: Value,
}

/// The mount and the plain directory.
struct Pair {
    disk: Vec<Client>,
    mount: Vec<Client>,
    steps: Vec<String>,
    markers: Markers,
    seed: u64,
    // Dropped last, in this order.
    mounted: Mounted,
    project: Project,
}

/// A program that makes calls in a directory.
pub(crate) fn program(place: &Path) -> Client {
    let mut command = Command::new("python3");
    command.args(["-c", PROGRAM]).env("CREWFS_WORKER", "w1").current_dir(place);
    Client::of(command)
}

impl Pair {
    fn new(project: Project, seed: u64, pressure: Pressure) -> Pair {
        let (source, disk) = (project.source().to_path_buf(), project.dir().join("plain"));
        for side in [&source, &disk] {
            for directory in ["work/d/s", "work/e", "others"] {
                fs::create_dir_all(side.join(directory)).unwrap();
            }
            for name in ["a", "b", "d/a", "d/b", "d/s/a", "e/c"] {
                fs::write(side.join("work").join(name), name.repeat(3_000)).unwrap();
            }
        }
        // The guard ignores files that git ignores.
        fs::write(source.join(".gitignore"), "*\n").unwrap();
        let mounted = match pressure {
            Pressure::None => project.mount(&["stale_writes=allow"]),
            Pressure::FewDescriptors => {
                project.mount_with_descriptors(FEW_DESCRIPTORS, &["stale_writes=allow"])
            }
        };
        let up = mounted.path().to_path_buf();
        let start = |place: &Path| program(&place.join("work"));
        Pair {
            disk: (0..=BENEATH).map(|_| start(&disk)).collect(),
            mount: (0..=BENEATH).map(|n| start(if n == BENEATH { &source } else { &up })).collect(),
            steps: Vec::new(),
            markers: Markers::new(&up, &source),
            seed,
            mounted,
            project,
        }
    }

    fn history(&self) -> String {
        let from = self.steps.len().saturating_sub(60);
        format!("{}\nCREWFS_PROOF_SEED={}", self.steps[from..].join("\n"), self.seed)
    }

    /// Make a call on both sides and compare the answers. Returns the answer of the disk.
    fn both(&mut self, step: &Step) -> Value {
        let line = step.call.to_string();
        let by = if step.who == BENEATH { "beneath".to_string() } else { format!("program {}", step.who) };
        let on_disk =
            self.disk[step.who].ask(&line).unwrap_or_else(|how| panic!("{line} on the disk: {how}"));
        let mut mounted = self.mount[step.who].ask(&line);
        let start = Instant::now();
        while mounted.as_ref().is_ok_and(|mounted| is_late(&on_disk, mounted)) && start.elapsed() < LATE[0].1
        {
            std::thread::sleep(Duration::from_millis(5));
            mounted = self.mount[step.who].ask(&line);
        }
        self.steps.push(format!("{:5} {by}: {line} -> {}", self.steps.len(), brief(&on_disk)));
        let mounted = mounted.unwrap_or_else(|how| how);
        assert!(
            on_disk == mounted,
            "{by}: {line}\n  on the disk {}\n  mounted     {}\nafter\n{}",
            brief(&on_disk),
            brief(&mounted),
            self.history()
        );
        serde_json::from_str(&on_disk).unwrap()
    }

    fn barrier(&mut self) {
        let seen = self.markers.barrier();
        assert!(seen, "a change beneath is not seen\n{}", self.history());
    }

    /// Compare the whole trees, and everything that is still open.
    fn compare_all(&mut self) {
        self.barrier();
        for who in 0..=BENEATH {
            self.both(&Step { who, call: json!(["everything"]) });
            self.both(&Step { who, call: json!(["kept"]) });
        }
    }
}

/// Whether two answers differ only in values that may be late.
fn is_late(disk: &str, mounted: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (disk, mut mounted) = (parse(disk), parse(mounted));
    if disk == mounted {
        return false;
    }
    catch_up(&disk, &mut mounted);
    disk == mounted
}

/// Replace values that may be late with their final values.
fn catch_up(disk: &Value, mounted: &mut Value) {
    let (Value::Array(disk), Value::Array(mounted)) = (disk, mounted) else { return };
    if disk.first().is_some_and(|kind| kind == "file") && disk.len() == mounted.len() {
        for (place, _, _) in LATE {
            if mounted[place].as_u64().max(disk[place].as_u64()) > Some(1) {
                mounted[place] = disk[place].clone();
            }
        }
    } else {
        disk.iter().zip(mounted).for_each(|(disk, mounted)| catch_up(disk, mounted));
    }
}

fn brief(text: &str) -> String {
    if text.len() > 4_000 {
        format!("{}…", text.chars().take(4_000).collect::<String>())
    } else {
        text.into()
    }
}

/// Chooses the next call, and knows what is open.
struct Plan {
    random: Random,
    open: [[bool; SLOTS]; BENEATH + 1],
    mapped: [[bool; MAPPINGS]; BENEATH + 1],
    tag: u64,
}

impl Plan {
    fn new(seed: u64) -> Plan {
        Plan { random: Random::new(seed), open: Default::default(), mapped: Default::default(), tag: 0 }
    }

    fn path(&mut self) -> String {
        format!("{}/{}", self.random.one_of(&DIRECTORIES), self.random.one_of(&NAMES))
    }

    fn directory(&mut self) -> &'static str {
        self.random.one_of(&DIRECTORIES[1..])
    }

    fn length(&mut self) -> usize {
        match self.random.below(20) {
            0 => 300_000,
            n => [1, 7, 100, 4096, 5000, 20_000][n % 6],
        }
    }

    fn offset(&mut self) -> usize {
        let at = self.random.one_of(&[0, 1, 4095, 4096, 9_000, 30_000, 60_000]);
        at + self.random.below(3) * self.random.below(2_000)
    }

    fn tag(&mut self) -> u64 {
        self.tag += 1;
        self.tag
    }

    fn flags(&mut self) -> String {
        let mut flags = vec![self.random.one_of(&["RDONLY", "WRONLY", "RDWR", "RDWR"])];
        if self.random.once_in(2) {
            flags.push("CREAT");
            if self.random.once_in(4) {
                flags.push("EXCL");
            }
        }
        if flags[0] != "RDONLY" {
            if self.random.once_in(5) {
                flags.push("TRUNC");
            }
            if self.random.once_in(3) {
                flags.push("APPEND");
            }
        }
        flags.join("|")
    }

    /// Usually a slot in use, from this number on.
    fn slot(&mut self, used: &[bool], from: usize) -> usize {
        let open: Vec<usize> = (from..used.len()).filter(|n| used[*n]).collect();
        if open.is_empty() { from + self.random.below(used.len() - from) } else { self.random.one_of(&open) }
    }

    fn next(&mut self) -> Step {
        let who = self.random.below(BENEATH + 1);
        let (open, mapped) = (self.open[who], self.mapped[who]);
        let file = |plan: &mut Plan| plan.slot(&open[..FILES], 0);
        let call = match self.random.below(100) {
            0..=13 => json!(["open", self.random.below(FILES), self.path(), self.flags()]),
            14 | 15 => {
                let (slot, directory) = (FILES + self.random.below(SLOTS - FILES), self.directory());
                json!(["open", slot, directory, "RDONLY|DIRECTORY"])
            }
            16 | 17 if open[FILES..].contains(&true) => {
                let (slot, directory) = (self.random.below(FILES), self.slot(&open, FILES));
                json!(["openat", slot, directory, self.random.one_of(&NAMES), self.flags()])
            }
            18 | 19 if open.contains(&true) => json!(["close", self.slot(&open, 0)]),
            20..=26 => json!(["write", file(self), self.tag(), self.length()]),
            27..=30 => json!(["pwrite", file(self), self.tag(), self.length(), self.offset()]),
            31..=33 => json!(["read", file(self), self.length()]),
            34..=39 => json!(["pread", file(self), self.length(), self.offset()]),
            40..=42 => {
                let whence = self.random.one_of(&["SET", "END", "CUR"]);
                let offset = if whence == "SET" { self.offset() } else { 0 };
                json!(["lseek", file(self), offset, whence])
            }
            43..=45 => json!(["ftruncate", file(self), self.offset()]),
            46 | 47 => json!(["truncate", self.path(), self.random.one_of(&[0, 0, 10, 5_000, 70_000])]),
            48..=50 => json!(["rename", self.path(), self.path()]),
            51 | 52 => json!(["link", self.path(), self.path()]),
            53..=55 => json!(["unlink", self.path()]),
            56..=60 => json!(["replace", self.path(), self.tag(), self.length()]),
            61..=66 => json!(["put", self.path(), "APPEND", self.tag(), self.length()]),
            67 | 68 => json!(["put", self.path(), "TRUNC", self.tag(), self.length()]),
            69 | 70 => json!(["mkdir", self.directory()]),
            71 => json!(["rmdir", self.directory()]),
            72 | 73 => json!(["rename", self.directory(), self.directory()]),
            74 => json!(["chmod", self.path(), self.random.one_of(&[0o600, 0o644, 0o755, 0o640])]),
            75 => json!(["fchmod", file(self), self.random.one_of(&[0o600, 0o644, 0o755, 0o640])]),
            76..=78 => json!(["map", self.random.below(MAPPINGS), file(self), self.random.once_in(2)]),
            79..=82 if mapped.contains(&true) => {
                json!(["map_read", self.slot(&mapped, 0), self.random.below(PAGES)])
            }
            // Data written beneath through a mapping shows late. That is intended: the kernel reports no such write.
            83 | 84 if mapped.contains(&true) && who != BENEATH => {
                json!(["map_write", self.slot(&mapped, 0), self.tag(), self.offset(), self.length()])
            }
            85..=88 => json!(["fstat", self.slot(&open, 0)]),
            89..=91 => json!(["status", self.path()]),
            92 => json!(["listing", self.random.one_of(&DIRECTORIES)]),
            93 if open[FILES..].contains(&true) => json!(["flist", self.slot(&open, FILES)]),
            94 => json!(["fsync", file(self)]),
            95 => json!(["age", self.path()]),
            96 => json!(["fage", file(self)]),
            _ => json!(["content", self.path()]),
        };
        Step { who, call }
    }

    /// Update what is open.
    fn done(&mut self, step: &Step, answer: &Value) {
        let slot = step.call[1].as_u64().unwrap_or(0) as usize;
        if !answer.is_null() {
            return;
        }
        match step.call[0].as_str().unwrap() {
            "open" | "openat" => self.open[step.who][slot] = true,
            "close" => self.open[step.who][slot] = false,
            "map" => self.mapped[step.who][slot] = true,
            _ => {}
        }
    }
}

/// Whether a call may change what another program sees.
fn changes(call: &Value) -> bool {
    const CHANGES: [&str; 20] = [
        "open",
        "openat",
        "write",
        "pwrite",
        "ftruncate",
        "truncate",
        "rename",
        "link",
        "unlink",
        "replace",
        "put",
        "mkdir",
        "rmdir",
        "chmod",
        "fchmod",
        "age",
        "fage",
        "fsync",
        "close",
        "map_write",
    ];
    CHANGES.contains(&call[0].as_str().unwrap())
}

fn run(seed: u64, pressure: Pressure) {
    let project = project!();
    println!("CREWFS_PROOF_SEED={seed}");
    let start = Instant::now();
    let (mut pair, mut plan) = (Pair::new(project, seed, pressure), Plan::new(seed));
    for who in 0..=BENEATH {
        pair.both(&Step { who, call: json!(["everything"]) });
    }
    for _ in 0..number("CREWFS_ORDINARY_STEPS").unwrap_or(STEPS) {
        let step = plan.next();
        let answer = pair.both(&step);
        plan.done(&step, &answer);
        if step.who == BENEATH && changes(&step.call) {
            pair.barrier();
        }
        if pressure == Pressure::FewDescriptors && plan.random.once_in(6) {
            pair.both(&Step { who: plan.random.below(BENEATH), call: json!(["touch", "../others", OTHERS]) });
        }
    }
    pair.compare_all();
    println!("seed {seed}, {pressure:?}: {} steps in {:.1?}", pair.steps.len(), start.elapsed());
    (pair.disk, pair.mount) = (Vec::new(), Vec::new());
    pair.mounted.stop();
    drop(pair.project);
}

fn all(pressure: Pressure) {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this test needs root");
    }
    match number("CREWFS_PROOF_SEED") {
        Some(seed) => run(seed, pressure),
        None => SEEDS.into_iter().for_each(|seed| run(seed, pressure)),
    }
}

#[test]
fn calls_answer_as_in_a_plain_directory() {
    all(Pressure::None);
}

#[test]
fn calls_answer_as_in_a_plain_directory_with_few_descriptors() {
    all(Pressure::FewDescriptors);
}
