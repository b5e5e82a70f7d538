//! What the commands print: the one place in `src/cli/` that writes to standard output and standard error.
//!
//! A reader that has seen enough closes its end of the pipe. That is no failure, and what a command does besides printing is
//! done to its end all the same; its exit code is that of the work. Another write error is kept until the work is done.
//!
//! May assume: one lock, and nothing else is locked while it is held.
//! Must never: panic, or end a command, because a text could not be written.

use std::fmt::{Arguments, Display};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use super::error::CliError;
use crate::shown;

/// The first error of writing to standard output. Nothing is written after it: a text with a hole in it misleads.
static ERROR: Mutex<Option<io::Error>> = Mutex::new(None);

/// Print a line on standard output.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::cli::out::line(format_args!($($part)*))
    };
}
pub(super) use say;

/// What `say!` calls.
pub(super) fn line(text: Arguments) {
    write(format!("{}\n", shown::lines(&text.to_string())).as_bytes());
}

/// Write to standard output. The answer is whether there is any use in writing more: a long listing ends when there is none.
pub(super) fn write(bytes: &[u8]) -> bool {
    attempt(|| {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    })
}

/// Let `print` write to standard output in its own way, and keep its error as that of [`write`].
pub(super) fn attempt(print: impl FnOnce() -> io::Result<()>) -> bool {
    let mut error = ERROR.lock().unwrap_or_else(PoisonError::into_inner);
    if error.is_none() {
        *error = print().err();
    }
    error.is_none()
}

/// Write a line to standard error. Where that cannot be written to, the message is lost.
pub(super) fn complain(message: impl Display) {
    let _ = writeln!(io::stderr(), "{}", shown::lines(&message.to_string()));
}

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// What became of all that was printed.
pub(super) fn outcome() -> Result<(), CliError> {
    match ERROR.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::failed(format!(
            "standard output cannot be written: {error}; some of the text is missing, nothing else was left out: print to another place, or free some space"
        ))),
        _ => Ok(()),
    }
}
