//! The holder of a file is visible, and the attribute that names it disturbs no program (C55).

use super::two;
use crate::harness::project;
use crate::process::until;

#[test]
fn c55_an_attribute_names_the_holder() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = two(&mounted);
    one.ok("new('f', 'x'); new('g', 'x')");
    let attribute = "os.getxattr('f', 'user.crewfs.lock').decode()";
    until("nobody holds it", || two.tell(attribute) == Err("ENODATA".into()));
    one.ok("fd = os.open('f', os.O_WRONLY); os.write(fd, b'y')");
    for who in [&mut one, &mut two] {
        let shown = who.ok(attribute);
        let (holder, since) = shown.as_str().unwrap().split_once(" since ").unwrap();
        assert_eq!(holder, "w1");
        assert!(since.starts_with("20") && since.ends_with('Z'), "{since}");
        assert_eq!(who.tell("os.getxattr('g', 'user.crewfs.lock')"), Err("ENODATA".into()));
        assert_eq!(who.tell("os.getxattr('.', 'user.crewfs.lock')"), Err("ENODATA".into()));
        // getxattr(2) finds the attribute, but listxattr(2) does not list it: copies of the file do not carry it.
        assert_eq!(who.ok("os.listxattr('f')").as_array().unwrap().len(), 0);
        for change in [
            "os.setxattr(p, 'user.crewfs.lock', b'me')",
            "os.removexattr(p, 'user.crewfs.lock')",
            "os.setxattr(p, 'user.crewfs.more', b'')",
        ] {
            for path in ["f", "g", "."] {
                assert_eq!(who.tell(&change.replace("p,", &format!("{path:?},"))), Err("EPERM".into()));
            }
        }
    }
    assert!(two.why().contains("attributes like user.crewfs.lock belong to crewfs and are for reading"));
    one.ok("os.close(fd)");
    assert_eq!(two.tell(attribute), Err("ENODATA".into()));
}

#[test]
fn c55_a_worker_has_a_list_of_what_it_holds() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, mut two) = two(&mounted);
    one.ok("os.mkdir('d'); new('g', 'x'); fds = [os.open(f, os.O_WRONLY | os.O_CREAT) for f in ('d/f', 'a')]; [os.write(fd, b'x') for fd in fds]");
    let locks = "(lambda s, t: [t, s.st_size == len(t), s.st_mtime_ns])(os.stat('tasks/workers/w1/locks'), get('tasks/workers/w1/locks'))";
    until("a file that was closed is not in it", || two.ok(locks)[0] == "a\nd/f\n");
    let held = two.ok(locks);
    assert_eq!(held[1], true, "its size is true: {held}");
    assert_eq!(one.ok("get('tasks/workers/self/locks')"), "a\nd/f\n");
    assert_eq!(two.ok("get('tasks/workers/self/locks')"), "");
    one.ok("os.rename('d', 'e'); os.close(fds[1])");
    let fewer = two.ok(locks);
    assert_eq!((&fewer[0], &fewer[1]), (&"e/f\n".into(), &true.into()));
    one.ok("os.close(fds[0])");
    let none = two.ok(locks);
    assert_eq!((&none[0], &none[1]), (&"".into(), &true.into()));
    let times = [&held[2], &fewer[2], &none[2]].map(|time| time.as_i64().unwrap());
    assert!(times.is_sorted() && times[0] < times[2], "its time moves when it does: {times:?}");
}

#[test]
fn c55_tools_are_not_disturbed() {
    let project = project!();
    let mounted = project.mount(&[]);
    let (mut one, _two) = two(&mounted);
    one.ok("os.mkdir('d'); fd = os.open('d/f', os.O_RDWR | os.O_CREAT); os.write(fd, b'held'); os.fsetxattr(fd, 'user.x', b'y') if hasattr(os, 'fsetxattr') else os.setxattr(fd, 'user.x', b'y')");
    let out = project.dir().join("out");
    std::fs::create_dir(&out).unwrap();
    let out = out.display();
    mounted
        .sh(
            "w2",
            &format!("ls -l d && cp -a d {out}/cp && cp -a d copy && getfattr -d d/f && tar c d > /dev/null"),
        )
        .ok();
    if std::process::Command::new("rsync").arg("--version").output().is_ok() {
        mounted.sh("w2", &format!("rsync -aX d/ {out}/rsync && rsync -aX d/ again")).ok();
    }
    assert_eq!(mounted.sh("w2", "cat copy/f").ok(), "held");
    assert_eq!(
        mounted
            .sh("w2", "getfattr --absolute-names -n user.crewfs.lock --only-values d/f")
            .ok()
            .split(' ')
            .next(),
        Some("w1")
    );
}
