//! What a worker's key permits, tested with a real sshd: one directory, under one name, until the key is removed.

use crate::machine::{Machine, machine};

/// Options of ssh and sftp: the worker's key, and no questions.
const AS: &str =
    "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i ~/";

/// A server to which the workers `w1` and `w2` have keys.
macro_rules! with_workers {
    () => {{
        let machine = machine!(Booted);
        machine.deploy("--project /srv/demo").ok();
        machine.ok(
            "cd; for w in w1 w2; do ssh-keygen -q -t ed25519 -N '' -f $w; add-worker.sh demo $w $w.pub; done; \
             for n in 1 2 3; do echo \"# Task: $n\" > /srv/demo/tasks/t$n.md; done",
        );
        machine
    }};
}

/// Execute sftp commands as a worker.
#[track_caller]
fn sftp(machine: &Machine, worker: &str, batch: &str) -> String {
    machine.ok(&format!("printf '{batch}' | sftp -b - {AS}{worker} crew-demo@127.0.0.1"))
}

/// Open a connection that stays open.
fn stay(machine: &Machine, worker: &str, name: &str) {
    machine.ok(&format!(
        "mkfifo /run/{name}; sftp -b - {AS}{worker} crew-demo@127.0.0.1 </run/{name} >/run/{name}.said 2>&1 & \
         sh -c 'exec 3>/run/{name}; echo pwd >&3; exec sleep 1000' >/dev/null 2>&1 & until grep -q /srv/demo /run/{name}.said; do sleep 0.05; done"
    ));
}

#[test]
fn a_key_is_one_name_and_nothing_else() {
    let machine = with_workers!();
    sftp(&machine, "w1", "mkdir tasks/claim/t1\\nput /etc/hostname made\\n");
    sftp(&machine, "w2", "mkdir tasks/claim/t2\\n");
    for (task, worker) in [("t1", "w1"), ("t2", "w2")] {
        let status = machine.ok(&format!("cat /srv/demo/tasks/status/{task}"));
        assert!(status.contains(&format!("\"worker\": \"{worker}\"")), "{status}");
    }
    assert_eq!(machine.ok("stat -c '%U:%G' /srv/demo/made"), "crew-demo:crew-demo\n");
    // The client can choose neither its name nor a command, and cannot leave the directory.
    machine.ok(&format!("printf 'mkdir tasks/claim/t3\\n' | CREWFS_WORKER=w2 sftp -b - -o SendEnv=CREWFS_WORKER -o 'SetEnv=CREWFS_WORKER=w2' {AS}w1 crew-demo@127.0.0.1"));
    assert!(machine.ok("cat /srv/demo/tasks/status/t3").contains("\"worker\": \"w1\""));
    for command in ["id", "-t id", "-s id"] {
        let said = machine.run(&format!("ssh {AS}w1 crew-demo@127.0.0.1 {command} </dev/null"));
        assert!(!said.stdout.contains("uid="), "{said:?}");
    }
    assert_ne!(
        machine
            .run(&format!(
                "ssh {AS}w1 -o ExitOnForwardFailure=yes -W 127.0.0.1:22 crew-demo@127.0.0.1 </dev/null"
            ))
            .code,
        Some(0)
    );
    assert_ne!(
        machine.run(&format!("printf 'ls /etc/crewfs\\n' | sftp -b - {AS}w1 crew-demo@127.0.0.1")).code,
        Some(0)
    );
    // Another key, or a password, gives no access.
    machine.ok("ssh-keygen -q -t ed25519 -N '' -f ~/stranger");
    machine.run(&format!("ssh {AS}stranger crew-demo@127.0.0.1")).exits(255, "Permission denied (publickey)");
}

#[test]
fn who_is_removed_is_out_at_once_and_others_stay() {
    let machine = with_workers!();
    stay(&machine, "w1", "one");
    stay(&machine, "w2", "two");
    // An idle connection, which could start a session.
    machine.ok(&format!("ssh -M -S /run/idle -f -N {AS}w1 crew-demo@127.0.0.1"));
    let serving = |worker: &str| format!("grep -qsz '^CREWFS_WORKER={worker}$' /proc/[0-9]*/environ");
    machine.ok(&format!("{} && {}", serving("w1"), serving("w2")));
    let said = machine.ok("remove-worker.sh demo w1");
    assert!(said.contains("end the connections of w1"), "{said}");
    machine.until(&format!("! {}", serving("w1")));
    machine.until("! ssh -S /run/idle -O check crew-demo@127.0.0.1 2>/dev/null");
    machine.ok(&serving("w2"));
    machine.run(&format!("ssh {AS}w1 crew-demo@127.0.0.1")).exits(255, "Permission denied (publickey)");
    sftp(&machine, "w2", "mkdir tasks/claim/t2\\n");
    // Replacing the key of a worker ends the connections of the old key.
    stay(&machine, "w2", "three");
    machine.ok("add-worker.sh demo w2 ~/w1.pub --replace");
    machine.until(&format!("! {}", serving("w2")));
    // When the server stops, no worker can change the project beneath the mount.
    machine.ok("systemctl stop crewfs@demo");
    machine.run(&format!("printf 'pwd\\n' | sftp -b - {AS}w1 crew-demo@127.0.0.1")).refused("");
    machine.ok("remove.sh demo --yes");
    machine.run("getent passwd crew-demo").exits(2, "");
}
