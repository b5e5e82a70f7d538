//! What an operator runs, on machines of its own: small Debian systems in containers, some of them booted with systemd, on which
//! the scripts of `mount-scripts/` deploy projects, take them away, and let workers in.
//!
//! `tests/run.sh` makes the system they start from (`machine.sh`). They need root; where that or a container is not to be had,
//! they are skipped with the reason, and fail in CI.

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
