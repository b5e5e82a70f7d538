//! The log alone under `kill -9`: every acknowledged record is there afterwards, and batches are whole.
//!
//! The test starts itself again as a child. The child appends without end and writes each acknowledged position to a pipe. Each record
//! follows from its position alone, so the parent knows every byte that must be there.
//! `CREWFS_KILLS` sets the number of rounds.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crewfs::limits::TEXT_IN_LINE_BYTES;
use crewfs::log::{Log, SqliteLog};
use crewfs::queue::{Content, Event, Record, Seq, Wall};
use crewfs::state_directory::StateDirectory;

use crate::task;

const DIRECTORY: &str = "CREWFS_TEST_LOG";

/// Pseudo-random numbers that are the same in each run.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

fn record(seq: Seq) -> Record {
    // Mostly short; sometimes a few pages of the database.
    let length = if mix(seq).is_multiple_of(16) { 10_000 } else { mix(seq) % 200 };
    let text = format!("{seq} {}", "x".repeat(length as usize));
    Record { seq, at: Wall(seq as i64), event: Event::Noted { task: task("t"), text: Content::new(text) } }
}

/// The record as the log returns it: a long text is stored outside.
fn kept(seq: Seq) -> Record {
    let record = record(seq);
    let text = record.event.text().unwrap();
    match has_long_text(seq) {
        true => Record { event: record.event.with_text(text.without_text()), ..record },
        false => record,
    }
}

fn has_long_text(seq: Seq) -> bool {
    record(seq).event.text().unwrap().digest().bytes > TEXT_IN_LINE_BYTES as u64
}

/// The positions at which batches end, up to this position.
fn ends(until: Seq) -> Vec<Seq> {
    let next = |end: &Seq| Some(end + batch(*end).len() as Seq).filter(|end| *end <= until);
    std::iter::successors(Some(0), next).collect()
}

/// Assert that the dropped texts are those up to the end of the batch before the last one, or of the batch before that.
fn texts_are_whole(log: &mut SqliteLog) {
    let there = log.texts(0, usize::MAX >> 1).unwrap();
    let ends = ends(log.tail().seq);
    let left = |end: &Seq| (end + 1..=log.tail().seq).filter(|seq| has_long_text(*seq)).collect::<Vec<_>>();
    let cuts = ends.iter().rev().skip(1).take(2).map(left).collect::<Vec<_>>();
    assert!(ends.len() < 3 || cuts.contains(&there), "{there:?} is none of {cuts:?}");
    for seq in there {
        let text = record(seq).event.text().unwrap().whole().unwrap().to_vec();
        assert_eq!(log.reader().text(seq).unwrap(), Some(text));
    }
}

/// The batch that starts after this position.
fn batch(after: Seq) -> Vec<Record> {
    (after + 1..=after + 1 + mix(after) % 9).map(record).collect()
}

fn open(directory: &Path) -> SqliteLog {
    SqliteLog::open(std::sync::Arc::new(StateDirectory::at(directory, false).unwrap())).unwrap()
}

/// Not a test by itself: the body of the child.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut log = open(directory.as_ref());
    loop {
        let before = log.tail().seq;
        let tail = log.append(before, &batch(before)).unwrap();
        // Drop the texts of earlier batches, as if they were overwritten.
        let old = log.texts(0, usize::MAX >> 1).unwrap();
        log.drop_texts(&old.into_iter().filter(|seq| *seq <= before).collect::<Vec<_>>()).unwrap();
        // The write fails when the parent has ended; that ends the child.
        writeln!(std::io::stderr(), "{}", tail.seq).unwrap();
        if tail.seq.is_multiple_of(8) {
            log.idle().unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there() {
    let rounds = std::env::var("CREWFS_KILLS").map_or(30, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut boundary = 0;
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The child continues during this pause, so that the kill comes at any point of its work.
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        let patience = mix(round) % 40;
        let mut acknowledged = Vec::new();
        for line in told.by_ref().take(patience as usize) {
            acknowledged.push(line.unwrap().parse::<Seq>().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(told.map_while(|line| line.ok()?.parse::<Seq>().ok()));

        let mut log = open(dir.path());
        let tail = log.tail();
        assert!(acknowledged.last().is_none_or(|last| *last <= tail.seq), "{acknowledged:?}, but {tail:?}");
        assert!(acknowledged.len() >= patience as usize);
        let from = boundary;
        while boundary < tail.seq {
            boundary += batch(boundary).len() as Seq;
        }
        assert_eq!(boundary, tail.seq, "a batch is whole or not there");
        let records = log.read(from, usize::MAX >> 1).unwrap();
        assert!(records == (from + 1..=tail.seq).map(kept).collect::<Vec<_>>(), "what was written is there");
        texts_are_whole(&mut log);
    }
    let mut log = open(dir.path());
    let all: Vec<_> = (1..=boundary).map(kept).collect();
    assert!(log.read(0, usize::MAX >> 1).unwrap() == all);
    let bytes: String = all.iter().map(crewfs::log::line).collect();
    assert!(log.reader().read_bytes(0, usize::MAX >> 1).unwrap() == bytes.as_bytes());
}
