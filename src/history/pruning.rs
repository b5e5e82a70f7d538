//! Bounds the history by age and by size.
//!
//! May assume: [`Repository::repack`] removes what the references no longer lead to.
//! Must never: cut off the newest version of a path.
//!
//! The line of commits is cut with git's own means: the file `shallow` names the commit at which it ends. That commit is no step any
//! more. Its tree is what was before the oldest step that is kept. All later commits keep their ids, and `git log`, `git fsck` and
//! `git fetch` know the file. To write the kept commits anew would change all ids, and cost as much as all of them.

use std::collections::BTreeSet;

use git2::Oid;

use super::HistoryError;
use super::commit::Commit;
use super::packing::{GoOn, Needed};
use super::repository::Repository;
use super::steps::SHALLOW;
use crate::limits::HISTORY_REMOVED_SHARE;
use crate::queue::Wall;

impl Repository {
    /// Remove the steps that ended before `oldest`, and further ones, oldest first, until the history takes at most `bytes`. Tasks' work
    /// that is as old goes too. The newest version of every path stays, and so does the content that is `needed`.
    ///
    /// What is too old is gone from the history at once. Its space is freed when it is worth the work.
    ///
    /// # Errors
    /// Why the history cannot be read or written.
    pub fn prune(
        &self,
        oldest: Wall,
        bytes: u64,
        needed: Needed<'_>,
        go_on: GoOn<'_>,
    ) -> Result<(), HistoryError> {
        let _one = self.tidying.lock();
        let mut commits = self.commits()?;
        let by_age = commits.iter().position(|(_, at)| *at < oldest);
        by_age.map_or(Ok(false), |boundary| self.cut_at(&mut commits, boundary))?;
        if !go_on() {
            return Ok(());
        }
        self.drop_tasks(oldest)?;
        let removed = self.removed_commits(&commits)?;
        let is_worth_it = removed > 0 && removed * HISTORY_REMOVED_SHARE >= commits.len();
        if is_worth_it || self.object_bytes()? > bytes || self.has_many_packs()? {
            self.repack(needed, go_on)?;
        }
        loop {
            let taken = self.object_bytes()?;
            if taken <= bytes || !go_on() {
                return Ok(());
            }
            // As many steps as the bound may hold if all take the same, less a tenth, so that few turns are needed.
            let steps = commits.len().saturating_sub(1);
            let share = u128::from(bytes) * steps as u128 * 9 / (u128::from(taken) * 10);
            let kept = usize::try_from(share).unwrap_or(steps).min(steps.saturating_sub(1));
            let is_cut = self.cut_at(&mut commits, kept)?;
            let limit = commits.last().map_or(oldest, |(_, at)| *at);
            if !(self.drop_tasks(limit)? || is_cut) {
                return Ok(());
            }
            self.repack(needed, go_on)?;
        }
    }

    /// The commits of the history and their times, newest first.
    fn commits(&self) -> Result<Vec<(Oid, Wall)>, HistoryError> {
        let cut = self.cut()?;
        let mut found = Vec::new();
        let mut next = self.main()?;
        while let Some(id) = next {
            let commit = Commit::read(&self.objects, id)?;
            found.push((id, commit.at));
            next = commit.parent.filter(|_| !cut.contains(&id));
        }
        Ok(found)
    }

    /// How many commits are still there although the history was cut after them. As many are counted as matter.
    fn removed_commits(&self, commits: &[(Oid, Wall)]) -> Result<usize, HistoryError> {
        let Some((oldest, _)) = commits.last() else { return Ok(0) };
        let mut next = Commit::read(&self.objects, *oldest)?.parent;
        let mut found = 0;
        while let Some(id) = next.filter(|id| found <= commits.len() && self.objects.has(*id)) {
            found += 1;
            next = Commit::read(&self.objects, id)?.parent;
        }
        Ok(found)
    }

    /// Let the history end at this commit. Returns whether that removes any.
    fn cut_at(&self, commits: &mut Vec<(Oid, Wall)>, boundary: usize) -> Result<bool, HistoryError> {
        if boundary + 1 >= commits.len() {
            return Ok(false);
        }
        commits.truncate(boundary + 1);
        self.set_text_synced(SHALLOW, &format!("{}\n", commits[boundary].0))?;
        Ok(true)
    }

