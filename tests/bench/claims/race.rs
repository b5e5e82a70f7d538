//! One point of the table: client processes start together, run for the same time, and report.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peers::{Outcome, Peer};
use crate::wait;

const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long after the end of the window the slowest cycle may end.
const LATE_LIMIT: Duration = Duration::from_secs(10);

/// A point: the number of clients, and the system's directory and tasks.
#[derive(clap::Args, Clone)]
pub(crate) struct Point {
    /// The directory of this point alone
    pub(crate) dir: PathBuf,
    /// How many client processes
    pub(crate) clients: usize,
    /// How many tasks are at hand
    pub(crate) tasks: usize,
    /// How long it lasts, unless the tasks are used up
    pub(crate) seconds: f64,
}

impl Point {
    /// The id of every task.
    pub(crate) fn ids(&self) -> impl Iterator<Item = String> {
        (0..self.tasks).map(id)
    }
}

/// The place of one client in a point.
#[derive(clap::Args, Clone)]
pub(crate) struct Seat {
    #[command(flatten)]
    pub(crate) point: Point,
    /// Which of the clients
    pub(crate) number: usize,
}

impl Seat {
    /// The tasks that this client claims where clients do not compete.
    pub(crate) fn shard(&self) -> impl Iterator<Item = String> + use<> {
        (self.number..self.point.tasks).step_by(self.point.clients).map(id)
    }

    /// The name of this client as a worker.
    pub(crate) fn worker(&self) -> String {
        format!("w{:02}", self.number)
    }

    fn ready_file(&self) -> PathBuf {
        self.point.dir.join(format!("{}.ready", self.worker()))
    }

    fn report_file(&self) -> PathBuf {
        self.point.dir.join(format!("{}.json", self.worker()))
    }
}

fn id(number: usize) -> String {
    format!("t{number:06}")
}

/// The result of a point.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Cycles a second, summed over all clients.
    pub(crate) rate: f64,
    /// The median time of a cycle, in milliseconds.
    pub(crate) p50: f64,
    /// The 99th percentile of the time of a cycle, in milliseconds.
    pub(crate) p99: f64,
    /// The slowest cycle, in milliseconds. The percentiles hide clients that wait so long that they complete few cycles.
    pub(crate) max: f64,
}

/// Measures one point.
pub(crate) fn run(peer: &dyn Peer, point: &Point) -> Outcome<Sample> {
    // Dropped in reverse order: a client that waits for a server ends only when that server has gone.
    let mut clients = Clients::default();
    let system = peer.start(point)?;

    let (start_line, go) = io::pipe()?;
    let seats: Vec<Seat> = (0..point.clients).map(|number| Seat { point: point.clone(), number }).collect();
    for seat in &seats {
        clients.launch(peer, seat, start_line.try_clone()?)?;
    }
    // A client that fails early writes its report instead of its readiness.
    wait::until("getting the clients ready", READY_LIMIT, || {
        Ok(seats.iter().all(|seat| seat.ready_file().exists() || seat.report_file().exists()))
    })?;
    // So that the first sync of the race does not also write the data of the preparation and of the point before.
    rustix::fs::syncfs(File::open(&point.dir)?)?;
    drop(go);
    wait::until("the last cycle", Duration::from_secs_f64(point.seconds) + LATE_LIMIT, || {
        clients.have_ended()
    })?;

    let reports = seats.iter().map(read_report).collect::<Outcome<Vec<_>>>()?;
    let cycles: usize = reports.iter().map(|report| report.latencies.len()).sum();
    match system.completed()? {
        Some(completed) if completed != cycles => {
            Err(format!("the clients completed {cycles} tasks, the system knows of {completed}").into())
        }
        _ => summary(reports, point.seconds),
    }
}

/// Client processes. Dropping them kills them and waits for their ends.
#[derive(Default)]
struct Clients(Vec<Child>);

