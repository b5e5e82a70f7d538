//! `remove.sh`: the server is as it was before, and the project is unchanged.

use std::fs;

use crate::machine::machine;

const SYSTEM: &str = "/etc /usr /var/lib /var/spool /home /root";

#[test]
fn removing_leaves_the_project_byte_for_byte_and_nothing_else() {
    let machine = machine!(Bare);
    let before = machine.listing(SYSTEM);
    machine.deploy("--project /srv/demo").ok();
    fs::create_dir_all(machine.srv().join("demo/.crewfs")).unwrap();
    fs::write(machine.srv().join("demo/.crewfs/log.db"), [0, 1, 2]).unwrap();
    fs::write(machine.srv().join("demo/result.txt"), "done").unwrap();
    let project = machine.listing("/srv");

    let deployed = machine.listing(SYSTEM);
    let said = machine.ok("remove.sh demo --dry-run");
    assert!(
        said.contains("remove /etc/crewfs/demo.toml") && said.contains("remove the user crew-demo"),
        "{said}"
    );
    assert_eq!(machine.listing(SYSTEM), deployed);

    let said = machine.ok("remove.sh demo --yes");
    assert!(said.contains("/srv/demo with its files, and the state"), "{said}");
    assert_eq!(machine.listing(SYSTEM), before);
    assert_eq!(machine.listing("/srv"), project);

    let said = machine.ok("remove.sh demo --yes");
    assert!(said.contains("nothing to do"), "{said}");
    // Deploy again; the queue of the project is still there.
    machine.deploy("--project /srv/demo").ok();
    machine.run("grep '^state' /etc/crewfs/demo.toml").exits(1, "");
}

#[test]
fn the_user_stays_unless_somebody_says_so() {
    let machine = machine!(Bare);
    machine.deploy("--project /srv/demo").ok();
    let said = machine.ok("remove.sh demo </dev/null");
    assert!(said.contains("the user and the group crew-demo stay") && said.contains("demo --yes"), "{said}");
    machine.ok("getent passwd crew-demo && test ! -e /etc/crewfs/demo.toml");
    machine.ok("remove.sh demo --yes");
    machine.run("getent passwd crew-demo").exits(2, "");
}

#[test]
fn what_all_projects_share_goes_with_the_last() {
    let machine = machine!(Bare);
    machine.deploy("--project /srv/one").ok();
    machine.deploy("--project /srv/two").ok();
    let said = machine.ok("remove.sh one --yes");
    assert!(said.contains("the program and the unit stay: two needs them"), "{said}");
    machine.ok("test -x /usr/local/bin/crewfs && test -e /etc/systemd/system/crewfs@.service && test -e /sbin/mount.crewfs");
    machine.ok("remove.sh two --yes");
    machine.ok("test ! -e /usr/local/bin/crewfs && test ! -e /etc/systemd/system/crewfs@.service && test ! -e /sbin/mount.crewfs");
}

#[test]
fn a_user_that_was_there_before_is_nobody_to_remove() {
    let machine = machine!(Bare);
    machine.ok("useradd -m -s /bin/sh builder");
    machine.deploy("--project /srv/demo --user builder").ok();
    machine.ok("remove.sh demo --yes && getent passwd builder");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let machine = machine!(Bare);
    machine.run("remove.sh").exits(2, "name the project");
    machine.run("remove.sh ../etc").exits(2, "cannot name a project");
    machine.run("remove.sh a b").exits(2, "one project at a time: a or b");
    machine.run("remove.sh --force a").exits(2, "--force is no option");
    machine.run("setpriv --reuid=nobody --clear-groups remove.sh demo").exits(1, "run it with sudo");
}
