//! `deploy.sh`: what it makes, what it leaves alone, and what it prints when it cannot go on.

use std::fs;

use crate::machine::machine;

/// The places that deploying may change; projects are in `/srv`.
const SYSTEM: &str = "/etc /usr /var/lib/crewfs /var/spool /home /root /srv";

#[test]
fn a_dry_run_says_each_step_and_changes_nothing() {
    let machine = machine!(Bare);
    let before = machine.listing(SYSTEM);
    let said = machine.deploy("--project /srv/demo --dry-run").ok();
    for step in [
        "install /usr/local/bin/crewfs",
        "make the user crew-demo",
        "make /srv/demo",
        "write /etc/crewfs/demo.toml",
        "write /etc/crewfs/demo.keys",
        "write /etc/ssh/sshd_config.d/crewfs-demo.conf",
        "install /sbin/mount.crewfs",
        "install /etc/systemd/system/crewfs@.service",
        "nothing was changed",
    ] {
        assert!(said.contains(step), "{step:?} in {said}");
    }
    assert_eq!(machine.listing(SYSTEM), before);
}

#[test]
fn what_is_made_is_owned_so_that_no_worker_decides_who_it_is() {
    let machine = machine!(Bare);
    let said = machine.deploy("--project /srv/demo").ok();
    assert!(
        said.contains("no systemd runs here") && said.contains("crewfs mount --config /etc/crewfs/demo.toml"),
        "{said}"
    );
    assert!(said.contains("add-worker.sh demo WORKER KEY.pub"), "{said}");
    let owners = machine.ok(
        "cd / && stat -c '%n %U:%G %a' /usr/local/bin/crewfs /etc/crewfs /etc/crewfs/demo.toml /etc/crewfs/demo.keys \
         /etc/ssh/sshd_config.d/crewfs-demo.conf /var/lib/crewfs/demo /srv/demo",
    );
    assert_eq!(
        owners,
        "/usr/local/bin/crewfs root:root 755\n/etc/crewfs root:root 755\n/etc/crewfs/demo.toml root:root 644\n\
         /etc/crewfs/demo.keys root:crew-demo 640\n/etc/ssh/sshd_config.d/crewfs-demo.conf root:root 644\n\
         /var/lib/crewfs/demo root:root 755\n/srv/demo crew-demo:crew-demo 2770\n"
    );
    let account = machine.ok("getent passwd crew-demo; getent shadow crew-demo");
    assert!(account.contains(":/var/lib/crewfs/demo:/bin/sh\ncrew-demo:*:"), "{account}");
    // The setting applies to this user alone.
    let sshd = machine.ok("sshd -T -C user=crew-demo,host=x,addr=127.0.0.1");
    for line in [
        "authorizedkeysfile /etc/crewfs/demo.keys",
        "authenticationmethods publickey",
        "clientaliveinterval 5",
        "clientalivecountmax 2",
        "disableforwarding yes",
        "permittty no",
        "permituserrc no",
        "passwordauthentication no",
        "trustedusercakeys none",
    ] {
        assert!(sshd.lines().any(|said| said == line), "{line:?} in {sshd}");
    }
    let others = machine.ok("sshd -T -C user=root,host=x,addr=127.0.0.1");
    assert!(others.contains("clientaliveinterval 0") && !others.contains("/etc/crewfs"), "{others}");
}

#[test]
fn deploying_again_changes_nothing_and_keeps_what_was_edited() {
    let machine = machine!(Bare);
    machine.deploy("--project /srv/demo").ok();
    machine.ok("echo 'lease = \"5m\"' >> /etc/crewfs/demo.toml; echo '# a key' >> /etc/crewfs/demo.keys");
    let before = machine.listing(SYSTEM);
    let said = machine.deploy("--project /srv/demo").ok();
    assert!(said.contains("nothing to do: everything is installed"), "{said}");
    assert_eq!(machine.listing(SYSTEM), before);
    assert_eq!(
        machine.ok("grep '^state' /etc/crewfs/demo.toml"),
        "state = \"/var/lib/crewfs/demo/state\"\n",
        "outside of the project"
    );
    // `deploy.sh` installs a new program.
    machine.ok("printf '#!/bin/sh\\necho crewfs 9.9.9\\n' > /tmp/newer; chmod +x /tmp/newer");
    let said = machine.ok("deploy.sh --yes --project /srv/demo --binary /tmp/newer");
    assert!(said.contains("install /usr/local/bin/crewfs"), "{said}");
    assert_eq!(machine.ok("crewfs --version"), "crewfs 9.9.9\n");
}

