//! A disk that is really full, because the answers of SQLite and the kernel on a full disk cannot be imitated.
//!
//! Needs a small disk of its own: `mount -t tmpfs -o size=16M none DIR` and `CREWFS_SMALL_DISK=DIR`. Without it, the test is skipped.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crewfs::engine::{Config, Engine, Failure};
use crewfs::log::SqliteLog;
use crewfs::queue::{Command, Content, Ending, Span, TaskState};
use crewfs::state_directory::StateDirectory;

use crate::engine::{config, nudge};
use crate::lease::FakeClock;
use crate::{actor, claim_next, publish};

/// Fill the disk.
fn fill(disk: &Path) {
    let mut file = File::options().create(true).append(true).open(disk.join("fill")).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    while file.write_all(&[0]).is_ok() {}
}

#[test]
fn on_a_full_disk_work_is_finished_and_a_start_is_possible() {
    let Some(disk) = std::env::var_os("CREWFS_SMALL_DISK") else { return };
    let disk = Path::new(&disk);
    for entry in fs::read_dir(disk).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let fd = Arc::new(StateDirectory::at(disk, false).unwrap());
    let clock = FakeClock::default();
    let start = || {
        let config = Config { directory: Some(fd.clone()), clock: clock.clock(), ..config() };
        Engine::start(Box::new(SqliteLog::open(fd.clone()).unwrap()), config).unwrap()
    };

    let engine = start();
    for n in 0..100 {
        engine.call(publish(&format!("t{n}"))).unwrap();
        engine.call(claim_next(&format!("w{n}"))).unwrap();
    }
    fill(disk);
    let refused = (0..1_000).find_map(|n| engine.call(publish(&format!("new{n}"))).err());
    assert_eq!(refused, Some(Failure::DiskFull));
    // Enough events that the write-ahead log and the database together need more than the reserve.
    for id in engine.state().listed(TaskState::Claimed) {
        let holder = engine.state().task(id.as_str()).unwrap().claim().unwrap().worker.clone();
        let finish = Command::Finish {
            task: id.clone(),
            by: actor(holder.as_str()),
            ending: Ending::Completed,
            text: Some(Content::new(vec![b'x'; 25_000])),
            exclusive: true,
        };
        engine.call(finish).unwrap();
    }
    assert_eq!(engine.broken(), None);
    engine.stop();
    let before = engine.state();
    drop(engine);

    // The log can be read although the disk is full again.
    fill(disk);
    let engine = start();
    assert!(*engine.state() == *before);
    assert_eq!(engine.call(publish("later")), Err(Failure::DiskFull));
    fs::remove_file(disk.join("fill")).unwrap();
    clock.forward(Span(1_000));
    nudge(&engine).unwrap();
    engine.call(publish("later")).unwrap();
}
