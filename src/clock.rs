//! The only place that reads a clock.
//!
//! Must never: be read twice for one decision. A batch of commands has one time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::queue::{Instant, Now, Wall};

/// Something that tells the time. Tests bring their own.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Measures how long something takes, finer than the time that is told.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// It begins now.
    pub fn start() -> Stopwatch {
        Stopwatch(std::time::Instant::now())
    }

    /// How long it has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The machine's clocks: the wall, and CLOCK_MONOTONIC, which never goes back and stands still while the machine sleeps.
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
