//! The project's own tasks directory is replaced beneath the mount, as git does when a branch has none. The daemon follows the new one,
//! and makes it again when it stays away (C10, C14).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Mounted, Project, project};
use crate::process::{run, slow, until};
use crate::sides::needs;

/// The time within which the daemon must follow, on a busy machine.
const SOON: Duration = Duration::from_secs(8);

struct Place {
    mounted: Mounted,
    project: Project,
    /// The project beneath the mount.
    beneath: PathBuf,
}

impl Place {
    fn new(project: Project, in_place: bool, options: &[&str]) -> Place {
        ["open", "held", "done"].iter().for_each(|id| project.task(id, "# Old\n"));
        let mounted = if in_place { project.mount_in_place(options) } else { project.mount(options) };
        mounted.sh("w1", "touch tasks/claim/held tasks/claim/done; echo result > tasks/completed/done").ok();
        let beneath = project.behind();
        Place { mounted, project, beneath }
    }

    fn tasks(&self) -> PathBuf {
        self.beneath.join("tasks")
    }

    /// Check that the queue and the mount show the files of this directory.
    fn follows(&self, how: &str) {
        let start = Instant::now();
        fs::write(self.tasks().join("beneath.md"), "# Beneath\n").unwrap();
        until(&format!("a task is found: {how}"), || self.mounted.state("beneath") == "ready");
        assert!(start.elapsed() < slow(SOON), "{how}: {:?}", start.elapsed());
        self.mounted
            .sh("w1", "cat tasks/beneath.md && echo '# Through' > tasks/through.md && ls tasks/ready/through")
            .ok();
        assert_eq!(fs::read_to_string(self.tasks().join("through.md")).unwrap(), "# Through\n", "{how}");
        // The daemon watches the directory and does not just read it once.
        fs::write(self.tasks().join("beneath.md"), "# Changed\n").unwrap();
        until(&format!("the change is seen: {how}"), || {
            self.mounted.json("status/beneath")["title"] == "Changed"
        });
        ["beneath", "through"]
            .iter()
            .for_each(|id| fs::remove_file(self.tasks().join(format!("{id}.md"))).unwrap());
        until(&format!("they are withdrawn: {how}"), || {
            self.mounted.state("beneath").is_empty() && self.mounted.state("through").is_empty()
        });
        let held = self.mounted.json("status/held");
        assert_eq!((&held["status"], &held["worker"]), (&json!("claimed"), &json!("w1")), "{how}");
        assert_eq!(self.mounted.read("completed/done"), "result\n", "{how}");
    }
}

fn everywhere(options: &[&str], body: impl Fn(&Place)) {
    for in_place in [false, true] {
        let mut place = Place::new(project!(), in_place, options);
        body(&place);
        place.mounted.stop();
    }
}

fn fill(directory: &Path, title: &str) {
    fs::create_dir(directory).unwrap();
    for id in ["open", "held", "done"] {
        fs::write(directory.join(format!("{id}.md")), format!("# {title}\n")).unwrap();
    }
}

#[test]
fn c14_another_tasks_directory_in_the_place_of_the_first_is_followed() {
    everywhere(&["file_grace=1s"], |place| {
        let published = place.mounted.json("status/open")["published"].clone();
        let new = place.beneath.join("new");
        for (title, aside) in [("New", true), ("Newer", false)] {
            fill(&new, title);
            if aside {
                fs::rename(place.tasks(), place.beneath.join("old")).unwrap();
            } else {
                fs::remove_dir_all(place.tasks()).unwrap();
            }
            fs::rename(&new, place.tasks()).unwrap();
            until("the new one is seen", || place.mounted.json("status/open")["title"] == title);
            assert_eq!(place.mounted.json("status/open")["published"], published, "it is the same task");
            until("all are there", || {
                ["held", "done"]
                    .iter()
                    .all(|id| place.mounted.json(&format!("status/{id}"))["file"].is_null())
            });
            place.follows(title);
        }
        assert_eq!(place.mounted.state("open"), "ready");
        // Changes in the old directory do not affect the queue.
        fs::remove_file(place.beneath.join("old/open.md")).unwrap();
        place.follows("the old one is changed");
        assert_eq!(place.mounted.state("open"), "ready");
    });
}

#[test]
fn c14_a_tasks_directory_that_stays_away_is_made_again() {
    everywhere(&["file_grace=300ms"], |place| {
        let mode = 0o751;
        fs::set_permissions(&place.beneath, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(place.tasks(), place.beneath.join("old")).unwrap();
        until("it is made again", || place.tasks().is_dir());
        place.mounted.until_state("open", "");
        for (id, state) in [("held", "claimed"), ("done", "completed")] {
            let status = place.mounted.json(&format!("status/{id}"));
            assert_eq!((&status["status"], &status["file"]), (&json!(state), &json!("missing")));
        }
        place.follows("made again");
        // The first directory may come back, too.
        fs::remove_dir_all(place.tasks()).unwrap();
        fs::rename(place.beneath.join("old"), place.tasks()).unwrap();
        place.mounted.until_state("open", "ready");
        until("the files are there again", || place.mounted.json("status/held")["file"].is_null());
        place.follows("back again");
    });
}

#[test]
fn c14_git_switches_to_a_branch_without_tasks_and_back() {
    needs!("git");
    let place = Place::new(project!(), false, &["file_grace=60s"]);
    let git = |script: &str| {
        let mut command = std::process::Command::new("bash");
        command.args(["-ec", script]).current_dir(place.project.source());
        for (key, value) in
            [("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("EMAIL", "w@example.org")]
        {
            command.env(key, value);
        }
        command.env("GIT_AUTHOR_NAME", "w").env("GIT_COMMITTER_NAME", "w");
        run(command).ok()
    };
    git("git init -qb main; echo .crewfs > .gitignore; git add .gitignore; git commit -qm first; git branch without
        git add tasks; git commit -qm tasks");
    let look = || {
        ["open", "held", "done"].map(|id| {
            let status = place.mounted.json(&format!("status/{id}"));
            ["status", "worker", "published", "result", "epoch", "file"].map(|key| status[key].clone())
        })
    };
    let before = look();
    for away in [
        "git switch -q without",
        "git rm -qr tasks; git commit -qm gone",
        "git stash -q; rm -r tasks",
        "rm -r tasks; mkdir tasks",
    ] {
        git(away);
        until("the files are missing", || look().iter().all(|task| task[5] == "missing"));
        place.mounted.sh("w2", "touch tasks/claim/open").refused("busy");
        git("git switch -qf main; git reset -q --hard $(git log --format=%H --grep=tasks); git stash clear");
        until(&format!("all is as it was: {away}"), || look() == before);
    }
    assert!(!place.project.log().contains("withdrawn"));
    fs::write(place.tasks().join("new.md"), "# T\n").unwrap();
    place.mounted.until_state("new", "ready");
}

#[test]
fn c14_the_desk_stays_in_its_place_while_its_directory_is_moved() {
    everywhere(&["file_grace=60s"], |place| {
        let list = format!("ls -la {} > /dev/null; cat tasks/queue.json", place.mounted.path().display());
        fs::rename(place.tasks(), place.beneath.join("old")).unwrap();
        // A listing of the project must not move the desk that is mounted there.
        place.mounted.sh("w2", &list).ok();
        assert!(!place.mounted.path().join("old/queue.json").exists(), "the desk went with its directory");
        fill(&place.tasks(), "New");
        place.mounted.sh("w2", &list).ok();
        until("the new one is seen", || place.mounted.json("status/open")["title"] == "New");
        place.mounted.sh("w2", &list).ok();
    });
}
