//! Workers on other machines: a real sshd on loopback or in a network namespace, real keys, and real sshfs mounts made by
//! `mount-scripts/connect.sh`. Afterwards the tests compare the log with the answers that each worker got.
//!
//! The table in `docs/remote.md` has every permitted difference from work on the server's machine. Needs root: the server switches
//! users. These set longer runs: `CREWFS_REMOTE_TASKS`, `CREWFS_ALIVE_INTERVAL`.

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
