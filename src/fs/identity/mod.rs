//! Which worker a request comes from, and when the processes of a worker end (C31, C40, C44).
//!
//! [`callers`] answers this for one request. [`process`] reads one process, and [`ancestry`] a process with its ancestors. [`lookups`]
//! makes reads that may block for ever. [`process_watch`] ends the claims of workers whose processes have ended; [`exits`] gives it the
//! exit codes where the kernel keeps none. [`names`] knows which user a name belongs to, and [`nameless`] why a caller has none.

mod ancestry;
pub mod callers;
pub mod exits;
mod lookups;
pub mod nameless;
pub mod names;
pub mod process;
pub mod process_watch;
