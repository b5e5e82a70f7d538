//! The daemon: takes a project, serves its two mounts, and takes them away again.
//!
//! `start` goes through the others in this order: `project_lock` and `state_place` (the directories, by descriptor), the event log, the
//! queue in step with the files, the tree and the desk on it (`mounts`). `serve` ends in the reverse order: the desk, the tree, the writer.

mod config;
mod error;
mod mounts;
mod project_lock;
pub mod requirements;
mod serve;
mod service_manager;
mod start;
mod state_place;
mod status;

pub use self::config::Config;
pub use self::error::StartError;
pub use self::mounts::check_places;
pub use self::project_lock::{LockOwner, Project, TakeError};
pub use self::start::Daemon;
pub use self::state_place::state_place;
