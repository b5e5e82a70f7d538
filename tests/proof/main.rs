//! What crewfs promises, proved in the large: one winner, nothing lost, no surprise with many tasks.
//!
//! Real processes on a real mount, and afterwards the log against what each of them was told. What is random comes from a
//! seed that is printed; `CREWFS_PROOF_SEED` takes it again. Longer runs, each with `CREWFS_TEST_LIMIT=SECONDS`:
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
