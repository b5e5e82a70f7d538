//! What mounting needs of the machine: the device, the right to mount, and a `/proc` that shows the callers. Each is tried, or asked of
//! the kernel. The message for a missing one says how to provide it.
//!
//! May assume: nothing. A container may lack any of them.
//! Must never: guess that it runs in a container. What is missing shows it: a machine without the module has no FUSE, a container does
//! not show its device.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use super::error::StartError;

const DEVICE: &str = "/dev/fuse";
/// The bit of CAP_SYS_ADMIN in a set of capabilities (`include/uapi/linux/capability.h`).
const SYS_ADMIN: u64 = 1 << 21;

/// Check everything that a mount needs.
///
/// # Errors
/// What is missing, and what to do.
pub fn check() -> Result<(), StartError> {
    processes()?;
    device()?;
    right()
}

/// Check that `/proc` shows the callers.
///
/// # Errors
/// Why it does not, and what to do.
pub fn processes() -> Result<(), StartError> {
    let Ok(status) = status() else {
        return Err(StartError(
            "/proc is not mounted, by which it is known who asks; mount it: mount -t proc proc /proc".into(),
        ));
    };
    // One pid for each namespace, from that of /proc down to that of this process.
    match field(&status, "NSpid").map(|numbers| numbers.split_whitespace().count()) {
        None | Some(1) => Ok(()),
        _ => Err(StartError(
            "/proc shows the processes of another pid namespace, so that one worker would be taken for another; mount its own: \
             mount -t proc proc /proc (with unshare --pid: --fork --mount-proc)"
                .into(),
        )),
    }
}

/// Check that this user can open the device.
///
/// # Errors
/// Why it cannot, and what to do.
pub fn device() -> Result<(), StartError> {
    let Err(error) = openat(CWD, DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) else {
        return Ok(());
    };
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has_fuse = filesystems.lines().any(|line| line.split_whitespace().next_back() == Some("fuse"));
    let mode = fs::metadata(DEVICE).ok().map(|device| device.permissions().mode() & 0o7777);
    Err(judge_device(error, has_fuse, mode.filter(|_| !geteuid().is_root())))
}

/// Why the device does not open. `mode` is that of the device, for a user that it restricts.
fn judge_device(error: Errno, has_fuse: bool, mode: Option<u32>) -> StartError {
    StartError(match (error, mode) {
        (Errno::NOENT, _) if has_fuse => {
            "the kernel has FUSE, but there is no /dev/fuse here, as in a container that was not given it; \
             start the container with --cap-add SYS_ADMIN --device /dev/fuse"
                .into()
        }
        (Errno::NOENT | Errno::NODEV | Errno::NXIO, _) => format!(
            "the kernel has no FUSE (/dev/fuse: {error}); load its module: modprobe fuse; for a container do that on its host, and start \
             the container with --cap-add SYS_ADMIN --device /dev/fuse"
        ),
        (Errno::ACCESS, Some(mode)) => format!(
            "/dev/fuse is closed to user {}: its mode is {mode:o}; open it, as is usual: chmod 666 /dev/fuse",
            geteuid().as_raw()
        ),
        (Errno::PERM | Errno::ACCESS, _) => format!(
            "/dev/fuse is there and may not be used here: {error}; a container needs the right to the device besides its name: \
             --device /dev/fuse (a volume is not enough), a service of systemd DeviceAllow=/dev/fuse rw"
        ),
        (error, _) => format!("/dev/fuse cannot be opened: {error}"),
    })
}

/// Check that this user may mount, as far as that can be known without mounting.
///
/// # Errors
/// What is missing, and what to do.
pub fn right() -> Result<(), StartError> {
    if !geteuid().is_root() {
        return helper().map(|_| ());
    }
    match capabilities(None) {
        Ok(sets) if !sets.effective.contains(CapabilitySet::SYS_ADMIN) => Err(StartError(
            "root has no CAP_SYS_ADMIN here, without which it cannot mount; start the container with --cap-add SYS_ADMIN \
             --device /dev/fuse, or let the service have it: CapabilityBoundingSet="
                .into(),
        )),
        _ => Ok(()),
    }
}

/// The path of fusermount3, by which ordinary users mount.
///
/// # Errors
/// Why there is none, or why it cannot mount.
pub fn helper() -> Result<PathBuf, StartError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/bin")]);
    let found = directories.map(|directory| directory.join("fusermount3")).find(|file| file.is_file());
    judge_helper(found, &status().unwrap_or_default())
}

fn judge_helper(found: Option<PathBuf>, status: &str) -> Result<PathBuf, StartError> {
    let found = found.ok_or_else(|| {
        StartError(
            "fusermount3 is not installed, by which ordinary users mount; install it: apt install fuse3"
                .into(),
        )
    })?;
    if field(status, "NoNewPrivs") == Some("1") {
        return Err(StartError(
            "fusermount3 cannot become root here, because no_new_privs is set; start the container without --security-opt \
             no-new-privileges (Kubernetes: allowPrivilegeEscalation: true), or the service without NoNewPrivileges="
                .into(),
        ));
    }
    match field(status, "CapBnd").and_then(|set| u64::from_str_radix(set, 16).ok()) {
        Some(set) if set & SYS_ADMIN == 0 => Err(StartError(
            "no process here can get CAP_SYS_ADMIN, without which fusermount3 cannot mount; start the container with \
             --cap-add SYS_ADMIN --device /dev/fuse, or let the service have it: CapabilityBoundingSet="
                .into(),
        )),
        _ => Ok(found),
    }
}

