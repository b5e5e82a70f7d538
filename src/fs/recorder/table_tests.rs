//! The table under random changes, and the cases that matter.
//!
//! Must never: read a file.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::records::{Author, ContentSource, Item, Line, Observed, Snapshot, SnapshotKind, Stamp};
use super::table::{Due, Table};
use crate::queue::{Instant, Now, Seq, Span, TaskId, Wall, WorkerName};

fn author(worker: &str, task: Option<(&str, Seq)>) -> Author {
    let claim = task.map(|(task, epoch)| (TaskId::parse(task).unwrap(), epoch));
    Author { worker: Some(WorkerName::parse(worker).unwrap()), claim, program: None }
}

fn file(number: u64) -> Observed {
    let stamp = Stamp { is_directory: false, size: number, mtime_ns: 0, mode: 0o644 };
    let source = ContentSource::Spooled(number);
    (Some(stamp), Some(Snapshot { kind: SnapshotKind::File, mode: 0o644, uid: 0, gid: 0, source }))
}

fn at(ms: u64) -> Now {
    Now { wall: Wall(ms as i64), instant: Instant(ms) }
}

fn changes(table: &Table) -> Vec<(Option<String>, Option<Snapshot>, Option<Snapshot>)> {
    let queued = table.queued(usize::MAX).into_iter().filter_map(|item| match item {
        Item::Change { step, before, after, .. } => Some((step, before, after)),
        Item::End { .. } => None,
    });
    let name = |step| table.author(step).unwrap().worker.as_ref().map(ToString::to_string);
    queued.map(|(step, before, after)| (name(step), before, after)).collect()
}

fn settle(table: &mut Table, found: Observed, last: bool) {
    for due in table.due(None) {
        table.note(&due, found, at(9));
        table.record(&due, last, Wall(9));
    }
}

#[test]
fn a_path_that_goes_from_one_worker_to_another_has_both_versions() {
    let (mut table, path) = (Table::default(), Path::new("f"));
    let (one, two) = (table.step(&author("w1", Some(("a", 1)))), table.step(&author("w2", None)));
    table.enter(one, path, file(0), at(1));
    assert!(table.is_open(path, one) && !table.is_open(path, two));
    table.changed(path, file(1).0, Some(7), Instant(2));
    assert!(table.is_last_of(7, one));
    table.enter(two, path, file(1), at(3));
    assert!(!table.is_last_of(7, one) && table.is_open(path, two));
    table.changed(path, file(2).0, Some(7), Instant(4));
    settle(&mut table, file(2), false);
    assert_eq!(
        changes(&table),
        [(Some("w1".into()), file(0).1, file(1).1), (Some("w2".into()), file(1).1, file(2).1)]
    );
    assert_eq!(table.spooled(), [0, 1, 2]);
    // The second worker goes on from what is recorded.
    table.changed(path, file(3).0, Some(7), Instant(5));
    settle(&mut table, file(3), true);
    assert_eq!(changes(&table)[2], (Some("w2".into()), file(2).1, file(3).1));
    assert!(!table.has(path));
}

#[test]
fn what_comes_from_outside_has_no_author() {
    let (mut table, path) = (Table::default(), Path::new("f"));
    let one = table.step(&author("w1", None));
    table.enter(one, path, (None, None), at(1));
    table.changed(path, file(1).0, None, Instant(2));
    settle(&mut table, file(1), false);
    // A program beside the mount changes the file; then the worker does again, and a thread reads it.
    settle(&mut table, file(2), false);
    assert_eq!(changes(&table), [(Some("w1".into()), None, file(1).1), (None, file(1).1, file(2).1)]);
    assert!(!table.is_open(path, one), "the worker's next change keeps what came from outside");
}

#[test]
fn a_read_that_was_overtaken_by_a_change_tells_nothing() {
    let (mut table, path) = (Table::default(), Path::new("f"));
    let (one, two) = (table.step(&author("w1", None)), table.step(&author("w2", None)));
    table.enter(one, path, file(0), at(1));
    table.changed(path, file(1).0, None, Instant(1));
    let due = table.unread(Span(0), Instant(1)).remove(0);
    table.changed(path, file(2).0, None, Instant(2));
    table.note(&due, file(1), at(2));
    table.record(&due, true, Wall(2));
    assert!(changes(&table).is_empty() && table.is_open(path, one));
    let due = table.due(Some(one)).remove(0);
    table.enter(two, path, file(2), at(3));
    table.note(&due, file(9), at(3));
    table.record(&due, true, Wall(3));
    assert_eq!(changes(&table), [(Some("w1".into()), file(0).1, file(2).1)]);
}

#[test]
fn only_files_that_are_left_alone_are_read() {
    let mut table = Table::default();
    let one = table.step(&author("w1", None));
    for (path, changed) in [("a", 100), ("b", 200)] {
        table.enter(one, Path::new(path), (None, None), at(1));
        table.changed(Path::new(path), file(1).0, None, Instant(changed));
    }
    let paths = |due: Vec<Due>| due.into_iter().map(|due| due.path).collect::<Vec<_>>();
    assert_eq!(paths(table.unread(Span(50), Instant(160))), [Path::new("a")]);
    assert!(table.has_unread());
    assert_eq!(paths(table.unread(Span(50), Instant(260))), [Path::new("b")]);
    assert!(!table.has_unread());
}

