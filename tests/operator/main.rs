//! The scripts and commands of an operator, on machines of their own: small Debian systems in containers, some of them booted with
//! systemd. The scripts of `mount-scripts/` deploy projects there, remove them, and admit workers.
//!
//! `tests/run.sh` makes the system that the containers start from (`machine.sh`). The tests need root and containers. Without them, the
//! tests are skipped with the reason, and fail in CI.

mod cgroup;
mod deploying;
mod guide;
mod installing;
mod logins;
mod machine;
mod mounting;
mod removing;
mod serving;
mod units;
mod workers;

#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
