//! `crewfs init` among members that do not trust each other. Other members cannot change what it installs. It reports files that others
//! can change. A file or link that a member plants or exchanges leads it to no other place.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::harness::{as_root, project};
use crate::init::{ALL, init};
use crate::process::{Ran, crewfs, run, run_within};

const MEMBER: u32 = 12345;
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// All paths below a directory, itself included.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut paths = vec![directory.to_path_buf()];
    let mut next = 0;
    while next < paths.len() {
        if fs::symlink_metadata(&paths[next]).unwrap().is_dir() {
            let entries = fs::read_dir(&paths[next]).unwrap();
            paths.extend(entries.map(|entry| entry.unwrap().path()));
        }
        next += 1;
    }
    paths
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_installed_can_be_changed_by_its_owner_only() {
    for arguments in ["--client claude,codex,gemini,opencode,cursor", "--plugin"] {
        for of_project in [0o755, 0o775, 0o777, 0o2775, 0o2777] {
            let dir = tempfile::tempdir().unwrap();
            set_mode(dir.path(), of_project);
            let mut command = Command::new("sh");
            command.args(["-c", &format!("umask 0; exec \"$0\" init \"$1\" {arguments}")]);
            command.arg(crewfs().get_program()).arg(dir.path());
            run(command).ok();
            let tasks = dir.path().join("tasks");
            for path in below(dir.path()).into_iter().skip(1).filter(|path| *path != tasks) {
                assert_eq!(mode(&path) & 0o022, 0, "{} has mode {:o}", path.display(), mode(&path));
            }
            // All members of the project may create tasks.
            assert!(arguments == "--plugin" || mode(&tasks) == of_project);
        }
    }
}

#[test]
fn what_others_can_change_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().canonicalize().unwrap().join(name);
    let said = init(dir.path(), &["--client", "claude"]).ok();
    assert!(!said.contains("open  "), "{said}");
    let group = "its group can change it, and the agents of all others do what it says; close it: chmod go-w";
    let replace =
        "can replace what is in it, and the agents of all others do what that says; close it: chmod go-w";
    for (name, open, closed, why) in [
        (".crew/hooks/stop.sh", 0o775, 0o755, group),
        (".crew/WORKER.md", 0o664, 0o644, group),
        (".claude/settings.json", 0o664, 0o644, group),
        (".crew/hooks", 0o2775, 0o755, replace),
        (".crew", 0o777, 0o755, replace),
        (".claude", 0o775, 0o755, replace),
        ("", 0o775, 0o755, replace),
    ] {
        let place = if name.is_empty() { dir.path().canonicalize().unwrap() } else { path(name) };
        set_mode(&place, open);
        let said = init(dir.path(), &[]).ok();
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("open ")).collect();
        assert_eq!(lines.len(), 1, "{said}");
        let shown = place.display();
        assert!(lines[0].starts_with(&format!("open     {shown}: ")) && lines[0].contains(why), "{said}");
        assert!(lines[0].contains(&format!("chmod go-w {shown}")), "{said}");
        set_mode(&place, closed);
    }
    // Settings that crewfs did not write name commands too. In a sticky directory, a user can replace only that user's files.
    fs::write(path(".mcp.json"), "{}").unwrap();
    set_mode(&path(".mcp.json"), 0o666);
    set_mode(dir.path(), 0o1777);
    let said = init(dir.path(), &[]).ok();
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("open ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(".mcp.json: every user can change it"), "{said}");
}

#[test]
fn what_belongs_to_another_user_is_said() {
    as_root!();
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), &["--client", "claude"]).ok();
    chown(dir.path().join(".crew/hooks"), Some(MEMBER), None).unwrap();
    let said = init(dir.path(), &[]).ok();
    assert!(said.contains(".crew/hooks: it belongs to uid 12345, who can change it"), "{said}");
    assert!(said.contains("take it over: chown 0 "), "{said}");
}

#[test]
fn doctor_says_what_others_can_change() {
    let project = project!();
    init(project.source(), &["--client", "claude"]).ok();
    let mounted = project.mount(&[]);
    let doctor = |place: &Path| project.crewfs(["doctor".as_ref(), place.as_os_str()]).stdout;
    assert!(!doctor(mounted.path()).contains("the agents of all others"));
    set_mode(&project.source().join(".crew/hooks/stop.sh"), 0o775);
    set_mode(project.source(), 0o2775);
    let said = doctor(mounted.path());
    let place = mounted.path().display();
    assert!(
        said.contains(&format!("problem  {place}/.crew/hooks/stop.sh: its group can change it")),
        "{said}"
    );
    assert!(said.contains(&format!("warning  {place}: its group can replace what is in it")), "{said}");
}

