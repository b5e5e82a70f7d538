//! The changes of the project's directory: all are decided first, and then made together.
//!
//! May assume: an ordinary directory, a mount of crewfs, or sshfs. No locks and no extended attributes are used.
//! Must never: replace an existing file: it keeps its inode, owner, mode and links, only bytes change. Or open a path other than below
//! the project's descriptor: members of the project may replace files at any moment, and root may run this.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, mkdirat, openat, statat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::cli::beneath::{self, Links};
use crate::cli::error::CliError;
use crate::limits::INIT_FILE_BYTES;
use crate::state_directory::InodeId;
use crate::sys;

/// The tasks directory, as `crewfs mount` names it.
pub(super) const TASKS: &str = "tasks";

/// What is at a path.
pub(super) enum FileContent {
    Missing,
    Text(String),
    /// A file that crewfs does not touch, and why.
    Unfit(String),
}

pub(super) struct ChangePlan {
    root: OwnedFd,
    shown: PathBuf,
    like: Stat,
    /// The new text of each changed file. `None` for a removed one.
    shall: BTreeMap<Target, Option<String>>,
    steps: Vec<PlannedStep>,
}

/// A file, or the place of a missing one. Several paths may lead to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    There(InodeId),
    /// A name below a directory.
    Missing(InodeId, PathBuf),
}

/// A file that was found. It is held open, so that no other file gets its inode number.
struct HeldFile {
    target: Target,
    held: OwnedFd,
}

enum PlannedStep {
    MakeDirectory(PathBuf),
    Create { file: PathBuf, target: Target, executable: bool },
    Change { file: PathBuf, found: HeldFile, from: String },
    Remove { file: PathBuf, found: HeldFile },
    RemoveDirectory(PathBuf),
}

/// What a path leads to.
enum PathLookup {
    There(Target, OwnedFd),
    Missing(Target),
    Unfit(String),
}

