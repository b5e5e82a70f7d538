//! Files that are wrong: crewfs refuses or rejects each with a sentence, loses nothing, and never hangs (C11).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use crate::harness::{Mounted, project};
use crate::process::until;

#[track_caller]
fn rejected(mounted: &Mounted, id: &str, said: &str) {
    mounted.until_state(id, "rejected");
    let why = mounted.read(&format!("rejected/{id}"));
    assert!(why.contains(said) && why.lines().count() == 1, "{id}: {why}");
    assert_eq!(mounted.json(&format!("status/{id}"))["why"], why.trim_end());
}

#[test]
fn c11_wrong_front_matter_is_rejected_with_its_line() {
    let project = project!();
    let mounted = project.mount(&["file_grace=100ms"]);
    for (id, text, said) in [
        ("open", "---\ntitle: never closed\n", "line 1: front matter begins here and does not end"),
        ("yaml", "---\ntitle: x\n  bad: [unclosed\n---\n", "line 3: this is not front matter"),
        ("list", "---\n- a\n- b\n---\n", "line 2: this is not front matter"),
        ("priority", "---\npriority: 7\n---\n", "line 2: priority is 7, but must be one of critical"),
        ("needs", "---\ntitle: x\nneeds: a\n---\n", "line 3: needs is \"a\", but must be a list of task ids"),
        ("ids", "---\nneeds: [../../etc]\n---\n", "\"../../etc\" is none"),
        ("lease", "---\nlease: 10\n---\n", "line 2: lease is 10, but must be a span of time"),
        ("date", "---\ndeadline: soon\n---\n", "line 2: deadline is \"soon\""),
        (
            "attempts",
            "---\nattempts: -1\n---\n",
            "line 2: attempts is -1, but must be a number from 1 to 100",
        ),
        ("glob", "---\nowns:\n  - src\\x\n---\n# T\n", "line 3: owns: \"src\\\\x\" holds a backslash"),
        (
            "near",
            "---\nDepends-On: [a]\n---\n",
            "line 2: Depends-On is not a key that crewfs knows; did you mean",
        ),
        ("lost", "# T\n\n---\nneeds: [a]\n---\n", "line 4: \"needs\" stands outside of front matter"),
        (
            "far",
            "---\nnot_before: 9999999d\n---\n",
            "line 2: not_before is \"9999999d\", but must be at most",
        ),
        ("nul", "# T\n\0\n", "line 2: the file holds a NUL byte"),
        ("twice", "---\ntitle: a\ntitle: b\n---\n", "title"),
        (
            "bomb",
            "---\na: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b]\nneeds: *b\n---\n",
            "line",
        ),
    ] {
        // Beneath the mount and through it.
        project.task(id, text);
        rejected(&mounted, id, said);
        let file = format!("{id}.md");
        fs::remove_file(project.tasks().join(&file)).unwrap();
        mounted.until_state(id, "");
        fs::write(mounted.desk(&file), text).unwrap();
        rejected(&mounted, id, said);
        assert_eq!(mounted.read(&file), text, "nothing is lost");
        mounted.sh("w1", &format!("touch tasks/claim/{id}")).refused("No such file");
        fs::write(mounted.desk(&file), "# Mended\n").unwrap();
        // A child that another test is just starting may still hold a copy of the descriptor, so the task may become ready later.
        mounted.until_state(id, "ready");
    }
}

#[test]
fn c11_content_that_is_no_text_is_rejected() {
    let project = project!();
    let mounted = project.mount(&[]);
    let mut garbage = b"# T\n".to_vec();
    garbage.extend((0..60_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80));
    fs::write(mounted.desk("garbage.md"), &garbage).unwrap();
    rejected(&mounted, "garbage", "line 2: the file is not UTF-8 text");
    assert_eq!(fs::read(mounted.desk("garbage.md")).unwrap(), garbage);

    let large = fs::File::create(project.tasks().join("large.md")).unwrap();
    large.set_len(100 << 20).unwrap();
    drop(large);
    rejected(&mounted, "large", "large.md has 104857600 bytes; instructions may have 1048576");
    assert_eq!(fs::metadata(mounted.desk("large.md")).unwrap().len(), 100 << 20);
    mounted.sh("w1", "truncate -s 0 tasks/large.md").ok();
    rejected(&mounted, "large", "the file is empty; write what is to be done");
    mounted.sh("w1", "truncate -s 100M tasks/large.md").ok();
    rejected(&mounted, "large", "large.md has 104857600 bytes");
    mounted.sh("w1", "head -c 1048576 /dev/zero | tr '\\0' x > tasks/large.md").ok();
    assert_eq!(mounted.state("large"), "ready");
    mounted.sh("w1", "echo >> tasks/large.md").ok();
    rejected(&mounted, "large", "large.md has 1048577 bytes");
}

