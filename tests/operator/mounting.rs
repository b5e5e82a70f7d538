//! `mount(8)`, `umount(8)` and `/etc/fstab`, through the helpers that `deploy.sh` installs.

use std::fs;

use crate::machine::{Machine, machine};
use crate::units::block;

const OURS: &str = "findmnt -n -l -t fuse.crewfs -o TARGET";
const BOTH: &str = "/mnt/demo\n/mnt/demo/tasks\n";

/// Install the helpers, and add this line to `/etc/fstab`.
fn with_fstab(machine: &Machine, options: &str) {
    machine.deploy("--project /srv/demo --no-start").ok();
    machine
        .ok(&format!("mkdir -p /mnt/demo && echo '/srv/demo /mnt/demo crewfs {options} 0 0' >> /etc/fstab"));
}

fn nothing_is_mounted(machine: &Machine) {
    // The daemon has released the lock of the project.
    machine.until(&format!("test -z \"$({OURS})\" && flock --nonblock /srv/demo/.crewfs/lock true"));
}

#[test]
fn fstab_and_mount_and_umount_work() {
    let machine = machine!(Bare);
    with_fstab(
        &machine,
        "defaults,noatime,nofail,_netdev,x-systemd.requires=srv.mount,x-gvfs-hide,comment=the_crew,lease=5m,threads=4",
    );
    for (mount, umount) in [
        ("mount /mnt/demo", "umount /mnt/demo"),
        ("mount -a", "umount -l /mnt/demo"),
        ("mount -t crewfs /srv/demo /mnt/demo -o lease=1h", "umount -R /mnt/demo"),
        ("mount -t crewfs /srv/demo /mnt/demo", "umount -c /mnt/demo"),
        // By the source of the mount.
        ("mount -t crewfs /srv/demo /mnt/demo", "umount -c /srv/demo"),
        ("mount -t crewfs /srv/demo /mnt/demo", "umount -l /srv/demo"),
        ("mount -t crewfs /srv/demo /mnt/demo", "crewfs umount /srv/demo"),
        // When a user unmounts the desk, the daemon unmounts the tree.
        ("mount -n /mnt/demo", "umount /mnt/demo/tasks"),
        ("mount /mnt/demo", "crewfs umount /mnt/demo"),
    ] {
        machine.ok(mount);
        assert_eq!(machine.ok(OURS), BOTH, "{mount}");
        machine.ok("test -e /mnt/demo/tasks/queue.json");
        machine.ok(umount);
        nothing_is_mounted(&machine);
    }
    // `-f`: printed only, not mounted.
    let said = machine.ok("mount -f -v /mnt/demo");
    assert!(said.contains("crewfs mount /srv/demo /mnt/demo -o") && said.contains("lease=5m"), "{said}");
    nothing_is_mounted(&machine);
}

#[test]
fn a_dead_mount_is_cleared_by_umount() {
    let machine = machine!(Bare);
    with_fstab(&machine, "defaults");
    machine.ok(
        "mount /mnt/demo && kill -9 $(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p' /srv/demo/.crewfs/lock)",
    );
    machine.ok("umount /mnt/demo");
    nothing_is_mounted(&machine);
}

#[test]
fn a_mount_in_another_namespace_is_made_there() {
    let machine = machine!(Bare);
    with_fstab(&machine, "defaults");
    machine.ok(
        "unshare --mount sleep 1000 >/dev/null 2>&1 & echo $! > /tmp/other; until grep -qx sleep /proc/$!/comm; do :; done",
    );
    machine.ok("mount -N $(cat /tmp/other) /mnt/demo");
    assert_eq!(machine.run(OURS).stdout, "");
    assert_eq!(machine.ok(&format!("nsenter -t $(cat /tmp/other) -m {OURS}")), BOTH);
    machine.ok("umount -c -N $(cat /tmp/other) /mnt/demo");
    machine.until(&format!("! nsenter -t $(cat /tmp/other) -m {OURS}"));
    machine.ok("kill $(cat /tmp/other)");
}

#[test]
fn a_user_mounts_what_fstab_allows_them() {
    let machine = machine!(Bare);
    machine.ok(
        "useradd -m joe && mkdir /srv/demo && chown joe /srv/demo && echo user_allow_other >> /etc/fuse.conf",
    );
    with_fstab(&machine, "user,exec,noauto,allow_other");
    machine.ok("chown joe /mnt/demo");
    machine.ok("su joe -c 'mount /mnt/demo'");
    assert_eq!(machine.ok(OURS), BOTH);
    machine.ok("su joe -c 'crewfs umount /mnt/demo'");
    nothing_is_mounted(&machine);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let machine = machine!(Bare);
    with_fstab(&machine, "defaults,leese=5m");
    assert!(
        machine.run("mount /mnt/demo").exits(2, "there is no option \"leese=5m\"").contains("lease=SPAN")
    );
    machine.run("mount -t crewfs /srv/none /mnt/demo").exits(1, "/srv/none");
    machine.run("mount -t crewfs /srv/demo /mnt/none").refused("/mnt/none");
    machine.run("mount.crewfs /srv/demo").exits(1, "usage: mount.crewfs PROJECT PLACE");
    machine.run("mount.crewfs /srv/demo /mnt/demo /mnt/more").exits(1, "/mnt/more is one place too many");
    machine.run("mount.crewfs /srv/demo /mnt/demo -x").exits(1, "-x is no option of mount helpers");
    machine.run("mount.crewfs /srv/demo /mnt/demo -o").exits(1, "-o needs a value");
    machine.run("umount.fuse.crewfs").exits(1, "usage: umount.crewfs PLACE");
    machine.run("umount.fuse.crewfs /mnt/demo -x").exits(1, "-x is no option of umount helpers");
    machine.run("umount.fuse.crewfs /mnt/demo").exits(3, "is not a mount of crewfs");
    assert_eq!(machine.run(OURS).stdout, "");
}

#[test]
fn systemd_mounts_what_fstab_or_a_unit_says() {
    let machine = machine!(Booted);
    machine.deploy("--project /srv/demo --no-start").ok();
    machine.ok("mkdir -p /mnt/demo");
    for kind in ["fstab", "unit"] {
        match kind {
            "fstab" => {
                machine.ok(&format!("echo '{}' >> /etc/fstab", block("operations.md", " crewfs ").trim()))
            }
            _ => {
                fs::write(machine.srv().join("unit"), block("operations.md", "[Mount]")).unwrap();
                machine.ok("sed -i '/crewfs/d' /etc/fstab; cp /srv/unit /etc/systemd/system/mnt-demo.mount")
            }
        };
        machine.ok("systemctl daemon-reload && systemctl start mnt-demo.mount");
        assert_eq!(machine.ok(OURS), BOTH, "{kind}");
        machine.ok("test -e /mnt/demo/tasks/queue.json && systemctl --quiet is-active mnt-demo.mount");
        machine.ok("systemctl stop mnt-demo.mount");
        nothing_is_mounted(&machine);
        assert_eq!(machine.ok("systemctl show -P Result mnt-demo.mount"), "success\n", "{kind}");
        machine.ok("systemctl start mnt-demo.mount && umount -c /mnt/demo");
        nothing_is_mounted(&machine);
    }
}
