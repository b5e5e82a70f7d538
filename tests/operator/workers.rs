//! `add-worker.sh` and `remove-worker.sh`: one key for each worker, and nothing but a key is accepted.

use crate::machine::{Machine, machine};

/// A machine with the project demo, and some keys in `/srv`.
macro_rules! with_keys {
    () => {{
        let machine = machine!(Bare);
        machine.deploy("--project /srv/demo").ok();
        machine.ok(
            "cd /srv; for k in one two three; do ssh-keygen -q -t ed25519 -N '' -C \"$k@laptop\" -f $k; done",
        );
        machine
    }};
}

/// The key file without its comment.
fn keys(machine: &Machine) -> String {
    machine.ok("grep -v '^#' /etc/crewfs/demo.keys || true")
}

fn line(machine: &Machine, worker: &str, key: &str) -> String {
    let number = machine.ok(&format!("cut -d' ' -f2 /srv/{key}.pub"));
    format!(
        "restrict,command=\"crewfs sftp-server --worker {worker} --root '/srv/demo'\" ssh-ed25519 {} {worker}\n",
        number.trim()
    )
}

#[test]
fn a_key_is_tied_to_one_name_and_one_command() {
    let machine = with_keys!();
    let said = machine.ok("add-worker.sh demo w-1 /srv/one.pub");
    assert!(said.contains("w-1 works on demo with the key 256 SHA256:"), "{said}");
    let host = machine.ok("hostname -f 2>/dev/null || hostname");
    let host_key = machine.ok("cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub");
    let (host, host_key) = (host.trim(), host_key.trim());
    for command in [
        format!("    echo '{host} {host_key}' >> ~/.ssh/known_hosts\n"),
        format!("    mount-scripts/connect.sh --identity KEY crew-demo@{host}:/srv/demo DIR\n"),
    ] {
        assert!(said.contains(&command), "{command} in {said}");
    }
    // The project may be omitted if there is only one; the key may be an argument or come from standard input.
    machine.ok("add-worker.sh w-2 \"$(cat /srv/two.pub)\"; add-worker.sh w.3 - </srv/three.pub");
    let all = [("w-1", "one"), ("w-2", "two"), ("w.3", "three")].map(|(w, k)| line(&machine, w, k)).concat();
    assert_eq!(keys(&machine), all);
    assert_eq!(machine.ok("stat -c '%U:%G %a' /etc/crewfs/demo.keys"), "root:crew-demo 640\n");
    // The keys that sshd reads for that user.
    machine.ok(
        "setpriv --reuid=crew-demo --regid=crew-demo --clear-groups ssh-keygen -l -f /etc/crewfs/demo.keys",
    );
}

#[test]
fn a_dry_run_and_a_second_time_change_nothing() {
    let machine = with_keys!();
    let before = machine.listing("/etc");
    let said = machine.ok("add-worker.sh w1 /srv/one.pub --dry-run");
    assert!(said.contains("write /etc/crewfs/demo.keys") && said.contains("nothing was changed"), "{said}");
    assert_eq!(machine.listing("/etc"), before);
    machine.ok("add-worker.sh w1 /srv/one.pub");
    let before = machine.listing("/etc");
    let said = machine.ok("add-worker.sh w1 /srv/one.pub");
    assert!(said.contains("nothing to do: w1 has this key"), "{said}");
    let said = machine.ok("remove-worker.sh w1 --dry-run");
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(machine.listing("/etc"), before);
    machine.ok("remove-worker.sh w1");
    assert_eq!(keys(&machine), "");
    let said = machine.ok("remove-worker.sh w1");
    assert!(said.contains("nothing to do: w1 has no key for demo"), "{said}");
}

#[test]
fn removing_one_worker_leaves_those_with_similar_names() {
    let machine = with_keys!();
    machine
        .ok("add-worker.sh w1 /srv/one.pub; add-worker.sh w1.1 /srv/two.pub; add-worker.sh w /srv/three.pub");
    machine.ok("remove-worker.sh w1");
    assert_eq!(keys(&machine), line(&machine, "w1.1", "two") + &line(&machine, "w", "three"));
    machine.ok("remove-worker.sh w");
    assert_eq!(keys(&machine), line(&machine, "w1.1", "two"));
}

