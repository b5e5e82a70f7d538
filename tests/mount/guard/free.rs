//! The exemptions of the guard: appending beside appending, files that git ignores, and git's own files (C52).

use super::{Agent, two};
use crate::harness::{Mounted, project};

#[test]
fn c52_many_append_and_nothing_is_lost() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    std::fs::write(project.behind().join("log"), "").unwrap();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let mounted = &mounted;
            let script = format!(
                "for i in $(seq 100); do echo w{n}.$i >> log || exit; done; exec >> log; seq -f w{n}.more.%g 100"
            );
            scope.spawn(move || mounted.sh(&format!("w{n}"), &script).ok());
        }
    });
    let log = mounted.sh("w0", "cat log").ok();
    for n in 0..8 {
        let of = |mark: &str| log.lines().filter(|line| line.starts_with(&format!("w{n}.{mark}"))).count();
        assert_eq!((of(""), of("more")), (200, 100), "w{n}");
        let own: Vec<&str> = log.lines().filter(|line| line.starts_with(&format!("w{n}."))).collect();
        let expected =
            (1..=100).map(|i| format!("w{n}.{i}")).chain((1..=100).map(|i| format!("w{n}.more.{i}")));
        assert!(own.iter().copied().eq(expected), "in the order of each");
    }
    assert_eq!(log.lines().count(), 1600);
}

#[test]
fn c52_who_now_only_appends_lets_others_append() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    // The worker created the file and wrote to it before. Only the present open mode counts.
    one.ok("new('log', 'first'); fd = os.open('log', os.O_WRONLY | os.O_APPEND); os.write(fd, b'1')");
    two.ok("put('log', '2', os.O_APPEND)");
    one.ok("os.write(fd, b'1')");
    two.ok("get('log')");
    two.busy("put('log', 'X')");
    one.ok("other = os.open('log', os.O_WRONLY)");
    one.ok("get('log'); os.pwrite(other, b'F', 0)");
    two.busy("put('log', '2', os.O_APPEND)");
    one.ok("os.close(other)");
    two.ok("put('log', '2', os.O_APPEND)");
    assert_eq!(one.ok("get('log')"), "First1212");
}

#[test]
fn c52_a_descriptor_that_appends_overwrites_nothing_whatever_offset_is_asked_for() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("new('log', 'first')");
    two.ok("fd = os.open('log', os.O_WRONLY | os.O_APPEND)");
    two.ok("os.pwrite(fd, b'2', 0)");
    // RWF_NOAPPEND, if the kernel supports it.
    match two.tell("os.pwritev(fd, [b'end'], 0, 0x20)") {
        // EOPNOTSUPP and ENOTSUP are two names of one number.
        Err(errno) if matches!(errno.as_str(), "EOPNOTSUPP" | "ENOTSUP") => {
            eprintln!("skipped: the kernel has no RWF_NOAPPEND")
        }
        came_to => {
            came_to.unwrap();
            assert_eq!(one.ok("get('log')"), "first2end");
        }
    }
}

/// Whether the second worker may overwrite a file that the first holds and that the second has never read.
fn is_free(one: &mut Agent, two: &mut Agent, path: &str) -> bool {
    one.ok(&format!("os.path.exists({path:?}) and get({path:?}); new({path:?}, 'mine'); fd = os.open({path:?}, os.O_WRONLY); os.write(fd, b'x')"));
    let free = two.tell(&format!("put({path:?}, 'yours')")).is_ok();
    let as_free = two.tell(&format!("os.utime({path:?})")).is_ok();
    assert_eq!(free, as_free, "{path}");
    one.ok("os.close(fd)");
    free
}

fn prepared(mounted: &Mounted) -> (Agent, Agent) {
    let (mut one, two) = two(mounted);
    one.ok("[os.makedirs(d) for d in ('.git/info', 'build/deep', 'src/gen', 'sub/.git')]");
    (one, two)
}

