//! Snapshots: the state at one position of the log, so that a start costs what changed since.
//!
//! May assume: the log is the truth.
//! Must never: be needed. A snapshot that is missing, torn or older costs time; one that does not fit is not used.
//!
//! The file is two lines of JSON: a head that says what follows, and the state.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::limits::SNAPSHOT_BYTES;
use crate::log::Log;
use crate::queue::{Seq, State};
use crate::state_directory::StateDirectory;

/// The file in the state directory.
pub const FILE: &str = "snapshot.json";
const UNFINISHED: &str = "snapshot.json.new";
/// The format of the state that follows; another one is not used.
const FORMAT: u32 = 4;

#[derive(Serialize, Deserialize)]
struct SnapshotHead {
    crewfs_snapshot: u32,
    seq: Seq,
    bytes: usize,
    check: u64,
}

/// The newest usable snapshot in the state directory that is not ahead of `tail`.
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

/// Whether the snapshot is of this log: the event that it ends with has the time that the log says.
pub fn fits(state: &State, log: &mut dyn Log) -> bool {
    let Some(before) = state.tail().checked_sub(1) else { return true };
    let fits =
        log.read(before, 1).is_ok_and(|last| last.first().is_some_and(|last| last.at == state.last_at()));
    if !fits {
        log::warn!("the snapshot is of another log, and not used");
    }
    fits
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

/// Write a snapshot of `state`. It replaces the one before in one step, when it is whole and on disk.
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
        // On a full disk the unfinished file must not take the last space.
        let _ = directory.remove(UNFINISHED);
        return Err(error);
    }
    directory.rename(UNFINISHED, FILE)?;
    Ok(())
}

/// Writes snapshots on a thread of its own, one at a time: a commit does not wait for them.
pub struct Snapshots {
    directory: Arc<StateDirectory>,
    /// The position of the last one on disk.
    at: Seq,
    writing: Option<JoinHandle<Option<Seq>>>,
}

impl Snapshots {
    /// The one on disk is of position `at`.
    pub fn new(directory: Arc<StateDirectory>, at: Seq) -> Snapshots {
        Snapshots { directory, at, writing: None }
    }

    /// The last one was taken away.
    pub fn forget(&mut self) {
        self.at = 0;
    }

    /// Begin to write one, if it is worth so many events and none is under way.
    pub fn begin(&mut self, state: Arc<State>, events: u64) {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
            self.finish();
        }
        if self.writing.is_some() || !self.is_worth(&state, events) {
            return;
        }
        let directory = self.directory.clone();
        let thread = std::thread::Builder::new().name("snapshot".into());
        match thread.spawn(move || written(&directory, &state)) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => log::warn!("no snapshot could be written, a start will take longer: {error}"),
        }
    }

    /// Wait for one that is under way; then write one, if it is worth so many events.
    pub fn end(&mut self, state: &State, events: u64) {
        self.finish();
        if self.is_worth(state, events) {
            self.at = written(&self.directory, state).unwrap_or(self.at);
        }
    }

    fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.at = writing.join().ok().flatten().unwrap_or(self.at);
        }
    }

    /// A snapshot costs as much as there are tasks: it must be worth as many events.
    fn is_worth(&self, state: &State, events: u64) -> bool {
        state.tail() - self.at >= events.max(state.len() as u64 / 4)
    }
}

/// The position of the snapshot, if it could be written.
fn written(directory: &StateDirectory, state: &State) -> Option<Seq> {
    let saved = save(directory, state);
    saved
        .inspect_err(|error| log::warn!("no snapshot could be written, a start will take longer: {error}"))
        .ok()
        .map(|()| state.tail())
}

/// FNV-1a, which finds torn and flipped bytes; nobody attacks this file.
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
