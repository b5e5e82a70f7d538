//! The special names in the root directory of the tree: one is hidden, the desk is mounted on another, and three are synthesized links.
//!
//! May assume: nothing here applies to any directory but the root.
//! Must never: hide an entry of the project by the same name, except for the first two.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::reserved::Reserved;
use crate::fs::files::Files;
use crate::fs::guard::{Change, EntryName, Policy};
use crate::fs::{Attr, Fault, FileKind, Ino, ROOT, Result};

/// The state directory of crewfs in the project's directory on the disk.
pub const HIDDEN: &str = ".crewfs";

/// Numbers of synthesized links have this bit; numbers of [`Files`] never do.
const SYNTHESIZED: Ino = 1 << 62;

/// The synthesized links: their names, and their targets in the tasks directory.
const LINKS: [(&str, &str); 3] =
    [("task-queue.json", "queue.json"), ("worker-status.json", "workers.json"), ("workers", "workers")];

/// The node on which the desk is mounted: an empty directory that is not on the disk. The kernel binds a mount to its node. A mount on the
/// disk's own directory would move when that directory is renamed beneath the mount, and end when it is removed.
pub const DESK: Ino = SYNTHESIZED + 1 + LINKS.len() as Ino;

/// Whether a node exists only through the mount.
pub(super) fn is_synthesized(ino: Ino) -> bool {
    ino == DESK || Link::of(ino).is_some()
}

/// A symbolic link that exists only through the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link(usize);

/// The rules of the root directory.
pub(super) struct Root {
    files: Arc<Files>,
    tasks: OsString,
    /// The root's attributes at the start of the session. The links show its owner and times, which must not change.
    model: Attr,
    /// The attributes of the disk's tasks directory at the start of the session. A user may mount only on a directory that it may write.
    desk: Attr,
}

impl Root {
    pub(super) fn new(files: Arc<Files>, tasks: OsString) -> Result<Root> {
        let model = files.getattr(ROOT)?;
        let desk = match files.lookup(ROOT, &tasks) {
            Ok(attr) => {
                files.forget(attr.ino, 1, |_| ());
                attr
            }
            Err(_) => model,
        };
        Ok(Root { files, tasks, model, desk })
    }

    /// Whether a name does not exist through the mount, whatever the disk holds.
    pub(super) fn hides(&self, parent: Ino, name: &OsStr) -> bool {
        parent == ROOT && name == HIDDEN
    }

    /// Whether a name is that of the desk's mount point.
    pub(super) fn is_desk(&self, parent: Ino, name: &OsStr) -> bool {
        parent == ROOT && name == self.tasks
    }

    /// Whether the disk's own entry of that name is hidden.
    pub(super) fn shadows(&self, parent: Ino, name: &OsStr) -> bool {
        self.hides(parent, name) || self.is_desk(parent, name)
    }

    /// The name of the desk's mount point.
    pub(super) fn desk(&self) -> &OsStr {
        &self.tasks
    }

    /// The attributes of the desk's mount point.
    pub(super) fn desk_attr(&self) -> Attr {
        Attr { ino: DESK, kind: FileKind::Directory, nlink: 2, size: 0, blocks: 0, ..self.desk }
    }

    /// The link of that name, unless the project has an entry of that name.
    pub(super) fn link_at(&self, parent: Ino, name: &OsStr) -> Result<Option<Link>> {
        if parent != ROOT {
            return Ok(None);
        }
        match LINKS.iter().position(|(link, _)| name == *link) {
            Some(index) if !self.files.exists(ROOT, name)? => Ok(Some(Link(index))),
            _ => Ok(None),
        }
    }