#[test]
fn another_key_for_a_worker_must_be_asked_for() {
    let machine = with_keys!();
    machine.ok("add-worker.sh w1 /srv/one.pub; add-worker.sh w2 /srv/two.pub");
    machine.run("add-worker.sh w1 /srv/three.pub").exits(1, "w1 has another key already");
    machine.run("add-worker.sh w1 /srv/two.pub --replace").exits(1, "this key belongs to w2 already");
    machine.run("add-worker.sh w3 /srv/one.pub").exits(1, "this key belongs to w1 already");
    machine.ok("add-worker.sh w1 /srv/three.pub --replace");
    assert_eq!(keys(&machine), line(&machine, "w2", "two") + &line(&machine, "w1", "three"));
}

#[test]
fn many_at_once_lose_no_key() {
    let machine = with_keys!();
    machine.ok("cd /srv; for n in $(seq 12); do ssh-keygen -q -t ed25519 -N '' -f k$n; done");
    machine.ok("for n in $(seq 12); do add-worker.sh w$n /srv/k$n.pub & done; wait");
    assert_eq!(keys(&machine).lines().count(), 12);
    machine.ok("for n in $(seq 11); do remove-worker.sh w$n & done; wait");
    assert_eq!(keys(&machine), line(&machine, "w12", "k12"));
}

#[test]
fn what_is_wrong_with_a_key_is_said_and_nothing_is_taken() {
    let machine = with_keys!();
    let before = machine.listing("/etc");
    for (arguments, code, said) in [
        ("", 2, "a worker and its key are needed"),
        ("w1", 2, "a worker and its key are needed"),
        ("w1 /srv/one.pub --now", 2, "--now is no option"),
        ("self /srv/one.pub", 2, "no worker name"),
        ("'w 1' /srv/one.pub", 2, "no worker name"),
        ("'w1\" ssh-rsa' /srv/one.pub", 2, "no worker name"),
        (".w /srv/one.pub", 2, "no worker name"),
        ("\"$(printf 'w1\\nw2')\" /srv/one.pub", 2, "no worker name"),
        ("$(printf %065d 1) /srv/one.pub", 2, "more than 64 characters"),
        ("other w1 /srv/one.pub", 1, "there is no project other here"),
        ("../demo w1 /srv/one.pub", 2, "cannot name a project"),
        ("w1 /srv/none.pub", 1, "there is no file /srv/none.pub"),
        ("w1 /srv/one", 1, "this is a private key"),
        ("w1 - </dev/null", 1, "the key is empty"),
        ("w1 \"$(cat /srv/one.pub /srv/two.pub)\"", 1, "more than one line"),
        ("w1 \"$(cat /srv/one.pub; echo 'command=\"sh\" x')\"", 1, "more than one line"),
        ("w1 \"command=\\\"sh\\\" $(cat /srv/one.pub)\"", 1, "has no options"),
        ("w1 \"environment=\\\"A=b\\\",$(cat /srv/one.pub)\"", 1, "has no options"),
        ("w1 'ssh-dss AAAAB3NzaC1kc3MAAACB'", 1, "no accepted type of key"),
        ("w1 'ssh-ed25519 AAAA\"x'", 1, "the key is damaged"),
        ("w1 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA'", 1, "ssh-keygen does not understand it"),
        ("w1 'ssh-ed25519 '", 1, "the key is damaged"),
    ] {
        machine.run(&format!("add-worker.sh {arguments}")).exits(code, said);
    }
    machine.run("remove-worker.sh").exits(2, "name the worker");
    machine.run("remove-worker.sh demo w1 x").exits(2, "name the worker");
    machine.run("remove-worker.sh other w1").exits(1, "there is no project other here");
    machine.run("remove-worker.sh 'w 1'").exits(2, "no worker name");
    machine
        .run("setpriv --reuid=nobody --clear-groups add-worker.sh w1 /dev/null")
        .exits(1, "run it with sudo");
    assert_eq!(machine.listing("/etc"), before);
}

#[test]
fn where_there_are_several_projects_one_is_named() {
    let machine = with_keys!();
    machine.deploy("--project /srv/other").ok();
    machine.run("add-worker.sh w1 /srv/one.pub").exits(2, "name one: demo other");
    machine.ok("add-worker.sh other w1 /srv/one.pub; add-worker.sh demo w1 /srv/one.pub");
    machine.ok("remove-worker.sh other w1");
    assert_eq!(keys(&machine), line(&machine, "w1", "one"));
    machine.ok("remove.sh demo --yes; remove.sh other --yes");
    machine.run("add-worker.sh w1 /srv/one.pub").exits(1, "no project is deployed here");
}
