//! The only place that reads a clock.
//!
//! Must never: be read twice for one decision. All commands of a batch have the same time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::queue::{Instant, Now, Wall};

/// Returns the time. Tests pass a clock of their own.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Measures a duration, finer than a [`Clock`] does.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Start now.
    pub fn start() -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The machine's clocks: wall time, and CLOCK_MONOTONIC, which never goes back and does not run while the machine sleeps.
pub fn system() -> Clock {
    let start = std::time::Instant::now();
    Arc::new(move || {
        let wall = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        };
        Now { wall: Wall(wall), instant: Instant(start.elapsed().as_millis() as u64) }
    })
}
