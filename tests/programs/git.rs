//! Every git operation that workers use.

use crate::sides::{Sides, needs};
use crate::trees::{LIMIT, Times, same};

/// With the same names and times, commits are the same on both sides.
const SETTINGS: &str = "
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_PAGER=cat TZ=UTC GIT_TERMINAL_PROMPT=0
export GIT_AUTHOR_NAME=w GIT_AUTHOR_EMAIL=w@example.org GIT_COMMITTER_NAME=w GIT_COMMITTER_EMAIL=w@example.org
export GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
git() { command git -c init.defaultBranch=main -c pack.threads=1 -c advice.detachedHead=false -c gc.auto=0 \"$@\"; }
";

const WORK: &str = r#"
git init -q --bare origin.git
git clone -q origin.git repo 2>/dev/null
cd repo
for d in $(seq 20); do mkdir -p src/m$d/deep; for f in $(seq 10); do seq $d $((d + f * 7)) > src/m$d/deep/f$f.txt; done; done
printf '#!/bin/sh\necho hello\n' > run.sh; chmod +x run.sh; ln -s src/m1 link
git add -A; git commit -qm first; git push -q origin HEAD:main
git checkout -qb feature
sed -i 's/^1/one /' src/*/deep/*.txt; git mv src/m2 src/moved; git rm -qf src/m3/deep/f1.txt; echo new > added
git add -A; git commit -qm feature
for n in 1 2 3; do echo $n >> run.sh; git commit -qam "more $n"; done
git checkout -q main; test "$(head -1 src/m1/deep/f1.txt)" = 1; test -e src/m2 -a ! -e added
git checkout -qb side main; echo side > side; git add side; git commit -qm side
git rebase -q feature; git log --oneline --graph --all
for turn in 1 2 3; do for b in main feature side; do git checkout -q $b; git status --porcelain; done; done
echo dirty >> run.sh; echo untracked > u; git stash -qu; git status --porcelain; git stash pop -q; git status --porcelain
git checkout -q -- run.sh; rm u
git checkout -q main; git merge -q --no-ff -m merged side; git push -q origin main side
! git merge-base --is-ancestor main feature
git worktree add -q ../tree feature; (cd ../tree; echo w > w; git add w; git commit -qm worktree; git status --porcelain)
git log --oneline -1 feature
git worktree remove ../tree
git checkout -qb conflict HEAD~1; echo other > side; git add side; git commit -qm conflict
git merge main > ../said 2>&1 && exit 1; git status --porcelain; git merge --abort
git cherry-pick -n main~0 -m 1 >/dev/null 2>&1 || git reset -q --hard
git reset -q --hard HEAD~1; git clean -qfdx; git tag -a -m tag v1; git describe
git gc -q --prune=now; git fsck --strict --no-dangling --no-progress
git repack -qad; git count-objects; git archive --format=tar main | md5sum
cd ..; git clone -q --no-hardlinks repo again; git clone -q --shared repo shared; git -C again log --oneline origin/main | wc -l
diff -r --exclude=.git repo again || true
git -C repo ls-files -s | md5sum; git -C repo grep -c one feature -- src/m1 | sort; git -C repo blame -s feature -- run.sh
git -C repo diff --stat main feature | tail -1; git -C repo bisect start main feature~3 >/dev/null 2>&1; git -C repo bisect reset >/dev/null 2>&1
git -C repo status --porcelain; git -C again fsck --no-progress; git -C origin.git fsck --no-progress
"#;

#[test]
fn git_does_the_same_and_leaves_the_same() {
    needs!("git");
    let Some(sides) = Sides::new(LIMIT) else { return };
    // The index has times and inode numbers.
    let said = same(&sides, Times::Ignored, &format!("{SETTINGS}{WORK}"), &|name| name.ends_with("/index"));
    assert!(said.contains("worktree") && said.contains("v1"), "{said}");
    // git notices changes made by other programs, and reports nothing else.
    let seen = "cd repo; git status --porcelain; touch run.sh; git status --porcelain; echo x >> run.sh; git status --porcelain";
    assert_eq!(
        same(&sides, Times::Ignored, &format!("{SETTINGS}{seen}"), &|name| name.ends_with("/index")),
        " M run.sh\n"
    );
}
