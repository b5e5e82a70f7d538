//! The cost of working in a mounted project: crewfs beside the directory itself, and beside other filesystems that show a directory
//! elsewhere. One run prints one table.
//!
//! This file has the options and the order of the runs; `tests/bench/README.md` explains the rows.

#[path = "../common/mod.rs"]
mod common;
mod guarded;
mod material;
mod peers;
mod requests;
mod rows;
mod storms;
mod table;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use clap::builder::PossibleValuesParser;
use rustix::process::{Signal, kill_process};

use common::scratch::Scratch;
use common::{Outcome, figures, wait};
use guarded::Watchdog;
use material::Material;
use peers::{Peer, Place};
use requests::{Counter, Counts};
use rows::{ROWS, Row, Site, State};
use table::Table;

/// The name of this worker on the mount.
const WORKER: (&str, &str) = ("CREWFS_WORKER", "bench");

/// Everyday work on a project: crewfs, its alternatives, and the disk's own filesystem as the limit.
#[derive(Parser)]
#[command(name = "tree")]
struct Options {
    /// Only these beside the source, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(names()))]
    peers: Vec<String>,
    /// Only these rows, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(rows::names()))]
    only: Vec<String>,
    /// How often every row is measured; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many small files the tree has; what is written is a fifth of that
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(50..))]
    files: u32,
    /// The size of the big file, in MiB
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1024))]
    megabytes: u32,
    /// A directory on the disk to measure
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Cold is a fresh mount only: the caches of the kernel are left as they are
    #[arg(long)]
    keep_caches: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn names() -> Vec<&'static str> {
    Peer::ALL.iter().filter(|&&peer| peer != Peer::Source).map(|peer| peer.name()).collect()
}

