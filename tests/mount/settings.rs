//! Settings files: the options that `--config` reads, for mounting and for unmounting (C72).

use std::fs;

use crate::harness::project;

#[test]
fn c72_a_file_says_what_is_mounted_where_and_the_command_line_goes_above_it() {
    let project = project!();
    let file = project.dir().join("crew.toml");
    let text = format!(
        "source = {:?}\nmountpoint = {:?}\ntasks = \"work\"\nthreads = 7\nallow_other = true\n",
        project.source(),
        project.mountpoint()
    );
    fs::write(&file, text).unwrap();
    let (mount, umount) = (["mount", "--config"].map(str::as_ref), ["umount", "-c"].map(str::as_ref));
    project.crewfs([&mount[..], &[file.as_os_str()]].concat()).ok();
    let desk = project.mountpoint().join("work");
    let doctor = || project.crewfs(["doctor".as_ref(), project.mountpoint().as_os_str()]).ok();
    assert!(desk.join("queue.json").exists());
    assert!(doctor().contains("7 threads serve the tree"));
    project.crewfs([&umount[..], &[file.as_os_str()]].concat()).ok();
    assert!(!desk.join("queue.json").exists());

    project
        .crewfs([&mount[..], &[file.as_os_str()], &["-o", "tasks=tasks,threads=5"].map(str::as_ref)].concat())
        .ok();
    assert!(project.mountpoint().join("tasks/queue.json").exists(), "the command line goes above the file");
    assert!(doctor().contains("5 threads serve the tree"));
    project.crewfs([&umount[..], &[file.as_os_str()]].concat()).ok();
    project.crewfs([&umount[..], &[file.as_os_str()]].concat()).exits(3, "is not a mount of crewfs");
}

#[test]
fn c72_a_file_that_is_wrong_is_named_with_the_reason() {
    let project = project!();
    let file = project.dir().join("crew.toml");
    let said = |text: &str, code: i32, part: &str| {
        fs::write(&file, text).unwrap();
        let said =
            project.crewfs(["mount".as_ref(), "--config".as_ref(), file.as_os_str()]).exits(code, part);
        assert!(said.contains("crew.toml"), "{said}");
    };
    said("lease = '3m'", 2, "add source = ");
    said(&format!("source = {:?}\nleas = '3m'", project.source()), 2, "there is no option");
    fs::remove_file(&file).unwrap();
    project
        .crewfs(["mount".as_ref(), "--config".as_ref(), file.as_os_str()])
        .exits(1, "cannot be read: No such file");
    project.crewfs(["mount"]).exits(2, "required");
}
