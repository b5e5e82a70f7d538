//! Times of the queue as times of files.

use crate::fs::Timestamp;
use crate::queue::{Moment, Wall};

/// A time of day as a file's time.
pub(super) fn timestamp_at(wall: Wall) -> Timestamp {
    timestamp_of(Moment { seq: 0, at: wall })
}

/// A moment as a file's time. The position in the log stands below the milliseconds, so that two changes in one
/// millisecond still show two times (C1).
pub(super) fn timestamp_of(moment: Moment) -> Timestamp {
    let ms = moment.at.0;
    Timestamp {
        seconds: ms.div_euclid(1000),
        nanos: (ms.rem_euclid(1000) * 1_000_000) as u32 + (moment.seq % 1_000_000) as u32,
    }
}
