//! Commands whose output has no reader or cannot be written: the command still completes its work.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::project;
use crate::process::{crewfs, run};

/// A pipe whose reader has closed it.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A file on a full disk.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Run crewfs with this as standard output. Returns its exit code and its standard error.
#[track_caller]
fn printed_on<A: AsRef<OsStr>>(out: Stdio, arguments: &[A]) -> (Option<i32>, String) {
    let mut command = crewfs();
    command.args(arguments).stdin(Stdio::null()).stdout(out).stderr(Stdio::piped());
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn words(line: &str, place: &Path) -> Vec<String> {
    line.split(' ').map(|word| word.replace("PLACE", &place.display().to_string())).collect()
}

const SAID: &str = "crewfs: standard output cannot be written: No space left on device (os error 28); some of the text is missing, nothing else was left out: print to another place, or free some space\n";

#[test]
fn every_command_does_its_work_although_nobody_reads_what_it_prints() {
    let project = project!();
    project.task("a", "# A\n");
    let mut mounted = project.mount(&[]);
    for line in [
        "--help",
        "--version",
        "help umount",
        "mount --help",
        "completions bash",
        "doctor PLACE",
        "top --once PLACE",
        "log PLACE",
    ] {
        let arguments = words(line, mounted.path());
        assert_eq!(printed_on(closed(), &arguments), (Some(0), String::new()), "{line}");
        assert_eq!(printed_on(full(), &arguments), (Some(1), SAID.into()), "{line}");
    }
    mounted.stop();
    // Without a mount, the command reads the log from the disk by other code.
    let log = words("log PLACE", project.source());
    assert_eq!(printed_on(closed(), &log), (Some(0), String::new()));
    assert_eq!(printed_on(full(), &log), (Some(1), SAID.into()));
}

#[test]
fn init_is_not_half_done_because_of_what_it_prints() {
    let project = project!();
    for (name, out, ends) in [("closed", closed(), (Some(0), "")), ("full", full(), (Some(1), SAID))] {
        let directory = project.dir().join(name);
        fs::create_dir(&directory).unwrap();
        let init = ["init", "--client", "claude", directory.to_str().unwrap()];
        let (code, said) = printed_on(out, &init);
        assert_eq!((code, said.as_str()), ends, "{name}");
        let mut again = crewfs();
        again.args(init);
        assert!(run(again).ok().ends_with("; nothing was changed\n"), "{name}: it was done to its end");
        let (code, said) =
            printed_on(if name == "full" { full() } else { closed() }, &["init", "--remove", init[3]]);
        assert_eq!((code, said.as_str()), ends, "{name}");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{name}");
    }
}

#[test]
fn the_exit_code_is_that_of_the_work_when_both_went_wrong() {
    let project = project!();
    let nowhere = words("doctor PLACE", project.mountpoint());
    let (code, said) = printed_on(closed(), &nowhere);
    assert_eq!((code, said.lines().count()), (Some(3), 1), "{said}");
    // An init that may not change a file reports it on standard output and on standard error.
    fs::create_dir(project.source().join(".claude")).unwrap();
    fs::write(project.source().join(".claude/settings.json"), "[]").unwrap();
    let (code, said) = printed_on(full(), &words("init --client claude PLACE", project.source()));
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("crewfs: 1 of the files could not be changed") && said.ends_with(SAID),
        "{said}"
    );
}

#[test]
fn nobody_who_hears_the_errors_is_no_error() {
    let project = project!();
    let place = project.mountpoint().to_str().unwrap();
    for (arguments, code) in [
        (&["umount", place][..], 3),
        (&["doctor", place], 3),
        (&["mount", "/nowhere/at/all"], 1),
        (&["fly"], 2),
        (&["mount", place, "-o", "leas=3m"], 2),
    ] {
        for err in [closed(), full()] {
            let mut command = crewfs();
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(err);
            assert_eq!(command.status().unwrap().code(), Some(code), "{arguments:?}");
        }
    }
}

#[test]
fn a_long_listing_ends_where_its_reader_has_seen_enough() {
    let project = project!();
    for n in 0..2000 {
        project.task(&format!("t{n}"), "# A\n");
    }
    let mut mounted = project.mount(&[]);
    mounted.until_state("t1999", "ready");
    let head = |place: &Path| {
        let mut head = Command::new("bash");
        let script = "\"$0\" log \"$1\" | head -n 1; exit ${PIPESTATUS[0]}";
        head.args(["-c", script, env!("CARGO_BIN_EXE_crewfs")]).arg(place);
        let ran = run(head);
        assert_eq!((ran.code, ran.stderr.as_str(), ran.stdout.lines().count()), (Some(0), "", 1));
    };
    head(mounted.path());
    mounted.stop();
    head(project.source());
}

#[test]
fn the_demo_goes_on_to_its_end() {
    let project = project!();
    let mut command = crewfs();
    command.arg("demo").env("TMPDIR", project.dir()).stdin(Stdio::null());
    let output = command.stdout(closed()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    let left = fs::read_dir(project.dir()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().starts_with("crewfs-demo")));
}