    /// The links that exist now, in their fixed order.
    pub(super) fn links(&self) -> Result<Vec<Link>> {
        let found = LINKS.iter().map(|(name, _)| self.link_at(ROOT, OsStr::new(name)));
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    pub(super) fn attr(&self, link: Link) -> Attr {
        let size = self.target(link).len() as u64;
        Attr {
            ino: link.ino(),
            kind: FileKind::Symlink,
            perm: 0o777,
            nlink: 1,
            size,
            blocks: 0,
            ..self.model
        }
    }

    /// Placeholder attributes of `.` and `..` in a listing, which no program reads.
    pub(super) fn nameless(&self, ino: Ino) -> Attr {
        Attr { ino, ..self.model }
    }

    pub(super) fn target(&self, link: Link) -> OsString {
        let mut target = self.tasks.clone();
        target.push("/");
        target.push(LINKS[link.0].1);
        target
    }

    fn may_make(&self, at: &EntryName) -> Result<()> {
        if self.hides(at.parent, &at.name) {
            return Err(Reserved::StateDirectory.into());
        }
        if at.parent == DESK {
            return Err(Reserved::WithoutQueue.into());
        }
        match self.link_at(at.parent, &at.name)? {
            Some(_) => Err(Fault::Exists.into()),
            None if self.is_desk(at.parent, &at.name) => Err(Fault::Exists.into()),
            None => Ok(()),
        }
    }

    fn may_remove(&self, at: &EntryName) -> Result<()> {
        if self.hides(at.parent, &at.name) {
            return Err(Fault::Absent.into());
        }
        if self.is_desk(at.parent, &at.name) {
            return Err(Reserved::TasksDirectory.into());
        }
        match self.link_at(at.parent, &at.name)? {
            Some(_) => Err(Reserved::Link.into()),
            None => Ok(()),
        }
    }

    fn may_replace(&self, at: &EntryName) -> Result<()> {
        if self.hides(at.parent, &at.name) {
            Err(Reserved::StateDirectory.into())
        } else {
            self.may_remove(at)
        }
    }

    fn may_change(&self, ino: Ino) -> Result<()> {
        match ino {
            DESK => Err(Reserved::WithoutQueue.into()),
            ino if Link::of(ino).is_some() => Err(Reserved::Link.into()),
            _ => Ok(()),
        }
    }
}

impl Policy for Root {
    fn permits(&self, change: &Change) -> Result<()> {
        match change {
            Change::Create { at, .. } | Change::Mknod(at) | Change::Mkdir(at) | Change::Symlink(at) => {
                self.may_make(at)
            }
            Change::Link { ino, to } => {
                self.may_change(*ino)?;
                self.may_make(to)
            }
            Change::Unlink(at) | Change::Rmdir(at) => self.may_remove(at),
            Change::Rename { from, to, .. } => {
                self.may_remove(from)?;
                self.may_replace(to)
            }
            Change::Xattr { ino: ROOT, name } if *name == super::SESSION => {
                Err(Reserved::SessionAttribute.into())
            }
            Change::Truncate { ino, .. } | Change::SetAttr { ino, .. } | Change::Xattr { ino, .. } => {
                self.may_change(*ino)
            }
            // The kernel sends these for regular files only.
            Change::Write { .. }
            | Change::WriteMapped { .. }
            | Change::Fallocate { .. }
            | Change::CopyFileRange { .. } => Ok(()),
        }
    }
}

impl Link {
    /// The link with this node number.
    pub(super) fn of(ino: Ino) -> Option<Link> {
        let index = usize::try_from(ino.checked_sub(SYNTHESIZED)?).ok()?.checked_sub(1)?;
        (index < LINKS.len()).then_some(Link(index))
    }

    pub(super) fn ino(self) -> Ino {
        SYNTHESIZED + 1 + self.0 as Ino
    }

    pub(super) fn name(self) -> &'static OsStr {
        OsStr::new(LINKS[self.0].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, OFlags, openat};

    fn root(dir: &std::path::Path) -> Root {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(CWD, dir, flags, Mode::empty()).unwrap();
        Root::new(Arc::new(Files::new(fd, crate::fs::files::Opens::Reported).unwrap()), "tasks".into())
            .unwrap()
    }

    fn at(name: &str) -> EntryName {
        EntryName::new(ROOT, OsStr::new(name))
    }

    fn errno(root: &Root, change: Change) -> Option<i32> {
        root.permits(&change).err().map(|error| error.errno())
    }

    #[test]
    fn an_entry_of_the_project_wins_over_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        assert_eq!(root.links().unwrap().len(), 3);
        assert_eq!(errno(&root, Change::Unlink(at("workers"))), Some(libc::EPERM));
        assert_eq!(errno(&root, Change::Mkdir(at("workers"))), Some(libc::EEXIST));
        std::fs::create_dir(dir.path().join("workers")).unwrap();
        assert_eq!(root.links().unwrap().len(), 2);
        assert_eq!(errno(&root, Change::Rmdir(at("workers"))), None);
    }

    #[test]
    fn the_hidden_name_and_the_tasks_directory_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        let onto = |to| Change::Rename { from: at("a"), to: at(to), exchange: false };
        assert_eq!(errno(&root, Change::Create { at: at(HIDDEN), flags: 0 }), Some(libc::EPERM));
        assert_eq!(errno(&root, onto(HIDDEN)), Some(libc::EPERM));
        assert_eq!(errno(&root, Change::Unlink(at(HIDDEN))), Some(libc::ENOENT));
        assert_eq!(errno(&root, Change::Rmdir(at("tasks"))), Some(libc::EBUSY));
        assert_eq!(errno(&root, onto("tasks")), Some(libc::EBUSY));
        assert_eq!(errno(&root, Change::Mkdir(at("tasks"))), Some(libc::EEXIST));
        let below = EntryName { parent: DESK, name: "x".into() };
        assert_eq!(errno(&root, Change::Mkdir(below)), Some(libc::EPERM));
        let below = EntryName::new(50, OsStr::new(HIDDEN));
        assert_eq!(errno(&root, Change::Create { at: below, flags: 0 }), None);
    }

    #[test]
    fn node_numbers_of_links_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        for link in root(dir.path()).links().unwrap() {
            assert_eq!(Link::of(link.ino()), Some(link));
        }
        assert_eq!(Link::of(ROOT), None);
        assert_eq!(Link::of(SYNTHESIZED), None);
        assert_eq!(Link::of(SYNTHESIZED + 4), None);
    }
}
