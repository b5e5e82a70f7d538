//! Workers that append to one file do not exclude each other, however the file was made, and whichever of them came first (C52).

use super::{Agent, two};
use crate::harness::{Mounted, project};

/// Open a log with these flags and append to it, round by round. Returns the refusals.
const APPEND: &str = "
def append(who, flags, rounds, before=lambda log: None):
    refused = []
    for round in rounds:
        try:
            before(f'log{round}')
            fd = os.open(f'log{round}', flags, 0o644)
            try:
                for n in range(3): os.write(fd, f'{who} {n}\\n'.encode())
            finally:
                os.close(fd)
        except OSError as error:
            refused.append([round, names(error), get('tasks/workers/self/why')])
    return refused
def touch(log): os.system(f'touch {log}')
def make(log): os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644))
def node(log):
    try: os.mknod(log, 0o100644)
    except FileExistsError: pass
";

/// So many workers, ready to append at the same time.
fn crew(mounted: &Mounted, count: usize) -> Vec<Agent> {
    let mut crew: Vec<Agent> = (1..=count).map(|n| Agent::new(mounted, &format!("w{n}"))).collect();
    crew.iter_mut().for_each(|agent| drop(agent.ok(APPEND)));
    crew
}

/// All of them append to new logs, starting each round together. None is refused, and every line is in the log.
#[track_caller]
fn all_append(crew: &mut [Agent], rounds: std::ops::Range<u32>, flags: &str, before: &str) {
    for round in rounds {
        for (n, agent) in crew.iter_mut().enumerate() {
            agent.begin(&format!("append('w{n}', {flags}, [{round}], {before})"));
        }
        for agent in crew.iter_mut() {
            let refused = agent.end().unwrap();
            assert!(refused.as_array().unwrap().is_empty(), "{flags} after {before}: {refused:#}");
        }
        let log = crew[0].ok(&format!("get('log{round}')"));
        let mut lines: Vec<&str> = log.as_str().unwrap().lines().collect();
        lines.sort_unstable();
        let expected = (0..crew.len()).flat_map(|who| (0..3).map(move |n| format!("w{who} {n}")));
        assert_eq!(lines, expected.collect::<Vec<String>>(), "{flags} after {before}");
    }
}

const NEW: &str = "os.O_WRONLY | os.O_CREAT | os.O_APPEND";

#[test]
fn c52_several_append_to_a_log_that_none_of_them_has_made() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut crew = crew(&mounted, 3);
    all_append(&mut crew, 0..300, NEW, "lambda log: None");
    all_append(&mut crew, 300..400, "os.O_RDWR | os.O_CREAT | os.O_APPEND", "lambda log: None");
    // All rounds at once, with no step of the test between them.
    for agent in &mut crew {
        agent.begin(&format!("append(os.environ['CREWFS_WORKER'], {NEW}, range(1000, 1300))"));
    }
    for agent in &mut crew {
        let refused = agent.end().unwrap();
        assert!(refused.as_array().unwrap().is_empty(), "{refused:#}");
    }
    let lines = crew[0].ok("[len(get(f'log{n}').splitlines()) for n in range(1000, 1300)]");
    assert!(lines.as_array().unwrap().iter().all(|lines| *lines == 9), "{lines}");
}

#[test]
fn c52_several_append_to_a_log_that_one_of_them_has_made_and_closed() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut crew = crew(&mounted, 3);
    let ways = [
        "touch('log')",
        "make('log')",
        "node('log')",
        "new('log', '')",
        "os.close(os.open('log', os.O_RDONLY | os.O_CREAT, 0o644))",
    ];
    for (way, first) in ways.into_iter().zip((0..).step_by(20)) {
        for log in first..first + 20 {
            crew[0].ok(&way.replace("log", &format!("log{log}")));
            all_append(&mut crew, log..log + 1, NEW, "lambda log: None");
        }
    }
    // Each worker makes sure that the log exists before it opens it.
    all_append(&mut crew, 200..260, NEW, "touch");
    all_append(&mut crew, 300..360, NEW, "node");
}

#[test]
fn c52_to_empty_it_first_is_not_in_the_way_of_appending() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = two(&mounted);
    for _ in 0..50 {
        one.ok("new('log', 'old')");
        two.ok("get('log'); fd = os.open('log', os.O_WRONLY | os.O_APPEND)");
        one.ok("fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_TRUNC)");
        two.begin("os.write(fd, b'two')");
        one.ok("os.write(fd, b'one')");
        two.end().unwrap();
        one.ok("os.close(fd)");
        let log = one.ok("get('log')");
        assert!(log == "onetwo" || log == "twoone", "{log}");
        two.ok("os.close(fd); get('log')");
    }
    // Both empty the log at the same time: the second finds no content to destroy.
    one.ok("new('log', 'old')");
    two.ok("get('log')");
    let open = "fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_TRUNC)";
    one.ok(open);
    two.ok(open);
    one.ok("os.write(fd, b'one')");
    two.ok("os.write(fd, b'two')");
    assert_eq!(one.ok("get('log')"), "onetwo");
    // A worker may not empty the log before it has read what another worker appended.
    two.ok("os.close(fd)");
    two.busy("fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_TRUNC)");
}

#[test]
fn c52_who_appends_keeps_others_from_all_else() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("fd = os.open('log', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)");
    // The worker has made the file. Until it closes the file, other workers may only append to it.
    two.ok("put('log', '2', os.O_APPEND)");
    two.busy("put('log', 'X')");
    two.busy("os.chmod('log', 0o600)");
    two.busy("os.unlink('log')");
    one.ok("os.write(fd, b'1'); os.close(fd)");
    assert_eq!(two.ok("get('log')"), "21");
    // A worker that may write anywhere in the file excludes appending, even when it has only created the file.
    one.ok("fd = os.open('out', os.O_WRONLY | os.O_CREAT, 0o644)");
    two.busy("put('out', '2', os.O_APPEND)");
    // A change of attributes changes no content.
    one.ok("os.close(fd); get('log'); fd = os.open('log', os.O_WRONLY); os.fchmod(fd, 0o640)");
    two.ok("put('log', '2', os.O_APPEND)");
    one.busy("os.write(fd, b'X')");
    assert_eq!(two.ok("get('log')"), "212");
}