#[test]
fn a_directory_that_is_there_stays_as_it_is() {
    let machine = machine!(Bare);
    let project = machine.srv().join("old one");
    fs::create_dir(&project).unwrap();
    fs::write(project.join("main.rs"), "fn main() {}").unwrap();
    let before = machine.listing("/srv");
    let said = machine.deploy("--project '/srv/old one'").ok();
    assert_eq!(machine.listing("/srv"), before);
    let advice =
        said.lines().find(|line| line.contains("chgrp -R crew-old-one")).unwrap_or_else(|| panic!("{said}"));
    machine.ok(advice);
    let said = machine.deploy("--project '/srv/old one'").ok();
    assert!(!said.contains("chgrp") && said.contains("nothing to do"), "{said}");
    machine.ok("setpriv --reuid=crew-old-one --regid=crew-old-one --clear-groups touch '/srv/old one/main.rs' '/srv/old one/new'");
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let machine = machine!(Bare);
    machine.deploy("--project /srv/demo").ok();
    machine.ok("touch /srv/file; useradd -M -s /usr/sbin/nologin locked; mkdir -p /srv/demo/below");
    let before = machine.listing(SYSTEM);
    for (arguments, code, said) in [
        ("", 2, "give it with --project DIR"),
        ("--project", 2, "--project needs a value"),
        ("--projekt /srv/x", 2, "--projekt is no option"),
        ("--project srv/x", 2, "no absolute path; write --project /"),
        ("--project /srv", 2, "choose a directory below it"),
        ("--project /srv/../etc/", 2, "belongs to the system"),
        ("--project /run/x", 2, "does not outlive a boot"),
        ("--project /srv/file", 2, "is not a directory"),
        ("--project \"/srv/o'neill\"", 2, "choose another directory"),
        ("--project /srv/x --name 'A b'", 2, "use a-z, 0-9, _ and -"),
        ("--project /srv/x --name ../x", 2, "use a-z, 0-9, _ and -"),
        ("--project /srv/x --name a234567890123456789012345678", 2, "more than 27 characters"),
        (
            "--project /srv/x --name demo",
            1,
            "demo is the project in /srv/demo already; choose another --name",
        ),
        ("--project /srv/demo/below", 1, "is served as demo already; choose another directory"),
        ("--project /srv/x --user root", 2, "must not be root"),
        ("--project /srv/x --user 'a b'", 2, "cannot name a user"),
        ("--project /srv/x --user locked", 1, "usermod -s /bin/sh locked"),
        (
            "--project /srv/demo --name demo --user other",
            1,
            "log in as crew-demo; to change that, remove it first: remove.sh demo",
        ),
        ("--project /srv/x --binary /srv/nothing", 1, "/srv/nothing is no program"),
        ("--project /srv/x --binary /bin/true", 1, "/bin/true does not run, or is not crewfs"),
    ] {
        machine.run(&format!("deploy.sh --yes {arguments} </dev/null")).exits(code, said);
    }
    machine
        .run("setpriv --reuid=crew-demo --clear-groups deploy.sh --project /srv/x")
        .exits(1, "run it with sudo");
    assert_eq!(machine.listing(SYSTEM), before);
}

