//! The hooks for agent programs, byte for byte. A test runs the command of each client's registration as that client does, writes that
//! client's input to it, and compares the whole output. The mount is real, absent, dead or hanging. The tests run under each shell that
//! may be a system's sh.

mod agent;
mod believing;
mod failing;
mod leaving;
mod opencode;
mod registration;
mod sessions;
mod shown;
mod stopping;

#[path = "../mount/harness.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod harness;
#[path = "../mount/process.rs"]
#[allow(dead_code)]
mod process;
