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
/// Descriptors of either sort that a session keeps ready however low the limit is: a walk needs a few at once.
pub const DESCRIPTORS_MIN: usize = 8;

/// How many descriptors of each sort, (`O_PATH`, content), one session keeps ready when the process may open `limit`.
///
/// Two sessions with two caches each take half; the rest is for open directories, deleted files in use and the log.
pub fn descriptors_kept(limit: u64) -> (usize, usize) {
    let share = usize::try_from(limit / 8)
        .unwrap_or(usize::MAX)
        .max(DESCRIPTORS_MIN);
    (
        share.min(PATH_DESCRIPTORS_MAX),
        share.min(DATA_DESCRIPTORS_MAX),
    )
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