impl ChangePlan {
    /// A plan for the directory `root`, a path without links.
    pub(super) fn at(root: PathBuf) -> Result<ChangePlan, CliError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&root, flags, Mode::empty());
        match opened.and_then(|fd| fstat(&fd).map(|like| (fd, like))) {
            Ok((fd, like)) => {
                Ok(ChangePlan { root: fd, shown: root, like, shall: BTreeMap::new(), steps: Vec::new() })
            }
            Err(Errno::NOTDIR) => {
                let shown = root.display();
                Err(CliError::failed(format!("{shown} is not a directory; name that of a project")))
            }
            Err(error) => Err(failed(&root, "be looked at", &error.into())),
        }
    }

    /// Whether the name exists.
    pub(super) fn has(&self, name: &str) -> bool {
        self.open(Path::new(name), OFlags::PATH | OFlags::NOFOLLOW).is_ok()
    }

    /// Open a path within the project.
    pub(super) fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        beneath::open(&self.root, path, flags, Links::Inside)
    }

    /// The path of the project, for messages.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    /// The owner of the project.
    pub(super) fn owner(&self) -> u32 {
        self.like.st_uid
    }

    fn look(&self, path: &Path) -> Result<PathLookup, CliError> {
        let there = match self.open(path, OFlags::PATH) {
            Ok(there) => there,
            Err(Errno::NOENT | Errno::NOTDIR) => return self.missing(path),
            Err(Errno::XDEV) => {
                let why =
                    format!("{} is a link that leads out of the project, or an absolute one", path.display());
                return Ok(PathLookup::Unfit(why));
            }
            Err(Errno::LOOP) => return Ok(PathLookup::Unfit(format!("{} is a link", path.display()))),
            Err(error) => return Err(failed(&self.shown.join(path), "be looked at", &error.into())),
        };
        match fstat(&there).map(|stat| (unfit(&stat), InodeId::from(stat))) {
            Ok((None, id)) => Ok(PathLookup::There(Target::There(id), there)),
            Ok((Some(why), _)) => Ok(PathLookup::Unfit(why)),
            Err(error) => Err(failed(&self.shown.join(path), "be looked at", &error.into())),
        }
    }

    /// The missing part of a path, below its last existing directory.
    fn missing(&self, path: &Path) -> Result<PathLookup, CliError> {
        for above in path.ancestors().skip(1) {
            let there = match self.open(above, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(there) => there,
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR) => {
                    return Ok(PathLookup::Unfit(format!("{} is not a directory", above.display())));
                }
                Err(error) => return Err(failed(&self.shown.join(above), "be looked at", &error.into())),
            };
            let rest = path.strip_prefix(above).unwrap_or(path);
            let first = rest.iter().next().unwrap_or_default();
            if statat(&there, first, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                let why = format!("{} is a link that leads nowhere", above.join(first).display());
                return Ok(PathLookup::Unfit(why));
            }
            let id = fstat(&there).map(InodeId::from);
            let id = id.map_err(|error| failed(&self.shown.join(above), "be looked at", &error.into()))?;
            return Ok(PathLookup::Missing(Target::Missing(id, rest.to_path_buf())));
        }
        Err(failed(&self.shown, "be looked at", &Errno::NOENT.into()))
    }

    /// The content of a file, after the changes decided so far.
    pub(super) fn find(&self, path: &str) -> Result<FileContent, CliError> {
        let path = Path::new(path);
        let (target, there) = match self.look(path)? {
            PathLookup::Unfit(why) => return Ok(FileContent::Unfit(why)),
            PathLookup::There(target, there) => (target, Some(there)),
            PathLookup::Missing(target) => (target, None),
        };
        if let Some(shall) = self.shall.get(&target) {
            return Ok(shall.clone().map_or(FileContent::Missing, FileContent::Text));
        }
        let Some(there) = there else { return Ok(FileContent::Missing) };
        match read(&there).map(String::from_utf8) {
            Ok(Ok(text)) if text.len() as u64 > INIT_FILE_BYTES => {
                Ok(FileContent::Unfit(format!("it is larger than {INIT_FILE_BYTES} bytes")))
            }
            Ok(Ok(text)) => Ok(FileContent::Text(text)),
            Ok(Err(_)) => Ok(FileContent::Unfit("it is not UTF-8 text".into())),
            Err(error) => Err(failed(&self.shown.join(path), "be read", &error)),
        }
    }

    /// Plan a file with this text. The directories that are made for it are added to `made`.
    pub(super) fn write(
        &mut self,
        path: &str,
        text: String,
        executable: bool,
        made: &mut Vec<String>,
    ) -> Result<(), CliError> {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.make_directory(above, made);
        }
        let file = PathBuf::from(path);
        let (target, step) = match self.look(&file)? {
            PathLookup::There(target, there) => {
                let from =
                    read(&there).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
                let found = HeldFile { target: target.clone(), held: there };
                (target, PlannedStep::Change { file, found, from })
            }
            PathLookup::Missing(target) => (target.clone(), PlannedStep::Create { file, target, executable }),
            PathLookup::Unfit(why) => return Err(changed(&self.shown.join(path), &why)),
        };
        let same = matches!(&step, PlannedStep::Change { from, .. } if *from == text);
        let known = self.shall.insert(target, Some(text)).is_some();
        if !same && !known {
            self.steps.push(step);
        }
        Ok(())
    }

    pub(super) fn make_directory(&mut self, path: &str, made: &mut Vec<String>) {
        if self.has(path) || made.iter().any(|known| known == path) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.make_directory(above, made);
        }
        made.push(path.to_string());
        self.steps.push(PlannedStep::MakeDirectory(path.into()));
    }

    pub(super) fn remove(&mut self, path: &str) -> Result<(), CliError> {
        if let PathLookup::There(target, held) = self.look(Path::new(path))? {
            self.shall.insert(target.clone(), None);
            self.steps.push(PlannedStep::Remove { file: path.into(), found: HeldFile { target, held } });
        }
        Ok(())
    }

    /// Plan to remove a directory, if it is empty by then.
    pub(super) fn remove_directory(&mut self, path: &str) {
        self.steps.push(PlannedStep::RemoveDirectory(path.into()));
    }

    /// Make the planned changes. Returns the paths that could not be removed, and why.
    pub(super) fn carry_out(self) -> Result<Vec<(PathBuf, &'static str)>, CliError> {
        let mut stay = Vec::new();
        for step in &self.steps {
            match step {
                PlannedStep::MakeDirectory(path) => {
                    self.new_directory(path)
                        .map_err(|error| failed(&self.shown.join(path), "be made", &error))?;
                }
                PlannedStep::Create { file, target, executable } => {
                    let written = self.create(file, self.text(target), *executable);
                    written.map_err(|error| failed(&self.shown.join(file), "be written", &error))?;
                }
                PlannedStep::Change { file, found, from } => {
                    let written = self.change(file, found, from, self.text(&found.target));
                    let is_same =
                        written.map_err(|error| failed(&self.shown.join(file), "be written", &error))?;
                    if !is_same {
                        return Err(changed(&self.shown.join(file), "it was changed or replaced meanwhile"));
                    }
                }
                PlannedStep::Remove { file, found } => {
                    let removed = self.take_away(file, found);
                    if !removed.map_err(|error| failed(&self.shown.join(file), "be removed", &error))? {
                        stay.push((file.clone(), "it is a link, or was replaced meanwhile"));
                    }
                }
                PlannedStep::RemoveDirectory(path) => match self.take_away_directory(path) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(_) => stay.push((path.clone(), "it is not empty")),
                },
            }
        }
        Ok(stay)
    }

    fn text(&self, target: &Target) -> &str {
        self.shall.get(target).and_then(Option::as_deref).unwrap_or_default()
    }

    /// The parent directory of a path, and the last name.
    fn above<'a>(&self, path: &'a Path) -> rustix::io::Result<(OwnedFd, &'a Path)> {
        let above = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().ok_or(Errno::INVAL)?;
        Ok((self.open(above, OFlags::PATH | OFlags::DIRECTORY)?, Path::new(name)))
    }

    fn new_directory(&self, path: &Path) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        mkdirat(&above, name, Mode::from(0o700))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&above, name, flags, Mode::empty())?;
        // Another directory may have the name by now. Only an empty one of this user, closed to all others, can be the one that was made.
        let stat = fstat(&made)?;
        let is_ours = stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o777 == 0o700;
        if is_ours && is_empty(&made)? { self.label(&made, 0o7777, path) } else { Ok(()) }
    }

    fn create(&self, path: &Path, text: &str, executable: bool) -> io::Result<()> {
        let (above, name) = self.above(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = File::from(openat(&above, name, flags, Mode::from(0o600))?);
        created.write_all_at(text.as_bytes(), 0)?;
        self.label(&created, if executable { 0o777 } else { 0o666 }, path)
    }

    /// Change a file from the first byte that differs. False if the file was replaced or its content has changed.
    fn change(&self, path: &Path, found: &HeldFile, from: &str, to: &str) -> io::Result<bool> {
        let stat = fstat(self.open(path, OFlags::PATH)?)?;
        if unfit(&stat).is_some() || !found.is(&stat) || read(&found.held)? != from.as_bytes() {
            return Ok(false);
        }
        let file = File::from(beneath::reopen(&found.held, OFlags::WRONLY | OFlags::NONBLOCK)?);
        let same = from.bytes().zip(to.bytes()).take_while(|(from, to)| from == to).count();
        file.write_all_at(&to.as_bytes()[same..], same as u64)?;
        if from.len() > to.len() {
            file.set_len(to.len() as u64)?;
        }
        Ok(true)
    }

    /// Remove a file, unless it was replaced.
    fn take_away(&self, path: &Path, found: &HeldFile) -> io::Result<bool> {
        let (above, name) = self.above(path)?;
        let is_same = found.is(&statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)?);
        if is_same {
            unlinkat(&above, name, AtFlags::empty())?;
        }
        Ok(is_same)
    }

    fn take_away_directory(&self, path: &Path) -> rustix::io::Result<()> {
        let (above, name) = self.above(path)?;
        unlinkat(&above, name, AtFlags::REMOVEDIR)
    }

    /// Give a new file the owner and the mode of the project's directory, within `mask`. Agents run what is installed, so only its owner
    /// may change it. But all members of the project write tasks.
    fn label(&self, made: impl AsFd, mask: u32, path: &Path) -> io::Result<()> {
        let (uid, gid) = (self.like.st_uid, self.like.st_gid);
        let stat = fstat(&made)?;
        if sys::is_root() && (stat.st_uid, stat.st_gid) != (uid, gid) {
            fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        let kept = if path == Path::new(TASKS) { mask } else { mask & !0o022 };
        Ok(fchmod(&made, Mode::from(self.like.st_mode & kept))?)
    }
}

