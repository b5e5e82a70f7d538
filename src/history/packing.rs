//! Packs objects, and removes those that nothing needs.
//!
//! May assume: other threads store and record meanwhile, and other processes read.
//! Must never: remove an object before what replaces it is complete. A kill between any two steps leaves a whole repository.
//!
//! A loose object costs a file, and is not compressed. A pack holds many, compressed, and as differences where they are similar.
//!
//! A thread may store content that is there already, in an object that is about to be removed. So each id that is asked for while objects
//! are being removed is noted before the object is looked for, and the noted ones are written again before the old ones go.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use git2::{Config, Oid};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, statat};
use rustix::io::Errno;

use super::objects::{Objects, UNFINISHED, loose_name};
use super::reach::Reachable;
use super::repository::Repository;
use super::{ContentId, HistoryError};
use crate::limits::{HISTORY_LOOSE_BYTES, HISTORY_LOOSE_OBJECTS, HISTORY_PACKED_BYTES, HISTORY_PACKS};

/// Asked between the steps of long work: whether to go on. Work that is not finished is begun again another time.
pub type GoOn<'a> = &'a mut dyn FnMut() -> bool;

/// Names content that no step has yet. It is asked when requests are being noted already: content that was stored before must be in it
/// by then.
pub type Needed<'a> = &'a dyn Fn() -> BTreeSet<ContentId>;

/// The files that hold the objects.
pub(super) struct ObjectFiles {
    /// Loose objects, and the size of each.
    pub(super) loose: Vec<(Oid, u64)>,
    /// Names in the directory of packs, without their endings, and the size of each.
    packs: Vec<(String, u64)>,
}

impl ObjectFiles {
    pub(super) fn read(objects: &Objects) -> Result<ObjectFiles, Errno> {
        let mut loose = Vec::new();
        for first in 0..=u8::MAX {
            let directory = format!("{first:02x}");
            for (name, size) in files(objects, &directory)? {
                loose.extend(Oid::from_str(&format!("{directory}{name}")).ok().map(|id| (id, size)));
            }
        }
        let packs = files(objects, "pack")?.into_iter();
        let packs = packs.filter_map(|(name, size)| Some((name.strip_suffix(".pack")?.to_string(), size)));
        Ok(ObjectFiles { loose, packs: packs.collect() })
    }

    fn bytes(&self) -> u64 {
        let loose: u64 = self.loose.iter().map(|(_, size)| size).sum();
        loose + self.packs.iter().map(|(_, size)| size).sum::<u64>()
    }
}

impl Repository {
    /// Pack the loose objects if there are many. Costs little otherwise.
    ///
    /// # Errors
    /// Why an object cannot be read or written.
    pub fn pack(&self, go_on: GoOn<'_>) -> Result<(), HistoryError> {
        let _one = self.tidying.lock();
        let held = ObjectFiles::read(&self.objects).map_err(HistoryError::reading)?;
        let bytes: u64 = held.loose.iter().map(|(_, size)| (*size).min(HISTORY_PACKED_BYTES)).sum();
        if held.loose.len() < HISTORY_LOOSE_OBJECTS && bytes < HISTORY_LOOSE_BYTES || !go_on() {
            return Ok(());
        }
        self.pack_loose(&held, go_on)
    }

    /// Pack the loose objects that the references lead to.
    fn pack_loose(&self, held: &ObjectFiles, go_on: GoOn<'_>) -> Result<(), HistoryError> {
        // Packing holds several objects in memory, so large ones stay as they are.
        let loose = held.loose.iter().filter(|(_, size)| *size <= HISTORY_PACKED_BYTES);
        let loose: HashSet<Oid> = loose.map(|(id, _)| *id).collect();
        let wanted = |id| loose.contains(&id);
        let cut = self.cut()?;
        // What a packed object leads to was packed with it.
        let mut reach = Reachable::new(&self.objects, &cut, &wanted);
        self.add_all(&mut reach)?;
        let found = reach.found;
        if found.is_empty() || !go_on() {
            return Ok(());
        }
        if self.write_pack(&found, go_on)?.is_none() {
            return Ok(());
        }
        self.objects.reopen()?;
        for (id, _) in &found {
            if !go_on() {
                return Ok(());
            }
            self.objects.remove(&loose_name(*id))?;
        }
        Ok(())
    }

    /// Put all that is needed into one pack, and remove the rest.
    pub(super) fn repack(&self, needed: Needed<'_>, go_on: GoOn<'_>) -> Result<(), HistoryError> {
        {
            // What is being recorded is written in part, and nothing leads to it yet.
            let _one = self.recording.lock();
            self.objects.note_requests(true);
        }
        let done = self.repack_noted(needed, go_on);
        self.objects.note_requests(false);
        done
    }