#[test]
fn what_sshd_would_not_accept_or_not_read_is_taken_back() {
    let machine = machine!(Bare);
    let dropin = "/etc/ssh/sshd_config.d/crewfs-demo.conf";
    machine.ok("cp /etc/ssh/sshd_config /srv/sshd_config; echo Nonsense yes >> /etc/ssh/sshd_config");
    machine.deploy("--project /srv/demo").exits(1, "sshd does not accept its present configuration");
    machine.ok(&format!("test ! -e {dropin}"));
    machine.ok("grep -v ^Include /srv/sshd_config > /etc/ssh/sshd_config");
    machine.deploy("--project /srv/demo").exits(1, "begin /etc/ssh/sshd_config with the line: Include");
    machine.ok(&format!("test ! -e {dropin}"));
    // An sshd that accepts every configuration except crewfs's file.
    machine.ok("cp /srv/sshd_config /etc/ssh/sshd_config; cp /usr/sbin/sshd /srv/sshd");
    machine.ok(&format!(
        "printf '#!/bin/sh\\n[ ! -e {dropin} ] || {{ echo too new >&2; exit 255; }}\\n' > /usr/sbin/sshd"
    ));
    machine.deploy("--project /srv/demo").exits(1, "which is now as it was before: too new");
    machine.ok(&format!("test ! -e {dropin} && cp /srv/sshd /usr/sbin/sshd"));
    machine.deploy("--project /srv/demo").ok();
    machine.ok(&format!("test -e {dropin}"));
}

#[test]
fn where_apparmor_keeps_user_namespaces_from_programs_a_profile_allows_them() {
    let machine = machine!(Bare);
    machine.ok("mount -t tmpfs none /proc/sys/kernel && echo 1 > /proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    let said = machine.deploy("--project /srv/demo").ok();
    assert!(
        said.contains("install /etc/apparmor.d/crewfs") && said.contains("when apparmor is installed"),
        "{said}"
    );
    let profile = machine.ok("cat /etc/apparmor.d/crewfs");
    assert!(
        profile.contains("abi <abi/4.0>,")
            && profile.contains("flags=(unconfined)")
            && profile.contains("userns,")
    );
    machine.ok("remove.sh demo --yes && test ! -e /etc/apparmor.d/crewfs");
    machine.ok("echo 0 > /proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    machine.deploy("--project /srv/demo").ok();
    machine.ok("test ! -e /etc/apparmor.d/crewfs");
}

#[test]
fn questions_are_asked_where_somebody_can_answer() {
    let machine = machine!(Bare);
    let before = machine.listing(SYSTEM);
    let typed = |answers: &str| {
        format!("printf '{answers}' | script -qec 'deploy.sh --binary /opt/crewfs/crewfs' /dev/null")
    };
    let said = machine.run(&typed("/srv/demo\\n\\n\\nn\\n")).stdout;
    for asked in [
        "The project's directory:",
        "name on this machine [demo]:",
        "log in [crew-demo]:",
        "Do this? [y/N]",
        "nothing was changed",
    ] {
        assert!(said.contains(asked), "{asked:?} in {said}");
    }
    assert_eq!(machine.listing(SYSTEM), before);
    let said = machine.ok(&typed("/srv/demo\\nfirst\\n\\ny\\n"));
    assert!(said.contains("add-worker.sh first WORKER"), "{said}");
    machine.ok("test -e /etc/crewfs/first.toml && getent passwd crew-first");
}

#[test]
fn the_settings_that_are_commented_out_are_the_defaults() {
    let machine = machine!(Bare);
    machine.deploy("--project /srv/demo").ok();
    let served =
        "crewfs mount --config /etc/crewfs/demo.toml && crewfs umount --config /etc/crewfs/demo.toml";
    machine.ok(served);
    machine.ok("sed -i 's/^#\\([a-z]\\)/\\1/; /^claims_per_worker/d; /^workers/d; /^unguarded/d' /etc/crewfs/demo.toml");
    let settings = machine.ok("grep -v '^#' /etc/crewfs/demo.toml");
    machine.ok(served);
    // Each option has the value of the table of options, and none is missing.
    let table = include_str!("../../docs/filesystem.md").split("## Mount options").nth(1).unwrap();
    for row in table.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (option, rest) = row.split_once('`').unwrap();
        let default = rest.split('|').nth(1).unwrap().trim().trim_matches('`');
        let Some((key, _)) = option.split_once('=') else { continue };
        let line = settings.lines().find(|line| line.starts_with(&format!("{key} = ")));
        match key {
            // A new project has its state outside of the project directory, and operators and keys of its own.
            "threads" | "claims_per_worker" | "workers" | "unguarded" | "operators" | "keys" | "state" => {}
            _ => assert_eq!(line, Some(&*format!("{key} = \"{default}\"")), "{settings}"),
        }
    }
}
