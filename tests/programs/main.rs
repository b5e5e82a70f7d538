//! Programs that projects are worked on with, doing real work in the mount: the same steps are taken in a directory of the
//! disk, and afterwards both say and hold the same, byte for byte. And a browser that shows the dashboard.
//!
//! What each program needs is installed by `tests/run.sh`; one that is missing skips its test, and fails it in CI.

mod browser;
mod building;
mod copying;
mod dashboard;
mod databases;
mod editing;
mod git;
mod processes;
mod trees;

#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../suites/sides.rs"]
#[allow(dead_code)]
mod sides;
