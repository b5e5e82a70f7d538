//! crewfs: a filesystem in which many coding agents share one project.
//!
//! The layers, top to bottom. No layer uses one above it:
//!
//! - [`cli`]: parse, call, print
//! - [`daemon`]: take a project, mount it, serve it, unmount it
//! - [`fuse`]: the kernel's protocol; the only file that names fuser
//! - [`fs`]: two small filesystems in plain types, the tree and the desk
//! - [`engine`]: the one writer: batch, decide, append, apply, answer
//! - [`queue`]: the pure state machine; and [`log`]: the event log
//!
//! See `docs/architecture.md`.

pub mod cli;
pub mod clock;
pub mod confine;
pub mod daemon;
pub mod engine;
pub mod fs;
pub mod fuse;
pub mod history;
pub mod limits;
pub mod log;
pub mod mountpoint;
pub mod mounts;
pub mod queue;
pub mod shown;
pub mod state_directory;
pub mod sys;
pub mod users;
