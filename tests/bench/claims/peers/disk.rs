//! The limits of the disk and its filesystem: files created without any sync, and syncs without any queue.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Client, Outcome, Peer, System};
use crate::race::{Point, Seat};

const PAGE: usize = 4096;
const PAGES: u64 = 256;

/// A file of written pages that is overwritten in a ring, so that a sync need not record a new size or place.
pub(crate) struct Pages {
    file: File,
    next: u64,
}

impl Pages {
    /// Creates the file and syncs it.
    pub(crate) fn create(path: &Path) -> Outcome<Self> {
        let file = File::create(path)?;
        file.write_all_at(&vec![0; PAGE * PAGES as usize], 0)?;
        file.sync_all()?;
        Ok(Self { file, next: 0 })
    }

    /// Overwrites one page and syncs it.
    pub(crate) fn write(&mut self) -> Outcome<()> {
        self.file.write_all_at(&[b'x'; PAGE], self.next % PAGES * PAGE as u64)?;
        self.next += 1;
        Ok(self.file.sync_data()?)
    }
}

/// The files themselves are the state, and there is no server.
struct NoServer;

impl System for NoServer {
    fn completed(&self) -> Outcome<Option<usize>> {
        Ok(None)
    }
}

/// Two writes of a page, each synced. Every client has its own file and waits for no other client.
pub(crate) struct WriteAndSync;

impl Peer for WriteAndSync {
    fn name(&self) -> &'static str {
        "fdatasync"
    }

    fn title(&self) -> &'static str {
        "limit: 2 × write + fdatasync, a file for each client"
    }

    fn start(&self, _point: &Point) -> Outcome<Box<dyn System>> {
        Ok(Box::new(NoServer))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        Ok(Box::new(Pages::create(&seat.point.dir.join(seat.worker()))?))
    }
}

impl Client for Pages {
    fn claim(&mut self) -> Outcome<Option<String>> {
        self.write()?;
        Ok(Some(String::new()))
    }

    fn complete(&mut self, _task: &str) -> Outcome<()> {
        self.write()
    }
}

/// Two files created with O_EXCL, and no sync: the cost of a claim that a power failure may undo.
pub(crate) struct CreateWithoutSync;

impl Peer for CreateWithoutSync {
    fn name(&self) -> &'static str {
        "create"
    }

    fn title(&self) -> &'static str {
        "limit: 2 × O_EXCL create on the disk, no sync"
    }

    fn start(&self, point: &Point) -> Outcome<Box<dyn System>> {
        fs::create_dir(point.dir.join("claim"))?;
        fs::create_dir(point.dir.join("completed"))?;
        Ok(Box::new(NoServer))
    }

    fn client(&self, seat: &Seat) -> Outcome<Box<dyn Client>> {
        let in_dir = |name| seat.point.dir.join(name);
        Ok(Box::new(Creator {
            ids: Box::new(seat.shard()),
            claim: in_dir("claim"),
            completed: in_dir("completed"),
        }))
    }
}

struct Creator {
    ids: Box<dyn Iterator<Item = String>>,
    claim: PathBuf,
    completed: PathBuf,
}

impl Client for Creator {
    fn claim(&mut self) -> Outcome<Option<String>> {
        let Some(id) = self.ids.next() else {
            return Ok(None);
        };
        OpenOptions::new().write(true).create_new(true).open(self.claim.join(&id))?;
        Ok(Some(id))
    }

    fn complete(&mut self, task: &str) -> Outcome<()> {
        OpenOptions::new().write(true).create_new(true).open(self.completed.join(task))?;
        Ok(())
    }
}
