//! The tarball's `install.sh` on a server with systemd: the installed files can be deployed and served, and removing them stops the
//! service, as removing a package does. `tests/package.sh` covers other systems.

use crate::guide::TARBALL;
use crate::machine::machine;

const INSTALL: &str = "~/crewfs-*-linux/install.sh";

#[test]
fn what_is_installed_is_served_until_it_is_taken_away() {
    let machine = machine!(Booted);
    machine.ok(TARBALL);
    machine.ok(&format!("cd; tar -xf crewfs-*.tar.gz && {INSTALL}"));
    let deploy = "/usr/local/share/crewfs/mount-scripts/deploy.sh --project /srv/demo --yes";
    let said = machine.ok(deploy);
    assert!(said.contains("crewfs@demo.service is active") && !said.contains("install /"), "{said}");
    let unit = "systemctl show --property FragmentPath --value crewfs@demo";
    assert_eq!(machine.ok(unit), "/usr/local/lib/systemd/system/crewfs@.service\n");

    // The program and the helpers do not belong to the project, and stay for the next one.
    machine.ok("remove.sh demo --yes && test -x /usr/local/bin/crewfs && test -x /sbin/mount.crewfs");
    machine.ok(deploy);
    // A program with one more byte counts as another program.
    let said = machine.ok(&format!("printf x | tee -a ~/crewfs-*-linux/bin/crewfs && {INSTALL}"));
    assert!(said.contains("crewfs: the old version"), "{said}");
    machine.ok("systemctl is-active crewfs@demo");

    let said = machine.ok("/usr/local/share/crewfs/install.sh --uninstall");
    assert!(said.contains("crewfs is removed from /usr/local"), "{said}");
    machine.run("systemctl is-active crewfs@demo").exits(3, "");
    machine.run("grep fuse.crewfs /proc/self/mountinfo").exits(1, "");
    machine.ok("test -d /srv/demo && test -e /etc/crewfs/demo.toml && test ! -e /usr/local/share/crewfs");
}
