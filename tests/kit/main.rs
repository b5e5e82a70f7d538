//! The agent kit in real use: `crewfs init` on projects of several kinds; the launcher with workers that crash and a mount that goes
//! away; every template and guide, parsed or run; `tests/run.sh`; and the messages of the build scripts without Rust.

mod building;
mod init;
mod launcher;
mod pages;
mod running;
mod safety;
mod templates;

#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
