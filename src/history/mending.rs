//! Makes the history whole again after the machine died.
//!
//! May assume: no other process writes the repository.
//! Must never: remove an object that is whole.
//!
//! Steps are written without a sync. If the machine dies, files of the last seconds may be empty or missing, in any order. A damaged
//! object would be taken for content that is there, and a reference to a commit that is lost would stop all recording. So the first
//! daemon after a start of the machine reads every loose object, removes the damaged ones, and goes back to the newest commit whose
//! history is whole. Packs are synced before the objects go that they replace.

use std::collections::BTreeSet;

use git2::Oid;

use super::HistoryError;
use super::commit::Commit;
use super::objects::loose_name;
use super::packing::ObjectFiles;
use super::reach::Reachable;
use super::repository::{MAIN, Repository, parse_id};
use crate::limits::HISTORY_HEADS;

/// Says which start of the machine last wrote here.
const BOOT: &str = "crewfs-boot";
/// The last commits of the history, oldest first.
const HEADS: &str = "crewfs-heads";

impl Repository {
    /// Mend what the death of the machine left, if it was started anew.
    pub(super) fn mend(&self) -> Result<(), HistoryError> {
        let boot = this_boot();
        if self.text(BOOT)?.is_some_and(|last| last == boot) {
            return Ok(());
        }
        self.mend_now()?;
        self.set_text(BOOT, &boot)
    }

    fn mend_now(&self) -> Result<(), HistoryError> {
        let is_damaged = self.remove_damaged()?;
        let main = self.main();
        let is_readable =
            |main: Option<Oid>| main.is_none_or(|main| Commit::read(&self.objects, main).is_ok());
        if !is_damaged && main.as_ref().is_ok_and(|main| is_readable(*main)) {
            return Ok(());
        }
        let heads = self.text(HEADS)?.unwrap_or_default();
        let heads = heads.lines().rev().filter_map(parse_id);
        match main.ok().flatten().into_iter().chain(heads).find(|commit| self.is_whole(*commit)) {
            Some(commit) => self.set_reference(MAIN, commit)?,
            None => self.remove_references(&BTreeSet::from([MAIN.to_string()]))?,
        }
        let is_lost =
            |name: &String| !matches!(self.reference(name), Ok(Some(commit)) if self.is_whole(commit));
        let lost = self.task_names()?.into_iter().filter(is_lost).collect();
        self.remove_references(&lost)
    }

    /// Remove loose objects that are not what their names say. Returns whether there were any.
    fn remove_damaged(&self) -> Result<bool, HistoryError> {
        let mut found = false;
        for (id, _) in ObjectFiles::read(&self.objects).map_err(HistoryError::reading)?.loose {
            if self.objects.read_loose(id).is_err() {
                self.objects.remove(&loose_name(id))?;
                found = true;
            }
        }
        self.objects.reopen()?;
        Ok(found)
    }

    /// Whether all is there that a commit leads to.
    fn is_whole(&self, commit: Oid) -> bool {
        let Ok(cut) = self.cut() else { return false };
        let mut reach = Reachable::new(&self.objects, &cut, &|_| true);
        reach.add_commits(commit).is_ok() && reach.found.iter().all(|(id, _)| self.objects.has(*id))
    }

    /// Note a commit of the history, so that it is found if the reference is lost.
    pub(super) fn note_head(&self, commit: Oid) -> Result<(), HistoryError> {
        let line = format!("{commit}\n");
        if self.append_text(HEADS, &line)? <= 2 * HISTORY_HEADS * line.len() as u64 {
            return Ok(());
        }
        let heads = self.text(HEADS)?.unwrap_or_default();
        let later = heads.len().saturating_sub(HISTORY_HEADS as usize * line.len());
        self.set_text(HEADS, heads.get(later..).unwrap_or_default())
    }
}

/// The id of this start of the machine.
fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use super::*;
    use crate::history::{KeptContent, PathChange, Step, StepFilter, Version, VersionKind};
    use crate::queue::{Wall, WorkerName};

    fn open(place: &Path) -> Repository {
        Repository::open(OwnedFd::from(File::open(place).unwrap()), true).unwrap()
    }

    fn record(repository: &Repository, at: i64) {
        let version = |at: i64| {
            let content = KeptContent::Kept(repository.store(at.to_string().as_bytes()).unwrap());
            Version { kind: VersionKind::File, mode: 0o644, uid: 0, gid: 0, content }
        };
        let before = (at > 0).then(|| version(at - 1));
        let change = PathChange { path: "f".into(), before, after: Some(version(at)) };
        let worker = WorkerName::parse("w");
        let step =
            Step { worker, claim: None, program: None, at: Wall(at), end: None, changes: vec![change] };
        repository.record(&step).unwrap();
    }

    fn times(repository: &Repository) -> Vec<i64> {
        repository.steps(StepFilter::default()).unwrap().map(|step| step.unwrap().at.0).collect()
    }

    /// Five steps, of which the machine lost something: `damage` gets the directory and the file of the last commit.
    fn after(damage: impl Fn(&Path, &Path)) -> (tempfile::TempDir, Repository) {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path());
        (0..5).for_each(|at| record(&repository, at));
        let last = loose_name(repository.main().unwrap().unwrap());
        damage(place.path(), &place.path().join("objects").join(last));
        fs::write(place.path().join(BOOT), "another one").unwrap();
        drop(repository);
        let repository = open(place.path());
        (place, repository)
    }

    #[test]
    fn recording_goes_on_after_the_machine_died() {
        let empty = |file: &Path| {
            fs::remove_file(file).unwrap();
            fs::write(file, "").unwrap();
        };
        let (_place, repository) = after(|_, commit| empty(commit));
        assert_eq!(times(&repository), [3, 2, 1, 0]);
        record(&repository, 4);
        assert_eq!(times(&repository), [4, 3, 2, 1, 0]);

        let (_place, repository) = after(|place, _| empty(&place.join(MAIN)));
        assert_eq!(times(&repository), [4, 3, 2, 1, 0]);

        let (_place, repository) = after(|place, _| fs::remove_dir_all(place.join("objects")).unwrap());
        assert_eq!(times(&repository), [0; 0]);
        record(&repository, 0);
        assert_eq!(times(&repository), [0]);

        let (_place, repository) = after(|_, _| {});
        assert_eq!(times(&repository), [4, 3, 2, 1, 0]);
    }

    #[test]
    fn damaged_content_is_not_taken_for_what_is_there() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path());
        let id = repository.store(b"content").unwrap();
        let file = place.path().join("objects").join(loose_name(id.into()));
        fs::remove_file(&file).unwrap();
        fs::write(&file, "").unwrap();
        fs::write(place.path().join(BOOT), "another one").unwrap();
        let repository = open(place.path());
        assert_eq!(repository.store(b"content").unwrap(), id);
        assert_eq!(repository.read(id).unwrap(), b"content");
    }

    #[test]
    fn heads_stay_few() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path());
        let id = Oid::hash_object(git2::ObjectType::Blob, b"").unwrap();
        (0..3 * HISTORY_HEADS).for_each(|_| repository.note_head(id).unwrap());
        let heads = repository.text(HEADS).unwrap().unwrap();
        assert!((HISTORY_HEADS..=2 * HISTORY_HEADS).contains(&(heads.lines().count() as u64)));
        assert!(heads.lines().all(|line| parse_id(line) == Some(id)));
    }
}
