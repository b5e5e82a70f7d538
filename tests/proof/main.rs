//! The promises of crewfs, tested at scale: one winner, no loss, no surprise with many tasks.
//!
//! Real processes work on a real mount. Afterwards the tests compare the log with the results that each process got. Random choices
//! come from a seed that is printed; `CREWFS_PROOF_SEED` repeats it. These set longer runs, each with `CREWFS_TEST_LIMIT=SECONDS`:
//! `CREWFS_RACE_TASKS`, `CREWFS_KILL_ROUNDS`, `CREWFS_DEATH_TASKS`, `CREWFS_FILES_STEPS`, `CREWFS_ORDINARY_STEPS`,
//! `CREWFS_SCALE=1`.

mod clients;
mod deaths;
mod edits;
mod files;
mod files_model;
mod forms;
#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
mod kill;
mod lines;
mod markers;
mod open_files;
mod ordinary;
#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
mod race;
mod random;
mod scale;
mod tree_scale;
