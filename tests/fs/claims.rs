//! When a claim is answered: the CREATE once it is decided, the GETATTR that follows once it is on disk (C20).

use crewfs::fs::ROOT;
use crewfs::log::MemoryLog;
use crewfs::queue::{Event, TaskId, TaskState};

use crate::fault::{Control, Fault};
use crate::kernel::{Machine, Process};
use crate::{publish, worker};

fn machine(tasks: &[&str]) -> (Control, Machine) {
    let control = Control::new(MemoryLog::default());
    let machine = Machine::new(&control, &[]);
    for task in tasks {
        machine.engine.call(publish(task)).unwrap();
    }
    (control, machine)
}

#[test]
fn a_create_is_answered_when_it_is_decided_and_its_getattr_when_it_is_on_disk() {
    let (control, machine) = machine(&["a"]);
    let (w1, w2) = (Process::of("w1"), Process::of("w2"));
    control.hold(true);
    let (entry, _) = machine.create_claim(&w1, "a").get().unwrap();
    assert!(entry.attr_ttl.is_zero() && entry.entry_ttl.is_zero(), "so the kernel asks");
    let durable = machine.getattr(&w1, entry.attr.ino);
    // The second worker loses at once, although the claim is not yet on disk.
    let lost = machine.create_claim(&w2, "a").get().unwrap_err();
    assert_eq!(lost.errno(), libc::EEXIST);
    assert!(durable.stays_parked());
    assert_eq!(machine.engine.state().count(TaskState::Claimed), 0);
    control.hold(false);
    assert_eq!(durable.get().unwrap().0.ino, entry.attr.ino);
    assert_eq!(machine.engine.state().count(TaskState::Claimed), 1);
}

#[test]
fn a_claim_that_does_not_reach_the_disk_is_an_error_and_no_claim() {
    let (control, machine) = machine(&["a"]);
    let w1 = Process::of("w1");
    control.hold(true);
    control.fail_next(&[Fault::Before]);
    let (entry, _) = machine.create_claim(&w1, "a").get().unwrap();
    let durable = machine.getattr(&w1, entry.attr.ino);
    control.hold(false);
    assert_eq!(durable.get().unwrap_err().errno(), libc::EIO);
    machine.engine.barrier();
    assert_eq!(machine.engine.state().count(TaskState::Claimed), 0);
}

/// Another writer of the log claims a task just before this engine writes.
fn claimed_by_rival(control: &Control, task: &str) {
    control.append_first(Event::Joined { worker: worker("rival"), uid: 1 });
    control.append_first(Event::Claimed { task: TaskId::parse(task).unwrap(), worker: worker("rival") });
    control.hold(false);
}

#[test]
fn a_claim_that_another_writer_of_the_log_made_first_is_lost_at_the_getattr() {
    let (control, machine) = machine(&["a"]);
    let w1 = Process::of("w1");
    control.hold(true);
    let (entry, _) = machine.create_claim(&w1, "a").get().unwrap();
    let durable = machine.getattr(&w1, entry.attr.ino);
    claimed_by_rival(&control, "a");
    assert_eq!(durable.get().unwrap_err().errno(), libc::EEXIST);
    assert_eq!(machine.engine.state().task("a").unwrap().claim().unwrap().worker, worker("rival"));
}

#[test]
fn where_the_kernel_does_not_ask_a_create_is_answered_when_it_is_on_disk() {
    let (control, machine) = machine(&["a"]);
    let w1 = Process::of("w1");
    // This kernel creates the probe's file but sends no GETATTR for it.
    machine
        .desk
        .prove_create(|name| {
            let name = name.to_str().unwrap().to_owned();
            machine.create_claim(&w1, &name).get().map(drop).map_err(|_| std::io::Error::other("refused"))
        })
        .unwrap();
    assert!(machine.desk.create_waits());
    control.hold(true);
    let created = machine.create_claim(&w1, "a");
    assert!(created.stays_parked());
    control.hold(false);
    created.get().unwrap();
    assert_eq!(machine.engine.state().count(TaskState::Claimed), 1);
}

#[test]
fn where_the_kernel_asks_the_probe_leaves_nothing_behind() {
    let (_control, machine) = machine(&[]);
    let w1 = Process::of("w1");
    machine
        .desk
        .prove_create(|name| {
            let name = name.to_str().unwrap().to_owned();
            let (entry, _) = machine.create_claim(&w1, &name).get().unwrap();
            machine.getattr(&w1, entry.attr.ino).get().map(drop).map_err(|_| std::io::Error::other("refused"))
        })
        .unwrap();
    assert!(!machine.desk.create_waits());
    let claims = machine.claims(&w1);
    assert!(machine.lookup(&*machine.desk, &w1, claims, ".create-probe").is_err());
    assert_eq!(machine.lookup(&*machine.desk, &w1, ROOT, "claim").unwrap().attr.ino, claims);
}

#[test]
fn next_is_another_task_when_the_first_one_is_gone_meanwhile() {
    let (control, machine) = machine(&["a", "b"]);
    let w1 = Process::of("w1");
    control.hold(true);
    let (entry, _) = machine.create_claim(&w1, "next").get().unwrap();
    let durable = machine.getattr(&w1, entry.attr.ino);
    claimed_by_rival(&control, "a");
    durable.get().unwrap();
    let state = machine.engine.state();
    assert_eq!(state.task("b").unwrap().claim().unwrap().worker, worker("w1"));
    assert_eq!(state.count(TaskState::Claimed), 2);
}
