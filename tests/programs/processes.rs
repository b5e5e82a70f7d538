//! Processes that share files: locks, programs that are replaced while they run, and watchers.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::sides::{Side, Sides, needs};
use crate::trees::{LIMIT, Times, nothing, said, same, script};

#[test]
fn flock_lets_one_process_in_at_a_time() {
    needs!("flock");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let text = r#"
echo 0 > count; : > lock
add() { for n in $(seq 40); do ( flock 9; read -r c < count; echo $((c + 1)) > count ) 9< lock; done; }
add & add & add & add & wait; cat count
flock lock flock -n lock echo both || echo held; flock -s lock flock -sn lock echo shared; flock -s lock flock -n lock echo both || echo held
flock -w 0.05 -E 7 lock -c 'flock -n lock true' || echo $?
exec 8> held; flock 8; (flock -n 8 && echo inherited); flock -n held true || echo still held; exec 8>&-; flock -n held echo free
flock . echo a directory too
"#;
    let said = same(&sides, Times::Ignored, text, &nothing);
    assert!(said.starts_with("160\nheld\nshared\nheld\n"), "{said}");
}

#[test]
fn programs_run_from_the_mount_and_are_replaced_while_they_run() {
    needs!("python3");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let text = r#"
printf '#!/bin/bash\necho "$0 $*"; exec cat "$(dirname "$0")/data"\n' > script; echo data > data; chmod +x script; ./script a b; "$PWD/script" c
printf '#!%s/script with an argument\n' "$PWD" > nested; chmod +x nested; ./nested x
chmod -x script; ./script 2>/dev/null || echo $?; bash script d
cp "$(type -P sleep)" prog; ./prog 30 & pid=$!
until [ "$(readlink /proc/$pid/exe)" = "$PWD/prog" ]; do :; done
{ : > prog; } 2>/dev/null || echo busy; { echo x >> prog; } 2>/dev/null || echo busy
cp "$(type -P true)" prog.new; mv prog.new prog; ./prog && echo replaced
readlink /proc/$pid/exe; kill -9 $pid; wait $pid || echo $?
cp "$(type -P false)" prog; ./prog || echo $?
printf 'print("module")\n' > module.py; echo 'import module' > main.py; python3 main.py; echo 'print("again!")' > module.py; python3 main.py
rm -rf __pycache__; cd "$PWD/." ; mkdir gone; cd gone; rmdir ../gone; ls; touch x 2>/dev/null || echo gone
"#;
    let said = same(&sides, Times::Ignored, text, &nothing);
    assert!(said.contains("busy\nbusy\nreplaced\n"), "{said}");
}

#[test]
fn inotifywait_sees_what_others_do_through_the_mount() {
    needs!("inotifywait");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let (disk, mount) = sides.both(|side: Side| {
        script(&sides, side, "mkdir -p watched/sub").ok();
        let mut watcher = Command::new("inotifywait")
            .args(["-mr", "--format", "%e %w%f", "watched"])
            .args(["-e", "create,modify,close_write,move,delete,attrib"])
            .current_dir(sides.at(side))
            .env("CREWFS_WORKER", "suite")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = BufReader::new(watcher.stderr.take().unwrap()).lines();
        while !ready.next().unwrap().unwrap().contains("established") {}
        let work = "cd watched; echo one > a; echo two >> a; mv a sub/b; chmod 600 sub/b; ln sub/b c; rm sub/b; : > c; rm c; mkdir d; rmdir d
            mkfifo last";
        assert_eq!(said(&sides, side, work), "");
        let events = BufReader::new(watcher.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        let mut seen = Vec::new();
        for event in events {
            seen.push(event);
            if seen.last().unwrap().ends_with("/last") {
                break;
            }
        }
        kill_process(Pid::from_child(&watcher), Signal::TERM).unwrap();
        watcher.wait().unwrap();
        seen
    });
    assert_eq!(disk, mount);
    assert!(mount.len() > 10, "{mount:#?}");
}

#[test]
fn a_file_is_read_while_it_is_written() {
    needs!("tail");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let text = r#"
: > log; tail -f -n +1 --pid=$$ log > seen & tail=$!
for n in $(seq 300); do echo "line $n" >> log; done
until [ "$(wc -l < seen)" = 300 ]; do :; done; kill $tail; cmp log seen
(for n in $(seq 200); do echo "a $n"; done) >> both & (for n in $(seq 200); do echo "b $n"; done) >> both & wait
sort both | md5sum; wc -l < both
mkfifo pipe; (cat pipe > through) & cat log > pipe; wait $!; wait; cmp log through
"#;
    let said = same(&sides, Times::Ignored, text, &|name| name == "both");
    assert!(said.contains("400\n"), "{said}");
    let both = fs::read_to_string(sides.beneath(Side::Mount).join("both")).unwrap();
    assert!(both.lines().all(|line| line.len() >= 3), "lines are written whole");
}
