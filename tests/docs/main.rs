//! The documents and the sources, read by a test: what the documents say is so, and the rules of the house are kept.
//!
//! May assume: it runs where the sources are.
//! Must never: mount anything. What the documents say of a mount is shown by the tests that mount.

mod commit_msg;
mod errors;
mod links;
mod modules;
mod reference;
mod task_format;
mod texts;
mod tidy;
