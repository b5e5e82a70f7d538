//! Suites that others wrote for filesystems, run on the disk and through the mount: what differs is known, and nothing else.
//!
//! Each suite says what differs, case by case and with the reason, and fails when one more does or one no longer does.
//! `CREWFS_SUITES=long` runs the random ones longer. `tests/run.sh` installs the suites.

mod calls;
mod posix;
mod random_io;
mod sides;
mod stress;

#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
