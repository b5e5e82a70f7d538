//! The hooks for agent programs, byte for byte: the command of each client's registration is run as that client runs it, with
//! what that client writes into it, and what comes out is compared whole. On a real mount; without one; on one that is dead,
//! and on one that hangs. Under each shell that may be a system's sh.

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