impl HeldFile {
    fn is(&self, stat: &Stat) -> bool {
        self.target == Target::There(InodeId::from(*stat))
    }
}

/// Why a file is not touched, whatever its content is.
fn unfit(stat: &Stat) -> Option<String> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        Some("it is not a regular file".into())
    } else if stat.st_nlink > 1 {
        Some(format!("it has {} names (hard links), and one may be another user's", stat.st_nlink))
    } else {
        None
    }
}

/// The content of a file, at most one byte more than the limit.
fn read(there: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::from(beneath::reopen(there, OFlags::RDONLY | OFlags::NONBLOCK)?);
    file.take(INIT_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_empty(directory: &OwnedFd) -> io::Result<bool> {
    let mut entries = Dir::read_from(directory)?;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| matches!(entry.file_name().to_bytes(), b"." | b".."))))
}

fn changed(path: &Path, why: &str) -> CliError {
    CliError::failed(format!(
        "{} cannot be written: {why}; look who changes it, and run the same command again: it goes on from there",
        path.display()
    ))
}

fn failed(path: &Path, what: &str, error: &io::Error) -> CliError {
    let next = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            "do it as the owner of the project, where it can be written"
        }
        Some(libc::EBUSY) => "a worker is changing it: wait until it is done",
        Some(libc::ENOTCONN) => "that is a dead mount: crewfs umount it",
        Some(libc::ENOSPC | libc::EDQUOT) => "free some space",
        Some(libc::EXDEV | libc::ELOOP | libc::EEXIST) => {
            "another process put a link or a file there; look who does that"
        }
        _ => "mend that",
    };
    CliError::failed(format!(
        "{} cannot {what}: {error}; {next}, and run the same command again: it goes on from there",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A project with a file, and a file outside of it.
    fn stage() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (project, secret) = (dir.path().join("project"), dir.path().join("secret"));
        fs::create_dir(&project).unwrap();
        fs::write(project.join("file"), "old\n").unwrap();
        fs::write(&secret, "old\n").unwrap();
        (dir, project, secret)
    }

    /// Plan, let a member replace files, and carry out the plan: nothing outside changes.
    #[track_caller]
    fn exchanged(decide: impl Fn(&mut ChangePlan), exchange: impl Fn(&Path, &Path)) -> Result<usize, String> {
        let (_dir, project, secret) = stage();
        let mut plan = ChangePlan::at(project.clone()).unwrap();
        decide(&mut plan);
        exchange(&project, &secret);
        let stay = plan.carry_out();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "old\n");
        assert_eq!(fs::read_dir(project.parent().unwrap()).unwrap().count(), 2);
        stay.map(|stay| stay.len()).map_err(|failure| failure.message)
    }

    #[test]
    fn what_is_exchanged_after_it_was_looked_at_is_not_written_to() {
        let write = |path: &'static str| {
            move |plan: &mut ChangePlan| {
                plan.write(path, "new\n".into(), false, &mut Vec::new()).unwrap();
            }
        };
        let link = |name: &'static str| {
            move |project: &Path, secret: &Path| {
                let _ = fs::remove_file(project.join(name));
                symlink(secret, project.join(name)).unwrap();
            }
        };
        let hard_link = |project: &Path, secret: &Path| {
            fs::remove_file(project.join("file")).unwrap();
            fs::hard_link(secret, project.join("file")).unwrap();
        };
        let another = |project: &Path, _: &Path| {
            fs::rename(project.join("file"), project.join("other")).unwrap();
            fs::write(project.join("file"), "old\n").unwrap();
        };
        let edited = |project: &Path, _: &Path| fs::write(project.join("file"), "theirs\n").unwrap();
        let up = |project: &Path, _: &Path| symlink("..", project.join("dir")).unwrap();
        assert!(exchanged(write("file"), link("file")).is_err());
        assert!(exchanged(write("none"), link("none")).is_err());
        assert!(exchanged(write("dir/none"), up).is_err());
        for exchange in [&hard_link as &dyn Fn(&Path, &Path), &another, &edited] {
            assert!(
                exchanged(write("file"), exchange).unwrap_err().contains("changed or replaced meanwhile")
            );
        }
        assert_eq!(exchanged(write("file"), |_, _| ()), Ok(0));
    }

    #[test]
    fn what_is_exchanged_after_it_was_looked_at_is_not_removed() {
        let link = |project: &Path, secret: &Path| {
            fs::remove_file(project.join("file")).unwrap();
            symlink(secret, project.join("file")).unwrap();
        };
        assert_eq!(exchanged(|plan| plan.remove("file").unwrap(), link), Ok(1));
        let up = |project: &Path, _: &Path| symlink("..", project.join("dir")).unwrap();
        assert_eq!(exchanged(|plan| plan.remove_directory("dir/project"), up), Ok(1));
        assert_eq!(exchanged(|plan| plan.remove("file").unwrap(), |_, _| ()), Ok(0));
    }
}