#[test]
fn c11_what_is_no_regular_file_is_rejected() {
    let project = project!();
    let tasks = project.tasks();
    fs::write(project.source().join("elsewhere"), "# Elsewhere\n").unwrap();
    let prepare = format!("cd '{}' && mkfifo fifo.md && mkdir dir.md", tasks.display());
    assert!(std::process::Command::new("sh").args(["-c", &prepare]).status().unwrap().success());
    symlink("../elsewhere", tasks.join("link.md")).unwrap();
    symlink("nowhere", tasks.join("broken.md")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(project.source().join("tasks/socket.md")).unwrap();
    let mounted = project.mount(&["file_grace=100ms"]);
    rejected(&mounted, "fifo", "fifo.md is not a regular file");
    rejected(&mounted, "dir", "dir.md is not a regular file");
    rejected(&mounted, "link", "link.md is a symbolic link; write the instructions into a file of that name");
    rejected(&mounted, "broken", "broken.md is a symbolic link");
    rejected(&mounted, "socket", "socket.md cannot be read");
    drop(socket);
    // Through the mount.
    let make = "cd tasks; ln -s ../elsewhere l.md; mkdir d.md; mkfifo f.md; touch d.md/inside; cat link.md";
    assert_eq!(mounted.sh("w1", make).ok(), "# Elsewhere\n");
    rejected(&mounted, "l", "l.md is a symbolic link");
    rejected(&mounted, "d", "d.md is not a regular file");
    rejected(&mounted, "f", "f.md is not a regular file");
    mounted.sh("w1", "cd tasks; rm l.md f.md; rm -r d.md; echo '# T' > l.md").ok();
    assert_eq!(mounted.state("l"), "ready");
    ["d", "f"].iter().for_each(|id| mounted.until_state(id, ""));
}

#[test]
fn c11_cycles_are_refused_by_name_and_mended() {
    let project = project!();
    project.task("alone", "---\nneeds: [alone]\n---\n");
    project.task("a", "---\nneeds: [b]\n---\n");
    project.task("b", "---\nneeds: [c]\n---\n");
    let mounted = project.mount(&[]);
    rejected(&mounted, "alone", "alone");
    assert_eq!((mounted.state("a"), mounted.state("b")), ("blocked".into(), "blocked".into()));
    mounted.sh("w1", "printf -- '---\\nneeds: [a]\\n---\\n' > tasks/c.md").ok();
    let why = mounted.read("rejected/c");
    assert!(["a", "b", "c"].iter().all(|id| why.contains(id)), "{why}");
    assert_eq!(mounted.state("a"), "blocked");
    // The cycle is broken in another file: the rejected task comes back by itself.
    mounted.sh("w1", "echo '# B' > tasks/b.md").ok();
    assert_eq!(
        (mounted.state("b"), mounted.state("a"), mounted.state("c")),
        ("ready".into(), "blocked".into(), "blocked".into())
    );
    mounted.sh("w1", "echo '# Alone' > tasks/alone.md").ok();
    assert_eq!(mounted.state("alone"), "ready");
    for id in ["b", "a", "c"] {
        mounted.sh("w1", &format!("touch tasks/claim/{id} && touch tasks/completed/{id}")).ok();
    }
    // A cycle of completed tasks blocks no task.
    mounted.sh("w1", "printf -- '---\\nneeds: [c]\\n---\\n' > tasks/d.md").ok();
    assert_eq!(mounted.state("d"), "ready");
}

#[test]
fn c4_odd_names_are_files_and_no_tasks() {
    let project = project!();
    let odd: [&[u8]; 9] = [
        b"\xff\xfe.md",
        b"a b.md",
        b"-rf.md",
        b"new\nline.md",
        "wörter.md".as_bytes(),
        b"next.md",
        b".md",
        b"$(id).md",
        b"_x.md",
    ];
    let long = format!("{}.md", "x".repeat(200));
    let odd: Vec<&[u8]> = odd.into_iter().chain([long.as_bytes()]).collect();
    for name in &odd {
        fs::write(project.tasks().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let longest = "y".repeat(128);
    project.task(&longest, "# T\n");
    let mounted = project.mount(&[]);
    assert_eq!(mounted.list("status"), [longest.as_str()]);
    for name in &odd {
        let path = mounted.desk(OsStr::from_bytes(name));
        assert_eq!(fs::read(&path).unwrap(), *name);
        fs::remove_file(&path).unwrap();
        fs::write(&path, name).unwrap();
    }
    assert_eq!(mounted.list("status"), [longest.as_str()]);
    let listed = fs::read_dir(mounted.tasks()).unwrap().map(|entry| entry.unwrap().file_name());
    let listed: Vec<_> = listed.collect();
    assert!(odd.iter().all(|name| listed.contains(&OsStr::from_bytes(name).to_os_string())));
    for name in ["z".repeat(300), "z".repeat(129)] {
        for place in ["claim", "completed", "status", "workers"] {
            let error =
                fs::File::create(mounted.desk(place).join(&name)).unwrap_err().raw_os_error().unwrap();
            assert!([libc::ENOENT, libc::EACCES, libc::EPERM].contains(&error), "{place}: {error}");
        }
        let error = fs::File::create(mounted.desk(format!("{name}.md")));
        assert_eq!(
            error.err().and_then(|e| e.raw_os_error()),
            (name.len() > 255).then_some(libc::ENAMETOOLONG)
        );
    }
    for name in [&b"\xff"[..], b"a\nb", b"-x", b"..."] {
        let place = mounted.desk("claim").join(OsStr::from_bytes(name));
        assert_eq!(fs::File::create(place).unwrap_err().raw_os_error(), Some(libc::ENOENT), "{name:?}");
    }
    mounted.sh("w1", &format!("touch tasks/claim/{longest} tasks/completed/{longest}")).ok();
    until("the longest is done", || mounted.state(&longest) == "completed");
}

#[test]
fn c14_even_who_removes_everything_takes_nobodys_work_away() {
    let project = project!();
    ["free", "held", "mine"].iter().for_each(|id| project.task(id, "# T\n"));
    let mounted = project.mount(&["file_grace=100ms"]);
    mounted.sh("w2", "touch tasks/claim/held && echo note > tasks/claim/held").ok();
    mounted.sh("w1", "touch tasks/claim/mine").ok();
    for script in [
        "chmod 700 tasks/ready",
        "touch -d yesterday tasks/claim",
        "chown 1:1 tasks/queue.json",
        "mv tasks/ready tasks/other",
        "rmdir tasks/claim",
        "rm -f tasks/queue.json",
        "ln -s x tasks/next",
        "mkfifo tasks/claim/free",
        "mv tasks/workers/w1 tasks/workers/w9",
        "setfattr -n user.x -v 1 tasks/queue.json || python3 -c \"import os; os.setxattr('tasks/queue.json', 'user.x', b'')\"",
        "truncate -s 0 tasks/events.jsonl",
        "rm -rf tasks",
    ] {
        mounted.sh("w1", script).refused("");
    }
    let status = mounted.json("status/held");
    assert_eq!((&status["status"], &status["note"]), (&"claimed".into(), &"note".into()));
    assert_eq!(mounted.read("held.md"), "# T\n");
    // `rm -rf` removed the claim of the worker's own task, and so gave that task back, before it removed the file.
    ["free", "mine"].iter().for_each(|id| mounted.until_state(id, ""));
    assert_eq!(mounted.list("claim"), ["held"]);
    mounted.sh("w2", "echo done > tasks/completed/held").ok();
    mounted.sh("w1", "echo '# T' > tasks/free.md && touch tasks/claim/free").ok();
}