    fn repack_noted(&self, needed: Needed<'_>, go_on: GoOn<'_>) -> Result<(), HistoryError> {
        // Before the references: what is recorded meanwhile is no longer among the needed ones.
        let needed = needed();
        let held = ObjectFiles::read(&self.objects).map_err(HistoryError::reading)?;
        let large = held.loose.iter().filter(|(_, size)| *size > HISTORY_PACKED_BYTES).map(|(id, _)| *id);
        let large: HashSet<Oid> = large.collect();
        let cut = self.cut()?;
        let wanted = |_| true;
        let mut reach = Reachable::new(&self.objects, &cut, &wanted);
        self.add_all(&mut reach)?;
        for id in needed.into_iter().map(Oid::from).filter(|id| self.objects.has(*id)) {
            reach.add(id, Path::new(""));
        }
        let packed: Vec<(Oid, String)> =
            reach.found.iter().filter(|(id, _)| !large.contains(id)).cloned().collect();
        if !go_on() {
            return Ok(());
        }
        let name = if packed.is_empty() { None } else { self.write_pack(&packed, go_on)? };
        if name.is_none() && !packed.is_empty() {
            return Ok(());
        }
        let old = held.packs.iter().map(|(old, _)| old).filter(|old| Some(old.as_str()) != name.as_deref());
        let old: Vec<&String> = old.collect();
        let loose = held.loose.iter().map(|(id, _)| *id).filter(|id| !reach.has(*id) || !large.contains(id));
        let loose: Vec<Oid> = loose.collect();
        if !go_on() {
            return Ok(());
        }
        self.objects.remove_all_but(&|id| reach.has(id), &mut |saved| {
            for id in loose.iter().filter(|id| !saved.contains(id)) {
                if !go_on() {
                    return Ok(());
                }
                self.objects.remove(&loose_name(*id))?;
            }
            for old in &old {
                // Without its index, git does not look at a pack.
                for ending in ["idx", "pack"] {
                    if !go_on() {
                        return Ok(());
                    }
                    self.objects.remove(&format!("pack/{old}.{ending}"))?;
                }
            }
            self.remove_unfinished(name.as_deref())
        })
    }

    /// Remove what killed processes left.
    fn remove_unfinished(&self, pack: Option<&str>) -> Result<(), HistoryError> {
        let inner = || -> Result<Vec<String>, Errno> {
            let unfinished = files(&self.objects, ".")?.into_iter();
            let unfinished = unfinished.map(|(name, _)| name).filter(|name| name.starts_with(UNFINISHED));
            let mut found: Vec<String> = unfinished.filter(|name| !self.objects.is_own(name)).collect();
            let in_packs = files(&self.objects, "pack")?.into_iter().map(|(name, _)| name);
            let is_whole = |name: &String| pack.is_some_and(|pack| name.starts_with(&format!("{pack}.")));
            found.extend(in_packs.filter(|name| !is_whole(name)).map(|name| format!("pack/{name}")));
            Ok(found)
        };
        let found = inner().map_err(HistoryError::reading)?;
        found.iter().try_for_each(|name| self.objects.remove(name))
    }

    /// Everything that the references lead to.
    fn add_all(&self, reach: &mut Reachable<'_>) -> Result<(), HistoryError> {
        let tasks = self.task_references()?;
        let commits = self.main()?.into_iter().chain(tasks.into_values());
        commits.into_iter().try_for_each(|commit| reach.add_commits(commit))
    }

    /// Write a pack; `None` if it was not to go on.
    fn write_pack(&self, objects: &[(Oid, String)], go_on: GoOn<'_>) -> Result<Option<String>, HistoryError> {
        let mut is_stopped = false;
        let mut write = || -> Result<Option<String>, git2::Error> {
            let git = git2::Repository::from_odb(self.objects.database()?)?;
            // Otherwise libgit2 reads the settings of the user and of the machine.
            git.set_config(&Config::new()?)?;
            let mut pack = git.packbuilder()?;
            pack.set_progress_callback(|_, _, _| {
                is_stopped |= !go_on();
                !is_stopped
            })?;
            for (id, path) in objects {
                pack.insert_object(*id, Some(path))?;
            }
            let directory = format!("/proc/self/fd/{}/pack", self.objects.directory().as_raw_fd());
            pack.write(&PathBuf::from(directory), 0o400)?;
            Ok(pack.name()?.map(|name| format!("pack-{name}")))
        };
        let name = match write() {
            Err(_) if is_stopped => return Ok(None),
            written => written.map_err(|error| HistoryError::writing(error.message()))?,
        };
        // What is removed next may have been on the disk for long.
        for name in name.iter().flat_map(|name| [format!("pack/{name}.pack"), format!("pack/{name}.idx")]) {
            self.objects.sync(&name)?;
        }
        self.objects.sync("pack")?;
        Ok(name)
    }

    /// How many bytes the objects take.
    pub(super) fn object_bytes(&self) -> Result<u64, HistoryError> {
        ObjectFiles::read(&self.objects).map(|held| held.bytes()).map_err(HistoryError::reading)
    }

    /// Whether there are so many packs that one is better.
    pub(super) fn has_many_packs(&self) -> Result<bool, HistoryError> {
        let held = ObjectFiles::read(&self.objects).map_err(HistoryError::reading)?;
        Ok(held.packs.len() > HISTORY_PACKS)
    }
}

/// The names in a directory of the objects, with their sizes. A directory that is not there is empty.
fn files(objects: &Objects, directory: &str) -> Result<Vec<(String, u64)>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match openat(objects.directory(), directory, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        opened => opened?,
    };
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        match statat(&directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => found.push((name, u64::try_from(stat.st_size).unwrap_or_default())),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    found.retain(|(name, _)| name != "." && name != "..");
    Ok(found)
}
