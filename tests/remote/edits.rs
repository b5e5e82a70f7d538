//! Two remote workers and one on the server's machine edit the same file. The loser of each race is refused, and no edit is lost.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::project;
use crate::server::server;

/// Adds lines to a file, each to the content just read, in one of the ways in which agents write. Retries when refused. Prints which
/// refusals occurred.
const EDITOR: &str = r#"
import errno, json, os, sys

path, name, way, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
refusals = {}


def put(target, text, flags):
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def edit(text):
    if way == "in place":
        return put(path, text, os.O_TRUNC)
    temporary = f"{path}.tmp.{name}"
    put(temporary, text, os.O_EXCL)
    try:
        os.rename(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


done = 0
while done < count:
    try:
        with open(path) as file:
            text = file.read()
        edit(text + f"{name} {done}\n")
        done += 1
    except OSError as error:
        code = errno.errorcode[error.errno]
        refusals[code] = refusals.get(code, 0) + 1
print(json.dumps(refusals))
"#;
const EDITS: usize = 20;
/// Three editors retry at once, and each is refused while another one writes. On a busy machine that takes long.
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn no_edit_of_two_remote_workers_and_a_local_one_is_lost() {
    let project = project!(LIMIT);
    crate::sides::needs!("python3");
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let far = ["far-1", "far-2"].map(|name| server.worker(name).connect(&project.dir().join(name)));
    let mut refused = BTreeSet::new();
    for way in ["by rename", "in place"] {
        let name = format!("shared {way}");
        server.file(&project, &name, "");
        let begin = |worker: &str, mut command: Command| -> Child {
            command.args(["-c", EDITOR, &name, worker, way, &EDITS.to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
        };
        let python = |dir| {
            let mut command = Command::new("python3");
            command.current_dir(dir).env_remove("CREWFS_WORKER");
            command
        };
        let mut near = python(mounted.path());
        near.env("CREWFS_WORKER", "near");
        let editors = [
            ("near", begin("near", near)),
            ("far-1", begin("far-1", python(&far[0].dir))),
            ("far-2", begin("far-2", python(&far[1].dir))),
        ];
        for (worker, child) in editors {
            let output = child.wait_with_output().unwrap();
            let said: Value = serde_json::from_slice(&output.stdout).unwrap();
            println!("{way}, {worker} was refused: {said}");
            let names = said.as_object().unwrap().keys().cloned();
            refused.extend(names.map(|errno| (worker.split('-').next().unwrap(), errno)));
        }
        let text = fs::read_to_string(mounted.path().join(&name)).unwrap();
        let lines: BTreeSet<&str> = text.lines().collect();
        assert_eq!((text.lines().count(), lines.len()), (3 * EDITS, 3 * EDITS), "{way}:\n{text}");
    }
    // EBUSY arrives as EPERM. A write that was sent before the refusal arrived fails when the file is synced.
    let known = [("near", "EBUSY"), ("near", "ENOENT"), ("far", "EPERM"), ("far", "EIO"), ("far", "ENOENT")];
    for (worker, errno) in refused {
        assert!(known.contains(&(worker, errno.as_str())), "{worker} was refused by {errno}");
    }
}
