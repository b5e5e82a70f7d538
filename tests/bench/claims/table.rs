//! The table: medians of all rounds, and how crewfs compares.

use std::collections::BTreeMap;
use std::fmt;

use crate::common::figures::{median, short};
use crate::peers::Peer;
use crate::race::Sample;

/// The row that the others are compared with: it gives the same guarantees.
const COMPARED: &str = "crewfs-next";

/// All samples, by row and number of clients.
pub(crate) struct Table {
    clients: Vec<usize>,
    rows: Vec<Row>,
}

struct Row {
    name: &'static str,
    title: &'static str,
    samples: BTreeMap<usize, Vec<Sample>>,
    left_out: Option<String>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(peers: &[Box<dyn Peer>], clients: &[usize]) -> Self {
        let rows = peers.iter().map(|peer| Row {
            name: peer.name(),
            title: peer.title(),
            samples: BTreeMap::new(),
            left_out: None,
        });
        Self { clients: clients.to_vec(), rows: rows.collect() }
    }

    /// Adds the result of a round.
    pub(crate) fn add(&mut self, peer: &dyn Peer, clients: usize, sample: Sample) {
        if let Some(row) = self.row(peer.name()) {
            row.samples.entry(clients).or_default().push(sample);
        }
    }

    /// Removes a system from the table, with the reason.
    pub(crate) fn leave_out(&mut self, peer: &dyn Peer, reason: String) {
        eprintln!("claims: {} is left out: {reason}", peer.name());
        if let Some(row) = self.row(peer.name()) {
            row.left_out = Some(reason);
        }
    }

    /// Whether a system was removed.
    pub(crate) fn is_left_out(&self, peer: &dyn Peer) -> bool {
        self.rows.iter().any(|row| row.name == peer.name() && row.left_out.is_some())
    }

    fn row(&mut self, name: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.name == name)
    }

    /// The rate of crewfs as a multiple of the rate of `row`, at each number of clients.
    fn ratios(&self, row: &Row) -> String {
        let crewfs = self.rows.iter().find(|row| row.name == COMPARED);
        let ratio = |&clients: &usize| match (crewfs.and_then(|row| row.rate(clients)), row.rate(clients)) {
            (Some(ours), Some(theirs)) => format!("{} ×", short(ours / theirs)),
            _ => "–".to_owned(),
        };
        self.clients.iter().map(ratio).collect::<Vec<_>>().join(" / ")
    }
}

impl Row {
    fn rate(&self, clients: usize) -> Option<f64> {
        self.median(clients, |sample| sample.rate)
    }

    fn median(&self, clients: usize, part: impl Fn(&Sample) -> f64) -> Option<f64> {
        median(self.samples.get(&clients)?.iter().map(part).collect())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| system |")?;
        for clients in &self.clients {
            write!(f, " {clients}: cycles/s |")?;
        }
        for clients in &self.clients {
            write!(f, " {clients}: p50 / p99 / max ms |")?;
        }
        writeln!(f, " crewfs `claim/next` ÷ this |")?;
        writeln!(f, "|---|{}---:|", "---:|".repeat(2 * self.clients.len()))?;
        for row in self.rows.iter().filter(|row| row.left_out.is_none()) {
            write!(f, "| {} |", row.title)?;
            for &clients in &self.clients {
                let rate = row.rate(clients).map_or("–".to_owned(), |rate| format!("{rate:.0}"));
                write!(f, " {rate} |")?;
            }
            for &clients in &self.clients {
                let parts: [fn(&Sample) -> f64; 3] =
                    [|sample| sample.p50, |sample| sample.p99, |sample| sample.max];
                let figures = parts.map(|part| row.median(clients, part).map_or("–".to_owned(), short));
                write!(f, " {} |", figures.join(" / "))?;
            }
            writeln!(f, " {} |", self.ratios(row))?;
        }
        for row in &self.rows {
            if let Some(reason) = &row.left_out {
                write!(f, "\nLeft out: {}: {reason}", row.title)?;
            }
        }
        Ok(())
    }
}
