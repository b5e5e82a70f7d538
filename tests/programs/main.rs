//! Programs that projects use, doing real work in the mount. The same steps run in a directory of the disk; afterwards, outputs and
//! contents must be the same, byte for byte. Shell scripts run the use cases of crewfs. A browser shows the dashboard.
//!
//! `tests/run.sh` installs each program. Where a program is missing, its test is skipped; in CI it fails.

mod browser;
mod building;
mod copying;
mod dashboard;
mod databases;
mod editing;
mod git;
mod history;
mod processes;
mod trees;
mod use_cases;

#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../suites/sides.rs"]
#[allow(dead_code)]
mod sides;
