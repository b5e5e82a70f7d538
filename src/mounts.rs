//! What is mounted where: the kernel's table of mounts, as far as it is about us.
//!
//! May assume: `/proc/self/mountinfo`, as proc_pid_mountinfo(5) describes it.
//! Must never: touch a mount point, except to ask whether it is dead; one whose daemon hangs must not stop who asks.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type of our mounts.
const TYPE: &str = "fuse.crewfs";

/// One mount of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number: no other mount has it as long as this one is there.
    pub id: u64,
    /// Where.
    pub mountpoint: PathBuf,
    /// The project's directory.
    pub source: PathBuf,
    /// The device number of its files: major and minor.
    pub device: (u32, u32),
    /// The user who mounted it. Any user can mount something by the name of crewfs, and say that it shows any directory.
    pub user: u32,
}

impl Mount {
    /// Whether this user mounted it, and what it says to show is this.
    pub fn is_of(&self, source: &str) -> bool {
        self.user == rustix::process::geteuid().as_raw() && self.source == Path::new(source)
    }
}

/// All mounts of ours, oldest first.
pub fn ours() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount of ours at exactly this place, if the youngest mount there is ours.
pub fn at(mountpoint: &Path) -> io::Result<Option<Mount>> {
    Ok(ours()?.into_iter().rev().find(|mount| mount.mountpoint == mountpoint))
}

/// The trees that show this project, oldest first.
pub fn of_project(source: &Path) -> io::Result<Vec<Mount>> {
    Ok(trees_of(&ours()?, source))
}

/// The desk of the tree that is mounted at this place.
pub fn desk_of(mountpoint: &Path) -> io::Result<Option<Mount>> {
    let inside = |mount: &Mount| mount.mountpoint.parent() == Some(mountpoint);
    let Some(tree) = at(mountpoint)? else { return Ok(None) };
    Ok(ours()?.into_iter().rev().find(|mount| inside(mount) && mount.source.starts_with(&tree.source)))
}

/// The kernel's table of mounts, kept open: it stays that of the mount namespace in which it was opened, wherever this
/// process goes. Polled for `PRI`, it tells when something in it has changed.
#[derive(Debug)]
pub struct MountTable(File);

impl MountTable {
    /// The one of this process.
    pub fn open() -> io::Result<MountTable> {
        Ok(MountTable(File::open("/proc/self/mountinfo")?))
    }

    /// The mounts of ours that it has now, oldest first.
    pub fn ours(&mut self) -> io::Result<Vec<Mount>> {
        let mut table = Vec::new();
        self.0.rewind()?;
        self.0.read_to_end(&mut table)?;
        Ok(parse(&table))
    }

    /// The mounts of ours in which `path` lies, or which lie below it.
    pub fn around(&mut self, path: &Path) -> io::Result<Vec<Mount>> {
        let mut mounts = self.ours()?;
        mounts.retain(|mount| path.starts_with(&mount.mountpoint) || mount.mountpoint.starts_with(path));
        Ok(mounts)
    }
}

impl AsFd for MountTable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number of the mount in which an open file lies.
pub fn of_descriptor(file: impl AsFd) -> io::Result<u64> {
    let said = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
    let number = said.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("the kernel does not say in which mount a file lies"))
}

/// Let the kernel read ahead so far in the mount of this device. Only root may; for others it stays as it is.
pub fn read_ahead((major, minor): (u32, u32), kib: u32) -> io::Result<()> {
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string())
}

/// Whether the daemon of this mount is gone. `stat(2)` would not tell: the kernel may still remember its last answer.
pub fn is_dead(mountpoint: &Path) -> bool {
    rustix::fs::statfs(mountpoint).is_err_and(|error| is_of_dead(error.raw_os_error()))
}

/// Whether this error is the answer of a mount whose daemon is gone: since before it was asked, while it was asked, or since before it
/// had begun to serve.
pub fn is_of_dead(error: i32) -> bool {
    [libc::ENOTCONN, libc::ECONNABORTED, libc::ECONNREFUSED].contains(&error)
}

/// A desk, whose source is a directory of the project, shows no project.
fn trees_of(mounts: &[Mount], source: &Path) -> Vec<Mount> {
    let lies_in = |desk: &Mount, tree: &Mount| {
        desk.mountpoint.parent() == Some(&tree.mountpoint) && desk.source.parent() == Some(&tree.source)
    };
    let is_tree = |mount: &&Mount| mount.source == source && !mounts.iter().any(|tree| lies_in(mount, tree));
    mounts.iter().filter(is_tree).cloned().collect()
}

fn parse(table: &[u8]) -> Vec<Mount> {
    let lines = table.split(|b| *b == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.split(|b| *b == b' ');
            let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
            let (major, minor) = std::str::from_utf8(fields.nth(1)?).ok()?.split_once(':')?;
            let device = (major.parse().ok()?, minor.parse().ok()?);
            let mountpoint = fields.nth(1)?;
            // Optional fields end with a hyphen.
            let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
            let (kind, source) = (rest.next()?, rest.next()?);
            let options = rest.next()?.split(|b| *b == b',');
            let user = options.filter_map(|option| option.strip_prefix(b"user_id=")).next();
            let user = user.and_then(|user| std::str::from_utf8(user).ok()?.parse().ok());
            let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
            let (mountpoint, source) = (path(mountpoint), path(source));
            let mount = |user| Mount { id, mountpoint, source, device, user };
            (kind == TYPE.as_bytes()).then_some(user).flatten().map(mount)
        })
        .collect()
}

/// Undo the kernel's writing of white space and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_mounts_are_seen_and_their_names_are_plain() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/vda rw\n\
            40 22 0:50 / /mnt/a\\040b rw,nosuid shared:7 master:1 - fuse.crewfs /srv/a\\134b rw,user_id=7\n\
            41 40 0:51 / /mnt/a\\040b/tasks rw - fuse.crewfs /srv/a\\134b/tasks rw,user_id=0,group_id=0\n\
            42 22 0:52 / /x rw - fuse.sshfs h: rw\n";
        let found = parse(table);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].mountpoint, Path::new("/mnt/a b"));
        assert_eq!(found[0].source, Path::new("/srv/a\\b"));
        assert_eq!((found[1].id, found[1].device, found[1].user), (41, (0, 51), 0));
        assert_eq!(trees_of(&found, Path::new("/srv/a\\b")), found[..1]);
        assert!(trees_of(&found, Path::new("/srv/a\\b/tasks")).is_empty(), "that is a desk");
    }
}
