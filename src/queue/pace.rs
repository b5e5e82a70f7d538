//! How fast tasks are completed, and how many were open over time.
//!
//! Must never: make more than a few passes over the tasks.

use serde::Serialize;

use super::summary_input::MINUTE_MS;
use super::task::Finish;
use super::{Phase, State, Wall};

/// Throughput is measured over this many minutes.
const MINUTES: usize = 60;
/// The same in milliseconds.
pub(super) const HOUR_MS: u64 = MINUTES as u64 * MINUTE_MS;
/// The number of steps in the burn-down.
const STEPS: usize = 60;

/// How fast tasks are completed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// Tasks completed in the last hour.
    pub completed: usize,
    /// Tasks given up in the last hour.
    pub failed: usize,
    /// Tasks completed in each minute of that hour, oldest first.
    pub by_minute: Vec<u32>,
    /// Completions per hour, measured from the first completion of the last hour; `None` if there are fewer than two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_hour: Option<f64>,
}

/// How many tasks were published and not finished, over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BurnDown {
    /// When the first task was published.
    pub from: Wall,
    /// How many tasks were open, at moments evenly spread from then until now.
    pub open: Vec<usize>,
}

impl Throughput {
    /// The throughput of the hour before `now`.
    pub(super) fn of(state: &State, now: Wall) -> Throughput {
        let age = |finish: &Finish| now.0.saturating_sub(finish.when.at.0).max(0) as u64;
        let mut throughput =
            Throughput { completed: 0, failed: 0, by_minute: vec![0; MINUTES], per_hour: None };
        let mut oldest = 0;
        for (_, task) in state.tasks() {
            match &task.phase {
                Phase::Completed(finish) if age(finish) < HOUR_MS => {
                    throughput.completed += 1;
                    throughput.by_minute[MINUTES - 1 - (age(finish) / MINUTE_MS) as usize] += 1;
                    oldest = oldest.max(age(finish));
                }
                Phase::Failed(finish) if age(finish) < HOUR_MS => throughput.failed += 1,
                _ => {}
            }
        }
        // The first completion marks the beginning of the measured time, so it is not counted.
        if throughput.completed > 1 && oldest > 0 {
            let pace = (throughput.completed - 1) as f64 * HOUR_MS as f64 / oldest as f64;
            throughput.per_hour = Some((pace * 10.0).round() / 10.0).filter(|pace| *pace > 0.0);
        }
        throughput
    }
}

impl BurnDown {
    /// The burn-down of the tasks that exist now. A withdrawn task is left out, and a retried task counts as never finished.
    pub(super) fn of(state: &State, now: Wall) -> Option<BurnDown> {
        let from = state.tasks().map(|(_, task)| task.published.at).min()?;
        let span = now.0.saturating_sub(from.0).max(1) as i128;
        // The first step that includes an event at this time.
        let step = |at: Wall| {
            let since = i128::from(at.0.saturating_sub(from.0).max(0));
            ((since * STEPS as i128 + span - 1) / span).min(STEPS as i128) as usize
        };
        let mut change = vec![0_i64; STEPS + 1];
        for (_, task) in state.tasks() {
            change[step(task.published.at)] += 1;
            if let Some(finish) = task.finish() {
                change[step(finish.when.at)] -= 1;
            }
        }
        let mut open = 0;
        let running_sum = |change| {
            open += change;
            usize::try_from(open).unwrap_or(0)
        };
        Some(BurnDown { from, open: change.into_iter().map(running_sum).collect() })
    }
}
