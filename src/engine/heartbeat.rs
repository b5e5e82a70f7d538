//! Who is here: when each worker was first and last heard of, and since when it has nothing to do.
//!
//! May assume: readings of a clock that never goes back.
//! Must never: be written to disk. Reading changes nothing (C2), and being heard of is no change.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use crate::limits::WORKERS_PRESENT;
use crate::queue::{Instant, Now, Wall, WorkerName};

/// What is known of one worker without asking the log.
#[derive(Debug)]
pub struct Heartbeat {
    /// The worker.
    pub name: WorkerName,
    /// The uid that used the name first since the start.
    pub uid: u32,
    last_heard: AtomicU64,
    last_heard_wall: AtomicI64,
    idle_since: AtomicU64,
    last_refusal: Mutex<Option<(Wall, String)>>,
}

impl Heartbeat {
    /// The worker did something.
    pub fn heard(&self, now: Now) {
        self.last_heard.fetch_max(now.instant.0, Relaxed);
        self.last_heard_wall.fetch_max(now.wall.0, Relaxed);
    }

    /// The time of day at which the worker last did something.
    pub fn last_heard_wall(&self) -> Wall {
        Wall(self.last_heard_wall.load(Relaxed))
    }

    /// The worker was refused something.
    pub fn refused(&self, at: Wall, why: String) {
        *self.last_refusal.lock() = Some((at, why));
    }

    /// The last refusal: when, and why.
    pub fn last_refusal(&self) -> Option<(Wall, String)> {
        self.last_refusal.lock().clone()
    }

    /// When the worker last did something.
    pub fn last_heard(&self) -> Instant {
        Instant(self.last_heard.load(Relaxed))
    }

    /// Since when the worker has held nothing; of one that holds something, when it last began to.
    pub fn idle_since(&self) -> Instant {
        Instant(self.idle_since.load(Relaxed))
    }
}

/// All workers that were heard of since the start.
#[derive(Debug)]
pub struct Roster {
    /// The latest time at which somebody who is not here can have been heard of: the start, or when the last one was
    /// forgotten. It counts for all of them, so that nobody loses a claim by being forgotten.
    others_heard: AtomicU64,
    workers: RwLock<HashMap<WorkerName, Arc<Heartbeat>>>,
}

impl Roster {
    /// Nobody was heard of yet.
    pub fn new(started: Instant) -> Roster {
        Roster { others_heard: AtomicU64::new(started.0), workers: RwLock::default() }
    }

    /// The worker did something now. The answer can be kept to say so again without a look-up.
    pub fn heard(&self, name: &WorkerName, uid: u32, now: Now) -> Arc<Heartbeat> {
        if let Some(known) = self.workers.read().get(name) {
            known.heard(now);
            return known.clone();
        }
        let mut workers = self.workers.write();
        if workers.len() >= WORKERS_PRESENT
            && let Some(oldest) = workers.values().min_by_key(|w| w.last_heard()).cloned()
        {
            self.others_heard.fetch_max(oldest.last_heard().0, Relaxed);
            workers.remove(&oldest.name);
        }
        let presence = workers.entry(name.clone()).or_insert_with(|| {
            Arc::new(Heartbeat {
                name: name.clone(),
                uid,
                last_heard: AtomicU64::new(now.instant.0),
                last_heard_wall: AtomicI64::new(now.wall.0),
                idle_since: AtomicU64::new(now.instant.0),
                last_refusal: Mutex::default(),
            })
        });
        presence.clone()
    }

    /// What is known of a worker.
    pub fn get(&self, name: &str) -> Option<Arc<Heartbeat>> {
        self.workers.read().get(name).cloned()
    }

    /// Everybody, by name.
    pub fn all(&self) -> Vec<Arc<Heartbeat>> {
        let mut all: Vec<_> = self.workers.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// When a worker was last heard of, or a later time; one that was not counts as heard of at the start (C33).
    pub fn last_heard(&self, name: &WorkerName) -> Instant {
        let others = || Instant(self.others_heard.load(Relaxed));
        self.workers.read().get(name).map_or_else(others, |w| w.last_heard())
    }

    /// A claim of this worker ended: its time without work begins.
    pub fn claim_ended(&self, name: &WorkerName, at: Instant) {
        if let Some(worker) = self.workers.read().get(name) {
            worker.idle_since.fetch_max(at.0, Relaxed);
        }
    }
}
