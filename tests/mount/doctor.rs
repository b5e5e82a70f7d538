//! `crewfs doctor` beside mounts that are dead or hang, and on a project that is not mounted (C70).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Project, project};
use crate::process::{Ran, crewfs, run_within, slow, until};

/// How long the doctor may take beside a mount that never answers.
const SOON: Duration = Duration::from_secs(10);

fn doctor(place: Option<&Path>) -> Ran {
    let mut command = crewfs();
    command.arg("doctor").args(place);
    run_within(SOON, command)
}

/// The line of a report that says this about a project.
#[track_caller]
fn line<'a>(report: &'a str, project: &Project, part: &str) -> &'a str {
    let place = project.dir().to_str().unwrap();
    let found = report.lines().find(|line| line.contains(place) && line.contains(part));
    found.unwrap_or_else(|| panic!("no line with {part:?} of {place} in:\n{report}"))
}

#[test]
fn c70_the_doctor_finds_dead_mounts_anywhere() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    mounted.kill9();
    let place = project.mountpoint().display();
    let said = doctor(None).stdout;
    let found = line(&said, &project, "is a dead mount");
    assert!(found.starts_with("warning") && found.ends_with(&format!("crewfs umount {place}")), "{found}");
    assert_eq!(
        said.matches(&format!("{place} is a dead mount")).count(),
        1,
        "the desk is not told by itself"
    );
    // Named as an argument, the dead mount is a problem, and the command in the report clears it.
    let named = doctor(Some(project.mountpoint()));
    assert!(line(&named.stdout, &project, "is a dead mount").starts_with("problem"));
    line(&named.stdout, &project, "no daemon serves");
    named.exits(1, "problem");
    project.crewfs(["umount".as_ref(), project.mountpoint().as_os_str()]).ok();
    assert!(!doctor(None).stdout.contains(&*place.to_string()));
}

#[test]
fn c70_the_doctor_is_not_held_up_by_a_mount_that_hangs() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    let pid = Pid::from_raw(mounted.pid() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    for named in [None, Some(project.mountpoint())] {
        let began = Instant::now();
        let said = doctor(named);
        let took = began.elapsed();
        let found = line(&said.stdout, &project, "gives no answer");
        assert!(found.ends_with(&format!("kill -CONT {}", mounted.pid())), "{found}");
        assert!(took < slow(SOON), "{took:?}");
        if named.is_some() {
            // The doctor lists the daemon's open files all the same.
            line(&said.stdout, &project, "log.db");
            said.exits(1, "problem");
        }
    }
    kill_process(pid, Signal::CONT).unwrap();
    until("it answers again", || !doctor(Some(project.mountpoint())).stdout.contains("gives no answer"));
    mounted.stop();
}

#[test]
fn c70_the_doctor_looks_at_the_state_of_a_project_mounted_or_not() {
    let project = project!();
    let source = project.source();
    doctor(Some(source)).exits(3, "is not a mount of crewfs");
    for in_place in [false, true] {
        let mut mounted = if in_place { project.mount_in_place(&[]) } else { project.mount(&[]) };
        mounted.sh("w1", "echo '# A' > tasks/a.md && touch tasks/claim/a").ok();
        let said = doctor(Some(mounted.path())).stdout;
        for part in ["is closed to all users but its owner", "serves", "log.db", "free"] {
            assert!(line(&said, &project, part).starts_with("ok"), "{part} in {said}");
        }
        assert!(said.contains(&format!("process {} serves", mounted.pid())), "{said}");
        mounted.sh("w1", "rm tasks/a.md").ok();
        mounted.stop();
    }
    let state = source.join(".crewfs");
    let before: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let said = doctor(Some(source)).stdout;
    assert!(line(&said, &project, "no daemon serves").starts_with("ok"), "{said}");
    assert!(line(&said, &project, "can be read").starts_with("ok"), "{said}");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(state.join("log.db"), [b'x'; 4096]).unwrap();
    let said = doctor(Some(source));
    assert!(line(&said.stdout, &project, "chmod 700").starts_with("warning"), "{said:?}");
    assert!(line(&said.stdout, &project, "is no database").starts_with("problem"), "{said:?}");
    let after: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(before, after, "it changes nothing");
}
