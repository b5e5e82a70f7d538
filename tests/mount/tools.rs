//! The tools that people use on projects, and the names that crewfs adds to a project's root (C3).

use std::fs;

use crate::harness::project;

#[test]
fn c3_the_state_is_not_visible_and_cannot_be_touched() {
    let project = project!();
    for in_place in [false, true] {
        let mut mounted = if in_place { project.mount_in_place(&[]) } else { project.mount(&[]) };
        assert_eq!(
            mounted.sh("w1", "ls -a").ok(),
            ".\n..\ntask-queue.json\ntasks\nworker-status.json\nworkers\n"
        );
        for script in [
            "ls .crewfs",
            "cat .crewfs/log.db",
            "touch .crewfs",
            "mkdir .crewfs",
            "rm -r .crewfs",
            "mv .crewfs x",
            "touch y && mv y .crewfs",
            "ln -s /tmp .crewfs",
            "rmdir tasks",
            "mv tasks x",
        ] {
            mounted.sh("w1", script).refused("");
        }
        mounted.sh("w1", "rm -f y && mkdir -p sub/.crewfs && touch sub/.crewfs/f && rm -r sub").ok();
        mounted.stop();
    }
    assert!(project.source().join(".crewfs/lock").exists());
}

#[test]
fn c3_three_links_lead_to_the_desk_unless_the_project_has_its_own() {
    let project = project!();
    project.task("a", "# A\n");
    let mut mounted = project.mount(&[]);
    let script =
        "readlink task-queue.json worker-status.json workers; cat task-queue.json | cmp - tasks/queue.json;
        ls workers; cat workers/self/status | grep -c w1";
    let expected = "tasks/queue.json\ntasks/workers.json\ntasks/workers\nself\nw1\n1\n";
    assert_eq!(mounted.sh("w1", script).ok(), expected);
    for script in ["rm -f workers", "mkdir workers", "echo x > new && mv new task-queue.json", "mv workers w"]
    {
        mounted.sh("w1", script).refused("");
    }
    mounted.stop();
    assert!(fs::symlink_metadata(project.source().join("workers")).is_err(), "they are not on the disk");

    fs::create_dir(project.source().join("workers")).unwrap();
    fs::write(project.source().join("workers/own"), "").unwrap();
    fs::write(project.source().join("task-queue.json"), "mine\n").unwrap();
    let mounted = project.mount(&[]);
    assert_eq!(
        mounted.sh("w1", "ls workers; cat task-queue.json; readlink worker-status.json").ok(),
        "own\nmine\ntasks/workers.json\n"
    );
    mounted.sh("w1", "rm -r workers && readlink workers && ls -d tasks/workers/self").ok();
}

#[test]
fn links_lead_where_they_lead_and_not_into_the_daemon() {
    let project = project!();
    let secret = project.dir().join("outside");
    fs::write(&secret, "outside\n").unwrap();
    std::os::unix::fs::symlink(&secret, project.source().join("absolute")).unwrap();
    std::os::unix::fs::symlink("../outside", project.source().join("relative")).unwrap();
    std::os::unix::fs::symlink(".crewfs/lock", project.source().join("state")).unwrap();
    std::os::unix::fs::symlink("loop", project.source().join("loop")).unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd", project.source().join("self")).unwrap();
    let mounted = project.mount(&[]);
    assert_eq!(
        mounted.sh("w1", "cat absolute relative; readlink relative").ok(),
        "outside\noutside\n../outside\n"
    );
    mounted.sh("w1", "cat state").refused("No such file");
    mounted.sh("w1", "cat loop").refused("Too many levels");
    // The kernel follows links on behalf of the caller. The daemon never does.
    assert_eq!(mounted.sh("w1", "cd -P self && pwd -P").ok().trim(), mounted.path().display().to_string());
    mounted.sh("w1", "rm absolute && ls ../outside && mv relative tasks/ && readlink tasks/relative").ok();
    assert_eq!(fs::read_to_string(secret).unwrap(), "outside\n");
}

#[test]
fn git_works_in_the_mount() {
    let project = project!();
    for in_place in [false, true] {
        let mut mounted = if in_place { project.mount_in_place(&[]) } else { project.mount(&[]) };
        let script = "set -e; export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; rm -rf repo; mkdir repo; cd repo
            git init -q; git config user.name w; git config user.email w@example.org
            for n in $(seq 50); do echo $n > f$n; done; git add .; git commit -qm one
            git checkout -qb branch; sed -i s/^/x/ f*; git mv f1 g1; git commit -qam two
            git checkout -q -; test $(cat f7) = 7; git merge -q branch; test $(cat f7) = x7; test -e g1
            git stash list; echo dirty > f9; git stash -q; test $(cat f9) = x9; git stash pop -q
            git gc -q; git fsck --strict --no-dangling; git worktree add -q ../tree branch; git -C ../tree log --oneline | wc -l
            git clone -q . ../clone; test $(git -C ../clone ls-files | wc -l) = 50; rm -rf ../tree ../clone
            git checkout -q f9; git status --porcelain";
        assert_eq!(mounted.sh("w1", script).ok().trim(), "2");
        mounted.stop();
    }
}

#[test]
fn rsync_and_tar_carry_a_project_through() {
    let project = project!();
    let outside = project.dir().join("outside");
    let prepare = format!(
        "set -e; mkdir -p {0}/deep/er; cd {0}; echo text > a; head -c 300000 /dev/urandom > deep/b; ln a hard; ln -s a soft
        mkfifo pipe; chmod 600 a; touch -d 2001-01-01T00:00:00.123456789 deep/b; truncate -s 1M sparse; mkdir empty",
        outside.display()
    );
    let mounted = project.mount(&[]);
    mounted.sh("w1", &prepare).ok();
    let there = outside.display();
    let script = format!(
        "set -e; rsync -aH {there}/ copy/; rsync -aHin --delete {there}/ copy/; diff -r --no-dereference {there} copy 2>&1 | grep -v fifo || true
        tar -C {there} -cf - . | tar -C copy -xf -; tar -C copy --sort=name -cf - . | md5sum > 1; tar -C {there} --sort=name -cf - . | md5sum > 2
        cmp 1 2; rsync -aH copy/ {there}-back/; rsync -aHin --delete copy/ {there}-back/"
    );
    assert_eq!(mounted.sh("w1", &script).ok(), "");
    // The same on a desk, tasks included: into the desk and out of it.
    let desk = "mkdir out && echo '# A' > out/a.md && rsync -a out/ tasks/ && ls tasks/ready && tar -C out -cf - a.md | tar -C tasks -xf -";
    assert_eq!(mounted.sh("w1", desk).ok(), "a\n");
    assert_eq!(mounted.list("ready"), ["a"]);
}

#[test]
fn a_file_that_was_just_written_can_be_run() {
    let project = project!();
    let mounted = project.mount(&[]);
    let script = "cp /bin/true prog; ./prog && cp /bin/false prog; ./prog; test $? = 1 && mv prog tasks/prog && ! tasks/prog";
    mounted.sh("w1", script).ok();
}
