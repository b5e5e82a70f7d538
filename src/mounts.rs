//! The mounts of crewfs, as the kernel's table of mounts lists them.
//!
//! May assume: `/proc/self/mountinfo`, as proc_pid_mountinfo(5) describes it.
//! Must never: touch a mount point, except to ask whether it is dead. A daemon that hangs must not block the caller.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type of our mounts in the table.
const TYPE: &str = "fuse.crewfs";

/// One mount of crewfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its number. No other mount has the same while this one exists.
    pub id: u64,
    /// Its directory.
    pub mountpoint: PathBuf,
    /// The project's directory.
    pub source: PathBuf,
    /// The device number of its files: major, minor.
    pub device: (u32, u32),
    /// The user that mounted it. Any user can mount something by the name of crewfs, with any directory as its source.
    pub user: u32,
}

impl Mount {
    /// Whether this user mounted it, with this source.
    pub fn is_of(&self, source: &str) -> bool {
        self.user == rustix::process::geteuid().as_raw() && self.source == Path::new(source)
    }
}

/// All mounts of crewfs, oldest first.
pub fn ours() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount of crewfs at exactly this directory: the youngest, if there are several.
pub fn at(mountpoint: &Path) -> io::Result<Option<Mount>> {
    Ok(ours()?.into_iter().rev().find(|mount| mount.mountpoint == mountpoint))
}

/// The trees of this project, oldest first.
pub fn of_project(source: &Path) -> io::Result<Vec<Mount>> {
    Ok(trees_of(&ours()?, source))
}

/// The desk of the tree that is mounted at this directory.
pub fn desk_of(mountpoint: &Path) -> io::Result<Option<Mount>> {
    let inside = |mount: &Mount| mount.mountpoint.parent() == Some(mountpoint);
    let Some(tree) = at(mountpoint)? else { return Ok(None) };
    Ok(ours()?.into_iter().rev().find(|mount| inside(mount) && mount.source.starts_with(&tree.source)))
}

/// The kernel's table of mounts, kept open. It stays that of the mount namespace in which it was opened, whichever namespace this process
/// enters. A poll for `PRI` reports changes.
#[derive(Debug)]
pub struct MountTable(File);

impl MountTable {
    /// The table of this process.
    pub fn open() -> io::Result<MountTable> {
        Ok(MountTable(File::open("/proc/self/mountinfo")?))
    }

    /// The mounts of crewfs in it now, oldest first.
    pub fn ours(&mut self) -> io::Result<Vec<Mount>> {
        let mut table = Vec::new();
        self.0.rewind()?;
        self.0.read_to_end(&mut table)?;
        Ok(parse(&table))
    }

    /// The mounts of crewfs that contain `path`, or lie below it.
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

/// The number of the mount that an open file lies in.
pub fn of_descriptor(file: impl AsFd) -> io::Result<u64> {
    let said = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
    let number = said.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other("the kernel does not say in which mount a file lies"))
}

/// Set how far the kernel reads ahead in the mount of this device. Only root may.
pub fn read_ahead((major, minor): (u32, u32), kib: u32) -> io::Result<()> {
    std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), kib.to_string())
}

/// Whether the daemon of this mount is gone. `stat(2)` may be answered from the kernel's cache, statfs(2) is not.
pub fn is_dead(mountpoint: &Path) -> bool {
    rustix::fs::statfs(mountpoint).is_err_and(|error| is_of_dead(error.raw_os_error()))
}

/// Whether a mount answers with this error because its daemon is gone: before the call, during the call, or before it had begun to
/// serve.
pub fn is_of_dead(error: i32) -> bool {
    [libc::ENOTCONN, libc::ECONNABORTED, libc::ECONNREFUSED].contains(&error)
}

/// A desk is left out. Its source is a directory of the project.
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

/// The kernel writes white space and backslashes as three octal digits.
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