#[test]
fn c52_with_rules_of_an_operator_no_worker_switches_the_guard_off() {
    let project = project!();
    let rules = project.dir().join("rules");
    std::fs::write(&rules, "build/\n").unwrap();
    std::fs::set_permissions(&rules, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mounted = project.mount(&["lock_wait=0", &format!("unguarded={}", rules.display())]);
    let (mut one, mut two) = prepared(&mounted);
    for switches_off in ["0", "new('.gitignore', '*\\n')", "new('sub/.gitignore', '*\\n')"] {
        one.ok(switches_off);
        for (path, expected) in [("build/o", true), ("a.log", false), ("src/a.rs", false), ("sub/x", false)] {
            assert_eq!(is_free(&mut one, &mut two, path), expected, "{path} after {switches_off}");
        }
    }
}

#[test]
fn c52_what_git_ignores_is_free_as_the_rules_are_now() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = prepared(&mounted);
    let mut free = |expected: &[(&str, bool)], after: &str| {
        one.ok(after);
        for (path, expected) in expected {
            assert_eq!(is_free(&mut one, &mut two, path), *expected, "{path} after {after}");
        }
    };
    free(
        &[
            (".git/index", true),
            ("sub/.git/HEAD", true),
            ("build/o", false),
            ("a.log", false),
            (".gitignore2", false),
        ],
        "0",
    );
    free(
        &[
            ("build/o", true),
            ("build/deep/o", true),
            ("a.log", true),
            ("src/a.log", true),
            ("keep.log", false),
            ("src/a.rs", false),
        ],
        "new('.gitignore', 'build/\\n*.log\\n!keep.log\\n')",
    );
    free(
        &[("src/gen/x", true), ("src/gen.rs", false), ("gen/x", false)],
        "os.mkdir('gen'); new('src/.gitignore', '/gen/\\n')",
    );
    free(
        &[("src/gen/x", false), ("src/a.log", false), ("a.log", true)],
        "replace('src/.gitignore', '!*.log\\n')",
    );
    free(&[("src/a.log", true)], "os.rename('src/.gitignore', 'src/not')");
    free(&[("src/a.log", false)], "os.rename('src/not', 'src/.gitignore')");
    free(&[("src/a.log", true)], "os.unlink('src/.gitignore')");
    free(&[("build/o", false), ("a.log", false)], "put('.gitignore', '# none\\n\\n')");
    free(&[("build/o", true)], "put('.gitignore', 'build\\n', os.O_APPEND)");
    free(&[("built/o", false)], "os.rename('build', 'built')");
    free(&[("build/o", true)], "os.rename('built', 'build')");
    free(&[("notes", true)], "new('.git/info/exclude', 'notes\\n')");
    // A nested repository has its own rules.
    free(&[("sub/a.log", false), ("sub/notes", false)], "0");
    free(&[("sub/a.log", true), ("sub/x", true)], "new('sub/.gitignore', '*.log\\nx\\n')");
    free(&[("build/o", false), ("a.log", false), ("notes", true)], "os.truncate('.gitignore', 0)");
    free(&[("a.log", false)], "os.unlink('.gitignore')");
}

#[test]
fn c52_the_rules_themselves_are_guarded() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    assert!(!is_free(&mut one, &mut two, ".gitignore"));
}

#[test]
fn c50_a_file_is_guarded_when_the_name_it_was_known_by_is_gone() {
    let project = project!();
    let mounted = project.mount(&["lock_wait=0"]);
    let (mut one, mut two) = two(&mounted);
    one.ok("new('f', 'x')");
    two.ok("get('f'); fd = os.open('f', os.O_RDWR)");
    one.ok("hold = os.open('f', os.O_RDWR); os.write(hold, b'y'); os.link('f', 'g'); os.unlink('g')");
    two.busy("os.write(fd, b'lost')");
    one.ok("os.close(hold)");
    two.busy("os.write(fd, b'lost')");
    assert_eq!(one.ok("get('f')"), "y");
}

#[test]
fn c52_two_workers_use_git() {
    let project = project!();
    let mounted = project.mount(&[]);
    let git = "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; set -e;";
    let prepare = "git init -qb main .; printf '/tasks/\\n/task-queue.json\\n/worker-status.json\\n/workers\\n' > .git/info/exclude
        for i in 1 2 3 4 5; do echo $i > f$i; done; git add .; git commit -qm first";
    mounted.sh("w1", &format!("{git} {prepare}")).ok();
    for n in 0..5 {
        let (who, other) = if n % 2 == 0 { ("w1", "w2") } else { ("w2", "w1") };
        let script = format!(
            "{git} cat f* > /dev/null; echo {n} >> f1; git add f1; git commit -qm 'by {who}'; git checkout -qb b{n}; \
             echo branch > f2; git commit -qam 'on b{n}'; git checkout -q main; echo stashed > f3; git stash -q; \
             git stash pop -q; git checkout -q f3; git status --porcelain"
        );
        assert_eq!(mounted.sh(who, &script).ok(), "");
        // A worker cannot reset content that it has never seen, and it can read the reason.
        mounted.sh(other, &format!("{git} git log --oneline | grep -c by > /dev/null")).ok();
    }
    assert_eq!(
        mounted
            .sh("w1", &format!("{git} git fsck --strict --no-dangling 2>&1; git log --oneline main | wc -l"))
            .ok()
            .trim(),
        "6"
    );
}