impl Clients {
    fn launch(&mut self, peer: &dyn Peer, seat: &Seat, start_line: PipeReader) -> Outcome<()> {
        let Seat { point, number } = seat;
        let child = Command::new(std::env::current_exe()?)
            .args(["client", peer.name()])
            .arg(&point.dir)
            .args([
                point.clients.to_string(),
                point.tasks.to_string(),
                point.seconds.to_string(),
                number.to_string(),
            ])
            .env("CREWFS_WORKER", seat.worker())
            .stdin(start_line)
            // Ctrl-C reaches only the parent, which ends everything in the right order.
            .process_group(0)
            .spawn()?;
        self.0.push(child);
        Ok(())
    }

    fn have_ended(&mut self) -> Outcome<bool> {
        for child in &mut self.0 {
            if child.try_wait()?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// The body of a client process.
pub(crate) fn client(peer: &dyn Peer, seat: &Seat) -> Outcome<()> {
    let report = cycles(peer, seat).unwrap_or_else(|error| json!({ "error": error.to_string() }));
    fs::write(seat.report_file(), report.to_string())?;
    Ok(())
}

fn cycles(peer: &dyn Peer, seat: &Seat) -> Outcome<Value> {
    let window = Duration::from_secs_f64(seat.point.seconds);
    let mut client = peer.client(seat)?;
    fs::write(seat.ready_file(), "")?;
    // All clients read from one pipe. The parent closes its other end, which starts the race.
    io::stdin().read_to_end(&mut Vec::new())?;

    let start = Instant::now();
    let mut in_time = 0_u64;
    let mut latencies = Vec::new();
    while start.elapsed() < window {
        let began = start.elapsed();
        let Some(task) = client.claim()? else { break };
        client.complete(&task)?;
        let ended = start.elapsed();
        latencies.push(nanoseconds(ended - began));
        in_time += u64::from(ended <= window);
    }
    let elapsed = nanoseconds(start.elapsed().min(window));
    Ok(json!({ "in_time": in_time, "elapsed": elapsed, "latencies": latencies }))
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

struct Report {
    in_time: u64,
    seconds: f64,
    latencies: Vec<u64>,
}

fn read_report(seat: &Seat) -> Outcome<Report> {
    let text =
        fs::read_to_string(seat.report_file()).map_err(|_| format!("{} left no report", seat.worker()))?;
    let report: Value = serde_json::from_str(&text)?;
    if let Some(error) = report["error"].as_str() {
        return Err(error.into());
    }
    let number = |value: &Value| value.as_u64().ok_or("a report without its numbers");
    Ok(Report {
        in_time: number(&report["in_time"])?,
        seconds: Duration::from_nanos(number(&report["elapsed"])?).as_secs_f64(),
        latencies: report["latencies"]
            .as_array()
            .into_iter()
            .flatten()
            .map(number)
            .collect::<Result<_, _>>()?,
    })
}

/// The rate counts the cycles that ended within the window. The percentiles count every cycle, so that a client that waited past the
/// end shows.
fn summary(reports: Vec<Report>, window: f64) -> Outcome<Sample> {
    let in_time: u64 = reports.iter().map(|report| report.in_time).sum();
    let seconds = reports.iter().map(|report| report.seconds).fold(0.0, f64::max).min(window);
    let mut latencies: Vec<u64> = reports.into_iter().flat_map(|report| report.latencies).collect();
    latencies.sort_unstable();
    let percentile = |percent: usize| {
        let place = (latencies.len() * percent).div_ceil(100).max(1) - 1;
        latencies.get(place).map(|&latency| Duration::from_nanos(latency).as_secs_f64() * 1e3)
    };
    match (percentile(50), percentile(99), percentile(100)) {
        (Some(p50), Some(p99), Some(max)) => Ok(Sample { rate: in_time as f64 / seconds, p50, p99, max }),
        _ => Err("not one cycle was completed".into()),
    }
}
