//! The roster of active workers: when each worker was last active, and since when it is idle.
//!
//! May assume: readings of a monotonic clock.
//! Must never: write to disk. Reading changes nothing (C2), and activity of a worker is no change.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use crate::limits::WORKERS_PRESENT;
use crate::queue::{Instant, Now, Wall, WorkerName};

/// The activity of one worker, which is not in the log.
#[derive(Debug)]
pub struct Heartbeat {
    /// The worker.
    pub name: WorkerName,
    /// The first uid that used the name since the start.
    pub uid: u32,
    last_heard: AtomicU64,
    last_heard_wall: AtomicI64,
    idle_since: AtomicU64,
    last_refusal: Mutex<Option<(Wall, String)>>,
}

impl Heartbeat {
    /// Notes that the worker is active now.
    pub fn heard(&self, now: Now) {
        self.last_heard.fetch_max(now.instant.0, Relaxed);
        self.last_heard_wall.fetch_max(now.wall.0, Relaxed);
    }

    /// The wall time at which the worker was last active.
    pub fn last_heard_wall(&self) -> Wall {
        Wall(self.last_heard_wall.load(Relaxed))
    }

    /// Notes that a call of the worker was refused.
    pub fn refused(&self, at: Wall, why: String) {
        *self.last_refusal.lock() = Some((at, why));
    }

    /// The last refusal: when, and why.
    pub fn last_refusal(&self) -> Option<(Wall, String)> {
        self.last_refusal.lock().clone()
    }

    /// When the worker was last active.
    pub fn last_heard(&self) -> Instant {
        Instant(self.last_heard.load(Relaxed))
    }

    /// Since when the worker is idle. For a worker that holds a task: when its last idle time began.
    pub fn idle_since(&self) -> Instant {
        Instant(self.idle_since.load(Relaxed))
    }
}

/// All workers that were active since the start.
#[derive(Debug)]
pub struct Roster {
    /// The latest time at which a worker that is not in `workers` can have been active: the start, or the last activity of a dropped
    /// worker. It counts for all such workers, so that no worker loses a claim because it was dropped.
    unlisted_last_heard: AtomicU64,
    workers: RwLock<HashMap<WorkerName, Arc<Heartbeat>>>,
}

impl Roster {
    /// An empty roster.
    pub fn new(started: Instant) -> Roster {
        Roster { unlisted_last_heard: AtomicU64::new(started.0), workers: RwLock::default() }
    }

    /// Notes that a worker is active now. The caller may keep the returned heartbeat and note later activity without a look-up.
    pub fn heard(&self, name: &WorkerName, uid: u32, now: Now) -> Arc<Heartbeat> {
        if let Some(known) = self.workers.read().get(name) {
            known.heard(now);
            return known.clone();
        }
        let mut workers = self.workers.write();
        if workers.len() >= WORKERS_PRESENT
            && let Some(oldest) = workers.values().min_by_key(|w| w.last_heard()).cloned()
        {
            self.unlisted_last_heard.fetch_max(oldest.last_heard().0, Relaxed);
            workers.remove(&oldest.name);
        }
        let heartbeat = workers.entry(name.clone()).or_insert_with(|| {
            Arc::new(Heartbeat {
                name: name.clone(),
                uid,
                last_heard: AtomicU64::new(now.instant.0),
                last_heard_wall: AtomicI64::new(now.wall.0),
                idle_since: AtomicU64::new(now.instant.0),
                last_refusal: Mutex::default(),
            })
        });
        heartbeat.clone()
    }

    /// The heartbeat of a worker.
    pub fn get(&self, name: &str) -> Option<Arc<Heartbeat>> {
        self.workers.read().get(name).cloned()
    }

    /// All heartbeats, sorted by name.
    pub fn all(&self) -> Vec<Arc<Heartbeat>> {
        let mut all: Vec<_> = self.workers.read().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// When a worker was last active, or a later time. A worker without activity since the start counts as active at the start (C33).
    pub fn last_heard(&self, name: &WorkerName) -> Instant {
        let unlisted = || Instant(self.unlisted_last_heard.load(Relaxed));
        self.workers.read().get(name).map_or_else(unlisted, |w| w.last_heard())
    }

    /// Notes that a claim of this worker ended. The worker is idle from now on.
    pub fn claim_ended(&self, name: &WorkerName, at: Instant) {
        if let Some(worker) = self.workers.read().get(name) {
            worker.idle_since.fetch_max(at.0, Relaxed);
        }
    }
}
