//! The rate at which workers claim and complete tasks, and the time of each cycle: crewfs beside systems that people use for the same
//! job, and beside the limits of the disk. One run prints one table.
//!
//! This file has the options and the order of the points; `tests/bench/README.md` explains them.

#[path = "../common/mod.rs"]
mod common;
mod peers;
mod race;
mod socket;
mod table;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};

use common::scratch::{self, Scratch};
use common::{figures, server, wait};
use peers::{Outcome, Peer};
use race::{Point, Seat};
use table::Table;

/// Claim and complete cycles per second: crewfs, its alternatives, and the limits of the disk.
#[derive(Parser)]
#[command(name = "claims")]
struct Options {
    /// Only these, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(peers::names()))]
    peers: Vec<String>,
    /// How often every point is measured; the table shows medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long a point lasts at most
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Tasks at hand for each point; it ends early when they are used up
    #[arg(long, default_value_t = 10_000)]
    tasks: usize,
    /// A directory on the disk to measure
    #[arg(long, default_value = env!("CARGO_TARGET_TMPDIR"))]
    dir: PathBuf,
    /// Numbers of client processes, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "1,8,32")]
    clients: Vec<usize>,
    /// Given by `cargo bench` and not by `cargo test`, which builds this target too
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// The roles in which this program starts itself again.
#[derive(Subcommand)]
enum Role {
    /// One client process of a point
    #[command(hide = true)]
    Client {
        peer: String,
        #[command(flatten)]
        seat: Seat,
    },
    /// The server of the group commit row
    #[command(hide = true)]
    GroupCommit { dir: PathBuf },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match &options.role {
        Some(Role::Client { peer, seat }) => peers::find(peer).and_then(|peer| race::client(&*peer, seat)),
        Some(Role::GroupCommit { dir }) => peers::group_commit::serve(dir),
        None if options.bench => compare(&options),
        None => {
            println!("claims: nothing measured; run it with `cargo bench --bench claims`");
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("claims: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures every point. The peers take turns, so that a change of the machine's speed affects all of them.
fn compare(options: &Options) -> Outcome<()> {
    wait::until_interrupted()?;
    let run = std::process::id();
    let scratch = Scratch::new(&options.dir, "claims")?;
    let dir = scratch.path();
    scratch::spread_subdirectories(dir);

    let wanted =
        |peer: &dyn Peer| options.peers.is_empty() || options.peers.iter().any(|name| name == peer.name());
    let mut peers = peers::all();
    peers.retain(|peer| wanted(&**peer));
    let mut table = Table::new(&peers, &options.clients);
    let machine = figures::machine(dir)?;

    for round in 1..=options.rounds {
        for &clients in &options.clients {
            for peer in &peers {
                if table.is_left_out(&**peer) {
                    continue;
                }
                eprintln!("round {round} of {}, {clients} clients: {}", options.rounds, peer.name());
                // A new directory each time, and none is removed before the end: see `spread_subdirectories`.
                let dir = dir.join(format!("{}-{clients}-{round}-{run}", peer.name()));
                let point = Point { dir, clients, tasks: options.tasks, seconds: options.seconds };
                fs::create_dir(&point.dir)?;
                let measured = race::run(&**peer, &point);
                wait::check()?;
                match measured {
                    Ok(sample) => table.add(&**peer, clients, sample),
                    Err(reason) => table.leave_out(&**peer, reason.to_string()),
                }
            }
        }
        // So that no peer runs after the same one in every round.
        peers.reverse();
    }
    println!("{machine}; median of {} × {} s at most.\n\n{table}", options.rounds, options.seconds);
    Ok(())
}
