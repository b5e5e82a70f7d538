//! The ways in which programs replace a file: one shell script for each.
//!
//! `$T` is a task, `$F` its file, `$new` a file of another filesystem with the content to write, `$E` a directory there,
//! and `$N` a number that no other script has.

/// One way to save or replace files.
pub(super) struct Way {
    pub(super) name: &'static str,
    /// The programs that it needs.
    pub(super) needs: &'static [&'static str],
    pub(super) how: How,
}

/// The subject of a script.
pub(super) enum How {
    /// One file.
    Each(&'static str),
    /// All of `$FILES`, the files of `$TASKS`.
    All(&'static str),
}

const fn each(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Way {
    Way { name, needs, how: How::Each(script) }
}

const fn all(name: &'static str, needs: &'static [&'static str], script: &'static str) -> Way {
    Way { name, needs, how: How::All(script) }
}

/// The start of every script: its settings and functions.
pub(super) const PRELUDE: &str = r#"set -e
export HOME=$E GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_PAGER=cat GIT_TERMINAL_PROMPT=0 TERM=xterm
export GIT_AUTHOR_NAME=w GIT_AUTHOR_EMAIL=w@example.org GIT_COMMITTER_NAME=w GIT_COMMITTER_EMAIL=w@example.org
export GIT_DISCOVERY_ACROSS_FILESYSTEM=1 GIT_EDITOR=true
FILES=; for T in $TASKS; do FILES="$FILES tasks/$T.md"; done
new() { new=$E/$T.md; sed "s/^title: .*/title: v$N/" $F > $new; }
edit() { sed -i "s/^title: .*/title: v$N$1/" $FILES; }
base() { git add -A && git commit -q --allow-empty -m "base $N"; B=$(git symbolic-ref --short HEAD); }
vi() { vim -N -u NONE -i NONE --cmd 'set nocp backupskip=' "$@" < /dev/null; }
na() { python3 - $FILES <<'END'
import os, pty, signal, sys
signal.alarm(15)
for file in sys.argv[1:]:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM='xterm', LINES='24', COLUMNS='80')
        os.execvp('nano', ['nano', '-I', '+99', file])
    seen, steps = b'', [(b'Exit', b'x\x0f'), (b'Write', b'\r'), (b'rote', b'\x18')]
    try:
        while part := os.read(terminal, 4096):
            seen += part
            if steps and steps[0][0] in seen:
                os.write(terminal, steps.pop(0)[1])
                seen = b''
    except OSError:
        pass
    assert not steps and os.waitpid(pid, 0)[1] == 0, seen
END
}
em() { emacs -Q -nw --batch $FILES --eval "(progn (setq vc-handled-backends nil backup-enable-predicate (lambda (_) t)) $1
    (dolist (buffer (buffer-list)) (when (buffer-file-name buffer) (with-current-buffer buffer
        (goto-char (point-max)) (insert \"x$N\n\") (save-buffer)))))" 2> $E/emacs || { cat $E/emacs >&2; false; }; }
py() { python3 -c "import os, sys, tempfile
for file in sys.argv[1:]:
    old = open(file).read()
    text = old + 'x$N\n'
$1" $FILES; }
js() { node -e "const fs = require('fs'); for (const file of process.argv.slice(1)) {
    const text = fs.readFileSync(file, 'utf8') + 'x$N\n'; $1 }" $FILES; }
"#;

pub(super) const WAYS: [Way; 57] = [
    each("vim", &["vim"], "vi -es -c 'normal Gox' -c wq $F"),
    each("vim, backupcopy=yes", &["vim"], "vi --cmd 'set backupcopy=yes' -es -c 'normal Gox' -c wq $F"),
    each("vim, backupcopy=no", &["vim"], "vi --cmd 'set backupcopy=no' -es -c 'normal Gox' -c wq $F"),
    each(
        "vim, backupcopy=no backup",
        &["vim"],
        "vi --cmd 'set backupcopy=no backup' -es -c 'normal Gox' -c wq $F",
    ),
    each("vim with nothing to save", &["vim"], "vi -es -c w -c w -c wq $F"),
    all("nano", &["nano"], "na"),
    all("emacs", &["emacs"], "em ''; rm -f tasks/*~"),
    all("emacs, by copying", &["emacs"], "em '(setq backup-by-copying t)'; rm -f tasks/*~"),
    all("emacs, precious", &["emacs"], "em '(setq file-precious-flag t)'; rm -f tasks/*~"),
    each("sed -i", &[], r#"sed -i "s/^title: .*/title: v$N/" $F"#),
    each("sed -i.bak", &[], r#"sed -i.bak "s/^title: .*/title: v$N/" $F; rm $F.bak"#),
    each("perl -i", &["perl"], r#"perl -pi -e "s/^title: .*/title: v$N/" $F"#),
    each("perl -i.bak", &["perl"], r#"perl -pi.bak -e "s/^title: .*/title: v$N/" $F; rm $F.bak"#),
    all("python, write", &[], "py '    open(file, \"w\").write(text)'"),
    all(
        "python, write in parts",
        &[],
        "py '    with open(file, \"w\") as out:
        for part in text.splitlines(True): out.write(part); out.flush(); os.fsync(out.fileno())'",
    ),
    all("python, append", &[], "py '    open(file, \"a\").write(\"more\\n\")'"),
    all(
        "python, os.replace",
        &[],
        "py '    open(file + \".tmp\", \"w\").write(text); os.replace(file + \".tmp\", file)'",
    ),
    all(
        "python, tempfile and rename",
        &[],
        "py '    fd, name = tempfile.mkstemp(dir=\"tasks\"); os.write(fd, text.encode()); os.close(fd); os.rename(name, file)'",
    ),
    all("python, unlink and create", &[], "py '    os.unlink(file); open(file, \"x\").write(text)'"),
    all(
        "python, rename aside and create",
        &[],
        "py '    os.rename(file, file + \".old\"); open(file, \"x\").write(text); os.unlink(file + \".old\")'",
    ),
    all(
        "python, rename aside and back",
        &[],
        "py '    os.rename(file, file + \".old\"); os.rename(file + \".old\", file)'",
    ),
    all("python, truncate", &[], "py '    os.truncate(file, len(old) - 1)'"),
    all("node, writeFileSync", &["node"], "js 'fs.writeFileSync(file, text)'"),
    all(
        "node, rename",
        &["node"],
        "js 'fs.writeFileSync(file + \".tmp.1\", text); fs.renameSync(file + \".tmp.1\", file)'",
    ),
    all(
        "node, unlink and write",
        &["node"],
        "js 'fs.unlinkSync(file); fs.writeFileSync(file, text, {flag: \"wx\"})'",
    ),
    each("redirection", &[], "cat $new > $F"),
    each("appending", &[], "echo more >> $F"),
    each("tee", &[], "tee $F < $new > /dev/null"),
    each("dd", &[], "dd status=none conv=notrunc if=$new of=$F"),
    each("mv from another filesystem", &[], "mv -f $new $F"),
    each("mv from another directory", &[], "cp $new here.$T; mv -f here.$T $F"),
    each("mv from beside it", &[], "cp $new tasks/.$T.new; mv -f tasks/.$T.new $F"),
    each("mv away and cp", &[], "mv $F tasks/$T.old; cp $new $F; rm tasks/$T.old"),
    each("mv with a backup", &[], "cp $new tasks/.$T.new; mv -b tasks/.$T.new $F; rm $F~"),
    each("install", &[], "install -m 644 $new $F"),
    each("cp", &[], "cp $new $F"),
    each("cp --remove-destination", &[], "cp --remove-destination $new $F"),
    each("cp -a", &[], "cp -a $new $F"),
    each("ln -f", &[], "cp $new tasks/.$T.new; ln -f tasks/.$T.new $F; rm tasks/.$T.new"),
    each("tar x", &[], "mkdir -p $E/tasks; cp $new $E/$F; touch -d @$N $E/$F; tar -C $E -cf - $F | tar xf -"),
    each("tar x --overwrite", &[], "mkdir -p $E/tasks; cp $new $E/$F; touch -d @$N $E/$F; tar -C $E -cf - $F | tar xf - --overwrite"),
    each("tar x --unlink-first", &[], "mkdir -p $E/tasks; cp $new $E/$F; touch -d @$N $E/$F; tar -C $E -cf - $F | tar xf - -U"),
    each("rsync", &["rsync"], "rsync -aI $new $F"),
    each("rsync --inplace", &["rsync"], "rsync -aI --inplace $new $F"),
    each("rsync --delay-updates", &["rsync"], "rsync -aI --delay-updates $new tasks/"),
    each("patch", &["patch"], "diff -u $F $new > $E/patch || true; patch -s $F < $E/patch"),
    each("patch -b", &["patch"], "diff -u $F $new > $E/patch || true; patch -bs $F < $E/patch; rm $F.orig"),
    all("git switch", &["git"], "base; git switch -qc b$N; edit; git commit -qam edit; git switch -q $B; git switch -q b$N"),
    all("git switch to a branch without them", &["git"],
        "base; git switch -qc b$N; git rm -q $FILES; git commit -qm without; git switch -q $B"),
    all("git checkout -- FILE", &["git"], "base; edit; git checkout -q -- $FILES"),
    all("git apply", &["git"], "base; edit; git diff > $E/diff; git checkout -q -- $FILES; git apply $E/diff"),
    all("git stash", &["git"], "base; edit; git stash -qu; git stash pop -q"),
    all("git restore", &["git"], "base; edit; rm -f $FILES; git restore $FILES"),
    all("git reset --hard", &["git"], "base; edit; git commit -qam edit; git reset -q --hard HEAD~1"),
    all("git rebase", &["git"],
        "base; git switch -qc b$N; edit a; git commit -qam edit; git switch -q $B; echo $N > other$N; git add other$N
        git commit -qm other; git switch -q b$N; git rebase -q $B"),
    all("git merge", &["git"],
        "base; git switch -qc b$N; edit; git commit -qam edit; git switch -q $B; git merge -q --no-ff -m merged b$N"),
    all("git revert", &["git"], "base; edit; git commit -qam edit; git revert --no-edit HEAD > /dev/null"),
];
