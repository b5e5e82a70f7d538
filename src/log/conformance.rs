//! One suite that every engine of the log must pass. Each test is named after a promise of the trait.

use std::sync::Arc;

use super::{Log, LogError, MemoryLog, SqliteLog, Tail, line};
use crate::limits::TEXT_IN_LINE_BYTES;
use crate::queue::{Content, Event, Record, Seq, TaskId, Wall, WorkerName};
use crate::state_directory::StateDirectory;

fn record(seq: Seq, text: &str) -> Record {
    let task = TaskId::parse("t").unwrap();
    let worker = WorkerName::parse("w").unwrap();
    let event = match text {
        "" => Event::Claimed { task, worker },
        text => Event::Reported { task, text: Content::new(text) },
    };
    Record { seq, at: Wall(1_000 + seq as i64), event }
}

fn batch(after: Seq, count: u64) -> Vec<Record> {
    (after + 1..=after + count).map(|seq| record(seq, if seq % 3 == 0 { "größer\n" } else { "" })).collect()
}

fn directory() -> (tempfile::TempDir, Arc<StateDirectory>) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDirectory::at(dir.path(), false).unwrap();
    (dir, Arc::new(state))
}

fn each_engine(test: impl Fn(&mut dyn Log)) {
    test(&mut MemoryLog::default());
    let (_dir, fd) = directory();
    test(&mut SqliteLog::open(fd).unwrap());
}

#[test]
fn l1_positions_have_no_gaps_and_are_read_back() {
    each_engine(|log| {
        assert_eq!(log.tail(), Tail::default());
        let all = batch(0, 10);
        log.append(0, &all[..4]).unwrap();
        log.append(4, &all[4..]).unwrap();
        assert_eq!(log.read(0, 100).unwrap(), all);
        assert_eq!(log.read(7, 2).unwrap(), all[7..9]);
        assert!(log.read(10, 5).unwrap().is_empty());
    });
}

