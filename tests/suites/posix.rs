//! pjdfstest: some 400 cases of POSIX rules for names, modes, owners, times and errors.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::process::Ran;
use crate::sides::{Known, Outcomes, Side, Sides, find, needs};

const LIMIT: Duration = Duration::from_secs(180);

/// The users that the suite switches to exist on every Debian system. It remounts only where its configuration permits that.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["games", "games"]]
"#;

/// For FUSE, mount(8) leaves remounting to a helper, which would mount anew; the kernel can remount by itself. From util-linux 2.39 on,
/// mount(8) also passes options that FUSE cannot change, unless it uses the older system call.
const REMOUNT: &str = "#!/bin/sh\nLIBMOUNT_FORCE_MOUNT2=always exec /bin/mount -i \"$@\"\n";

/// The known difference for root.
const KNOWN: [Known; 1] = [(
    "link::link_count_max",
    "the C library knows how many links a file may have by the kind of filesystem, and has no number for FUSE; skipped",
)];

/// The suite's own report of each case.
fn outcomes(ran: &Ran) -> Outcomes {
    let cases = ran.stdout.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match (words.next()?, words.next()?, words.next()) {
            (case, word @ ("ok" | "skipped" | "FAILED"), None) if case.contains("::") => {
                Some((case.to_string(), word.to_string()))
            }
            _ => None,
        }
    });
    cases.collect()
}

/// Copy what a user other than root needs to a place that this user can reach.
fn prepare(sides: &Sides, settings: &str) -> (PathBuf, PathBuf) {
    let (program, configuration) =
        (sides.project.dir().join("pjdfstest"), sides.project.dir().join("pjdfstest.toml"));
    fs::copy(find("pjdfstest").unwrap(), &program).unwrap();
    fs::write(&configuration, CONFIGURATION.replace("[settings]", &format!("[settings]\n{settings}")))
        .unwrap();
    (program, configuration)
}

/// Another disk, for cases that cross disks, if there is one.
fn secondary(sides: &Sides) -> Vec<&'static str> {
    let memory = "/dev/shm";
    let device = |place: &Path| fs::metadata(place).map(|metadata| metadata.dev());
    let other = device(Path::new(memory)).is_ok_and(|dev| dev != device(sides.project.dir()).unwrap());
    if other { vec!["-s", memory] } else { vec![] }
}

#[track_caller]
fn judge(sides: &Sides, disk: &Ran, mount: &Ran, least: usize, known: &[Known]) {
    let ran = |ran: &Ran| outcomes(ran).values().filter(|outcome| *outcome == "ok").count();
    println!("cases that passed: {} on the disk, {} mounted", ran(disk), ran(mount));
    assert!(ran(disk) >= least, "so few cases ran: {disk:#?}");
    let failed = |ran: &Ran| ran.stdout.lines().filter(|line| line.ends_with("FAILED")).count();
    if failed(mount) > failed(disk) {
        eprintln!("{}", mount.stdout);
    }
    sides.compare(&outcomes(disk), &outcomes(mount), known);
}

#[test]
fn pjdfstest_tells_the_mount_from_the_disk_by_one_case() {
    needs!("pjdfstest");
    let Some(sides) = Sides::new(LIMIT) else { return };
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this test needs root");
    }
    let (program, configuration) = prepare(&sides, "");
    let (disk, mounted) = sides.both(|side| {
        let mut command = Command::new(&program);
        command.arg("-c").arg(&configuration).arg("-p").arg(sides.at(side)).args(secondary(&sides));
        sides.run_command(command)
    });
    judge(&sides, &disk, &mounted, 350, &KNOWN);
}

#[test]
fn pjdfstest_finds_no_difference_as_an_ordinary_user() {
    needs!("pjdfstest", "setpriv");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let (program, configuration) = prepare(&sides, "");
    let root = rustix::process::geteuid().is_root();
    let (disk, mounted) = sides.both(|side| {
        let mut command = if root {
            let nobody = (Some(65534), Some(65534));
            std::os::unix::fs::chown(sides.at(side), nobody.0, nobody.1).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command.arg("-c").arg(&configuration).arg("-p").arg(sides.at(side)).args(secondary(&sides));
        command.current_dir(sides.at(side));
        sides.run_command(command)
    });
    let left = |side: Side| fs::read_dir(sides.beneath(side)).unwrap().count();
    assert_eq!(sides.both(left), (0, 0), "it takes everything away again");
    judge(&sides, &disk, &mounted, 100, &KNOWN);
}

#[test]
fn pjdfstest_finds_no_difference_when_mounted_read_only() {
    needs!("pjdfstest");
    let Some(sides) = Sides::new(LIMIT) else { return };
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: this test needs root");
    }
    let (program, configuration) = prepare(&sides, "allow_remount = true");
    let wrapper = sides.project.dir().join("mount-by-itself");
    fs::create_dir(&wrapper).unwrap();
    fs::write(wrapper.join("mount"), REMOUNT).unwrap();
    fs::set_permissions(wrapper.join("mount"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", wrapper.display(), std::env::var("PATH").unwrap());
    // The disk cannot be made read-only, because other processes use it. A disk in memory stands for it.
    let disk = sides.at(Side::Disk);
    mount("tmpfs", &disk, "tmpfs", MountFlags::empty(), Some(c"size=16m")).unwrap();
    let (on_disk, on_mount) = sides.both(|side| {
        let mut command = Command::new(&program);
        command.arg("-c").arg(&configuration).arg("-p").arg(sides.at(side)).arg("erofs").env("PATH", &path);
        sides.run_command(command)
    });
    unmount(&disk, UnmountFlags::empty()).unwrap();
    judge(&sides, &on_disk, &on_mount, 13, &[]);
}
