//! A project that systemd serves: from boot, after crashes and hangs, and until it is stopped or removed.

use std::fs;
use std::time::{Duration, Instant};

use crate::machine::{Machine, machine};

/// A booted machine that serves `/srv/demo`, with a watchdog limit shorter than half a minute.
macro_rules! server {
    () => {{
        let machine = machine!(Booted);
        machine.ok(
            "mkdir -p /etc/systemd/system/crewfs@.service.d && \
             printf '[Service]\\nWatchdogSec=2\\nRestartSec=100ms\\n' > /etc/systemd/system/crewfs@.service.d/test.conf",
        );
        machine.deploy("--project /srv/demo").ok();
        machine
    }};
}

const UNIT: &str = "crewfs@demo.service";

/// The script that starts the service, and prints the daemon's messages if that fails.
fn start() -> String {
    format!("{{ systemctl start {UNIT} || {{ journalctl -o cat -n 30 -u {UNIT} >&2; false; }}; }}")
}

/// A property of the unit.
fn show(machine: &Machine, what: &str) -> String {
    machine.ok(&format!("systemctl show -P {what} {UNIT}")).trim().to_string()
}

/// A worker of the user `crew-demo`, whose name is only in its environment.
fn as_worker(machine: &Machine, name: &str, script: &str) -> String {
    machine.ok(&format!(
        "cd /srv/demo && CREWFS_WORKER={name} setpriv --reuid=crew-demo --regid=crew-demo --clear-groups sh -c '{script}'"
    ))
}

fn publish(machine: &Machine, id: &str) {
    machine.ok(&format!("echo '# Task: {id}' > /srv/demo/tasks/{id}.md"));
}

/// Wait until systemd has restarted the unit this often and it serves.
fn until_restarted(machine: &Machine, times: u32) {
    machine.until(&format!(
        "test $(systemctl show -P NRestarts {UNIT}) -ge {times} && systemctl --quiet is-active {UNIT} && test -e /srv/demo/tasks/queue.json"
    ));
}

#[test]
fn a_deployed_project_is_served_and_what_its_unit_forbids_is_not_missed() {
    let machine = server!();
    assert_eq!(machine.ok(&format!("systemctl is-enabled {UNIT}")), "enabled\n");
    publish(&machine, "one");
    machine.until(&format!("systemctl status {UNIT} | grep -q 'Status: \"1 ready, 0 claimed'"));
    // The daemon reads the name from the environment of another user's process.
    as_worker(
        &machine,
        "w1",
        "touch tasks/claim/next && umask 007 && echo x > made && mkdir -m 2770 shared && chmod g+s shared",
    );
    assert!(machine.ok("cat /srv/demo/tasks/claim/one").contains("\"worker\": \"w1\""));
    // Files that workers make belong to them, set-id bits included; and root has all of root's rights.
    assert_eq!(
        machine.ok("cd /srv/demo && stat -c '%U %G %a' made shared"),
        "crew-demo crew-demo 660\ncrew-demo crew-demo 2770\n"
    );
    machine.ok("cd /srv/demo && chown root:root made && chmod 4755 made && mknod null c 1 3 && rm null");
    // The daemon learns of changes beneath: fanotify works, so the kernel may cache entries for long.
    let session = machine.ok("crewfs doctor /srv/demo || true");
    assert!(!session.contains("problem"), "{session}");
    assert!(
        machine
            .ok(&format!("systemctl show -P NRestarts {UNIT}; journalctl -u {UNIT} -o cat"))
            .contains("in force")
    );
    // systemd has applied the settings of the unit.
    let pid = show(&machine, "MainPID");
    let status = machine.ok(&format!("cat /proc/{pid}/status"));
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let capabilities = status.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).unwrap();
    // SYS_ADMIN is in the set; NET_ADMIN, SYS_MODULE and SYS_RESOURCE are not.
    let bounding = u64::from_str_radix(capabilities, 16).unwrap();
    assert_eq!([21, 12, 16, 24].map(|bit| bounding >> bit & 1), [1, 0, 0, 0]);
}

#[test]
fn a_daemon_that_is_killed_is_there_again_and_the_dead_mount_is_not() {
    let machine = server!();
    publish(&machine, "one");
    as_worker(&machine, "w1", "touch tasks/claim/one");
    for times in 1..=3 {
        machine.ok(&format!("kill -9 {}", show(&machine, "MainPID")));
        until_restarted(&machine, times);
        assert_eq!(machine.ok("findmnt -n -l -t fuse.crewfs -o TARGET"), "/srv/demo\n/srv/demo/tasks\n");
        assert!(machine.ok("cat /srv/demo/tasks/status/one").contains("\"worker\": \"w1\""));
    }
}

#[test]
fn a_daemon_that_hangs_is_killed_by_the_watchdog() {
    let machine = server!();
    publish(&machine, "one");
    machine.ok(&format!("kill -STOP {}", show(&machine, "MainPID")));
    let start = Instant::now();
    until_restarted(&machine, 1);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let said = machine.ok(&format!("journalctl -o cat -u {UNIT}"));
    assert!(said.contains("Watchdog timeout"), "{said}");
    as_worker(&machine, "w1", "touch tasks/claim/one");
}