#[test]
fn a_claim_that_has_changed_something_is_open_until_it_ends() {
    let mut table = Table::default();
    let (one, two) = (table.step(&author("w1", Some(("a", 1)))), table.step(&author("w2", None)));
    table.enter(one, Path::new("f"), (None, None), at(1));
    table.changed(Path::new("f"), file(1).0, None, Instant(1));
    table.enter(two, Path::new("f"), file(1), at(2));
    table.recorded(1);
    table.as_lines();
    assert!(table.open_steps().iter().any(|step| step.id == one));
    assert!(table.revision(&TaskId::parse("a").unwrap()) > table.revision(&TaskId::parse("b").unwrap()));
    table.end(one);
    assert!(table.open_steps().iter().all(|step| step.id == two));
    assert_eq!(table.queued(9), [Item::End { step: one }]);
}

#[derive(Debug, Clone)]
enum Op {
    Change { worker: usize, path: usize, found: u64 },
    Outside { path: usize, found: u64 },
    Settle { last: bool },
    Record(usize),
    Store,
    End(usize),
    Shorten,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3usize, 0..3usize, 1..9u64).prop_map(|(worker, path, found)| Op::Change { worker, path, found }),
        1 => (0..3usize, 1..9u64).prop_map(|(path, found)| Op::Outside { path, found }),
        1 => any::<bool>().prop_map(|last| Op::Settle { last }),
        1 => (0..4usize).prop_map(Op::Record),
        1 => Just(Op::Store),
        1 => (0..3usize).prop_map(Op::End),
        1 => Just(Op::Shorten),
    ]
}

proptest! {
    /// For each path, the recorded changes are a chain, from what was there first to what is there; and the journal describes the
    /// table at any moment.
    #[test]
    fn versions_are_a_chain_and_the_journal_has_all_of_it(ops in prop::collection::vec(op(), 0..60)) {
        let paths = ["a", "b", "c"].map(PathBuf::from);
        let authors = [author("w1", Some(("t", 1))), author("w2", None), author("w1", None)];
        let mut disk: Vec<Observed> = vec![(None, None); 3];
        let mut seen: Vec<Vec<Item>> = vec![Vec::new(); 3];
        let (mut table, mut journal, mut clock) = (Table::default(), Vec::new(), 0);
        let (mut ended, mut from_outside) = ([false; 3], false);
        let take = |table: &mut Table, count: usize, seen: &mut Vec<Vec<Item>>| {
            let items = table.queued(count);
            for item in &items {
                if let Item::Change { path, .. } = item {
                    seen[paths.iter().position(|known| known == path).unwrap()].push(item.clone());
                }
            }
            table.recorded(items.len());
        };
        for op in ops {
            clock += 1;
            match op {
                Op::Change { worker, path, found } if !ended[worker] => {
                    let step = table.step(&authors[worker]);
                    table.enter(step, &paths[path], disk[path], at(clock));
                    disk[path] = file(100 * clock + found);
                    table.changed(&paths[path], disk[path].0, None, Instant(clock));
                }
                Op::Change { .. } => {}
                Op::Outside { path, found } => {
                    disk[path] = file(100 * clock + found);
                    from_outside = true;
                }
                Op::Settle { last } => {
                    for due in table.due(None) {
                        let path = paths.iter().position(|known| *known == due.path).unwrap();
                        table.note(&due, disk[path], at(clock));
                        table.record(&due, last, Wall(clock as i64));
                    }
                }
                Op::Record(count) => take(&mut table, count, &mut seen),
                Op::Store => for number in table.spooled() {
                    table.stored(number, ContentSource::Spooled(number));
                },
                Op::End(worker) if worker == 0 && !ended[0] => {
                    let step = table.step(&authors[0]);
                    for due in table.due(Some(step)) {
                        let path = paths.iter().position(|known| *known == due.path).unwrap();
                        table.note(&due, disk[path], at(clock));
                        table.record(&due, true, Wall(clock as i64));
                    }
                    table.end(step);
                    ended[0] = true;
                }
                Op::End(_) => {}
                Op::Shorten => {
                    table.take_lines();
                    journal = table.as_lines();
                }
            }
            journal.extend(table.take_lines());
            let sorted = |lines: Vec<Line>| {
                let mut lines: Vec<String> = lines.iter().map(|line| format!("{line:?}")).collect();
                lines.sort();
                lines
            };
            let replayed = Table::replay(journal.clone());
            prop_assert_eq!(replayed.queued(usize::MAX), table.queued(usize::MAX));
            prop_assert_eq!(sorted(replayed.clone().as_lines()), sorted(table.clone().as_lines()));
        }
        for due in table.due(None) {
            let path = paths.iter().position(|known| *known == due.path).unwrap();
            table.note(&due, disk[path], at(clock));
            table.record(&due, true, Wall(clock as i64));
        }
        take(&mut table, usize::MAX, &mut seen);
        for (items, disk) in seen.iter().zip(&disk) {
            let versions = items.iter().filter_map(|item| match item {
                Item::Change { before, after, .. } => Some((*before, *after)),
                Item::End { .. } => None,
            });
            let versions: Vec<_> = versions.collect();
            prop_assert!(versions.iter().all(|(before, after)| before != after));
            if !from_outside && let (Some(first), Some(last)) = (versions.first(), versions.last()) {
                prop_assert_eq!(first.0, None);
                prop_assert_eq!(last.1, disk.1);
                prop_assert!(versions.windows(2).all(|pair| pair[0].1 == pair[1].0));
            }
        }
    }
}
