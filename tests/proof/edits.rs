//! No edit is lost unnoticed (C50, C52, C54). Many workers edit the same files in every way in which agent programs do. Afterwards,
//! each version whose write succeeded has exactly one successor, and the worker that wrote the successor had read that version.
//!
//! Each version of a file begins with its own name. A worker that overwrites a version reports which version it had read. Appended
//! lines have names too. `CREWFS_EDIT_SECONDS` sets a longer run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::clients::{Client, Clients};
use crate::harness::project;
use crate::process::until;
use crate::random::{number, seed};

const CLIENTS: usize = 16;
const FILES: usize = 40;
const SECONDS: &str = "CREWFS_EDIT_SECONDS";

fn span() -> Duration {
    Duration::from_secs(number(SECONDS).unwrap_or(10))
}

fn name(file: usize) -> String {
    format!("shared/f{file:02}")
}

/// How a program rewrites a file.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Temporary file and rename; if the rename is refused, in place.
    Claude,
    /// In place with O_TRUNC.
    Codex,
    /// Written in place, then truncated to the new length.
    Opencode,
    /// Temporary file and rename.
    Sed,
    /// Removed, then created again.
    Again,
    /// Written by a process that keeps the file open until it is killed.
    Killed,
}

const WAYS: [Way; 6] = [Way::Claude, Way::Codex, Way::Opencode, Way::Sed, Way::Again, Way::Killed];

/// How far a refused rewrite came.
enum Refused {
    /// Nothing was changed.
    Whole(io::Error),
    /// The old content is gone already.
    Half(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Whole(error)
    }
}

impl Way {
    /// Rewrite the file; the path `temporary` is free for use.
    fn write(self, path: &str, temporary: &str, text: &str) -> Result<(), Refused> {
        match self {
            Way::Sed => Ok(replace(path, temporary, text)?),
            Way::Claude => match replace(path, temporary, text) {
                Err(error) if is_busy(&error) => in_place(path, text).map_err(|second| match second {
                    Refused::Whole(_) => Refused::Whole(error),
                    half => half,
                }),
                outcome => Ok(outcome?),
            },
            Way::Codex => {
                let file = File::create(path)?;
                write_all(&file, text).map_err(Refused::Half)
            }
            Way::Opencode => in_place(path, text),
            Way::Again => {
                fs::remove_file(path)?;
                let made = File::options().write(true).create_new(true).open(path).map_err(Refused::Half)?;
                write_all(&made, text).map_err(Refused::Half)
            }
            Way::Killed => killed(path, text),
        }
    }
}

/// Write the whole text in one call, as programs do. A program that is refused in the middle of a write has lost the rest.
fn write_all(file: &File, text: &str) -> io::Result<()> {
    let written = file.write_at(text.as_bytes(), 0)?;
    assert_eq!(written, text.len());
    Ok(())
}

fn replace(path: &str, temporary: &str, text: &str) -> io::Result<()> {
    let options =
        File::options().write(true).create_new(true).custom_flags(libc_nofollow()).open(temporary)?;
    write_all(&options, text)?;
    options.set_permissions(PermissionsExt::from_mode(0o644))?;
    drop(options);
    fs::rename(temporary, path).inspect_err(|_| fs::remove_file(temporary).unwrap())
}

fn libc_nofollow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits() as i32
}

fn in_place(path: &str, text: &str) -> Result<(), Refused> {
    let file = File::options().read(true).write(true).open(path)?;
    write_all(&file, text)?;
    file.set_len(text.len() as u64).map_err(Refused::Half)
}

