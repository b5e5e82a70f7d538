//! The terms of a session: the features that the kernel has agreed to, and the number of its requests since.
//!
//! Must never: decide anything about files. It serves people, tests, and the watchdog.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;

use serde_json::{Map, Value, json};

use crate::clock::Stopwatch;

/// The requests that are counted by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
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

const REQUEST_NAMES: [(RequestKind, &str); 31] = [
    (RequestKind::Lookup, "lookup"),
    (RequestKind::Getattr, "getattr"),
    (RequestKind::Setattr, "setattr"),
    (RequestKind::Readlink, "readlink"),
    (RequestKind::Mknod, "mknod"),
    (RequestKind::Mkdir, "mkdir"),
    (RequestKind::Symlink, "symlink"),
    (RequestKind::Link, "link"),
    (RequestKind::Create, "create"),
    (RequestKind::Unlink, "unlink"),
    (RequestKind::Rmdir, "rmdir"),
    (RequestKind::Rename, "rename"),
    (RequestKind::Open, "open"),
    (RequestKind::Read, "read"),
    (RequestKind::Write, "write"),
    (RequestKind::Flush, "flush"),
    (RequestKind::Release, "release"),
    (RequestKind::Fsync, "fsync"),
    (RequestKind::Opendir, "opendir"),
    (RequestKind::Readdir, "readdir"),
    (RequestKind::Readdirplus, "readdirplus"),
    (RequestKind::Releasedir, "releasedir"),
    (RequestKind::Fsyncdir, "fsyncdir"),
    (RequestKind::Statfs, "statfs"),
    (RequestKind::Setxattr, "setxattr"),
    (RequestKind::Getxattr, "getxattr"),
    (RequestKind::Listxattr, "listxattr"),
    (RequestKind::Removexattr, "removexattr"),
    (RequestKind::Fallocate, "fallocate"),
    (RequestKind::Lseek, "lseek"),
    (RequestKind::CopyFileRange, "copy_file_range"),
];

/// What one session has agreed on with the kernel.
#[derive(Debug, Default)]
pub struct SessionInfo {
    /// The number of threads that serve it.
    pub threads: usize,
    /// The wanted features, by name, and whether the kernel has each.
    pub features: Vec<(&'static str, bool)>,
    counts: [AtomicU64; REQUEST_NAMES.len()],
    /// The threads that serve a request, and since when.
    at_work: Mutex<HashMap<ThreadId, Stopwatch>>,
}

/// While this lives, its thread serves a request. A parked request occupies no thread.
#[derive(Debug)]
pub struct AtWork<'a>(&'a SessionInfo);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.at_work.lock().remove(&std::thread::current().id());
    }
}

impl SessionInfo {
    /// A session without any request yet.
    pub fn new(threads: usize, features: Vec<(&'static str, bool)>) -> SessionInfo {
        SessionInfo { threads, features, ..SessionInfo::default() }
    }

    /// Whether the kernel has this feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|(name, supported)| *name == feature && *supported)
    }

    /// Count a request.
    pub fn count(&self, request: RequestKind) {
        self.counts[request as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Record that this thread starts to serve a request.
    pub fn takes_up(&self) -> AtWork<'_> {
        self.at_work.lock().insert(std::thread::current().id(), Stopwatch::start());
        AtWork(self)
    }

    /// Whether each thread has served one request for at least `limit`, so that the session serves nothing any more.
    pub fn hangs(&self, limit: Duration) -> bool {
        let at_work = self.at_work.lock();
        at_work.len() >= self.threads.max(1) && at_work.values().all(|since| since.elapsed() >= limit)
    }

    /// The number of requests of each kind.
    pub fn asked(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REQUEST_NAMES
            .iter()
            .map(|(request, name)| (*name, self.counts[*request as usize].load(Ordering::Relaxed)))
    }

    /// All of it, for people and programs.
    pub fn shown(&self) -> Value {
        let features: Map<String, Value> = self
            .features
            .iter()
            .map(|(name, supported)| ((*name).to_owned(), Value::from(*supported)))
            .collect();
        let requests: Map<String, Value> =
            self.asked().map(|(name, count)| (name.to_owned(), count.into())).collect();
        json!({ "threads": self.threads, "kernel": features, "requests": requests })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_hangs_when_all_its_threads_are_at_one_request_for_long() {
        let terms = SessionInfo::new(2, Vec::new());
        let mine = terms.takes_up();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                assert!(!terms.hangs(Duration::ZERO), "one is free");
                let _theirs = terms.takes_up();
                assert!(terms.hangs(Duration::ZERO) && !terms.hangs(Duration::from_secs(3600)));
            });
        });
        assert!(!terms.hangs(Duration::ZERO));
        drop(mine);
        assert!(terms.at_work.lock().is_empty());
    }

    #[test]
    fn each_kind_of_request_is_counted_under_its_name() {
        let terms = SessionInfo::new(4, vec![("readdirplus", true)]);
        for (n, (request, _)) in REQUEST_NAMES.iter().enumerate() {
            assert_eq!(*request as usize, n);
            (0..n).for_each(|_| terms.count(*request));
        }
        let shown = terms.shown();
        for (n, (_, name)) in REQUEST_NAMES.iter().enumerate() {
            assert_eq!(shown["requests"][name], n);
        }
        assert_eq!(shown["kernel"]["readdirplus"], true);
    }
}
