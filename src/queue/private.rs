//! Which users may see the text of a task: the content of its file, and the notes and results that follow from it (C18).
//!
//! May assume: the owner of a file decides which users may read it. The rights of a new file under the same id do not apply to the file
//! before it.
//! Must never: reveal a text because its file is gone, or because a file of another user replaced it.

use std::sync::Arc;

use super::task::{FileStamp, Phase, Task};
use super::{Access, Eyes, State, TaskId};
use crate::limits::PRIVATE_FILES_OF_A_TASK;

impl State {
    /// Updates the rights for an id that got a file, got another file, or whose file got other rights.
    pub(super) fn update_private(&mut self, id: &TaskId, before: Option<&FileStamp>, now: &FileStamp) {
        let mut kept = self.private.get(id).cloned().unwrap_or_default();
        let readers = now.readers.as_ref();
        if let Some(before) = before.filter(|before| before.ino == now.ino)
            && let (Some(old), Some(new)) = (&before.readers, readers)
            && old.uid == new.uid
        {
            kept.retain(|file| file != old);
        }
        if let Some(readers) =
            readers.filter(|readers| !readers.is_for_everybody() && !kept.contains(readers))
        {
            kept.push(readers.clone());
        }
        if kept.len() > PRIVATE_FILES_OF_A_TASK {
            kept = vec![Arc::new(Access { uid: 0, gid: 0, mode: 0, acl: Vec::new() })];
        }
        match kept.is_empty() {
            true => drop(self.private.remove(id)),
            false => drop(self.private.insert(id.clone(), kept)),
        }
    }

    /// Whether any text is private.
    pub fn has_private(&self) -> bool {
        !self.private.is_empty()
    }

    /// Whether this user may see all texts that an id ever had.
    pub fn shows_history(&self, id: &TaskId, eyes: &Eyes) -> bool {
        eyes.may_read(self.private.get(id).into_iter().flatten().map(|file| &**file))
    }

    /// Whether this user may see the current text of a task.
    pub fn shows(&self, id: &TaskId, task: &Task, eyes: &Eyes) -> bool {
        match &task.phase {
            // An open task shows only the content of its file. A rejected task also shows what was in force before.
            Phase::Open => eyes.may_read(task.stamp.readers.as_deref()),
            Phase::Rejected(_) | Phase::Claimed(_) | Phase::Completed(_) | Phase::Failed(_) => {
                self.shows_history(id, eyes)
            }
        }
    }

    /// The rights of all files that this user may not read, sorted, each once. Two users with the same result see the same texts.
    pub fn unseen(&self, eyes: &Eyes) -> Vec<Arc<Access>> {
        if *eyes == Eyes::All || !self.has_private() {
            return Vec::new();
        }
        let of_tasks = self.tasks().filter_map(|(_, task)| task.stamp.readers.as_ref());
        let all = self.private.values().flatten().chain(of_tasks);
        let mut unseen: Vec<_> = all.filter(|file| !eyes.may_read([&***file])).cloned().collect();
        unseen.sort();
        unseen.dedup();
        unseen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Event, Manifest, Record, Spec, Wall};

    fn access(uid: u32, mode: u16) -> Option<Arc<Access>> {
        Some(Arc::new(Access { uid, gid: uid, mode, acl: Vec::new() }))
    }

    fn eyes(uid: u32) -> Eyes {
        Eyes::User { uid, groups: vec![uid] }
    }

    struct TestQueue(State, TaskId);

    impl TestQueue {
        fn apply(&mut self, event: Event) {
            self.0.apply(&Record { seq: self.0.tail() + 1, at: Wall(0), event });
        }

        fn publish(&mut self, ino: u64, readers: Option<Arc<Access>>) {
            let (task, manifest) = (self.1.clone(), Manifest::Spec(Arc::new(Spec::titled("t"))));
            let stamp = FileStamp { ino, readers, ..FileStamp::default() };
            self.apply(Event::Published { task, manifest, stamp, cycle: Vec::new() });
        }

        fn sees(&self, uid: u32) -> (bool, bool) {
            let now = self.0.task("t").is_none_or(|task| self.0.shows(&self.1, task, &eyes(uid)));
            (now, self.0.shows_history(&self.1, &eyes(uid)))
        }
    }

    #[test]
    fn only_the_owner_of_a_file_decides_which_users_may_read() {
        let mut world = TestQueue(State::default(), TaskId::parse("t").unwrap());
        world.publish(1, access(5, 0o600));
        assert_eq!((world.sees(5), world.sees(6)), ((true, true), (false, false)));
        assert!(
            world.0.has_private()
                && world.0.unseen(&eyes(6)).len() == 1
                && world.0.unseen(&eyes(5)).is_empty()
        );
        // The owner makes the same file readable.
        world.publish(1, access(5, 0o644));
        assert_eq!((world.sees(6), world.0.has_private()), ((true, true), false));
        world.publish(1, access(5, 0o600));
        // Another user's file with the same inode number: the earlier texts stay private.
        world.publish(1, access(6, 0o644));
        assert_eq!((world.sees(6), world.sees(7)), ((true, false), (true, false)));
        world.apply(Event::Withdrawn { task: world.1.clone() });
        assert_eq!(world.sees(6), (true, false), "it is gone, and that does not make it known");
        let snapshot = serde_json::to_string(&world.0).unwrap();
        assert_eq!(serde_json::from_str::<State>(&snapshot).unwrap(), world.0);
    }

    #[test]
    fn after_very_many_files_no_user_may_read() {
        let mut world = TestQueue(State::default(), TaskId::parse("t").unwrap());
        (0..=PRIVATE_FILES_OF_A_TASK as u32).for_each(|n| world.publish(n.into(), access(n, 0o600)));
        assert_eq!(world.sees(3), (false, false));
        assert!(world.0.shows_history(&world.1, &Eyes::All));
    }
}