    /// Drop the work of tasks whose last step is older. Returns whether there was any.
    fn drop_tasks(&self, oldest: Wall) -> Result<bool, HistoryError> {
        let _one = self.recording.lock();
        let mut dropped = BTreeSet::new();
        for (name, commit) in self.task_references()? {
            if Commit::read(&self.objects, commit)?.at < oldest {
                dropped.insert(name);
            }
        }
        self.remove_references(&dropped)?;
        Ok(!dropped.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::history::{
        ClaimEnd, ContentId, KeptContent, PathChange, Step, StepFilter, TaskClaim, Version, VersionKind,
    };
    use crate::queue::{TaskId, WorkerName};

    fn open(place: &Path, create: bool) -> Repository {
        Repository::open(OwnedFd::from(File::open(place).unwrap()), create).unwrap()
    }

    fn version(repository: &Repository, content: &[u8]) -> Version {
        let content = KeptContent::Kept(repository.store(content).unwrap());
        Version { kind: VersionKind::File, mode: 0o644, uid: 0, gid: 0, content }
    }

    /// The content of `f` at a time, hard to compress, and similar to that at other times.
    fn content(at: i64) -> Vec<u8> {
        let mut seed = 1u64;
        let mut noise = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        };
        let mut content: Vec<u8> = (0..4_000).map(|_| noise()).collect();
        content.extend(at.to_string().bytes());
        content
    }

    fn step(repository: &Repository, at: i64) -> Step {
        let mut changes = vec![PathChange {
            path: "d/f".into(),
            before: (at > 0).then(|| version(repository, &content(at - 1))),
            after: Some(version(repository, &content(at))),
        }];
        let once = PathBuf::from(format!("once/{at}"));
        changes.push(PathChange { path: once, before: None, after: Some(version(repository, &[at as u8])) });
        let task = TaskId::parse(&format!("t{at}")).unwrap();
        Step {
            worker: WorkerName::parse("w"),
            claim: Some(TaskClaim { task, epoch: 1, title: "T".into() }),
            program: None,
            at: Wall(at * 1_000),
            end: None,
            changes,
        }
    }

    fn fill(repository: &Repository, steps: std::ops::Range<i64>) {
        for at in steps {
            let step = step(repository, at);
            repository.record(&step).unwrap();
            let end = ClaimEnd { how: "completed".into(), text: String::new() };
            repository.end_task(&step.claim.unwrap(), &end, &step.worker.unwrap()).unwrap();
        }
    }

    /// Read all that a repository has, and the times of its steps. The newest versions are those of so many steps.
    fn check(place: &Path, steps: i64) -> Vec<i64> {
        let repository = open(place, false);
        let found: Vec<Step> = repository.steps(StepFilter::default()).unwrap().map(Result::unwrap).collect();
        for version in
            found.iter().flat_map(|step| &step.changes).flat_map(|change| [change.before, change.after])
        {
            if let Some(Version { content: KeptContent::Kept(id), .. }) = version {
                repository.read(id).unwrap();
            }
        }
        for commit in repository.task_references().unwrap().into_values() {
            let commit = Commit::read(&repository.objects, commit).unwrap();
            Commit::read(&repository.objects, commit.parent.unwrap()).unwrap();
            super::super::trees::differences(&repository.objects, None, Some(commit.tree)).unwrap();
        }
        let main = Commit::read(&repository.objects, repository.main().unwrap().unwrap()).unwrap();
        let tree = super::super::trees::differences(&repository.objects, None, Some(main.tree)).unwrap();
        let files: BTreeMap<PathBuf, Vec<u8>> = tree
            .into_iter()
            .map(|(path, (_, entry))| (path, repository.read(entry.unwrap().id.into()).unwrap()))
            .collect();
        let mut expected: BTreeMap<PathBuf, Vec<u8>> =
            (0..steps).map(|at| (PathBuf::from(format!("once/{at}")), vec![at as u8])).collect();
        expected.insert("d/f".into(), content(steps - 1));
        assert!(files == expected, "the newest versions are {:?}", files.keys());
        found.iter().map(|step| step.at.0 / 1_000).collect()
    }

    #[test]
    fn old_steps_go_and_the_newest_versions_stay() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..30);
        let needed = repository.store(b"needed").unwrap();
        let garbage = repository.store(b"garbage").unwrap();
        let old: ContentId = repository.store(&content(3)).unwrap();
        // A process that was killed left these.
        for left in ["tmp_obj_1_1", "pack/pack_git2_x", "pack/pack-0.idx"] {
            std::fs::write(place.path().join("objects").join(left), "").unwrap();
        }
        repository.prune(Wall(20_000), u64::MAX, &|| BTreeSet::from([needed]), &mut || true).unwrap();
        assert_eq!(check(place.path(), 30), (20..30).rev().collect::<Vec<_>>());
        assert_eq!(repository.task_references().unwrap().len(), 10);
        assert_eq!(repository.read(needed).unwrap(), b"needed");
        assert!(repository.read(garbage).is_err() && repository.read(old).is_err());
        let left =
            std::fs::read_dir(place.path().join("objects")).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("tmp")));
        assert_eq!(std::fs::read_dir(place.path().join("objects/pack")).unwrap().count(), 2);
        fill(&repository, 30..35);
        assert_eq!(check(place.path(), 35), (20..35).rev().collect::<Vec<_>>());
        // Nothing is young enough: the newest versions stay alone.
        repository.prune(Wall(i64::MAX), u64::MAX, &BTreeSet::new, &mut || true).unwrap();
        assert_eq!(check(place.path(), 35), [0; 0]);
        fill(&repository, 35..36);
        assert_eq!(check(place.path(), 36), [35]);
    }

    #[test]
    fn a_history_that_is_too_large_loses_its_oldest_steps() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..60);
        repository.prune(Wall(0), u64::MAX, &BTreeSet::new, &mut || true).unwrap();
        repository.prune(Wall(0), 100 << 20, &BTreeSet::new, &mut || true).unwrap();
        assert_eq!(check(place.path(), 60).len(), 60);
        let bound = 36_000;
        repository.prune(Wall(0), bound, &BTreeSet::new, &mut || true).unwrap();
        assert!(repository.object_bytes().unwrap() <= bound);
        let kept = check(place.path(), 60).len();
        assert!((6..57).contains(&kept), "{kept} steps are kept");
        repository.prune(Wall(0), 0, &BTreeSet::new, &mut || true).unwrap();
        assert_eq!(check(place.path(), 60), [0; 0]);
    }

    #[test]
    fn space_is_freed_when_it_is_worth_the_work() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..64);
        let prune = |oldest| repository.prune(Wall(oldest), u64::MAX, &BTreeSet::new, &mut || true).unwrap();
        let packs = || std::fs::read_dir(place.path().join("objects/pack")).unwrap().count();
        prune(0);
        assert_eq!(packs(), 0);
        prune(2_000);
        assert_eq!((check(place.path(), 64).len(), packs()), (62, 0));
        prune(8_000);
        assert_eq!((check(place.path(), 64).len(), packs()), (56, 2));
        assert_eq!(repository.removed_commits(&repository.commits().unwrap()).unwrap(), 0);
    }

    #[test]
    fn pruning_may_end_anywhere() {
        let mut ends = 0;
        for end in 0.. {
            let place = crate::history::in_memory().unwrap();
            let repository = open(place.path(), true);
            fill(&repository, 0..2);
            repository.repack(&BTreeSet::new, &mut || true).unwrap();
            fill(&repository, 2..5);
            let mut left = end;
            let mut go_on = || {
                left -= 1;
                left >= 0
            };
            repository.prune(Wall(3_000), u64::MAX, &BTreeSet::new, &mut go_on).unwrap();
            let is_whole = left > 0;
            drop(repository);
            assert_eq!(check(place.path(), 5), [4, 3], "after {end} steps");
            // The next daemon goes on.
            let repository = open(place.path(), true);
            fill(&repository, 5..6);
            repository.prune(Wall(4_000), u64::MAX, &BTreeSet::new, &mut || true).unwrap();
            assert_eq!(check(place.path(), 6), [5, 4], "after {end} steps");
            if is_whole {
                break;
            }
            ends += 1;
        }
        assert!(ends > 10, "it could end at {ends} places");
    }

    #[test]
    fn threads_store_and_record_while_objects_are_removed() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..2);
        let done = std::sync::atomic::AtomicBool::new(false);
        // What is stored and not recorded yet. The lock is held while content is stored.
        let open_steps = parking_lot::Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 2..40 {
                    let step = {
                        let mut needed = open_steps.lock();
                        let step = step(&repository, at);
                        let versions = step.changes.iter().flat_map(|change| [change.before, change.after]);
                        needed.extend(versions.flatten().filter_map(|version| match version.content {
                            KeptContent::Kept(id) => Some(id),
                            KeptContent::NotKept { .. } => None,
                        }));
                        step
                    };
                    repository.record(&step).unwrap();
                    open_steps.lock().clear();
                }
                done.store(true, std::sync::atomic::Ordering::Release);
            });
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                repository.repack(&|| open_steps.lock().clone(), &mut || true).unwrap();
            }
        });
        assert_eq!(check(place.path(), 40), (0..40).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_goes_on_while_objects_move() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..20);
        let reader = open(place.path(), false);
        let mut steps = reader.steps(StepFilter::default()).unwrap();
        steps.next().unwrap().unwrap();
        repository.repack(&BTreeSet::new, &mut || true).unwrap();
        steps.next().unwrap().unwrap();
        fill(&repository, 20..21);
        // The pack that the reader knows goes. It may have it open.
        repository.repack(&BTreeSet::new, &mut || true).unwrap();
        let left: Vec<i64> = steps.map(|step| step.unwrap().at.0 / 1_000).collect();
        assert_eq!(left, (0..18).rev().collect::<Vec<_>>());
        assert_eq!(reader.steps(StepFilter::default()).unwrap().map(Result::unwrap).count(), 21);
    }

    #[test]
    fn a_reader_ends_where_the_history_was_cut_meanwhile() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..20);
        let reader = open(place.path(), false);
        let mut steps = reader.steps(StepFilter::default()).unwrap();
        steps.next().unwrap().unwrap();
        repository.prune(Wall(10_000), u64::MAX, &BTreeSet::new, &mut || true).unwrap();
        let left: Vec<i64> = steps.map(|step| step.unwrap().at.0 / 1_000).collect();
        assert_eq!(left, (10..19).rev().collect::<Vec<_>>());
    }

    #[test]
    fn content_that_is_stored_again_meanwhile_is_not_removed() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..6);
        let loose = repository.store(b"loose and nothing leads to it").unwrap();
        repository.repack(&|| BTreeSet::from([loose]), &mut || true).unwrap();
        let other = repository.store(b"another one").unwrap();
        let old = content(1);
        // Once the work has begun, a worker brings back what is about to go.
        let mut turn = 0;
        let mut go_on = || {
            turn += 1;
            if turn == 3 {
                repository.store(&old).unwrap();
                repository.store(b"loose and nothing leads to it").unwrap();
                repository.store(b"another one").unwrap();
            }
            true
        };
        repository.prune(Wall(4_000), u64::MAX, &BTreeSet::new, &mut go_on).unwrap();
        assert!(turn > 3);
        let old_id = git2::Oid::hash_object(git2::ObjectType::Blob, &old).unwrap();
        for id in [loose, other, ContentId::from(old_id)] {
            repository.read(id).unwrap();
        }
    }

    #[test]
    fn many_loose_objects_are_packed() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..10);
        let before = repository.object_bytes().unwrap();
        repository.pack(&mut || true).unwrap();
        assert_eq!(repository.object_bytes().unwrap(), before, "there are few");
        for n in 0..crate::limits::HISTORY_LOOSE_OBJECTS {
            repository.store(&n.to_le_bytes()).unwrap();
        }
        let waiting = repository.store(b"waiting for its step").unwrap();
        repository.pack(&mut || true).unwrap();
        assert_eq!(repository.read(waiting).unwrap(), b"waiting for its step");
        assert!(std::fs::read_dir(place.path().join("objects/pack")).unwrap().count() == 2);
        let commit = repository.main().unwrap().unwrap();
        assert!(!place.path().join("objects").join(super::super::objects::loose_name(commit)).exists());
        assert_eq!(check(place.path(), 10).len(), 10);
    }

    #[test]
    fn references_that_git_packed_are_known() {
        let place = crate::history::in_memory().unwrap();
        let repository = open(place.path(), true);
        fill(&repository, 0..3);
        let main = repository.main().unwrap().unwrap();
        let tasks = repository.task_references().unwrap();
        let line = |(name, commit): (&str, &Oid)| format!("{commit} {name}\n");
        let mut packed = String::from("# pack-refs with: peeled fully-peeled sorted \n");
        packed.push_str(&line(("refs/heads/main", &main)));
        packed.extend(tasks.iter().map(|(name, commit)| line((name, commit))));
        std::fs::write(place.path().join("packed-refs"), packed).unwrap();
        for name in tasks.keys().map(String::as_str).chain(["refs/heads/main"]) {
            std::fs::remove_file(place.path().join(name)).unwrap();
        }
        assert_eq!(check(place.path(), 3), [2, 1, 0]);
        assert_eq!(repository.task_references().unwrap(), tasks);
        fill(&repository, 3..4);
        repository.prune(Wall(2_000), u64::MAX, &BTreeSet::new, &mut || true).unwrap();
        assert_eq!(check(place.path(), 4), [3, 2]);
        assert_eq!(repository.task_references().unwrap().len(), 2);
    }
}
