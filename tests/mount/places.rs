//! Mount points. crewfs mounts and unmounts the right place, although other users change the paths to it (C74).

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::bad_places::shell;
use crate::harness::{as_root, project};
use crate::process::{mounts_below, until};

/// Exchange two names without a pause while `work` runs.
fn exchanging(a: &Path, b: &Path, work: impl FnOnce()) {
    /// Sets the flag even when a test panics.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let over = AtomicBool::new(false);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, a.parent().unwrap(), flags, Mode::empty()).unwrap();
    let [a, b] = [a, b].map(|path| path.file_name().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let _ = renameat_with(&directory, a, &directory, b, RenameFlags::EXCHANGE);
            }
        });
        let _over = Over(&over);
        work();
    });
}

#[test]
fn c74_the_desk_is_mounted_on_the_trees_own_directory_whatever_changes_in_the_project() {
    as_root!();
    let project = project!();
    let victim = project.dir().join("victim");
    fs::create_dir(&victim).unwrap();
    let (tasks, link) = (project.source().join("tasks"), project.source().join("link"));
    symlink(&victim, &link).unwrap();
    let mut served = 0;
    exchanging(&tasks, &link, || {
        for attempt in 0..12 {
            let place = if attempt % 2 == 0 { project.source() } else { project.mountpoint() };
            let mut arguments = vec!["mount".as_ref(), project.source().as_os_str()];
            arguments.extend((attempt % 2 == 1).then_some(place.as_os_str()));
            let ran = project.crewfs(arguments);
            assert_eq!(mounts_below(&victim), []);
            if ran.code == Some(0) {
                let mounts: Vec<_> = mounts_below(place).into_iter().map(|(place, _)| place).collect();
                assert_eq!(mounts, [place.join("tasks"), place.to_path_buf()]);
                assert!(place.join("tasks/queue.json").exists());
                project.crewfs(["umount".as_ref(), place.as_os_str()]).ok();
                served += 1;
            } else {
                assert!(ran.stderr.contains("tasks"), "{ran:#?}");
                assert_eq!(mounts_below(place), []);
            }
        }
    });
    assert!(served > 0);
}

#[test]
fn c74_root_follows_no_link_of_an_ordinary_user_to_a_place() {
    as_root!();
    let project = project!();
    let (victim, link) = (project.dir().join("victim"), project.dir().join("link"));
    fs::create_dir(&victim).unwrap();
    symlink(&victim, &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(4321), None).unwrap();
    let source = project.source().as_os_str();
    let said = "is a symbolic link of user 4321";
    project.crewfs(["mount".as_ref(), source, link.as_os_str()]).exits(1, said);
    project.crewfs(["mount".as_ref(), link.as_os_str()]).exits(1, said);
    // The mount point itself is exchanged with the link, again and again.
    exchanging(project.mountpoint(), &link, || {
        for _ in 0..6 {
            let place = project.mountpoint().as_os_str();
            project.crewfs(["mount".as_ref(), source, place]);
            assert_eq!(mounts_below(&victim), []);
            project.crewfs(["umount".as_ref(), source]);
        }
    });
    let left = mounts_below(project.dir());
    assert_eq!(left, []);
}

#[test]
fn c74_what_covers_a_mount_of_crewfs_is_not_unmounted_for_it() {
    as_root!();
    let project = project!();
    let mut mounted = project.mount(&[]);
    mounted.kill9();
    let place = project.mountpoint();
    mount("tmpfs", place, "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(place.join("theirs"), "x").unwrap();
    let umount = || project.crewfs(["umount".as_ref(), "--lazy".as_ref(), place.as_os_str()]);
    umount().exits(1, "shows something else than the mount of crewfs");
    assert!(place.join("theirs").exists());
    unmount(place, UnmountFlags::NOFOLLOW).unwrap();
    umount().ok();
    assert_eq!(mounts_below(place), []);
}

#[test]
fn c74_a_mount_of_another_user_that_claims_to_show_a_project_ends_no_daemon() {
    as_root!();
    let project = project!();
    let mut mounted = project.mount(&[]);
    let claim = project.dir().join("claim");
    fs::create_dir(&claim).unwrap();
    // As fusermount3 mounts for a user, with a daemon that ends at once.
    let script = format!(
        "exec 9<>/dev/fuse && mount -i -t fuse.crewfs -o fd=9,rootmode=40000,user_id=4321,group_id=4321 '{}' '{}'",
        project.source().display(),
        claim.display()
    );
    shell(&script).ok();
    assert_eq!(mounts_below(&claim).len(), 1);
    project.crewfs(["umount".as_ref(), claim.as_os_str()]).ok();
    assert_eq!(mounts_below(&claim), []);
    assert!(mounted.desk("queue.json").exists(), "the project's own daemon serves on");
    mounted.stop();
}

#[test]
fn c74_a_mount_is_found_again_when_a_directory_above_it_was_renamed() {
    as_root!();
    let project = project!();
    let above = project.dir().join("above");
    let place = above.join("place");
    fs::create_dir_all(&place).unwrap();
    let mounted = project.mount_at(&place, &[]);
    let device = fs::metadata(&place).unwrap().dev();
    fs::rename(&above, project.dir().join("renamed")).unwrap();
    // Another mount that now has its path is left alone.
    fs::create_dir_all(&place).unwrap();
    mount("tmpfs", &place, "tmpfs", MountFlags::empty(), None).unwrap();
    let renamed = project.dir().join("renamed/place");
    assert_eq!(fs::metadata(&renamed).unwrap().dev(), device);
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(mounted.pid() as i32).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    until("it is unmounted", || mounts_below(&renamed).is_empty());
    assert_eq!(mounts_below(&place).len(), 1, "the other mount is still there");
    unmount(&place, UnmountFlags::NOFOLLOW).unwrap();
}
