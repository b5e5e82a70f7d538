//! temporary
#![allow(unsafe_code)]
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
