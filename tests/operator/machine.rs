//! A fresh Debian in a container: starts in a second, and is deleted after the test. Written files go to memory, except in `/srv`, a
//! directory of the disk for projects.
//!
//! May assume: systemd-nspawn, iproute2, `/dev/fuse`, and root; without them there is no machine, and the reason is printed.
//! Must never: reach the network, write to the system it starts from, or leave a container behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::Group;
use crate::process::{Ran, run_within, until, within};

/// The time limit of a script in the machine.
const SCRIPT: Duration = Duration::from_secs(60);

/// Start a machine, or return from the test where none can be had.
macro_rules! machine {
    ($kind:ident) => {
        match crate::machine::Machine::start(crate::machine::FileKind::$kind) {
            Some(machine) => machine,
            None => return,
        }
    };
}
pub(crate) use machine;

/// The first program of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// systemd, as on a server.
    Booted,
    /// No init: like a container that only runs programs.
    Bare,
}

pub(crate) struct Machine {
    container: Child,
    leader: Pid,
    srv: tempfile::TempDir,
    /// Dropped after the container.
    _group: Group,
}

impl Machine {
    pub(crate) fn start(kind: FileKind) -> Option<Machine> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let root = match ready() {
            Ok(root) => root,
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "no machine can be started: {why}");
                eprintln!("skipped: no machine can be started: {why}");
                return None;
            }
        };
        let srv = tempfile::Builder::new().prefix("crewfs-operator-").tempdir().unwrap();
        fs::set_permissions(srv.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let bind = |how: &str, from: &Path, to: &str| format!("--{how}={}:{to}", from.display());
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let name = format!("crewfs-{}-{count}", std::process::id());
        let group = Group::new(&name);
        let mut command = group.command("systemd-nspawn");
        command
            // Only the unit decides what a service may do.
            .env("SYSTEMD_SECCOMP", "0")
            // Without any request to the systemd of the host.
            .args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--volatile=overlay"])
            .args(["--bind=/dev/fuse", "--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            .arg(format!("--machine={name}"))
            .arg(bind("bind", srv.path(), "/srv"))
            .arg(bind("bind-ro", &sources.join("mount-scripts"), "/opt/crewfs/mount-scripts"))
            .arg(bind("bind-ro", Path::new(env!("CARGO_BIN_EXE_crewfs")), "/opt/crewfs/crewfs"))
            .arg("--directory")
            .arg(root);
        match kind {
            FileKind::Booted => command.arg("--boot"),
            FileKind::Bare => command.args(["--as-pid2", "sleep", "infinity"]),
        };
        let said = srv.path().with_extension("console");
        let console = fs::File::create(&said).unwrap();
        command.stdin(Stdio::null()).stderr(console.try_clone().unwrap()).stdout(console);
        let container = command.spawn().unwrap();
        let mut leader = None;
        let up = within(Duration::from_secs(20), || {
            leader = leader_of(&container.id().to_string());
            leader.is_some()
        });
        let console = fs::read_to_string(&said).unwrap_or_default();
        let _ = fs::remove_file(&said);
        assert!(up, "the container does not start:\n{console}");
        let machine = Machine { container, leader: leader.unwrap(), srv, _group: group };
        // Wait until the machine's own program runs; only then is the container complete.
        let comm = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let leader = machine.leader.as_raw_nonzero().to_string();
        match kind {
            FileKind::Booted => {
                until("systemd is started", || comm(&leader) == "systemd\n");
                let mut said = String::new();
                until("the machine is up", || {
                    said = machine.run("systemctl is-system-running --wait").stdout;
                    matches!(said.trim(), "running" | "degraded")
                });
                assert_eq!(said, "running\n");
            }
            FileKind::Bare => until("the container's program runs", || {
                children(&leader).iter().any(|child| comm(child) == "sleep\n")
            }),
        }
        Some(machine)
    }

    /// Run a script as root in the machine.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Ran {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.as_raw_nonzero().to_string()])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--", "env", "-i", "HOME=/root"])
            .args([
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/crewfs/mount-scripts",
            ])
            .args(["sh", "-c", script]);
        let mut ran = run_within(SCRIPT, command);
        ran.what = script.to_string();
        ran
    }

    /// Run a script that must succeed. Returns its output.
    #[track_caller]
    pub(crate) fn ok(&self, script: &str) -> String {
        self.run(script).ok()
    }

    /// Deploy a project with the program under test and these arguments; `deploy.sh` asks no questions.
    #[track_caller]
    pub(crate) fn deploy(&self, arguments: &str) -> Ran {
        self.run(&format!("deploy.sh --yes --binary /opt/crewfs/crewfs {arguments}"))
    }

    /// Wait until a script succeeds.
    #[track_caller]
    pub(crate) fn until(&self, script: &str) {
        until(&format!("this succeeds in the machine: {script}"), || self.run(script).code == Some(0));
    }

    /// Link this machine to another one. Each end is named `eth0`; the link ends with either machine.
    pub(crate) fn join(&self, address: &str, other: &Machine, other_address: &str) {
        let number = |machine: &Machine| machine.leader.as_raw_nonzero().to_string();
        let (near, far) = (number(self), number(other));
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments);
            run_within(SCRIPT, command).ok();
        };
        run(
            "ip",
            &["link", "add", "eth0", "netns", &near, "type", "veth", "peer", "name", "eth0", "netns", &far],
        );
        for (number, address) in [(&near, address), (&far, other_address)] {
            let end = |arguments: &[&str]| {
                run("nsenter", &[&["--target", number, "--net", "--", "ip"], arguments].concat());
            };
            end(&["address", "add", address, "dev", "eth0"]);
            end(&["link", "set", "eth0", "up"]);
        }
    }

    /// `/srv` of the machine, by its path on the host.
    pub(crate) fn srv(&self) -> &Path {
        self.srv.path()
    }

    /// The installed and configured files: each file below `places` with its owner, mode and content, one a line.
    pub(crate) fn listing(&self, places: &str) -> String {
        let files =
            format!("find {places} -xdev -printf '%p %y %m %U %G %l\\n' -type f -exec sha256sum {{}} +");
        // Excludes useradd's backups and locks.
        let listing = self.ok(&format!(
            "{files} | grep -vE '/etc/(passwd|group|shadow|gshadow|subuid|subgid)-( |$)|\\.lock'"
        ));
        let mut lines: Vec<&str> = listing.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // When its first process ends, the whole container ends, and its mounts with it.
        let _ = kill_process(self.leader, Signal::KILL);
        if !within(Duration::from_secs(20), || self.container.try_wait().is_ok_and(|ended| ended.is_some())) {
            let _ = self.container.kill();
            let _ = self.container.wait();
        }
    }
}

/// The system to start from, or why there can be no machine.
fn ready() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("containers need root".into());
    }
    fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|e| format!("/dev/fuse cannot be used: {e}"))?;
    for (program, version, package) in
        [("systemd-nspawn", "--version", "systemd-container"), ("ip", "-Version", "iproute2")]
    {
        let found = Command::new(program).arg(version).output();
        found.map_err(|_| format!("{program} is not installed: apt-get install {package}"))?;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(target).join("tools/machine");
    let made = root.join(".made").exists();
    if made {
        Ok(root)
    } else {
        Err(format!("{0} is missing; make it: tests/operator/machine.sh {0}", root.display()))
    }
}

/// The first process of the container: the descendant of `parent` that is number 1 in a namespace of its own.
fn leader_of(parent: &str) -> Option<Pid> {
    children(parent).iter().find_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace();
        match numbers.skip(1).last() {
            Some("1") => Pid::from_raw(pid.parse().ok()?),
            _ => leader_of(pid),
        }
    })
}

fn children(pid: &str) -> Vec<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(String::from).collect()
}