#[test]
fn stopping_is_clean_also_while_somebody_is_in_the_mount() {
    let machine = server!();
    publish(&machine, "one");
    for user in ["", "cd /srv/demo && sleep 1000 > open 2>&1 & echo $! > /tmp/user;"] {
        machine.ok(&format!("{user} systemctl stop {UNIT}"));
        assert_eq!(
            (show(&machine, "ActiveState"), show(&machine, "Result")),
            ("inactive".into(), "success".into())
        );
        assert_eq!(machine.run("findmnt -n -t fuse.crewfs").stdout, "");
        assert_eq!(show(&machine, "ExecMainStatus"), "0");
        machine.ok(&format!("[ ! -e /tmp/user ] || kill $(cat /tmp/user); {}", start()));
    }
    assert!(machine.ok("cat /srv/demo/tasks/status/one").contains("ready"));
}

#[test]
fn unmounting_by_hand_ends_it_and_a_mistake_in_the_settings_is_not_repeated() {
    let machine = server!();
    machine.ok("crewfs umount /srv/demo");
    machine.until(&format!("[ $(systemctl show -P ActiveState {UNIT}) = inactive ]"));
    machine.ok("echo 'leese = \"5m\"' >> /etc/crewfs/demo.toml");
    let said = machine.deploy("--project /srv/demo").exits(1, "does not start; the reason is above");
    assert!(said.contains("leese"), "{said}");
    assert_eq!((show(&machine, "NRestarts"), show(&machine, "ActiveState")), ("0".into(), "failed".into()));
    machine.ok("sed -i /leese/d /etc/crewfs/demo.toml");
    machine.deploy("--project /srv/demo").ok();
}

#[test]
fn removing_a_served_project_leaves_its_data() {
    let machine = server!();
    publish(&machine, "one");
    as_worker(&machine, "w1", "touch tasks/claim/one && echo done > tasks/completed/one && echo code > made");
    let made = machine.ok("cd /srv/demo && find . -name .crewfs -prune -o -type f -path './made' -print -o -name '*.md' -print | sort");
    machine.ok("remove.sh demo --yes");
    assert_eq!(machine.run("findmnt -n -t fuse.crewfs").stdout, "");
    machine.ok("test ! -e /etc/crewfs && test ! -e /etc/systemd/system/crewfs@.service");
    assert_eq!(made, "./made\n./tasks/one.md\n");
    assert_eq!(fs::read_to_string(machine.srv().join("demo/made")).unwrap(), "code\n");
    machine.ok("test -e /var/lib/crewfs/demo/state/log.db && test ! -e /srv/demo/.crewfs");
    // The whole history is still there.
    machine.deploy("--project /srv/demo").ok();
    assert_eq!(machine.ok("cat /srv/demo/tasks/completed/one"), "done\n");
}

#[test]
fn not_started_is_not_started() {
    let machine = machine!(Booted);
    let said = machine.deploy("--project /srv/demo --no-start").ok();
    assert!(said.contains("systemctl enable --now crewfs@demo.service"), "{said}");
    machine.ok(&format!("! systemctl --quiet is-active {UNIT} && ! systemctl --quiet is-enabled {UNIT}"));
    machine.ok(&format!("systemctl enable --quiet --now {UNIT}"));
}

#[test]
fn a_project_is_saved_restored_and_moved() {
    let machine = server!();
    publish(&machine, "one");
    publish(&machine, "two");
    as_worker(&machine, "w1", "touch tasks/claim/one && echo code > made");
    let stop = format!("systemctl stop {UNIT}");
    let start = start();
    machine.ok(&format!(
        "{stop} && tar -C / -czf /srv/demo.tar.gz srv/demo var/lib/crewfs/demo/state && {start}"
    ));
    as_worker(&machine, "w1", "echo lost > tasks/completed/one && echo lost > made && touch tasks/claim/two");
    machine.ok(&format!(
        "{stop} && rm -r /srv/demo /var/lib/crewfs/demo/state && tar -C / -xzf /srv/demo.tar.gz && {start}"
    ));
    let restored = machine.ok("cd /srv/demo && cat made && ls tasks/claim tasks/ready tasks/completed");
    assert_eq!(restored, "code\ntasks/claim:\none\n\ntasks/completed:\n\ntasks/ready:\ntwo\n");

    machine.ok("ssh-keygen -q -t ed25519 -N '' -f ~/key && add-worker.sh w1 ~/key.pub");
    let page = crate::units::block("operations.md", "mv /srv/demo /srv/new");
    machine.ok(&format!("set -e; {page}"));
    assert_eq!(machine.ok("findmnt -n -l -t fuse.crewfs -o TARGET"), "/srv/new\n/srv/new/tasks\n");
    assert!(machine.ok("cat /srv/new/tasks/status/one").contains("\"worker\": \"w1\""));
    let said = machine.ok("add-worker.sh w1 ~/key.pub");
    assert!(said.contains("nothing to do: w1 has this key") && said.contains(":/srv/new DIR"), "{said}");
}
