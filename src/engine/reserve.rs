//! The reserve: disk space held back, so that on a full disk work can be finished although no more is accepted.
//!
//! May assume: the log's own write failed for lack of space before [`Reserve::give_up`] is called.
//! Must never: fail a command. Without a reserve, a full disk is only noticed later.

use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};

use crate::limits::RESERVED_BYTES;
use crate::state_directory::StateDirectory;

/// The file in the state directory that holds the space.
pub const FILE: &str = "reserve";

/// The reserve of one state directory.
pub struct Reserve {
    directory: Arc<StateDirectory>,
    held: bool,
}

impl Reserve {
    /// Take the reserve, if the disk has the space.
    pub fn take(directory: Arc<StateDirectory>) -> Reserve {
        let mut reserve = Reserve { directory, held: false };
        reserve.retake();
        reserve
    }

    /// Whether the reserve is held: whether there is space for new work.
    pub fn held(&self) -> bool {
        self.held
    }

    /// The file was taken away, and with it the space.
    pub fn forget(&mut self) {
        self.held = false;
    }

    /// Free the space. Whether that freed anything.
    pub fn give_up(&mut self) -> bool {
        let freed = std::mem::take(&mut self.held);
        let _ = self.directory.remove(FILE);
        freed
    }

    /// Take it again, if there is space for it twice over: it must not be the reserve that fills the disk.
    pub fn retake(&mut self) -> bool {
        let free = rustix::fs::fstatvfs(&*self.directory.descriptor())
            .map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        if !self.held && free > 2 * RESERVED_BYTES {
            let flags = OFlags::WRONLY | OFlags::CREATE;
            self.held = self.directory.open(FILE, flags).is_ok_and(|file| {
                rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED_BYTES)
                    // A disk that cannot reserve (fallocate is not everywhere) is simply not reserved on.
                    .map_or_else(|errno| errno == rustix::io::Errno::OPNOTSUPP, |()| true)
            });
        }
        self.held
    }
}
