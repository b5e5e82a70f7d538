//! The table: for each row, the time on the source's own filesystem, and for the other filesystems the multiple of that time.

use std::collections::BTreeMap;
use std::fmt;

use crate::common::figures::{median, short};
use crate::peers::Peer;
use crate::requests::{self, Counts};

/// All measurements.
pub(crate) struct Table {
    peers: Vec<Peer>,
    rows: Vec<(&'static str, String)>,
    /// Seconds, by row and filesystem, one for each round.
    samples: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    requests: BTreeMap<&'static str, Counts>,
    /// What could not be measured: the filesystem, the row (`None` for all rows), and the reason.
    left_out: Vec<(Peer, Option<&'static str>, String)>,
    notes: Vec<String>,
}

impl Table {
    /// An empty table; a row is its name and its title.
    pub(crate) fn new(peers: &[Peer], rows: Vec<(&'static str, String)>) -> Self {
        Self {
            peers: peers.to_vec(),
            rows,
            samples: BTreeMap::new(),
            requests: BTreeMap::new(),
            left_out: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds the time of a round.
    pub(crate) fn add(&mut self, row: &'static str, peer: Peer, seconds: f64) {
        self.samples.entry((row, peer.name())).or_default().push(seconds);
    }

    /// Records the kernel's requests to crewfs during a row.
    pub(crate) fn count(&mut self, row: &'static str, counts: Counts) {
        self.requests.insert(row, counts);
    }

    /// Removes a filesystem from one row or from all.
    pub(crate) fn leave_out(&mut self, peer: Peer, row: Option<&'static str>, reason: String) {
        eprintln!(
            "tree: {}{} is left out: {reason}",
            peer.name(),
            row.map_or("".into(), |r| format!(" in {r}"))
        );
        self.left_out.push((peer, row, reason));
    }

    /// Whether the filesystem was removed from the row.
    pub(crate) fn is_left_out(&self, peer: Peer, row: &'static str) -> bool {
        self.left_out.iter().any(|(out, at, _)| *out == peer && at.is_none_or(|at| at == row))
    }

    /// The removed filesystems and rows, for a run that must measure everything.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.left_out
            .iter()
            .map(|(peer, row, reason)| format!("{}, {}: {reason}", peer.name(), row.unwrap_or("all rows")))
    }

    /// Adds a remark for the reader.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    fn has_figures(&self, peer: Peer) -> bool {
        self.samples.keys().any(|(_, name)| *name == peer.name())
    }

    /// The median of the ratios within each round. A disturbance of a round affects both times.
    fn ratio(&self, row: &'static str, peer: Peer) -> Option<f64> {
        if self.is_left_out(peer, row) {
            return None;
        }
        let limit = self.samples.get(&(row, Peer::Source.name()))?;
        let own = self.samples.get(&(row, peer.name()))?;
        median(own.iter().zip(limit).map(|(own, limit)| own / limit).collect())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<Peer> =
            self.peers.iter().copied().filter(|&p| p != Peer::Source && self.has_figures(p)).collect();
        write!(f, "| | source, ms |")?;
        for peer in &shown {
            write!(f, " {} |", peer.title())?;
        }
        writeln!(f, "\n|---|---:|{}", "---:|".repeat(shown.len()))?;
        for (row, title) in &self.rows {
            let Some(limit) = self.samples.get(&(*row, Peer::Source.name())) else { continue };
            write!(f, "| {title} | {} |", median(limit.clone()).map_or("–".into(), |s| short(s * 1e3)))?;
            for peer in &shown {
                write!(f, " {} |", self.ratio(row, *peer).map_or("–".into(), short))?;
            }
            writeln!(f)?;
        }
        for note in self.notes.iter().cloned().chain(shown.iter().filter_map(|peer| peer.note())) {
            write!(f, "\n- {note}")?;
        }
        for (peer, row, reason) in &self.left_out {
            let row = self.rows.iter().find(|(name, _)| Some(*name) == *row);
            let of = row.map_or(String::new(), |(_, title)| format!(", {title}"));
            write!(f, "\n- Left out: {}{of}: {reason}.", peer.title())?;
        }
        if !self.requests.is_empty() {
            writeln!(
                f,
                "\n\n| row | requests of the kernel to crewfs in one run, of the kinds that it counts |\n|---|---|"
            )?;
            for (row, title) in &self.rows {
                if let Some(counts) = self.requests.get(row) {
                    writeln!(f, "| {title} | {} |", requests::in_words(counts))?;
                }
            }
        }
        Ok(())
    }
}
