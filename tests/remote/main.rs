//! Workers on other machines: a real sshd on loopback or in a network namespace, real keys, real sshfs mounts made by
//! `mount-scripts/connect.sh`, and afterwards the log against what each worker was told.
//!
//! What differs from working on the machine itself is the table in `docs/remote.md`, and nothing else may. Needs root: the server
//! switches users. Longer runs: `CREWFS_REMOTE_TASKS`, `CREWFS_ALIVE_INTERVAL`.

mod claims;
mod client;
mod connecting;
mod contract;
mod cut;
mod edits;
mod freshness;
mod ghosts;
#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
mod identity;
mod machine;
#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
mod restart;
mod server;
#[path = "../suites/sides.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod sides;
#[path = "../docs/texts.rs"]
#[allow(dead_code)]
mod texts;
