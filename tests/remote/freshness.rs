//! How stale a remote worker's view may be: of the desk, and of the files of the tree.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::project;
use crate::process::within;
use crate::server::server;

/// The limit that the documents promise.
const STALEST: Duration = Duration::from_secs(2);
const ROUNDS: usize = 20;

/// A worker that reads all the time has everything in its caches that can be stale.
#[test]
fn the_desk_is_never_staler_than_two_seconds() {
    let project = project!();
    project.task("a", "# Alpha\n");
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let connection = server.worker("w1").connect(&project.dir().join("remote"));
    type Sees = fn(&str) -> bool;
    // Files of the desk that show whether the task is ready.
    let looks: [(&str, Sees); 4] = [
        ("tasks/status/a", |text| text.contains(r#""status": "ready""#)),
        ("tasks/workers/self/should-stop", |text| text.contains("a is ready")),
        ("task-queue.json", |text| text.contains(r#""status":"ready""#)),
        ("tasks/ready", |text| !text.is_empty()),
    ];
    let seen: Vec<Mutex<Option<bool>>> = looks.iter().map(|_| Mutex::new(None)).collect();
    let end = AtomicBool::new(false);
    let mut stalest = [Duration::ZERO; 4];
    std::thread::scope(|scope| {
        for ((path, is_ready), seen) in looks.iter().zip(&seen) {
            let (path, end) = (connection.dir.join(path), &end);
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    let text = if path.ends_with("ready") {
                        fs::read_dir(&path)
                            .unwrap()
                            .map(|entry| entry.unwrap().path().display().to_string())
                            .collect()
                    } else {
                        fs::read_to_string(&path).unwrap()
                    };
                    *seen.lock().unwrap() = Some(is_ready(&text));
                }
            });
        }
        let round = |round: usize, stalest: &mut [Duration; 4]| {
            let (change, ready) = match round % 2 {
                0 => ("touch tasks/claim/a", false),
                _ => ("rm tasks/claim/a", true),
            };
            mounted.sh("w2", change).ok();
            let start = Instant::now();
            for (seen, stalest) in seen.iter().zip(stalest) {
                let came = within(STALEST, || *seen.lock().unwrap() == Some(ready));
                *stalest = (*stalest).max(if came { start.elapsed() } else { Duration::MAX });
            }
        };
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..ROUNDS).for_each(|n| round(n, &mut stalest));
        }));
        end.store(true, Ordering::Relaxed);
        ran.unwrap();
    });
    for ((path, _), stalest) in looks.iter().zip(stalest) {
        println!("{path} was {} ms old at most", stalest.as_millis());
        assert!(stalest < STALEST, "{path} was stale for {stalest:?}");
    }
}

/// A worker that has just looked at a file must not read less of it than the file has: it would write back less.
#[test]
fn a_file_that_has_grown_is_read_whole() {
    let project = project!();
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let connection = server.worker("w1").connect(&project.dir().join("remote"));
    let far = connection.dir.join("file");
    let mut text = String::from("one line\n");
    fs::write(mounted.path().join("file"), &text).unwrap();
    for n in 0..ROUNDS {
        let _ = (fs::metadata(&far).unwrap(), fs::read_to_string(&far).unwrap());
        text += &format!("and line {n}\n");
        mounted.sh("w2", &format!("read -r line < file; printf '%s' '{text}' > file")).ok();
        assert_eq!(fs::read_to_string(&far).unwrap(), text);
    }
}

#[test]
fn the_log_can_be_followed_from_afar() {
    let project = project!();
    project.task("first", "# T\n");
    let mounted = project.mount(&[]);
    let server = server!(project, mounted);
    let connection = server.worker("w1").connect(&project.dir().join("remote"));
    let said = project.dir().join("tail");
    let mut command = connection.shell();
    command.arg("exec tail -n 0 -f tasks/events.jsonl").stdout(fs::File::create(&said).unwrap());
    let mut tail = command.spawn().unwrap();
    // `tail` starts at the end that the file has when `tail` opens it.
    let end = format!("pos:\t{}\n", fs::metadata(mounted.desk("events.jsonl")).unwrap().len());
    let follows = || {
        let all = fs::read_dir(format!("/proc/{}/fdinfo", tail.id())).into_iter().flatten().flatten();
        all.filter_map(|fd| fs::read_to_string(fd.path()).ok()).any(|info| info.starts_with(&end))
    };
    assert!(within(STALEST, follows));
    let mut came = Vec::new();
    for n in 0..3 {
        let start = Instant::now();
        mounted.sh("w2", &format!("echo '# T' > tasks/t{n}.md")).ok();
        let line = format!("\"task\":\"t{n}\"");
        assert!(
            within(Duration::from_secs(5), || fs::read_to_string(&said).unwrap().contains(&line)),
            "{line}"
        );
        came.push(start.elapsed().as_millis());
    }
    println!("tail -f showed events after {came:?} ms");
    tail.kill().unwrap();
    tail.wait().unwrap();
}
