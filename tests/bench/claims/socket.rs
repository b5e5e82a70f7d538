//! Connecting to a server that will listen soon.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::peers::Outcome;

/// Connects; `None` while the server does not listen yet.
pub(crate) fn connect(socket: &Path) -> Outcome<Option<UnixStream>> {
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(format!("{}: {error}", socket.display()).into()),
    }
}
