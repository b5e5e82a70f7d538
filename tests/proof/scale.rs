//! No surprise with many tasks: a table of what a queue costs as it grows.
//!
//! Times depend on the machine and are only printed. The assertions hold on any machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::clients::{Client, Clients};
use crate::forms::{create, current, touch};
use crate::harness::{Mounted, Project, project};
use crate::process::{LIMIT, run};
use crate::random::{number, seed};

/// The number of measurements of each claim.
const CLAIMS: usize = 200;
/// How many times as much a claim may cost with a hundred times as many tasks.
const GROWTH: f64 = 5.0;
const TASKS: &str = "CREWFS_SCALE_TASKS";

fn id(number: usize) -> String {
    format!("t{number:06}")
}

#[test]
fn the_cost_of_a_task_does_not_grow_with_the_queue() {
    let mut sizes = vec![100, 10_000];
    if number("CREWFS_SCALE").is_some() {
        sizes.push(100_000);
    }
    let mut points = Vec::<Point>::new();
    for size in sizes {
        let project = project!();
        points.push(measure(&project, size));
    }
    let columns = points.iter().map(|point| format!("{:>14}", point.tasks));
    println!("{:32}{}", "tasks", columns.collect::<String>());
    for row in 0..points[0].rows.len() {
        let columns = points.iter().map(|point| format!("{:>14}", point.rows[row].1));
        println!("{:32}{}", points[0].rows[row].0, columns.collect::<String>());
    }
    let more = (points[1].resident - points[0].resident) / (points[1].tasks - points[0].tasks) as f64;
    println!("memory of one task more, of {} and {}: {more:.0} bytes", points[0].tasks, points[1].tasks);
    let growth = points[1].claim.as_secs_f64() / points[0].claim.as_secs_f64();
    println!(
        "a claim of the best among {}: {growth:.1} times that among {}",
        points[1].tasks, points[0].tasks
    );
    assert!(growth <= GROWTH, "{growth:.1}");
}

/// The costs at one size.
struct Point {
    tasks: usize,
    rows: Vec<(&'static str, String)>,
    claim: Duration,
    resident: f64,
}

fn measure(project: &Project, tasks: usize) -> Point {
    let mut rows = Vec::new();
    let mut row = |what, value: String| rows.push((what, value));
    let shown = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
    (0..tasks).for_each(|n| project.task(&id(n), &format!("# Task number {n}\n\nDo it.\n")));

    let (mut mounted, took) = timed(|| project.mount(&[]));
    let published = || mounted.read("events.jsonl").matches("\"published\"").count();
    assert_eq!(published(), tasks, "all are published when the mount answers");
    row("first mount", shown(took));
    mounted.stop();
    drop(mounted);
    let (mut mounted, took) = timed(|| project.mount(&[]));
    row("mount after a stop", shown(took));
    let before = mounted.read("events.jsonl").len();
    mounted.kill9();
    drop(mounted);
    let (mounted, took) = timed(|| project.mount(&[]));
    row("mount after kill -9", shown(took));
    assert_eq!(mounted.read("events.jsonl").len(), before, "nothing changed, so nothing was written");
    row("memory after that", format!("{:.1} MiB", resident(&mounted) / MIB));

    let mut list = Command::new("ls");
    list.arg("-U").arg(mounted.desk("ready"));
    let (listed, took) = timed(|| run(list).ok());
    assert_eq!(listed.lines().count(), tasks);
    row("ls -U ready", shown(took));
    let (queue, took) = timed(|| mounted.read("queue.json"));
    assert_eq!(queue.lines().count(), tasks + 2, "one line for each");
    row("queue.json, first time", shown(took));
    row("queue.json", format!("{} B", queue.len()));
    let mut times: Vec<Duration> = (0..5).map(|_| timed(|| mounted.read("queue.json")).1).collect();
    row("queue.json, again", shown(median(&mut times)));

    let environment = [(TASKS, tasks.to_string())];
    let mut clients = Clients::ready(project, &mounted, "scale::client", 1, seed(), &environment);
    clients.go();
    let report = clients.reports(LIMIT).remove(0);
    let medians: Vec<Duration> =
        report.lines().map(|line| Duration::from_nanos(line.parse().unwrap())).collect();
    row("claim/next", shown(medians[0]));
    row("claim/<id>", shown(medians[1]));
    row("completed/<id>", shown(medians[2]));

    let names = |directory: &str| mounted.list(directory).len();
    let done = 2 * claims(tasks);
    assert_eq!(
        [names("ready"), names("claim"), names("completed"), names("status")],
        [tasks - done, 0, done, tasks]
    );
    let resident = resident(&mounted);
    row("memory at the end", format!("{:.1} MiB", resident / MIB));
    row("the same, for each task", format!("{:.0} B", resident / tasks as f64));
    let state = fs::read_dir(project.behind().join(".crewfs")).unwrap();
    let blocks: u64 = state.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum();
    row(".crewfs", format!("{:.1} MiB", blocks as f64 / MIB));
    Point { tasks, rows, claim: medians[0], resident }
}

const MIB: f64 = 1024.0 * 1024.0;

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The daemon's memory, in bytes.
fn resident(mounted: &Mounted) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", mounted.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() * 1024.0
}

/// The number of measurements of each claim with this many tasks.
fn claims(tasks: usize) -> usize {
    CLAIMS.min(tasks / 2)
}

/// Not a test: the body of the client, which reports three medians in nanoseconds.
#[test]
fn client() {
    let Some(mut client) = Client::start() else { return };
    let tasks = number(TASKS).unwrap() as usize;
    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for n in 0..claims(tasks) {
        // The best tasks are the oldest, so the other one is taken from the end.
        let other = id(tasks - 1 - n);
        let (claimed, took) = timed(|| touch(&client.desk, "claim/next"));
        claimed.unwrap();
        times[0].push(took);
        let best = current(&client.desk).unwrap();
        let (claimed, took) = timed(|| touch(&client.desk, &format!("claim/{other}")));
        claimed.unwrap();
        times[1].push(took);
        for id in [best, other] {
            let (completed, took) = timed(|| {
                create(&client.desk, &format!("completed/{id}"), rustix::fs::OFlags::empty()).map(drop)
            });
            completed.unwrap();
            times[2].push(took);
        }
    }
    for times in &mut times {
        let median = median(times).as_nanos();
        client.report_now(median);
    }
}
