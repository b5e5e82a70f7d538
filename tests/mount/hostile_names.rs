//! Names, titles and results with characters that would forge a line or steer a terminal (C5).

use std::fs;
use std::path::Path;

use crewfs::shown::steers;

use crate::harness::project;
use crate::process::{crewfs, run};

/// The text that the workers use wherever they may choose one.
const STEERING: &str = "a\nforged: w9 holds it\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2028}\u{e0041}z";

/// Every text file below `at`, except those that are shown verbatim: the instructions, the results and the notes.
fn documents(at: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        let as_written =
            ["ready", "completed", "failed", "task", "note"].iter().any(|name| path.ends_with(name));
        match fs::symlink_metadata(&path) {
            Ok(of) if of.is_dir() && !as_written => documents(&path, found),
            Ok(of) if of.is_file() && !as_written && path.extension().is_none_or(|e| e != "md") => {
                found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
            _ => {}
        }
    }
}

#[test]
fn c5_no_text_that_is_looked_at_is_steered_by_what_workers_chose() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0s"]);
    let quoted = crewfs::shown::json(&STEERING);
    let title = format!("---\ntitle: {quoted}\ncontext: [{quoted}]\n{quoted}: 1\n---\n# x\n");
    project.task("rejected", &format!("---\nowns: [{quoted}]\n---\nx\n"));
    project.task("odd", &title);
    project.task("done", "# plain\n");
    fs::write(project.tasks().join(format!("{STEERING}.md")), "x").unwrap();
    ["odd", "done"].iter().for_each(|id| mounted.until_state(id, "ready"));
    mounted.until_state("rejected", "rejected");
    let holds = format!(
        r#"
import json, os, subprocess, sys
name = json.loads(r'''{quoted}''')
held = open(name, 'w'); held.write('x'); held.flush()
open('tasks/claim/odd', 'w').write(name)
open('tasks/claim/done', 'w').close()
open('tasks/failed/done', 'w').write(name)
other = {{**os.environ, 'CREWFS_WORKER': 'w2'}}
refused = subprocess.run([sys.executable, '-c', "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'y')", name], env=other, capture_output=True, text=True)
assert 'Device or resource busy' in refused.stderr, refused
why = open('tasks/workers/w2/why').read()
assert why.count('\n') == 1 and r'a\nforged: w9 holds it\u{{1b}}[2J' in why, ascii(why)
locks = open('tasks/workers/w1/locks').read()
assert locks.count('\n') == 1 and r'a\nforged' in locks, ascii(locks)
print('seen', flush=True)
sys.stdin.read()
"#
    );
    let mut worker = std::process::Command::new("python3")
        .args(["-c", &holds])
        .current_dir(mounted.path())
        .env("CREWFS_WORKER", "w1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut out = std::io::BufReader::new(worker.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut said).unwrap();
    assert_eq!(said, "seen\n");

    let mut all = Vec::new();
    documents(&mounted.tasks(), &mut all);
    for command in [["log", "--"], ["doctor", "--"], ["top", "--once"]] {
        let mut asked = crewfs();
        asked.args(command).arg(mounted.path());
        let ran = run(asked);
        all.push((command[0].into(), ran.stdout + &ran.stderr));
    }
    all.push(("the daemon's log".into(), mounted.stderr()));
    assert!(all.iter().any(|(_, text)| text.contains("forged")), "the names are shown");
    for (name, text) in all {
        let steering = text.lines().find(|line| line.contains(steers) || line.starts_with("forged"));
        assert_eq!(steering, None, "{name}");
    }
    drop(worker.stdin.take());
    assert!(worker.wait().unwrap().success());
    let parsed = mounted.json("status/odd");
    assert_eq!(parsed["context"][0].as_str(), Some(STEERING), "JSON means what was written");
}
