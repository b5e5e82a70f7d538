//! The terms of a session: what the kernel agreed to, and how much it asked since.
//!
//! Must never: be looked at to decide anything; it is for people and for tests.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};

/// Requests that are counted one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// LOOKUP
    Lookup,
    /// GETATTR
    Getattr,
    /// SETATTR
    Setattr,
    /// READLINK
    Readlink,
    /// MKNOD
    Mknod,
    /// MKDIR
    Mkdir,
    /// SYMLINK
    Symlink,
    /// LINK
    Link,
    /// CREATE
    Create,
    /// UNLINK
    Unlink,
    /// RMDIR
    Rmdir,
    /// RENAME
    Rename,
    /// OPEN
    Open,
    /// READ
    Read,
    /// WRITE
    Write,
    /// FLUSH
    Flush,
    /// RELEASE
    Release,
    /// FSYNC
    Fsync,
    /// OPENDIR
    Opendir,
    /// READDIR
    Readdir,
    /// READDIRPLUS
    Readdirplus,
    /// RELEASEDIR
    Releasedir,
    /// FSYNCDIR
    Fsyncdir,
    /// STATFS
    Statfs,
    /// SETXATTR
    Setxattr,
    /// GETXATTR
    Getxattr,
    /// LISTXATTR
    Listxattr,
    /// REMOVEXATTR
    Removexattr,
    /// FALLOCATE
    Fallocate,
    /// LSEEK
    Lseek,
    /// COPY_FILE_RANGE
    CopyFileRange,
}

const ASKED: [(Asked, &str); 31] = [
    (Asked::Lookup, "lookup"),
    (Asked::Getattr, "getattr"),
    (Asked::Setattr, "setattr"),
    (Asked::Readlink, "readlink"),
    (Asked::Mknod, "mknod"),
    (Asked::Mkdir, "mkdir"),
    (Asked::Symlink, "symlink"),
    (Asked::Link, "link"),
    (Asked::Create, "create"),
    (Asked::Unlink, "unlink"),
    (Asked::Rmdir, "rmdir"),
    (Asked::Rename, "rename"),
    (Asked::Open, "open"),
    (Asked::Read, "read"),
    (Asked::Write, "write"),
    (Asked::Flush, "flush"),
    (Asked::Release, "release"),
    (Asked::Fsync, "fsync"),
    (Asked::Opendir, "opendir"),
    (Asked::Readdir, "readdir"),
    (Asked::Readdirplus, "readdirplus"),
    (Asked::Releasedir, "releasedir"),
    (Asked::Fsyncdir, "fsyncdir"),
    (Asked::Statfs, "statfs"),
    (Asked::Setxattr, "setxattr"),
    (Asked::Getxattr, "getxattr"),
    (Asked::Listxattr, "listxattr"),
    (Asked::Removexattr, "removexattr"),
    (Asked::Fallocate, "fallocate"),
    (Asked::Lseek, "lseek"),
    (Asked::CopyFileRange, "copy_file_range"),
];

/// What one session has agreed on with the kernel.
#[derive(Debug, Default)]
pub struct Terms {
    /// How many threads serve it.
    pub threads: usize,
    /// What would be good to have, by name, and whether the kernel has it.
    pub features: Vec<(&'static str, bool)>,
    asked: [AtomicU64; ASKED.len()],
}

impl Terms {
    /// Terms under which nothing was asked yet.
    pub fn new(threads: usize, features: Vec<(&'static str, bool)>) -> Terms {
        Terms { threads, features, asked: Default::default() }
    }

    /// Whether the kernel has this feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, there)| *name == feature && *there)
    }

    /// The kernel asked.
    pub fn count(&self, asked: Asked) {
        self.asked[asked as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often the kernel asked for what.
    pub fn asked(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ASKED.iter().map(|(asked, name)| (*name, self.asked[*asked as usize].load(Ordering::Relaxed)))
    }

    /// All of it, for people and programs.
    pub fn shown(&self) -> Value {
        let features: Map<String, Value> =
            self.features.iter().map(|(name, there)| ((*name).to_owned(), Value::from(*there))).collect();
        let asked: Map<String, Value> =
            self.asked().map(|(name, count)| (name.to_owned(), count.into())).collect();
        json!({ "threads": self.threads, "kernel": features, "requests": asked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_request_is_counted_under_its_name() {
        let terms = Terms::new(4, vec![("readdirplus", true)]);
        for (n, (asked, _)) in ASKED.iter().enumerate() {
            assert_eq!(*asked as usize, n);
            (0..n).for_each(|_| terms.count(*asked));
        }
        let shown = terms.shown();
        for (n, (_, name)) in ASKED.iter().enumerate() {
            assert_eq!(shown["requests"][name], n);
        }
        assert_eq!(shown["kernel"]["readdirplus"], true);
    }
}
