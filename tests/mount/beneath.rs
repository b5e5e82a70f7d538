//! Changes beneath the mount to a file that a process has open through the mount: the process sees what it would see on the disk.
//! The same script (`beneath.py`) runs in a plain directory too, and every line that it prints must be the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::harness::{as_root, project};
use crate::process::run_within;

const SCRIPT: &str = concat!(include_str!("mappings.py"), include_str!("beneath.py"));
/// So few that the other files which the script uses take all descriptors that the daemon can keep open.
const FEW_DESCRIPTORS: u64 = 256;
const LIMIT: Duration = Duration::from_secs(50);

/// The lines that the script prints, by their label.
fn lines(seen: &Path, beneath: &Path, daemon: &str, what: &str) -> BTreeMap<String, String> {
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).args([seen, beneath]).args([daemon, what]);
    command.env("CREWFS_WORKER", "w1").env("LC_ALL", "C");
    let said = run_within(LIMIT, command).ok();
    let lines = said.lines().map(|line| line.split_once(": ").unwrap_or((line, "")));
    lines.map(|(name, result)| (name.to_string(), result.to_string())).collect()
}

/// Check that the script prints the same on the disk and through the mount.
#[track_caller]
fn same(what: &str) {
    as_root!();
    let project = project!();
    let (plain, work) = (project.dir().join("plain"), project.source().join("work"));
    for place in [&plain, &work] {
        fs::create_dir(place).unwrap();
    }
    // Files that git ignores are not guarded. Other tests check which worker may write when.
    fs::write(project.source().join(".gitignore"), "*\n").unwrap();
    let mut mounted = match what.starts_with("idle") {
        true => project.mount(&[]),
        false => project.mount_with_descriptors(FEW_DESCRIPTORS, &[]),
    };
    let disk = lines(&plain, &plain, "", what);
    let mount = lines(&mounted.path().join("work"), &work, &mounted.pid().to_string(), what);
    let absent = String::from("absent");
    let names = disk.keys().chain(mount.keys().filter(|name| !disk.contains_key(*name)));
    let differing: Vec<String> = names
        .map(|name| (name, disk.get(name).unwrap_or(&absent), mount.get(name).unwrap_or(&absent)))
        .filter(|(_, disk, mount)| disk != mount)
        .map(|(name, disk, mount)| format!("{name}: on the disk {disk}, mounted {mount}"))
        .collect();
    assert!(disk.len() > 10, "{disk:#?}");
    assert!(differing.is_empty(), "{what}: {differing:#?}");
    mounted.stop();
}

#[test]
fn what_is_appended_is_at_the_end() {
    same("appends");
}

#[test]
fn what_is_appended_is_at_the_end_also_when_the_change_beneath_is_known() {
    same("appends known");
}

/// A test for each change of names. After the change the daemon has no descriptor of the file open.
macro_rules! goes_on {
    ($($name:ident: $what:literal;)+) => {
        $(#[test]
        fn $name() {
            same($what);
        })+
    };
}

goes_on! {
    an_open_file_goes_on_when_nothing_happens: "others nothing";
    an_open_file_goes_on_when_it_is_replaced: "others replace";
    an_open_file_goes_on_when_it_is_rotated: "others rotate";
    an_open_file_goes_on_when_it_is_renamed: "others rename";
    an_open_file_goes_on_when_it_is_moved_elsewhere: "others elsewhere";
    an_open_file_goes_on_when_it_is_removed: "others unlink";
    an_open_file_goes_on_when_its_directory_is_renamed: "others directory_renamed";
    an_open_file_goes_on_when_its_directory_is_moved: "others directory_moved";
    an_open_file_goes_on_when_its_directory_is_removed: "others tree_removed";
    an_open_file_goes_on_when_its_name_of_two_is_removed: "others name_removed";
    an_open_file_goes_on_when_its_other_name_is_removed: "others other_name_removed";
    an_open_file_goes_on_when_it_was_idle_and_is_rotated: "idle rotate";
    an_open_file_goes_on_when_it_was_idle_and_is_removed: "idle unlink";
    an_open_file_goes_on_when_it_was_idle_and_its_directory_is_renamed: "idle directory_renamed";
}
