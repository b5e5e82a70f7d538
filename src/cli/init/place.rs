//! The project's directory as it is and as it shall be: every change is decided first, and all are made together at the end.
//!
//! May assume: nobody else changes these files in that moment. An ordinary directory, a mount of crewfs, or sshfs: no locks and
//! no extended attributes are asked for.
//! Must never: replace a file by another one. What is there keeps its inode, owner, mode and links; only bytes change.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::super::Failure;
use crate::sys;

/// What is at a path.
pub(super) enum Found {
    Nothing,
    Text(String),
    /// Something that crewfs does not touch, and why.
    Unfit(String),
}

pub(super) struct Place {
    root: PathBuf,
    /// The mode and owner of the project's directory, which all that is made there gets too.
    like: (u32, u32, u32),
    /// The text of each file that changes; nothing for one that goes.
    shall: BTreeMap<PathBuf, Option<String>>,
    steps: Vec<Step>,
}

enum Step {
    MakeDirectory(PathBuf),
    Write { file: PathBuf, executable: bool },
    Remove(PathBuf),
    RemoveDirectory(PathBuf),
}

impl Place {
    /// The place at `root`.
    pub(super) fn at(root: PathBuf) -> Result<Place, Failure> {
        let like = match fs::metadata(&root) {
            Ok(there) if there.is_dir() => (there.mode() & 0o7777, there.uid(), there.gid()),
            Ok(_) => {
                let shown = root.display();
                return Err(Failure::failed(format!("{shown} is not a directory; name that of a project")));
            }
            Err(error) => return Err(failed(&root, "be looked at", &error)),
        };
        Ok(Place { root, like, shall: BTreeMap::new(), steps: Vec::new() })
    }

    /// Whether there is anything of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root.join(name).symlink_metadata().is_ok()
    }

    /// The file that a path leads to, or why it is not one of the project's.
    fn resolve(&self, path: &str) -> Result<PathBuf, String> {
        let (mut there, mut missing) = (self.root.join(path), Vec::new());
        while there.symlink_metadata().is_err() && there != self.root {
            missing.extend(there.file_name().map(|name| name.to_os_string()));
            there.pop();
        }
        let real = there.canonicalize().map_err(|error| format!("{}: {error}", there.display()))?;
        if !real.starts_with(&self.root) {
            return Err(format!("{} is a link that leads out of the project", there.display()));
        }
        if !missing.is_empty() && !real.is_dir() {
            return Err(format!("{} is not a directory", there.display()));
        }
        Ok(missing.into_iter().rev().fold(real, |path, name| path.join(name)))
    }

    /// What is, or shall be, at a path.
    pub(super) fn find(&self, path: &str) -> Result<Found, Failure> {
        let file = match self.resolve(path) {
            Ok(file) => file,
            Err(why) => return Ok(Found::Unfit(why)),
        };
        if let Some(shall) = self.shall.get(&file) {
            return Ok(shall.clone().map_or(Found::Nothing, Found::Text));
        }
        match fs::metadata(&file) {
            Ok(there) if !there.is_file() => return Ok(Found::Unfit("it is not a regular file".into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
            _ => {}
        }
        match fs::read(&file).map(String::from_utf8) {
            Ok(Ok(text)) => Ok(Found::Text(text)),
            Ok(Err(_)) => Ok(Found::Unfit("it is not UTF-8 text".into())),
            Err(error) => Err(failed(&file, "be read", &error)),
        }
    }

    /// Decide that a file shall hold this text. The directories that are made for it are added to `made`.
    pub(super) fn write(&mut self, path: &str, text: String, executable: bool, made: &mut Vec<String>) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.make_directory(above, made);
        }
        // Whoever writes has found something fit there.
        let file = self.resolve(path).unwrap_or_else(|_| self.root.join(path));
        let same = fs::read(&file).is_ok_and(|old| old == text.as_bytes());
        let known = self.shall.insert(file.clone(), Some(text)).is_some();
        if !same && !known {
            self.steps.push(Step::Write { file, executable });
        }
    }

    pub(super) fn make_directory(&mut self, path: &str, made: &mut Vec<String>) {
        if self.has(path) || made.iter().any(|known| known == path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.make_directory(above, made);
        }
        made.push(path.to_string());
        self.steps.push(Step::MakeDirectory(self.root.join(path)));
    }

    pub(super) fn remove(&mut self, path: &str) {
        if let Ok(file) = self.resolve(path) {
            self.shall.insert(file.clone(), None);
            self.steps.push(Step::Remove(file));
        }
    }

    /// Decide that a directory goes, if it is empty by then.
    pub(super) fn remove_directory(&mut self, path: &str) {
        if let Ok(directory) = self.resolve(path) {
            self.steps.push(Step::RemoveDirectory(directory));
        }
    }

    /// Do what was decided. The directories that had to go and are not empty stay; they are the answer.
    pub(super) fn carry_out(self) -> Result<Vec<PathBuf>, Failure> {
        let mut stay = Vec::new();
        for step in &self.steps {
            match step {
                Step::MakeDirectory(path) => {
                    let made = fs::create_dir(path).and_then(|()| self.label(path, 0o7777));
                    made.map_err(|error| failed(path, "be made", &error))?;
                }
                Step::Write { file, executable } => {
                    let text = self.shall.get(file).and_then(Option::as_deref).unwrap_or_default();
                    let written = self.put(file, text.as_bytes(), *executable);
                    written.map_err(|error| failed(file, "be written", &error))?;
                }
                Step::Remove(path) => {
                    fs::remove_file(path).map_err(|error| failed(path, "be removed", &error))?;
                }
                Step::RemoveDirectory(path) => match fs::remove_dir(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => stay.push(path.clone()),
                    _ => {}
                },
            }
        }
        Ok(stay)
    }

    /// A new file, or the old one from the first byte that differs.
    fn put(&self, file: &Path, text: &[u8], executable: bool) -> io::Result<()> {
        let Ok(old) = fs::read(file) else {
            let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
            created.write_all_at(text, 0)?;
            return self.label(file, if executable { 0o777 } else { 0o666 });
        };
        let same = old.iter().zip(text).take_while(|(old, new)| old == new).count();
        let opened = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(file)?;
        opened.write_all_at(&text[same..], same as u64)?;
        if old.len() > text.len() {
            opened.set_len(text.len() as u64)?;
        }
        Ok(())
    }

    /// Give what was just made the owner and the mode of the project's directory, as far as `mask` goes.
    fn label(&self, path: &Path, mask: u32) -> io::Result<()> {
        let (mode, uid, gid) = self.like;
        let made = fs::symlink_metadata(path)?;
        if sys::is_root() && (made.uid(), made.gid()) != (uid, gid) {
            chown(path, Some(uid), Some(gid))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode & mask))
    }
}

fn failed(path: &Path, what: &str, error: &io::Error) -> Failure {
    let next = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "do it as the owner of the project, where it can be written"
        }
        Some(libc::EBUSY) => "a worker is changing it: wait until it is done",
        Some(libc::ENOTCONN) => "that is a dead mount: crewfs umount it",
        Some(libc::ENOSPC | libc::EDQUOT) => "free some space",
        _ => "mend that",
    };
    Failure::failed(format!(
        "{} cannot {what}: {error}; {next}, and run the same command again: it goes on from there",
        path.display()
    ))
}
