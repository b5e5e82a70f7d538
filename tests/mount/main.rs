//! The mounted filesystem as users and agents use it: the real program, a real mount, and real processes.
//!
//! Each test quotes the lines of the contract that it checks (C1, C2, …; `docs/filesystem.md`).

mod bad_input;
mod bad_places;
mod being_written;
mod beneath;
mod budget;
mod claiming;
mod command_line;
mod containers;
mod doctor;
mod editors;
mod file_leases;
mod finishing;
mod freshness;
mod guard;
mod hanging;
mod harness;
mod hostile_names;
mod identity;
mod leases;
mod listing;
mod liveness;
mod members;
mod missing;
mod notes;
mod overview;
mod places;
mod planted;
mod printing;
mod private;
mod process;
mod publishing;
mod reading;
mod recording;
mod replacing;
mod rewriting;
mod scheduling;
mod service;
mod settings;
mod sftp_server;
mod state;
mod stopping;
mod tasks_directory;
mod temporary;
mod together;
mod tools;
mod top;
mod tree;
mod undoing;

#[path = "../suites/sides.rs"]
#[allow(dead_code, unused_imports)]
mod sides;
