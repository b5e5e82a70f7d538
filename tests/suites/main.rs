//! Test suites of other projects for filesystems, run on the disk and through the mount. The outcomes differ only where a difference is
//! known.
//!
//! Each test lists the known differences, case by case with the reason. It fails when another case differs, or when a listed one no
//! longer does. `CREWFS_SUITES=long` runs the random suites longer. `tests/run.sh` installs the suites.

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
