//! The only way to wait in the benchmarks: for a condition, with a time limit, until Ctrl-C at most.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::TERM_SIGNALS;

use super::Outcome;

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on, SIGINT or another signal to end makes every wait fail, so that all processes are ended in the usual way.
pub(crate) fn until_interrupted() -> Outcome<()> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for &signal in TERM_SIGNALS {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    Ok(())
}

/// Fails when the user wants to stop.
pub(crate) fn check() -> Outcome<()> {
    match INTERRUPTED.get() {
        Some(flag) if flag.load(Ordering::Relaxed) => Err("interrupted".into()),
        _ => Ok(()),
    }
}

/// Waits until `done` is true. `what` completes the sentence "… took longer than".
pub(crate) fn until(what: &str, limit: Duration, mut done: impl FnMut() -> Outcome<bool>) -> Outcome<()> {
    let start = Instant::now();
    loop {
        check()?;
        if done()? {
            return Ok(());
        }
        if start.elapsed() > limit {
            return Err(format!("{what} took longer than {} s", limit.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(5));
    }
}