fn main() -> ExitCode {
    if std::env::var(WORKER.0).as_deref() != Ok(WORKER.1) {
        // The daemon reads a caller's name from the environment that the process had at its start, so start again.
        let mut again = Command::new("/proc/self/exe");
        let error = again.args(std::env::args_os().skip(1)).env(WORKER.0, WORKER.1).exec();
        eprintln!("tree: {error}");
        return ExitCode::FAILURE;
    }
    let outcome = if std::env::args().any(|arg| arg == "--bench") {
        // Removing the files may take long, so the table is printed first.
        compare(&Options::parse()).map(|(table, _scratch)| println!("{table}"))
    } else {
        smoke()
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tree: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The part for `cargo test`: measures every row once on a small tree, and reports no times.
fn smoke() -> Outcome<()> {
    // `cargo test NAME` passes the name to this program too.
    if std::env::args().skip(1).any(|arg| !arg.starts_with('-') && !"tree".contains(&arg)) {
        return Ok(());
    }
    if let Err(error) = File::options().read(true).write(true).open("/dev/fuse") {
        println!("tree: skipped: /dev/fuse cannot be used: {error}");
        return if std::env::var_os("CI").is_none() { Ok(()) } else { Err(error.into()) };
    }
    let options = "tree --peers crewfs --rounds 1 --files 500 --megabytes 8 --keep-caches";
    let (table, _scratch) = compare(&Options::parse_from(options.split(' ')))?;
    println!("{table}");
    let failed: Vec<String> = table.failures().collect();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ").into()) }
}

/// Measures every row. The filesystems take turns, so that a change of the machine's speed affects all of them.
fn compare(options: &Options) -> Outcome<(Table, Scratch)> {
    wait::until_interrupted()?;
    let scratch = Scratch::new(&options.dir, "tree")?;
    let machine = figures::machine(scratch.path())?;
    let project = scratch.path().join("project");
    let wanted = |peer: &Peer| {
        *peer == Peer::Source
            || options.peers.is_empty()
            || options.peers.iter().any(|name| name == peer.name())
    };
    let peers: Vec<Peer> = Peer::ALL.into_iter().filter(wanted).collect();
    let mut rows: Vec<&Row> = ROWS.iter().collect();
    rows.retain(|row| options.only.is_empty() || options.only.iter().any(|name| name == row.name));
    let missing: Vec<&str> =
        ["rg", "git", "cargo"].into_iter().filter(|program| !is_installed(program)).collect();
    rows.retain(|row| row.needs.is_none_or(|program| !missing.contains(&program)));

    let material = Material::make(&project, options.files as usize, options.megabytes as usize)?;
    if !missing.contains(&"git") {
        material.commit(&project, peers.iter().map(|peer| peer.name()))?;
    }
    let titles = rows.iter().map(|row| (row.name, row.title(&material))).collect();
    let mut bench = Bench {
        project,
        run: scratch.path().to_owned(),
        table: Table::new(&peers, titles),
        material,
        emptying: !options.keep_caches,
        chatty: options.bench,
    };
    bench.table.note(format!(
        "{machine}; median of {} rounds. The source's column is the limit, in milliseconds; the others are \
         relative to it.",
        options.rounds
    ));
    for program in &missing {
        bench.table.note(format!("Rows that need {program} are left out: it is not installed."));
    }
    bench.measure(&peers, &rows, options.rounds)?;
    let cold = match (rows.iter().any(|row| row.state == State::Cold), bench.emptying) {
        (false, _) => "",
        (true, true) => " Cold: after a fresh mount, with empty caches of the kernel, but not of the disk.",
        (true, false) => {
            " Cold: after a fresh mount only; the kernel's caches were not emptied, so the source is not cold."
        }
    };
    bench.table.note(format!(
        "Warm rows ran once just before, or their files were made through the same mount.{cold}"
    ));
    Ok((bench.table, scratch))
}

fn is_installed(program: &str) -> bool {
    let mut asked = match program {
        "cargo" => rows::cargo(),
        program => Command::new(program),
    };
    let quiet = asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A run of the benchmark.
struct Bench {
    project: PathBuf,
    run: PathBuf,
    table: Table,
    material: Material,
    /// Whether the kernel's caches are emptied before a cold row.
    emptying: bool,
    /// Whether to print progress.
    chatty: bool,
}

impl Bench {
    fn measure(&mut self, peers: &[Peer], rows: &[&Row], rounds: usize) -> Outcome<()> {
        let mut places = Vec::new();
        for &peer in peers {
            self.open(peer, &mut places)?;
        }
        let mut order = peers.to_vec();
        for round in 1..=rounds {
            for row in rows {
                if row.state == State::Cold {
                    self.warm_the_disk(row, &places, round);
                }
                for &peer in &order {
                    if self.table.is_left_out(peer, row.name) || !(peer.has_a_tree() || row.one_file) {
                        continue;
                    }
                    let measured = self.row(row, peer, &mut places, round);
                    wait::check()?;
                    match measured {
                        Ok((time, counts)) => {
                            if self.chatty {
                                let milliseconds = figures::short(time.as_secs_f64() * 1e3);
                                eprintln!("round {round}, {}, {}: {milliseconds} ms", row.name, peer.name());
                            }
                            self.table.add(row.name, peer, time.as_secs_f64());
                            if let Some(counts) = counts {
                                self.table.count(row.name, counts);
                            }
                        }
                        Err(reason) => {
                            self.table.leave_out(peer, Some(row.name), reason.to_string());
                            // The failure may have ended the mount.
                            self.open(peer, &mut places)?;
                        }
                    }
                }
            }
            // So that no filesystem runs after the same one in every round.
            order.reverse();
        }
        Ok(())
    }

    /// Reads once from the disk what a cold row will read. Otherwise the first reader would warm the disk's own caches, or those of the
    /// host of a virtual machine, for later readers.
    fn warm_the_disk(&mut self, row: &Row, places: &[Place], round: usize) {
        if self.emptying
            && let Err(error) = empty_caches(&self.project)
        {
            self.emptying = false;
            self.table.note(format!("The caches of the kernel could not be emptied: {error}."));
        }
        if let Ok(source) = place_of(Peer::Source, places) {
            // A failure here repeats in the measurement, and is reported there.
            let _ = guarded(source, row.run, &self.material, &self.fresh(row, Peer::Source, round));
        }
    }

    fn fresh(&self, row: &Row, peer: Peer, round: usize) -> String {
        // The process id is part of the name because of `spread_subdirectories`.
        format!("work/{}-{}-{round}-{}", row.name, peer.name(), std::process::id())
    }

    /// Mounts a filesystem, again if it is mounted. Removes it from the table if that fails.
    fn open(&mut self, peer: Peer, places: &mut Vec<Place>) -> Outcome<()> {
        places.retain(|place| place.peer != peer);
        match Place::open(peer, &self.project, &self.run) {
            Ok(place) => places.push(place),
            Err(reason) => self.table.leave_out(peer, None, reason.to_string()),
        }
        wait::check()
    }

    fn row(
        &mut self,
        row: &Row,
        peer: Peer,
        places: &mut Vec<Place>,
        round: usize,
    ) -> Outcome<(Duration, Option<Counts>)> {
        let fresh = self.fresh(row, peer, round);
        // So that this row does not pay for earlier writes.
        rustix::fs::syncfs(File::open(&self.project)?)?;
        guarded(place_of(peer, places)?, row.prepare, &self.material, &fresh)?;
        match row.state {
            State::Warm => {
                guarded(place_of(peer, places)?, row.run, &self.material, &fresh)?;
            }
            State::Cold => {
                self.open(peer, places)?;
                if self.emptying
                    && let Err(error) = empty_caches(&self.project)
                {
                    self.emptying = false;
                    self.table.note(format!("The caches of the kernel could not be emptied: {error}."));
                }
            }
            State::Prepared => rustix::fs::syncfs(File::open(&self.project)?)?,
        }
        let place = place_of(peer, places)?;
        let counter = if peer == Peer::Crewfs { Counter::start(&place.top) } else { None };
        let time = guarded(place, row.run, &self.material, &fresh)?;
        let counts = counter.and_then(Counter::stop);
        guarded(place, row.check, &self.material, &fresh)?;
        Ok((time, counts))
    }
}

fn place_of(peer: Peer, places: &[Place]) -> Outcome<&Place> {
    places.iter().find(|place| place.peer == peer).ok_or_else(|| "it is not mounted".into())
}

/// Times a step. If it takes too long, ends the server of the mount, so that every call on the mount fails.
fn guarded(
    place: &Place,
    step: fn(&Site<'_>) -> Outcome<()>,
    material: &Material,
    fresh: &str,
) -> Outcome<Duration> {
    let site = Site {
        fresh: place.top.join(fresh),
        one: place.peer.one(&place.top),
        top: place.top.clone(),
        peer: place.peer.name(),
        material,
    };
    let server = place.mount.as_ref().map(|mount| mount.server.pid());
    let watchdog = Watchdog::new(rows::LIMIT + Duration::from_secs(10), move || {
        if let Some(server) = server {
            let _ = kill_process(server, Signal::TERM);
        }
    });
    let start = Instant::now();
    let done = step(&site);
    let time = start.elapsed();
    if watchdog.barked() {
        wait::check()?;
        return Err(format!("a step took longer than {} s", rows::LIMIT.as_secs()).into());
    }
    done.map(|()| time)
}

/// Writes everything to the disk and drops the kernel's caches. Needs root.
fn empty_caches(dir: &Path) -> Outcome<()> {
    rustix::fs::syncfs(File::open(dir)?)?;
    Ok(fs::write("/proc/sys/vm/drop_caches", "3\n")?)
}
