//! Every bound of the program: all bounds stand here.
//!
//! May assume: nothing.
//! Must never: hold anything but constants and the arithmetic that derives one bound from another.

/// Largest WRITE that the kernel may send, and so the largest READ, in bytes.
pub const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way by itself (readahead, write-out), at most.
pub const MAX_BACKGROUND: u16 = 64;

/// Descriptors without content (`O_PATH`) that one session keeps ready, at most.
pub const PATH_DESCRIPTORS_MAX: usize = 4096;
/// Descriptors for content that one session keeps ready, at most.
pub const DATA_DESCRIPTORS_MAX: usize = 1024;
/// Descriptors of any sort that a session may have however low the limit is: a walk needs a few at once.
pub const DESCRIPTORS_MIN: usize = 8;

/// What one session may do with the descriptors of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// `O_PATH` descriptors kept ready.
    pub paths: usize,
    /// Descriptors for content kept ready.
    pub data: usize,
    /// Descriptors of deleted files that are still in use. They cannot be closed and opened again, so there must
    /// always be others left to work with.
    pub deleted: usize,
}

impl Descriptors {
    /// The share of one session of two, when the process may open `limit`. A quarter of all is left for open
    /// directories, handles and the log.
    pub fn of(limit: u64) -> Descriptors {
        let share = usize::try_from(limit / 8)
            .unwrap_or(usize::MAX)
            .max(DESCRIPTORS_MIN);
        Descriptors {
            paths: share.min(PATH_DESCRIPTORS_MAX),
            data: share.min(DATA_DESCRIPTORS_MAX),
            deleted: share,
        }
    }
}

/// Directories between a node and the root, at most. Changes behind the mount can make the known places form a ring.
pub const DEPTH_MAX: usize = 4096;
/// Bytes of a directory read from the disk at once.
pub const DIRECTORY_BATCH: usize = 32 << 10;
/// Longest value or list of extended attributes, in bytes: `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of Linux.
pub const XATTR_MAX: usize = 64 << 10;
/// Longest copy done in one request, in bytes: nobody can interrupt it. The caller asks again for the rest.
pub const COPY_MAX: u64 = 256 << 20;

const _: () = assert!(
    DESCRIPTORS_MIN <= DATA_DESCRIPTORS_MAX && DATA_DESCRIPTORS_MAX <= PATH_DESCRIPTORS_MAX
);