/// Why the kernel refused a mount although the checks passed. `what` is the directory to be mounted.
pub fn refused(what: impl std::fmt::Display, error: &io::Error) -> StartError {
    if geteuid().is_root() {
        let confined = ["apparmor/current", "current"].map(|name| Path::new("/proc/self/attr").join(name));
        let confined = confined.iter().find_map(|file| fs::read(file).ok());
        let confined = String::from_utf8_lossy(confined.as_deref().unwrap_or_default()).into_owned();
        return judge_refusal(&what.to_string(), error, &confined, &status().unwrap_or_default());
    }
    StartError(match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => format!(
            "{what} cannot be mounted: {error}; an ordinary user must own the directory, and for -o allow_other the line \
             user_allow_other must stand in /etc/fuse.conf; or mount as root"
        ),
        Some(libc::EBUSY) => format!("{what} cannot be mounted: it is in use"),
        // The message of fusermount3, with its line end.
        _ => format!("{what} cannot be mounted: {}", error.to_string().trim_end()),
    })
}

/// Why root was refused, by what confines this process: the label of a security module, and `/proc/self/status`.
fn judge_refusal(what: &str, error: &io::Error, label: &str, status: &str) -> StartError {
    let label = label.trim_end_matches(['\0', '\n']);
    let profile = label.strip_suffix(" (enforce)");
    let is_filtered = field(status, "Seccomp") == Some("2");
    StartError(match (error.raw_os_error(), profile) {
        (Some(libc::EACCES | libc::EPERM), Some(profile)) => format!(
            "{what} cannot be mounted: {error}; the AppArmor profile {profile} forbids it; start the container with --security-opt \
             apparmor=unconfined, or with a profile that allows to mount fuse"
        ),
        (Some(libc::EACCES), None) if label.contains(":container") => format!(
            "{what} cannot be mounted: {error}; SELinux forbids it to {label}; start the container with --security-opt label=disable"
        ),
        (Some(libc::EACCES | libc::EPERM | libc::ENOSYS), _) if is_filtered => format!(
            "{what} cannot be mounted: {error}; a seccomp filter forbids it; start the container with --security-opt \
             seccomp=unconfined, or with a profile that allows fsopen, fsconfig, fsmount, move_mount and umount2"
        ),
        (Some(libc::EPERM), _) => format!(
            "{what} cannot be mounted: {error}; the mounts here belong to another user namespace; make a mount namespace along with \
             the user namespace: unshare --user --mount"
        ),
        (Some(libc::ENODEV), _) => {
            format!("{what} cannot be mounted: the kernel has no FUSE; load its module: modprobe fuse")
        }
        (Some(libc::ENOSYS), _) => format!(
            "{what} cannot be mounted: the kernel does not know the calls (fsopen, fsmount, move_mount); Linux 5.10 or newer is needed"
        ),
        (Some(libc::EBUSY), _) => format!("{what} cannot be mounted: it is in use"),
        _ => format!("{what} cannot be mounted: {error}"),
    })
}

fn status() -> io::Result<String> {
    fs::read_to_string("/proc/self/status")
}

/// A field of `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_not_shown_is_told_from_a_kernel_without_fuse() {
        let judge = |error, has_fuse, mode| judge_device(error, has_fuse, mode).to_string();
        assert!(judge(Errno::NOENT, true, None).contains("--cap-add SYS_ADMIN --device /dev/fuse"));
        assert!(!judge(Errno::NOENT, true, None).contains("modprobe"));
        for error in [Errno::NOENT, Errno::NODEV, Errno::NXIO] {
            assert!(judge(error, false, None).contains("modprobe fuse"), "{error}");
        }
        assert!(judge(Errno::ACCESS, true, Some(0o600)).contains("its mode is 600; open it"));
        assert!(judge(Errno::ACCESS, true, None).contains("DeviceAllow"));
        assert!(judge(Errno::PERM, true, Some(0o666)).contains("a volume is not enough"));
        assert!(judge(Errno::MFILE, true, Some(0o666)).contains("cannot be opened"));
    }

    #[test]
    fn a_helper_that_cannot_become_root_is_no_help() {
        let there = || Some(PathBuf::from("/bin/fusermount3"));
        let judge = |found, status: &str| judge_helper(found, status).map_err(|error| error.to_string());
        let all = "NoNewPrivs:\t0\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(judge(there(), all), Ok("/bin/fusermount3".into()));
        assert!(judge(None, all).unwrap_err().contains("apt install fuse3"));
        let docker = "NoNewPrivs:\t0\nCapBnd:\t00000000a80425fb\n";
        assert!(judge(there(), docker).unwrap_err().contains("--cap-add SYS_ADMIN"));
        assert!(judge(there(), &all.replace("\t0\n", "\t1\n")).unwrap_err().contains("no_new_privs"));
    }

    #[test]
    fn what_confines_a_container_is_named() {
        let judge = |errno, label: &str, seccomp: u8| {
            let error = io::Error::from_raw_os_error(errno);
            judge_refusal("/p", &error, label, &format!("Seccomp:\t{seccomp}\n")).to_string()
        };
        assert!(judge(libc::EACCES, "docker-default (enforce)\n", 2).contains("apparmor=unconfined"));
        let selinux = "system_u:system_r:container_t:s0:c1,c2\0";
        assert!(judge(libc::EACCES, selinux, 2).contains("container_t:s0:c1,c2; start"));
        assert!(judge(libc::EPERM, "unconfined\n", 2).contains("seccomp=unconfined"));
        assert!(judge(libc::ENOSYS, "", 2).contains("seccomp=unconfined"));
        assert!(judge(libc::ENOSYS, "", 0).contains("5.10"));
        assert!(judge(libc::EPERM, "", 0).contains("unshare --user --mount"));
        assert!(judge(libc::ENODEV, "", 0).contains("modprobe"));
        assert_eq!(judge(libc::EBUSY, "", 0), "/p cannot be mounted: it is in use");
    }
}