#[test]
fn l2_l5_a_wrong_expectation_changes_nothing() {
    each_engine(|log| {
        let tail = log.append(0, &batch(0, 3)).unwrap();
        for (expected, events) in [(2, batch(2, 1)), (4, batch(4, 2)), (3, batch(4, 1)), (0, batch(0, 1))] {
            match log.append(expected, &events) {
                Err(LogError::Conflict { tail: found, .. }) => assert_eq!(found, tail),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(log.tail(), tail);
        log.append(3, &batch(3, 1)).unwrap();
    });
}

#[test]
fn l8_bytes_are_the_lines_at_every_offset_and_length() {
    each_engine(|log| {
        let all = batch(0, 9);
        log.append(0, &all).unwrap();
        let whole: String = all.iter().map(line).collect();
        assert_eq!(log.tail().bytes, whole.len() as u64);
        for offset in 0..=whole.len() {
            for length in [0, 1, 7, 100, 5_000] {
                let expected = &whole.as_bytes()[offset..whole.len().min(offset + length)];
                assert_eq!(
                    log.reader().read_bytes(offset as u64, length).unwrap(),
                    expected,
                    "{offset} {length}"
                );
            }
        }
        assert!(log.reader().read_bytes(1 << 40, 10).unwrap().is_empty());
    });
}

#[test]
fn l10_long_texts_lie_beside_their_events_and_can_be_dropped() {
    each_engine(|log| {
        let long = |c: &str| c.repeat(TEXT_IN_LINE_BYTES + 1);
        let texts =
            ["".into(), long("a"), "short".into(), long("é"), "a".repeat(TEXT_IN_LINE_BYTES), long("b")];
        let all: Vec<Record> = texts.iter().zip(1..).map(|(text, seq)| record(seq, text)).collect();
        let tail = log.append(0, &all).unwrap();
        assert_eq!(log.texts(0, 100).unwrap(), [2, 4, 6]);
        assert_eq!((log.texts(0, 1).unwrap(), log.texts(2, 1).unwrap()), (vec![2], vec![4]));
        let text_of = |seq: Seq| Some(texts[seq as usize - 1].as_bytes().to_vec());
        (2..=6).for_each(|seq| assert_eq!(log.reader().text(seq).unwrap(), text_of(seq), "{seq}"));
        for none in [0, 1, 7, Seq::MAX] {
            assert!(matches!(log.reader().text(none), Err(LogError::Damaged { .. })), "{none}");
        }
        let (records, lines) = (log.read(0, 100).unwrap(), log.reader().read_bytes(0, 100_000).unwrap());
        for (record, given) in records.iter().zip(&all) {
            let (found, text) = (record.event.text(), given.event.text());
            assert_eq!(found.map(Content::digest), text.map(Content::digest));
            let beside = [2, 4, 6].contains(&record.seq);
            assert_eq!(found.and_then(Content::whole).is_none(), beside || record.seq == 1);
        }
        assert!(!String::from_utf8_lossy(&lines).contains(&long("a")), "not in its line");

        // Texts in lines and events that do not exist stay unchanged.
        log.drop_texts(&[1, 2, 3, 5, 6, 77]).unwrap();
        let same = |log: &mut dyn Log| {
            assert_eq!(log.texts(0, 100).unwrap(), [4]);
            let there = [(2, None), (3, text_of(3)), (4, text_of(4)), (5, text_of(5)), (6, None)];
            there
                .into_iter()
                .for_each(|(seq, text)| assert_eq!(log.reader().text(seq).unwrap(), text, "{seq}"));
            assert_eq!((log.read(0, 100).unwrap(), log.tail()), (records.clone(), tail));
            assert_eq!(log.reader().read_bytes(0, 100_000).unwrap(), lines);
        };
        same(log);
        assert_eq!(log.reopen().unwrap(), tail);
        same(log);
        log.append(6, &[record(7, &long("c"))]).unwrap();
        assert_eq!(log.texts(0, 100).unwrap(), [4, 7]);
    });
}

#[test]
fn l10_what_was_dropped_leaves_room_for_what_comes() {
    let (dir, fd) = directory();
    let mut log = SqliteLog::open(fd).unwrap();
    let size = || std::fs::metadata(dir.path().join("log.db")).unwrap().len();
    for seq in 1..=64 {
        log.append(seq - 1, &[record(seq, &"x".repeat(1 << 20))]).unwrap();
        log.drop_texts(&[seq - 1]).unwrap();
        log.idle().unwrap();
    }
    assert!((2 << 20..4 << 20).contains(&size()), "{}", size());
}

#[test]
fn l10_a_text_that_is_not_the_one_that_was_written_is_damage() {
    let (dir, fd) = directory();
    let mut log = SqliteLog::open(fd.clone()).unwrap();
    log.append(0, &[record(1, &"x".repeat(1_000))]).unwrap();
    drop(log);
    let raw = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    raw.execute("UPDATE text SET body = x'ff'", []).unwrap();
    drop(raw);
    let found = SqliteLog::open(fd).unwrap().reader().text(1).unwrap_err();
    assert!(matches!(found, LogError::Damaged { seq: 1, .. }), "{found}");
}

#[test]
fn a_log_of_the_format_before_has_long_texts_in_its_lines() {
    let (dir, fd) = directory();
    drop(SqliteLog::open(fd.clone()).unwrap());
    let text = "x".repeat(1_000);
    let raw = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    let old = line(&record(1, &text));
    raw.execute_batch("DROP TABLE text; PRAGMA user_version = 2").unwrap();
    raw.execute("INSERT INTO event VALUES (1, ?1, ?2)", rusqlite::params![old.len() as i64, old]).unwrap();
    drop(raw);
    let mut log = SqliteLog::open(fd).unwrap();
    log.append(1, &[record(2, &text)]).unwrap();
    log.drop_texts(&[1]).unwrap();
    assert_eq!(log.read(0, 1).unwrap(), [record(1, &text)]);
    for seq in [1, 2] {
        assert_eq!(log.reader().text(seq).unwrap().as_deref(), Some(text.as_bytes()), "{seq}");
    }
    assert_eq!(log.texts(0, 9).unwrap(), [2]);
}

#[test]
fn l3_what_was_appended_is_there_after_reopening() {
    let (_dir, fd) = directory();
    let mut log = SqliteLog::open(fd.clone()).unwrap();
    let tail = log.append(0, &batch(0, 5)).unwrap();
    log.idle().unwrap();
    assert_eq!(log.reopen().unwrap(), tail);
    drop(log);
    let mut log = SqliteLog::open(fd).unwrap();
    assert_eq!(log.tail(), tail);
    assert_eq!(log.read(0, 10).unwrap(), batch(0, 5));
}

#[test]
fn l6_a_torn_end_is_dropped_and_damage_in_the_middle_is_named() {
    let (dir, fd) = directory();
    let mut log = SqliteLog::open(fd.clone()).unwrap();
    for seq in 0..20 {
        log.append(seq, &batch(seq, 1)).unwrap();
    }
    // A copy of the open log is like the files after a crash. Cut its write-ahead log within the last commit.
    let (torn, torn_fd) = directory();
    for name in ["log.db", "log.db-wal"] {
        std::fs::copy(dir.path().join(name), torn.path().join(name)).unwrap();
    }
    let wal = std::fs::OpenOptions::new().write(true).open(torn.path().join("log.db-wal")).unwrap();
    // A header of 32 bytes, then frames, each a header of 24 bytes and a page. The first commits wrote the schema; each later one wrote one
    // page.
    let frame = 24 + 4096;
    let frames = (wal.metadata().unwrap().len() - 32) / frame;
    assert!(frames >= 20, "{frames}");
    wal.set_len(32 + frame * 15 + 100).unwrap();
    let mut cut = SqliteLog::open(torn_fd).unwrap();
    let tail = cut.tail().seq;
    assert!((1..20).contains(&tail), "{tail}");
    assert_eq!(cut.read(0, 100).unwrap(), batch(0, tail));

    drop(log);
    let raw = rusqlite::Connection::open(dir.path().join("log.db")).unwrap();
    raw.execute("UPDATE event SET line = 'rubbish' WHERE seq = 7", []).unwrap();
    raw.execute("DELETE FROM event WHERE seq = 12", []).unwrap();
    raw.execute("UPDATE event SET line = x'ff' WHERE seq = 15", []).unwrap();
    drop(raw);
    let mut log = SqliteLog::open(fd).unwrap();
    for (after, damaged) in [(0, 7), (7, 12), (12, 15)] {
        let found = log.read(after, 100).unwrap_err();
        assert!(matches!(found, LogError::Damaged { seq, .. } if seq == damaged), "{found}");
    }
    assert!(log.read(15, 100).is_ok());

    let mut lines = batch(0, 20).iter().map(|record| line(record).len() as u64).collect::<Vec<_>>();
    let start = |seq: u64| lines[..seq as usize - 1].iter().sum::<u64>();
    for (from, damaged) in [(1, 7), (7, 7), (8, 12), (13, 12), (14, 15)] {
        let found = log.reader().read_bytes(start(from), 100_000).unwrap_err();
        assert!(matches!(found, LogError::Damaged { seq, .. } if seq == damaged), "{from}: {found}");
    }
    let rest = lines.split_off(15).iter().sum::<u64>();
    let end = log.tail().bytes;
    assert_eq!(log.reader().read_bytes(end - rest, 100_000).unwrap().len() as u64, rest);
}

#[test]
fn l7_a_second_writer_is_refused() {
    let (_dir, fd) = directory();
    let log = SqliteLog::open(fd.clone()).unwrap();
    assert!(matches!(SqliteLog::open(fd.clone()), Err(LogError::InUse)));
    drop(log);
    SqliteLog::open(fd).unwrap();
}

#[test]
fn l9_what_is_appended_is_where_the_next_one_looks_whatever_was_taken_away() {
    for gone in [&["log.db"][..], &["log.db-wal"], &["log.db", "log.db-wal"]] {
        let (dir, fd) = directory();
        let mut log = SqliteLog::open(fd.clone()).unwrap();
        log.append(0, &batch(0, 5)).unwrap();
        gone.iter().for_each(|name| std::fs::remove_file(dir.path().join(name)).unwrap());
        log.append(5, &batch(5, 5)).unwrap();
        assert_eq!(fd.restored(), 1);
        // A copy of the open log is like the files after a crash.
        let (copy, copy_fd) = directory();
        for name in ["log.db", "log.db-wal"] {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        assert_eq!(SqliteLog::open(copy_fd).unwrap().read(0, 100).unwrap(), batch(0, 10), "{gone:?}");
        log.append(10, &batch(10, 5)).unwrap();
        assert_eq!(fd.restored(), 1);
        drop(log);
        assert_eq!(SqliteLog::open(fd).unwrap().read(0, 100).unwrap(), batch(0, 15), "{gone:?}");
    }
}

#[test]
fn a_newer_format_and_another_database_are_refused() {
    for (sql, newer) in [("PRAGMA user_version = 99", true), ("PRAGMA application_id = 7", false)] {
        let (dir, fd) = directory();
        drop(SqliteLog::open(fd.clone()).unwrap());
        rusqlite::Connection::open(dir.path().join("log.db")).unwrap().execute_batch(sql).unwrap();
        match SqliteLog::open(fd) {
            Err(LogError::Newer { found: 99, .. }) => assert!(newer),
            Err(LogError::Damaged { .. }) => assert!(!newer),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened"),
        }
    }
    let (dir, fd) = directory();
    std::fs::write(dir.path().join("log.db"), [7; 8192]).unwrap();
    assert!(matches!(SqliteLog::open(fd), Err(LogError::Damaged { .. })));
}
