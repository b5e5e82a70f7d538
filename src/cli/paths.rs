//! Paths that a user typed, made absolute before anything is done with them.
//!
//! Must never: look up a mount point that may hang, if a look-up of its parent is enough.

use std::path::{Path, PathBuf};

use super::error::{CliError, dead_mount};
use crate::mounts;

/// The path without links and relative parts. Not for mount points that may be dead: the lookup would fail there.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, CliError> {
    let shown = path.display();
    path.canonicalize().map_err(|error| match error.raw_os_error() {
        Some(error) if mounts::is_of_dead(error) => CliError::failed(dead_mount(path)),
        _ => CliError::failed(format!("{shown}: {error}")),
    })
}

/// The place that a path names. Only its parent is looked up, because what is mounted at the place may not answer.
pub(super) fn mount_place(path: &Path) -> Result<PathBuf, CliError> {
    let full = std::path::absolute(path).map_err(CliError::failed)?;
    match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) => {
            let full = canonical(parent)?.join(name);
            // A link leads to the place. Anything else is the place itself, whether its daemon lives or not.
            if std::fs::read_link(&full).is_ok() { canonical(&full) } else { Ok(full) }
        }
        _ => canonical(path),
    }
}
