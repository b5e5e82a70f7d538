//! Tests that read the documents and the sources: the documents match the sources, and the sources follow the rules of the project.
//!
//! May assume: the sources are where they were at build time.
//! Must never: mount anything. Other tests check what the documents say of a mount.

mod commit_msg;
mod errors;
mod links;
mod modules;
mod reference;
mod task_format;
mod texts;
mod tidy;
