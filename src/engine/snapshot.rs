//! Snapshots: the state at one position of the log, so that a start only replays later events.
//!
//! May assume: the log is the truth.
//! Must never: be required. A missing, torn or older snapshot only costs time. A snapshot of another log is not used.
//!
//! The file has two lines of JSON: a head that describes the state, and the state.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::limits::SNAPSHOT_BYTES;
use crate::log::Log;
use crate::queue::{Seq, State};
use crate::state_directory::StateDirectory;

/// The name of the file in the state directory.
pub const FILE: &str = "snapshot.json";
const UNFINISHED: &str = "snapshot.json.new";
/// The format of the state. A snapshot in another format is not used.
const FORMAT: u32 = 4;

#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    crewfs_snapshot: u32,
    seq: Seq,
    bytes: usize,
    check: u64,
}

/// The snapshot in the state directory, if it is usable and not ahead of `tail`.
pub fn load(directory: &StateDirectory, tail: Seq) -> Option<State> {
    let mut content = Vec::new();
    let file = directory.open(FILE, OFlags::RDONLY).ok()?;
    file.take(SNAPSHOT_BYTES).read_to_end(&mut content).ok()?;
    match parse(&content) {
        Ok(state) if state.tail() <= tail => Some(state),
        Ok(state) => {
            let at = state.tail();
            log::warn!(
                "the snapshot is of event {at}, but the log ends at {tail}: it is of another log, and not used"
            );
            None
        }
        Err(why) => {
            log::warn!("the snapshot is not used, the whole log is read instead: {why}");
            None
        }
    }
}

/// Whether the snapshot is of this log: its last event must have the same time as in the log.
pub fn matches_log(state: &State, log: &mut dyn Log) -> bool {
    let Some(before) = state.tail().checked_sub(1) else { return true };
    let matches_log =
        log.read(before, 1).is_ok_and(|last| last.first().is_some_and(|last| last.at == state.last_at()));
    if !matches_log {
        log::warn!("the snapshot is of another log, and not used");
    }
    matches_log
}

fn parse(content: &[u8]) -> Result<State, String> {
    let end = content.iter().position(|b| *b == b'\n').ok_or("it has no head")?;
    let head: SnapshotHead = serde_json::from_slice(&content[..end]).map_err(|e| e.to_string())?;
    let body = &content[end + 1..];
    if head.crewfs_snapshot != FORMAT {
        return Err(format!("it has format {}, not {FORMAT}", head.crewfs_snapshot));
    }
    if head.bytes != body.len() || head.check != checksum(body) {
        return Err("it is not whole".into());
    }
    let state: State = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    if state.tail() != head.seq { Err("its head does not fit".into()) } else { Ok(state) }
}

/// Writes a snapshot of `state`. It replaces the previous one in one step, after it is complete and on disk.
pub fn save(directory: &StateDirectory, state: &State) -> io::Result<()> {
    let body = serde_json::to_vec(state)?;
    let head = SnapshotHead {
        crewfs_snapshot: FORMAT,
        seq: state.tail(),
        bytes: body.len(),
        check: checksum(&body),
    };
    let mut file = directory.open(UNFINISHED, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
    let written = file
        .write_all(&serde_json::to_vec(&head)?)
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.write_all(&body))
        .and_then(|()| file.sync_data());
    if let Err(error) = written {
        // On a full disk, the unfinished file must not take the last space.
        let _ = directory.remove(UNFINISHED);
        return Err(error);
    }
    directory.rename(UNFINISHED, FILE)?;
    Ok(())
}

/// Writes snapshots on a separate thread, one at a time, so that commits do not wait for them.
pub struct Snapshots {
    directory: Arc<StateDirectory>,
    /// The position of the snapshot on disk.
    position: Seq,
    writing: Option<JoinHandle<Option<Seq>>>,
}

impl Snapshots {
    /// `position` is that of the snapshot on disk.
    pub fn new(directory: Arc<StateDirectory>, position: Seq) -> Snapshots {
        Snapshots { directory, position, writing: None }
    }

    /// Notes that the snapshot on disk was removed.
    pub fn mark_missing(&mut self) {
        self.position = 0;
    }

    /// Begins to write a snapshot if at least `events` new events make it worthwhile and no other one is being written.
    pub fn begin(&mut self, state: Arc<State>, events: u64) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish();
        }
        if self.writing.is_some() || !self.is_worth(&state, events) {
            return;
        }
        let directory = self.directory.clone();
        let thread = std::thread::Builder::new().name("snapshot".into());
        match thread.spawn(move || save_or_warn(&directory, &state)) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => log::warn!("no snapshot could be written, a start will take longer: {error}"),
        }
    }

    /// Waits for a snapshot that is being written. Then writes one if at least `events` new events make it worthwhile.
    pub fn end(&mut self, state: &State, events: u64) {
        self.finish();
        if self.is_worth(state, events) {
            self.position = save_or_warn(&self.directory, state).unwrap_or(self.position);
        }
    }

    fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.position = writing.join().ok().flatten().unwrap_or(self.position);
        }
    }

    /// A snapshot costs O(n) in the number of tasks, so it must save the replay of a proportional number of events.
    fn is_worth(&self, state: &State, events: u64) -> bool {
        state.tail() - self.position >= events.max(state.len() as u64 / 4)
    }
}

/// Writes a snapshot and returns its position; `None` if that failed.
fn save_or_warn(directory: &StateDirectory, state: &State) -> Option<Seq> {
    let saved = save(directory, state);
    saved
        .inspect_err(|error| log::warn!("no snapshot could be written, a start will take longer: {error}"))
        .ok()
        .map(|()| state.tail())
}

/// FNV-1a, which detects torn and flipped bytes. This file needs no protection against attacks.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Event, Record, Wall, WorkerName};

    fn state() -> State {
        let event = Event::Joined { worker: WorkerName::parse("w").unwrap(), uid: 7 };
        State::replay(&[Record { seq: 1, at: Wall(5), event }])
    }

    #[test]
    fn a_snapshot_comes_back_and_a_damaged_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let fd = StateDirectory::at(dir.path(), false).unwrap();
        assert!(load(&fd, 9).is_none());
        save(&fd, &state()).unwrap();
        assert_eq!(load(&fd, 9), Some(state()));
        assert_eq!(load(&fd, 1), Some(state()));
        assert_eq!(load(&fd, 0), None, "ahead of the log");

        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(load(&fd, 9), None, "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, &flipped).unwrap();
            if let Some(loaded) = load(&fd, 9) {
                assert_eq!(loaded, state(), "flipped at {at}");
            }
        }
    }
}
