//! The system calls that need `unsafe`, and what the process must set once about itself at its start.
//!
//! May assume: nothing; each function says when it may be called.
//! Must never: know what a filesystem is. No other file of the crate may hold `unsafe`.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::sync::OnceLock;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getegid, geteuid, getrlimit, setrlimit, umask};
use rustix::thread::{CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits};

/// The ids that files are labelled with when no caller is acted for, fixed when first asked for.
fn own_ids() -> (u32, u32) {
    static IDS: OnceLock<(u32, u32)> = OnceLock::new();
    *IDS.get_or_init(|| (geteuid().as_raw(), getegid().as_raw()))
}

/// Whether this process was started as root.
pub fn is_root() -> bool {
    own_ids().0 == 0
}

/// While it lives, what this thread creates belongs to somebody else. It cannot leave its thread.
#[must_use = "the thread acts for the caller only while this lives"]
#[derive(Debug)]
pub struct ActingFor {
    changed: bool,
    of_this_thread: PhantomData<*const ()>,
}

/// Let this thread create files as `uid` and `gid` until the answer is dropped.
///
/// This labels and does not judge: mounted with `default_permissions`, the kernel has checked every permission
/// already, with all of the caller's groups, which a request does not carry. So the thread keeps its capabilities
/// (see [`keep_capabilities`]), and a daemon that is not root, which can only create as itself, changes nothing.
pub fn act_for(uid: u32, gid: u32) -> ActingFor {
    let own = own_ids();
    let changed = is_root() && (uid, gid) != own;
    if changed {
        set_ids(uid, gid);
    }
    ActingFor { changed, of_this_thread: PhantomData }
}

impl Drop for ActingFor {
    fn drop(&mut self) {
        if self.changed {
            let (uid, gid) = own_ids();
            set_ids(uid, gid);
        }
    }
}

fn set_ids(uid: u32, gid: u32) {
    // SAFETY: both calls take plain integers and change only the filesystem ids of the calling thread; the C
    // library does not spread them to other threads, as it does for setuid(2).
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

/// Let threads keep their capabilities when their filesystem uid changes.
///
/// Without it, taking on a caller's uid would also drop `CAP_DAC_OVERRIDE`, and the disk would judge the caller a
/// second time, without its supplementary groups. Threads inherit the setting: call it before any is started.
pub fn keep_capabilities() -> io::Result<()> {
    if is_root() {
        let bits = capabilities_secure_bits()? | CapabilitiesSecureBits::NO_SETUID_FIXUP;
        set_capabilities_secure_bits(bits)?;
    }
    Ok(())
}

/// Raise the soft limit of open descriptors to the hard one; the answer is the limit that now holds.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return descriptor_limit();
    }
    // A refusal leaves the old limit, which is only smaller.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    descriptor_limit()
}

/// How many descriptors this process may have open.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Create files with exactly the mode that is asked for: the caller's umask is applied by the kernel already.
pub fn clear_umask() {
    umask(Mode::empty());
}

/// The name of a SQLite file layer like the default one, but that takes a path as it is given.
///
/// SQLite resolves every symbolic link of a path before it opens the file. `/proc/self/fd/N/log.db` would become a path
/// that our own mount may cover; taken as it is, it names the file in the directory that the descriptor holds.
pub fn sqlite_vfs_by_descriptor() -> &'static str {
    use rusqlite::ffi;
    use std::ffi::{CStr, c_char, c_int};

    const NAME: &CStr = c"crewfs";

    /// Copy the path instead of resolving it.
    unsafe extern "C" fn full_pathname(
        _vfs: *mut ffi::sqlite3_vfs,
        path: *const c_char,
        size: c_int,
        out: *mut c_char,
    ) -> c_int {
        // SAFETY: SQLite gives a NUL-ended path, and `size` bytes to write to.
        let (path, out) = unsafe {
            (
                CStr::from_ptr(path).to_bytes_with_nul(),
                std::slice::from_raw_parts_mut(out.cast::<u8>(), size as usize),
            )
        };
        match out.get_mut(..path.len()) {
            Some(out) => {
                out.copy_from_slice(path);
                ffi::SQLITE_OK
            }
            None => ffi::SQLITE_CANTOPEN,
        }
    }

    static REGISTERED: std::sync::Once = std::sync::Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the default VFS lives as long as the process, and so does our leaked copy, which shares its file type
        // (`szOsFile`, `xOpen`) and its private data.
        unsafe {
            let mut vfs = *ffi::sqlite3_vfs_find(std::ptr::null());
            vfs.zName = NAME.as_ptr();
            vfs.pNext = std::ptr::null_mut();
            vfs.xFullPathname = Some(full_pathname);
            ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0);
        }
    });
    "crewfs"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_created_belongs_to_the_caller_and_the_thread_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let owner_of = |name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            let meta = std::fs::metadata(path).unwrap();
            (meta.uid(), meta.gid())
        };
        std::thread::scope(|scope| {
            // A thread of its own: the secure bits stay with it.
            scope.spawn(|| {
                keep_capabilities().unwrap();
                let own = own_ids();
                let acting = act_for(4321, 1234);
                let expected = if own.0 == 0 { (4321, 1234) } else { own };
                assert_eq!(owner_of("theirs"), expected);
                drop(acting);
                assert_eq!(owner_of("ours"), own);
            });
        });
    }
}
