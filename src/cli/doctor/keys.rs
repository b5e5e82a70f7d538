//! Checks the keys of remote workers: each must name its worker by a forced command, in a file that no worker can write.
//!
//! May assume: the format of authorized keys in sshd(8).

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::finding::Finding::{self, Good, Problem};
use super::system::program;
use crate::queue::WorkerName;

/// Options that allow again what `restrict` forbids.
const GIVES_BACK: [&str; 7] =
    ["agent-forwarding", "port-forwarding", "x11-forwarding", "pty", "user-rc", "environment=", "tunnel="];

/// The findings about this file.
pub(super) fn findings(file: &Path) -> Vec<Finding> {
    let shown = file.display();
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            return vec![Problem(format!(
                "the keys of workers cannot be read: {shown}: {error}; add a worker with add-worker.sh, which makes the file"
            ))];
        }
    };
    let mut findings: Vec<Finding> = file.ancestors().filter_map(who_may_write).collect();
    findings.extend(judge(file, &text, |name| match name.contains('/') {
        true => Path::new(name).is_file(),
        false => program(name).is_some(),
    }));
    findings
}

/// A problem, if users other than root may write to a path.
fn who_may_write(path: &Path) -> Option<Finding> {
    let there = fs::metadata(path).ok()?;
    judge_writers(path, there.uid(), there.mode())
}

fn judge_writers(path: &Path, owner: u32, mode: u32) -> Option<Finding> {
    let shown = path.display();
    (owner != 0 || mode & 0o022 != 0).then(|| {
        Problem(format!(
            "others than root can write {shown}, which decides who a worker is; close it: chown root: {shown}; chmod go-w {shown}"
        ))
    })
}

fn judge(file: &Path, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let (mut findings, mut workers) = (Vec::new(), BTreeMap::<&str, String>::new());
    let lines =
        text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let mut count = 0;
    for (line, number) in lines {
        count += 1;
        let place = format!("{}, line {number}", file.display());
        let (options, key) = split(line);
        match worker(&options, &exists) {
            Ok(worker) => {
                if let Some(other) = workers.insert(key, worker.clone()).filter(|other| *other != worker) {
                    findings.push(Problem(format!(
                        "{place}: the key of {worker} is that of {other} too, and sshd takes the first; give each worker a key of \
                         its own: remove-worker.sh, add-worker.sh"
                    )));
                }
            }
            Err(wrong) => findings.push(Problem(format!(
                "{place}: {wrong}; write the line anew: remove-worker.sh, add-worker.sh"
            ))),
        }
    }
    if findings.is_empty() {
        findings.push(Good(format!(
            "each key in {} stands for one worker and nothing else: {count}",
            file.display()
        )));
    }
    findings
}

/// The worker of a key, or what is wrong with its options.
fn worker(options: &[String], exists: impl Fn(&str) -> bool) -> Result<String, String> {
    let named = |option: &str, name: &str| option.to_ascii_lowercase().starts_with(name);
    if !options.iter().any(|option| option.eq_ignore_ascii_case("restrict")) {
        return Err("the key is not restricted, so it can forward ports and more".into());
    }
    if let Some(loose) = options.iter().find(|option| GIVES_BACK.iter().any(|name| named(option, name))) {
        return Err(format!("{loose} gives back what restrict takes"));
    }
    let command = options
        .iter()
        .find(|option| named(option, "command="))
        .ok_or("the key has no forced command, so it may run any")?;
    let command = command["command=".len()..].trim_matches('"').replace("\\\"", "\"");
    let words: Vec<&str> = command.split_whitespace().collect();
    let [program, "sftp-server", rest @ ..] = &words[..] else {
        return Err(format!("its command is not crewfs sftp-server --worker NAME, but {command}"));
    };
    if PathBuf::from(program).file_name().is_none_or(|name| name != "crewfs") || !exists(program) {
        return Err(format!("its command runs {program}, which is not there"));
    }
    let name = rest.iter().position(|word| *word == "--worker").and_then(|at| rest.get(at + 1));
    let name = name.ok_or("its command names no worker")?;
    match WorkerName::parse(name) {
        Some(worker) => Ok(worker.to_string()),
        None => Err(format!("its command names a worker that cannot be one: {name}")),
    }
}

/// The options and the key of a line. Within quotes, blanks and commas are part of an option.
fn split(line: &str) -> (Vec<String>, &str) {
    let line = line.trim();
    let (mut options, mut option, mut quoted, mut before) = (Vec::new(), String::new(), false, ' ');
    for (at, c) in line.char_indices() {
        match c {
            '"' if before != '\\' => quoted = !quoted,
            ',' if !quoted => {
                options.push(std::mem::take(&mut option));
                before = c;
                continue;
            }
            ' ' | '\t' if !quoted => {
                // A line without options begins with the type of its key.
                if ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| option.starts_with(kind)) {
                    return (Vec::new(), line);
                }
                options.push(option);
                return (options, line[at..].trim());
            }
            _ => {}
        }
        option.push(c);
        before = c;
    }
    (Vec::new(), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Vec<Finding> {
        judge(Path::new("/etc/crewfs/p.keys"), text, |program| program == "/usr/bin/crewfs")
    }

    const W1: &str = r#"restrict,command="/usr/bin/crewfs sftp-server --worker w1 --root /srv/p" ssh-ed25519 AAAA1 w1@there"#;

    #[test]
    fn a_key_stands_for_one_worker() {
        let w2 = W1.replace("w1", "w2").replace("AAAA1", "AAAA2");
        assert!(
            matches!(&judged(&format!("# workers\n\n{W1}\n{w2}\n"))[..], [Good(said)] if said.ends_with(": 2"))
        );
        let same = format!("{W1}\n{}", W1.replace("worker w1", "worker w3"));
        assert!(
            matches!(&judged(&same)[..], [Problem(said)] if said.contains("line 2: the key of w3 is that of w1 too"))
        );
    }

    #[test]
    fn each_loose_line_is_named_with_what_is_wrong() {
        for (from, to, wrong) in [
            ("restrict,", "", "not restricted"),
            ("restrict,", "restrict,pty,", "pty gives back"),
            ("restrict,", r#"restrict,environment="CREWFS_WORKER=w9","#, "gives back"),
            ("/usr/bin/crewfs sftp-server --worker w1 --root /srv/p", "/bin/sh", "but /bin/sh"),
            ("/usr/bin/crewfs", "/opt/crewfs", "runs /opt/crewfs, which is not there"),
            ("--worker w1", "", "names no worker"),
            ("--worker w1", "--worker ../w1", "cannot be one"),
            (r#"command="/usr/bin/crewfs sftp-server --worker w1 --root /srv/p" "#, " ", "no forced command"),
        ] {
            let line = W1.replace(from, to);
            let found = judged(&line);
            assert!(
                matches!(&found[..], [Problem(said)] if said.contains("line 1") && said.contains(wrong)),
                "{found:?}"
            );
        }
        assert!(
            matches!(&judged("ssh-ed25519 AAAA1 comment")[..], [Problem(said)] if said.contains("not restricted"))
        );
    }

    #[test]
    fn only_root_may_write_what_decides_who_a_worker_is() {
        let path = Path::new("/etc/crewfs");
        assert_eq!(judge_writers(path, 0, 0o40755), None);
        assert!(judge_writers(path, 1000, 0o40755).is_some() && judge_writers(path, 0, 0o40775).is_some());
    }
}