/// A process of the same worker writes the file and keeps it open; then it is killed.
fn killed(path: &str, text: &str) -> Result<(), Refused> {
    let script = r#"exec 3> "$0" || exit; echo opened; printf %s "$1" >&3 || exit; echo written; read -r _"#;
    let mut child = Command::new("bash")
        .args(["-c", script, path, text])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    // A refused process exits, which ends the lines.
    while said != "opened\nwritten\n" && lines.read_line(&mut said)? != 0 {}
    child.kill()?;
    child.wait()?;
    let mut refused = String::new();
    child.stderr.take().unwrap().read_to_string(&mut refused)?;
    let busy = || io::Error::from(io::ErrorKind::ResourceBusy);
    match &*said {
        "opened\nwritten\n" => Ok(()),
        "opened\n" => Err(Refused::Half(busy())),
        _ if refused.contains("No such file") => Err(Refused::Whole(io::ErrorKind::NotFound.into())),
        _ if refused.contains("busy") => Err(Refused::Whole(busy())),
        _ => panic!("{refused}"),
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

/// The time, which orders the steps of several clients.
fn now() -> u128 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() % 1_000_000_000
}

/// Not a test: the body of a client.
#[test]
fn client() {
    let Some(mut client) = Client::start() else { return };
    let (start, span) = (Instant::now(), span());
    let mut count = 0;
    while start.elapsed() < span {
        count += 1;
        let path = name(client.random.below(FILES));
        let id = format!("{}.{count}", client.worker);
        if client.random.once_in(4) {
            let mut file = match File::options().append(true).open(&path) {
                Ok(file) => file,
                Err(error) => {
                    client.report(format_args!("no Append whole {:?}", error.kind()));
                    continue;
                }
            };
            match file.write_all(format!("A {id}\n").as_bytes()) {
                Ok(()) => client.report(format_args!("appended {path} {id} {}", now())),
                Err(error) => client.report(format_args!("no Append whole {:?}", error.kind())),
            }
            continue;
        }
        let read = match fs::read_to_string(&path) {
            Ok(read) => read,
            Err(error) => {
                client.report(format_args!("no Read whole {:?}", error.kind()));
                continue;
            }
        };
        // Some clients pause here. What they have read is usually stale afterwards.
        for _ in 0..client.random.below(4) {
            let other = name(client.random.below(FILES));
            if other != path {
                let _ = fs::read_to_string(other);
            }
        }
        let killing = client.random.once_in(20);
        let way = if killing { Way::Killed } else { client.random.one_of(&WAYS[..5]) };
        let temporary = format!("{path}.tmp.{id}");
        // Lengths differ, so that a version can be shorter or longer than the one before.
        let text = format!("V {id} {}\n", "x".repeat(client.random.below(200)));
        let outcome = way.write(&path, &temporary, &text);
        let read: Vec<&str> = read.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        let read = read.join(",");
        match outcome {
            Ok(()) => client.report(format_args!("wrote {path} {id} after={read} {way:?} {}", now())),
            Err(Refused::Half(error)) => client.report(format_args!(
                "half {path} {id} after={read} {way:?} {:?} {}",
                error.kind(),
                now()
            )),
            Err(Refused::Whole(error)) => client.report(format_args!("no {way:?} whole {:?}", error.kind())),
        }
    }
}

#[test]
fn c54_every_edit_is_made_by_somebody_who_has_read_the_one_before() {
    let project = project!();
    let seed = seed();
    fs::create_dir(project.source().join("shared")).unwrap();
    for file in 0..FILES {
        fs::write(project.source().join(name(file)), format!("V start.{file} \n")).unwrap();
    }
    let mounted = project.mount(&["lock_wait=50ms"]);
    let mut clients = Clients::ready(&project, &mounted, "edits::client", CLIENTS, seed, &[]);
    let start = Instant::now();
    clients.go();
    let reports = clients.reports(span() + Duration::from_secs(25));
    let took = start.elapsed();

    let mut counts = BTreeMap::<String, usize>::new();
    let mut files = BTreeMap::<&str, Vec<&str>>::new();
    for line in reports.iter().flat_map(|report| report.lines()) {
        let words: Vec<&str> = line.split(' ').collect();
        let what = match words[0] {
            "appended" => "Append ok".to_string(),
            "wrote" => format!("{} ok", words[4]),
            "half" => format!("{} half {}", words[4], words[5]),
            _ => format!("{} {} {}", words[1], words[2], words[3]),
        };
        let posix = ["ok", "ResourceBusy", "NotFound", "AlreadyExists"].iter().any(|end| what.ends_with(end));
        assert!(posix, "nobody is refused so: {line}");
        *counts.entry(what).or_default() += 1;
        if words[0] != "no" {
            files.entry(words[1]).or_default().push(line);
        }
    }
    let (mut problems, mut lost) = (Vec::new(), 0);
    for file in 0..FILES {
        let name = name(file);
        let before = (problems.len(), lost);
        // All processes that held the file have ended, so the next writer gets it at once.
        let content = fs::read_to_string(mounted.path().join(&name)).unwrap_or_default();
        let lines = files.remove(&*name).unwrap_or_default();
        check(&name, &format!("start.{file}"), &content, &lines, &mut problems, &mut lost);
        if (problems.len(), lost) != before {
            println!("what was done to {name}:");
            lines.iter().for_each(|line| println!("  {line}"));
        }
    }
    let total: usize = counts.values().sum();
    println!("{CLIENTS} workers, {FILES} files: {total} attempts in {took:.1?}");
    counts.iter().for_each(|(what, count)| println!("  {what:32} {count:>8}"));
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems[..problems.len().min(30)].join("\n")
    );
    // Known gap: a worker that reads in the moment in which a write is answered or refused may see other content than the file has, and
    // counts as having read the file. The kernel shows written data before it asks the daemon.
    let edits: usize = counts.iter().filter(|(what, _)| what.ends_with("ok")).map(|(_, count)| count).sum();
    println!("edits that were overwritten unseen: {lost} of {edits}");
    assert!(lost * 2_000 <= edits, "{lost} of {edits} edits are lost");
    for way in WAYS {
        assert!(counts.contains_key(&format!("{way:?} ok")), "nobody wrote like {way:?}");
    }
    let all = (0..FILES).map(name).collect::<Vec<_>>().join(" ");
    let free = format!("for f in {all}; do cat $f; echo last > $f || exit; done > /dev/null");
    until("nothing is held any more", || mounted.sh("last", &free).code == Some(0));
    assert_eq!(mounted.sh("last", "cat tasks/workers/*/locks").ok(), "");
}

