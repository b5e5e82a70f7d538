//! The names, files and attributes of the tree that belong to crewfs and that no worker can change.
//!
//! Must never: name an errno.

use thiserror::Error;

/// Why a change is refused, whatever rights the caller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Reserved {
    /// The state directory.
    #[error("the name .crewfs in the project's root is kept for the state of crewfs")]
    StateDirectory,
    /// The directory on which the queue is mounted.
    #[error(
        "the crew's queue is not mounted here: unmount and mount the project anew, or bind it with rbind"
    )]
    WithoutQueue,
    /// A link that exists only through the mount.
    #[error("this symbolic link belongs to crewfs and leads to the crew's queue")]
    Link,
    /// The mount point of the queue.
    #[error(
        "the tasks directory is where the crew's queue is mounted: it can be neither removed nor renamed"
    )]
    TasksDirectory,
    /// The attribute that describes the session.
    #[error("only crewfs sets user.crewfs.session")]
    SessionAttribute,
}
