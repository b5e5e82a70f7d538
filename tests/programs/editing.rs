//! Searching and editing: each program reads what the program before it wrote.

use crate::sides::{Sides, needs};
use crate::trees::{LIMIT, Times, nothing, same};

/// Source files in directories, with a binary, a link and an ignored file among them.
const SOURCES: &str = r#"
mkdir -p src/a/b docs .hidden; for n in $(seq 120); do printf 'line one %s\nfn name_%s() { old }\n\tend\n' $n $n > src/a/b/f$n.rs; done
printf 'a\0binary old' > src/binary; ln -s a/b/f1.rs src/link; echo '*.log' > .ignore; echo old > noise.log; echo old > .hidden/x
printf 'Ünïcode old\r\nlast line without an end' > docs/text.md; : > docs/empty; chmod 640 src/a/b/f7.rs
"#;

#[test]
fn ripgrep_finds_the_same() {
    needs!("rg");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let text = format!(
        "{SOURCES} rg --files | sort; rg --no-heading -n old | sort; rg -uuu -c old | sort; rg --mmap -l 'name_1\\d' | sort
        rg --follow -c old src | sort; rg -U 'one \\d+\\nfn name_5' --no-heading | sort; rg --sort path -m1 Ünï; ! rg nowhere"
    );
    let said = same(&sides, Times::Ignored, &text, &nothing);
    assert!(said.lines().count() > 400, "{said}");
}

#[test]
fn vim_and_sed_edit_files_in_place() {
    needs!("vim", "sed");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let vim = "vim -Nes -u NONE -i NONE";
    let text = format!(
        "{SOURCES} sed -i 's/old/new/' src/a/b/*.rs docs/text.md; sed -i.bak '1d' src/a/b/f2.rs; sed -i --follow-symlinks 's/new/newer/' src/link
        {vim} +'%s/new/vim/' +wq src/a/b/f7.rs; {vim} +'set backup' +'normal Gonext' +wq docs/text.md || true
        {vim} +'set backupcopy=yes writebackup' +'%s/one/two/' +wq src/link; {vim} +'argdo %s/end/END/ | update' +qa src/a/b/f1?.rs
        {vim} +'normal iswapped' +w +'!ls -A docs | grep -c swp' +wq docs/empty; {vim} +wq docs/made; rm -f docs/*~
        ls -lA src docs | awk '{{ print $1, $NF }}'; cat docs/* src/a/b/f7.rs src/link; md5sum src/a/b/*; perl -pi -e 's/line/row/' src/a/b/f3*.rs"
    );
    let said = same(&sides, Times::Ignored, &text, &nothing);
    assert!(said.contains("fn name_7() { vim }"), "{said}");
}

#[test]
fn find_runs_programs_on_what_it_finds() {
    needs!("find", "xargs");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let text = format!(
        "{SOURCES} find . -name 'f*.rs' -exec grep -l name_11 {{}} + | sort; find src -type f -exec sh -c 'echo found >> \"$1\"' _ {{}} \\;
        find . -type l -o -empty | sort; find . -newer docs/empty -name '*.nothing'; find . -perm 640; find src -links 2 -type f | wc -l
        find . -name 'f*0.rs' -print0 | xargs -0 -n 3 -P 4 touch -d @1000; find . -not -newermt @1000 -name '*.rs' | sort
        find . -samefile src/a/b/f1.rs; find -L . -samefile src/a/b/f1.rs | sort; find src -depth -name 'f2*' -delete; find . | sort | md5sum
        find . -type d -printf '%p %m %y\\n' | sort; ls -R | md5sum; ls -fA src/a/b | sort | md5sum; find . -inum $(stat -c %i src/binary)"
    );
    same(&sides, Times::Ignored, &text, &nothing);
}
