//! Prints for the commands: the one place in `src/cli/` that writes to standard output and standard error.
//!
//! A reader may close its end of the pipe early. That is no failure: the command still finishes its work, and exits with the code of
//! the work. Any other write error is kept until the work is done.
//!
//! May assume: one lock. Nothing else is locked while it is held.
//! Must never: panic, or end a command, because a text could not be written.

use std::fmt::{Arguments, Display};
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, PoisonError};

use super::error::CliError;
use crate::shown;

/// The first error of standard output. Nothing is written after it, because a text with a gap misleads.
static ERROR: Mutex<Option<io::Error>> = Mutex::new(None);

/// Print a line on standard output.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::cli::out::line(format_args!($($part)*))
    };
}
pub(super) use say;

/// Called by `say!`.
pub(super) fn line(text: Arguments) {
    write(format!("{}\n", shown::lines(&text.to_string())).as_bytes());
}

/// Write to standard output. Returns whether further output can arrive. A long listing ends when it cannot.
pub(super) fn write(bytes: &[u8]) -> bool {
    attempt(|| {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    })
}

/// Let `print` write to standard output. Its error is kept like that of [`write`].
pub(super) fn attempt(print: impl FnOnce() -> io::Result<()>) -> bool {
    let mut error = ERROR.lock().unwrap_or_else(PoisonError::into_inner);
    if error.is_none() {
        *error = print().err();
    }
    error.is_none()
}

/// Write a line to standard error. If that fails, the message is lost.
pub(super) fn complain(message: impl Display) {
    let _ = writeln!(io::stderr(), "{}", shown::lines(&message.to_string()));
}

/// Whether standard output is a terminal.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether everything was printed.
pub(super) fn outcome() -> Result<(), CliError> {
    match ERROR.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::failed(format!(
            "standard output cannot be written: {error}; some of the text is missing, nothing else was left out: print to another place, or free some space"
        ))),
        _ => Ok(()),
    }
}
