//! The cost of working from another machine: a project of crewfs through `connect.sh`, through sshfs with its defaults, and plain sshfs
//! without crewfs, with any round trip. One run prints one table.
//!
//! This file has the options, the rows and the order of the runs; `tests/bench/README.md` explains the rows.

#[path = "../common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../tree/guarded.rs"]
#[allow(dead_code)]
mod guarded;
mod line;
#[path = "../tree/material.rs"]
#[allow(dead_code)]
mod material;
mod places;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;

use common::scratch::Scratch;
use common::{Outcome, figures, wait};
use material::{Material, RARE_FILES, RARE_WORD};
use places::{Place, Site, Way};

/// The name of this worker on the server's machine.
const WORKER: (&str, &str) = ("CREWFS_WORKER", "bench");
/// The time limit of one step.
const LIMIT: Duration = Duration::from_secs(600);
const CYCLES: usize = 20;

/// Everyday work on a project of crewfs from another machine.
#[derive(Parser)]
#[command(name = "remote")]
struct Options {
    /// How often every row is measured; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many small files the project has
    #[arg(long, default_value_t = 3_000)]
    files: usize,
    /// How many files are looked at one by one
    #[arg(long, default_value_t = 5_000)]
    stats: usize,
    /// The size of the big file, in MiB
    #[arg(long, default_value_t = 100)]
    megabytes: usize,
    /// The round trip that the line takes besides its own, in milliseconds
    #[arg(long, default_value_t = 0)]
    round_trip: u64,
    /// A directory on the disk to measure
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A row: its name, and the work in a place. Each row checks its result.
type Row = (&'static str, fn(&Place, &Options, &Material, usize) -> Outcome<()>);

const ROWS: [Row; 5] = [
    ("`git status`", git_status),
    ("`rg` for a rare word", rg),
    ("read {megabytes} MiB in order", read),
    ("stat of {stats} files", stats),
    ("claim a task and complete it", claim),
];

fn main() -> ExitCode {
    if std::env::var(WORKER.0).as_deref() != Ok(WORKER.1) {
        // The daemon reads a caller's name from the environment that the process had at its start, so start again.
        let mut again = Command::new("/proc/self/exe");
        let error = again.args(std::env::args_os().skip(1)).env(WORKER.0, WORKER.1).exec();
        eprintln!("remote: {error}");
        return ExitCode::FAILURE;
    }
    match compare(&Options::parse()) {
        Ok((table, _scratch)) => {
            println!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("remote: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures every row. The ways take turns, so that a change of the machine's speed affects all of them.
fn compare(options: &Options) -> Outcome<(String, Scratch)> {
    wait::until_interrupted()?;
    let scratch = Scratch::new(&options.dir, "remote")?;
    let machine = figures::machine(scratch.path())?;
    let project = scratch.path().join("project");
    fs::create_dir_all(project.join("tasks"))?;
    let material = Material::make(&project, options.files, options.megabytes)?;
    material.commit(&project, Way::ALL.iter().map(|way| way.name()))?;
    for n in 0..CYCLES * options.rounds * Way::ALL.len() {
        fs::write(project.join(format!("tasks/t{n}.md")), "# Task\n")?;
    }
    let site = Site::open(&project, scratch.path(), Duration::from_millis(options.round_trip))?;
    let mut samples: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    let mut failed: BTreeMap<(usize, &str), String> = BTreeMap::new();
    let mut order = Way::ALL.to_vec();
    for round in 0..options.rounds {
        for (number, (_, row)) in ROWS.iter().enumerate() {
            for &way in &order {
                // Plain sshfs has no tasks to claim.
                if way == Way::Plain && number == ROWS.len() - 1 {
                    continue;
                }
                if number == 0 && round == 0 {
                    // git records data of each file once; let it do that before the measurement.
                    row(&site.place(way)?, options, &material, round)?;
                }
                // A new connection for each row, so that the caches of one row do not help another.
                let place = site.place(way)?;
                let start = Instant::now();
                if let Err(error) = row(&place, options, &material, round) {
                    wait::check()?;
                    failed.insert((number, way.name()), error.to_string());
                    continue;
                }
                let mut time = start.elapsed();
                if number == ROWS.len() - 1 {
                    time /= CYCLES as u32;
                }
                eprintln!(
                    "round {round}, {}, {}: {} ms",
                    title(options, number),
                    way.name(),
                    figures::short(time.as_secs_f64() * 1e3)
                );
                samples.entry((number, way.name())).or_default().push(time.as_secs_f64());
                wait::check()?;
            }
        }
        // So that no way runs after the same one in every round.
        order.reverse();
    }
    let mut table = table(options, &samples, &machine);
    for ((row, way), why) in failed {
        table += &format!("\n- Failed in {way}, {}: {why}.", title(options, row));
    }
    Ok((table, scratch))
}

/// The title of a row.
fn title(options: &Options, row: usize) -> String {
    let (title, _) = ROWS[row];
    title
        .replace("{megabytes}", &options.megabytes.to_string())
        .replace("{stats}", &options.stats.to_string())
}

/// Times on the server's machine; for the other ways, multiples of those times.
fn table(options: &Options, samples: &BTreeMap<(usize, &str), Vec<f64>>, machine: &str) -> String {
    let mut lines = vec![
        format!("| work | {} |", Way::ALL.map(Way::title).join(" | ")),
        format!("|---|{}", "---:|".repeat(Way::ALL.len())),
    ];
    for number in 0..ROWS.len() {
        let seconds = |way: Way| figures::median(samples.get(&(number, way.name()))?.clone());
        let cell = |way: Way| match (way, seconds(way), seconds(Way::Near)) {
            (Way::Near, Some(own), _) => figures::short(own * 1e3),
            (_, Some(own), Some(near)) => {
                format!("{} ms ({} ×)", figures::short(own * 1e3), figures::short(own / near))
            }
            _ => "–".into(),
        };
        let title = title(options, number);
        lines.push(format!("| {title} | {} |", Way::ALL.map(cell).join(" | ")));
    }
    lines.push(format!(
        "\n- {machine}; {} files, a round trip of {} ms more than loopback's, median of {} rounds, each row on a fresh connection.",
        options.files, options.round_trip, options.rounds
    ));
    lines.join("\n")
}

fn git_status(place: &Place, _: &Options, _: &Material, _: usize) -> Outcome<()> {
    let tree = place.top.join("tree");
    let mut git = material::git(&tree);
    git.env("GIT_INDEX_FILE", material::index(&tree, place.way.name()));
    let changed = guarded::output(git.args(["status", "--porcelain", "--untracked-files=no"]), LIMIT)?;
    if changed.is_empty() { Ok(()) } else { Err("git sees changes".into()) }
}

fn rg(place: &Place, _: &Options, _: &Material, _: usize) -> Outcome<()> {
    let mut rg = Command::new("rg");
    let found = guarded::output(
        rg.args(["--files-with-matches", RARE_WORD]).current_dir(place.top.join("tree")),
        LIMIT,
    )?;
    let found = String::from_utf8_lossy(&found).lines().count();
    if found == RARE_FILES { Ok(()) } else { Err(format!("{found} files have the word").into()) }
}

fn read(place: &Place, _: &Options, material: &Material, _: usize) -> Outcome<()> {
    let (mut file, mut block, mut total) = (File::open(place.top.join("big"))?, vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut block)? {
            0 => break,
            length => total += length,
        }
    }
    if total == material.megabytes << 20 { Ok(()) } else { Err(format!("{total} bytes are there").into()) }
}

fn stats(place: &Place, options: &Options, material: &Material, _: usize) -> Outcome<()> {
    for path in material.files.iter().cycle().take(options.stats) {
        fs::symlink_metadata(place.top.join(path))?;
    }
    Ok(())
}

fn claim(place: &Place, _: &Options, _: &Material, _: usize) -> Outcome<()> {
    let desk = place.top.join("tasks");
    for _ in 0..CYCLES {
        fs::write(desk.join("claim/next"), "")?;
        let status = fs::read_to_string(desk.join("claim/next"))?;
        let task = status.split('"').nth(3).ok_or("claim/next says nothing")?;
        fs::write(desk.join("completed").join(task), "done\n")?;
    }
    Ok(())
}