/// A project of a member, and a directory and a file of root.
struct Stage {
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let dir = tempfile::tempdir().unwrap();
        set_mode(dir.path(), 0o755);
        fs::create_dir(dir.path().join("project")).unwrap();
        chown(dir.path().join("project"), Some(MEMBER), Some(MEMBER)).unwrap();
        fs::create_dir(dir.path().join("roots")).unwrap();
        set_mode(&dir.path().join("roots"), 0o700);
        fs::write(dir.path().join("secret"), "secret\n").unwrap();
        set_mode(&dir.path().join("secret"), 0o600);
        Stage { dir }
    }

    fn project(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Assert that root's file and directory are unchanged.
    #[track_caller]
    fn is_untouched(&self, what: &str) {
        let (secret, roots) = (self.outside("secret"), self.outside("roots"));
        let there = fs::metadata(&secret).unwrap();
        assert_eq!((there.mode() & 0o7777, there.uid(), there.nlink()), (0o600, 0, 1), "{what}");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret\n", "{what}");
        let there = fs::metadata(&roots).unwrap();
        assert_eq!((there.mode() & 0o7777, there.uid()), (0o700, 0), "{what}");
        assert_eq!(fs::read_dir(&roots).unwrap().count(), 0, "{what}");
    }
}

/// Every way in which init can change a project.
const WAYS: [&[&str]; 4] = [&["--client", ALL], &["--plugin"], &["--update"], &["--remove"]];

#[test]
fn what_is_planted_leads_root_nowhere() {
    as_root!();
    let plants = [
        (".crew", "roots"),
        (".crew/hooks", "roots"),
        (".claude", "roots"),
        ("tasks", "roots"),
        (".crew/WORKER.md", "secret"),
        (".crew/hooks/stop.sh", "secret"),
        (".crew/installed.json", "secret"),
        (".claude/settings.json", "secret"),
        ("AGENTS.md", "secret"),
        (".gitignore", "new"),
        ("hooks", "roots"),
    ];
    for (name, target) in plants {
        for installed in [false, true] {
            let stage = Stage::new();
            if installed {
                init(&stage.project(), &["--client", ALL]).ok();
                let there = stage.project().join(name);
                let _ = fs::remove_file(&there).or_else(|_| fs::remove_dir_all(&there));
            }
            let link = stage.project().join(name);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(stage.outside(target), &link).unwrap();
            for way in WAYS {
                let _ = init(&stage.project(), way);
                stage.is_untouched(&format!("{name} {way:?}"));
                assert!(!stage.outside("new").exists(), "{name} {way:?}");
            }
        }
    }
}

#[test]
fn a_hard_link_and_a_fifo_are_left_alone() {
    for name in
        ["AGENTS.md", ".gitignore", ".claude/settings.json", ".crew/WORKER.md", ".crew/installed.json"]
    {
        let dir = tempfile::tempdir().unwrap();
        let (project, other) = (dir.path().join("project"), dir.path().join("other"));
        fs::create_dir_all(project.join(name).parent().unwrap()).unwrap();
        fs::write(&other, "{}").unwrap();
        fs::hard_link(&other, project.join(name)).unwrap();
        let ran = init(&project, &["--client", ALL]);
        assert!(ran.stdout.contains("(hard links)") || ran.stderr.contains("(hard links)"), "{ran:?}");
        assert_eq!(fs::read_to_string(&other).unwrap(), "{}", "{name}");

        fs::remove_file(project.join(name)).unwrap();
        mknodat(CWD, project.join(name), FileType::Fifo, Mode::from(0o666), 0).unwrap();
        for way in WAYS {
            let mut command = crewfs();
            command.arg("init").arg(&project).args(way);
            let Ran { .. } = run_within(LIMIT, command);
        }
    }
}

/// Sets a flag when dropped, also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Exchange two names repeatedly while `work` runs.
fn exchanging(a: &Path, b: &Path, work: impl FnOnce()) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE);
            }
        });
        let _ends = Ends(&ended);
        work();
    });
}

#[test]
fn what_is_exchanged_meanwhile_leads_root_nowhere() {
    as_root!();
    for (name, target) in [(".crew", "roots"), (".crew/WORKER.md", "secret"), (".crew/hooks", "roots")] {
        let stage = Stage::new();
        let link = stage.project().join("link");
        symlink(stage.outside(target), &link).unwrap();
        let place = stage.project().join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        if target == "secret" {
            fs::write(&place, "").unwrap()
        } else {
            fs::create_dir(&place).unwrap()
        }
        exchanging(&place, &link, || {
            for n in 0..40 {
                let way = WAYS[n % WAYS.len()];
                let _ = init(&stage.project(), way);
                stage.is_untouched(&format!("{name} {way:?}"));
            }
        });
    }
}
