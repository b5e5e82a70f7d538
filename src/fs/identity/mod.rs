//! Which worker a request comes from, and when the processes of a worker end (C31, C40, C44).
//!
//! [`callers`] answers the question for one request, from what [`process`] reads of one process and [`ancestry`] of a line of them. Reads that
//! may block for ever are made by [`lookups`]. [`process_watch`] ends the claims of workers whose processes have ended, with exit codes from
//! [`exits`] where the kernel keeps none. [`names`] says which user a name belongs to,
//! and [`nameless`] why a caller has none.

mod ancestry;
pub mod callers;
pub mod exits;
mod lookups;
pub mod nameless;
pub mod names;
pub mod process;
pub mod process_watch;