/// Assert that the history of one file has no gap and no fork.
fn check(
    name: &str,
    first: &str,
    content: &str,
    lines: &[&str],
    problems: &mut Vec<String>,
    lost: &mut usize,
) {
    let read_of = |line: &str| -> Vec<String> {
        let read = line.split(' ').nth(3).unwrap().strip_prefix("after=").unwrap();
        read.split(',').filter(|id| !id.is_empty()).map(str::to_string).collect()
    };
    let id_of = |line: &str| line.split(' ').nth(2).unwrap().to_string();
    let of_kind = |kind: &'static str| lines.iter().copied().filter(move |line| line.starts_with(kind));
    let mut successors = HashMap::<String, Vec<&str>>::new();
    let mut seen = BTreeSet::<String>::new();
    let mut all = BTreeSet::from([first.to_string()]);
    for line in of_kind("wrote") {
        let read = read_of(line);
        successors.entry(read.first().cloned().unwrap_or_default()).or_default().push(line);
        seen.extend(read);
        all.insert(id_of(line));
    }
    // A worker that was refused half-way has removed what it had read, and knows that. Every worker could then take the name.
    let (mut given_up, mut free) = (BTreeSet::<String>::new(), 0);
    for line in of_kind("half") {
        let read = read_of(line);
        given_up.extend(read.first().cloned());
        seen.extend(read);
        free += 1;
    }
    let last: Vec<String> =
        content.lines().filter_map(|line| line.split(' ').nth(1)).map(str::to_string).collect();
    successors.entry(last.first().cloned().unwrap_or_default()).or_default().push("the end");
    seen.extend(last);
    for version in &all {
        match successors.get(version).map(Vec::as_slice) {
            Some([_]) => {}
            None if given_up.contains(version) => {}
            None => {
                *lost += 1;
                println!("{name}: {version} was overwritten by somebody who did not read it");
            }
            Some(many) if many.len() - 1 <= free => free -= many.len() - 1,
            Some(many) => problems.push(format!("{name}: {version} has several successors: {many:?}")),
        }
    }
    for version in successors.keys().filter(|version| !all.contains(*version)) {
        // Only a worker that was refused half-way leaves a file with content that no worker wrote as a whole.
        if of_kind("half").next().is_none() {
            println!("{name}: nobody wrote {version:?}, which was read: {:?}", successors[version]);
        }
    }
    for line in of_kind("appended") {
        if !seen.contains(&id_of(line)) {
            *lost += 1;
            println!("{name}: lost: {line}");
        }
    }
}
