//! The proof, at each mount, that this kernel asks for the attributes of a new file before open(2) returns.
//!
//! The daemon answers the CREATE of a claim when the claim is decided. The caller goes on when the claim is on disk: the daemon holds back
//! the answer to the GETATTR that the kernel sends in between. Linux sends it because it may cache nothing of the new file and must check
//! the file's mode. With a kernel that does not send it, open(2) would return before the claim is on disk. So the daemon makes one file by
//! itself, and checks whether the kernel has asked. If not, it answers the CREATE when the claim is on disk: one at a time for each
//! directory.
//!
//! Must never: take the place of a worker's file. Its name is known to this process alone, and stands for nothing after the proof.

use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::DeskCore;
use super::handles::OpenHandle;
use crate::fs::{Entry, FileKind, Ino, Opened};

/// See the module.
#[derive(Default)]
pub(super) struct CreateProbe {
    running: Mutex<Option<ProbedFile>>,
    create_waits: AtomicBool,
}

struct ProbedFile {
    name: OsString,
    ino: Option<Ino>,
    was_asked: bool,
}

impl CreateProbe {
    /// Have `open` make and close a file of a name that this gives, in a directory where nothing else has that name, and draw the
    /// conclusion.
    ///
    /// # Errors
    /// Those of `open`. Nothing is proven then, and CREATE waits.
    pub(super) fn run(&self, open: impl FnOnce(&OsStr) -> io::Result<()>) -> io::Result<()> {
        let name =
            OsString::from(format!(".create-probe-{:016x}", RandomState::new().hash_one(std::process::id())));
        *self.running.lock() = Some(ProbedFile { name: name.clone(), ino: None, was_asked: false });
        let opened = open(&name);
        let was_asked = self.running.lock().take().is_some_and(|running| running.was_asked);
        self.create_waits.store(opened.is_err() || !was_asked, Ordering::Relaxed);
        opened
    }

    /// Whether a CREATE must be answered when it is on disk and not before.
    pub(super) fn create_waits(&self) -> bool {
        self.create_waits.load(Ordering::Relaxed)
    }

    /// Whether this is the name of the probe.
    pub(super) fn is_named(&self, name: &OsStr) -> bool {
        self.running.lock().as_ref().is_some_and(|running| running.name == name)
    }

    /// The probe has been made: it is this node.
    pub(super) fn is_made(&self, ino: Ino) {
        if let Some(running) = &mut *self.running.lock() {
            running.ino = Some(ino);
        }
    }

    /// The kernel asks for the attributes of a new node.
    pub(super) fn asked(&self, ino: Ino) {
        if let Some(running) = &mut *self.running.lock() {
            running.was_asked |= running.ino == Some(ino);
        }
    }
}

impl DeskCore {
    /// The node that the probe makes: as a claim's, with nothing behind it.
    pub(super) fn create_probed(&self) -> (Entry, Opened) {
        let entry = self.fresh(FileKind::File, None);
        self.create_probe.is_made(entry.attr.ino);
        (entry, self.opened(self.view.config.owner_uid, OpenHandle::Document(Arc::default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_decides_when_create_is_answered() {
        let probe = CreateProbe::default();
        // What is asked for after the probe was made as node 7.
        for (asked, waits) in [(Some(7), false), (Some(8), true), (None, true), (Some(7), false)] {
            probe
                .run(|name| {
                    assert!(probe.is_named(name) && !probe.is_named("x".as_ref()));
                    probe.is_made(7);
                    asked.into_iter().for_each(|ino| probe.asked(ino));
                    Ok(())
                })
                .unwrap();
            assert_eq!(probe.create_waits(), waits, "{asked:?}");
        }
        probe.run(|_| Err(io::ErrorKind::NotConnected.into())).unwrap_err();
        assert!(probe.create_waits());
        assert!(!probe.is_named("x".as_ref()));
    }
}
