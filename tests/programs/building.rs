//! Compilers and package managers that write their outputs to the mount.

use std::process::Command;

use serde_json::Value;

use crate::process::run_within;
use crate::sides::{Side, Sides, find, needs};
use crate::trees::{LIMIT, LONG, Times, nothing, said, same, same_trees, script};

/// The directory where cargo keeps the source of a library that crewfs or its tests use. It exists also without a network.
fn source_of(library: &str) -> String {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(["metadata", "--format-version=1", "--offline", "--locked"]);
    // Dependencies of other platforms may not have been fetched.
    command.arg(format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata: Value = serde_json::from_str(&run_within(LIMIT, command).ok()).unwrap();
    let package = metadata["packages"].as_array().unwrap().iter().find(|package| package["name"] == library);
    package.unwrap()["manifest_path"].as_str().unwrap().strip_suffix("/Cargo.toml").unwrap().to_string()
}

#[test]
fn cargo_builds_tests_and_builds_only_what_changed() {
    needs!("cargo");
    let Some(sides) = Sides::new(LONG) else { return };
    // Without the dependencies of developers and of optional features, which may be missing. The crate is a workspace of its own, so
    // that cargo looks for none in the directories above.
    let prepare = format!(
        "cp -r {} crate; cd crate; rm -f Cargo.lock; chmod -R u+w .; unset CARGO_TARGET_DIR RUSTFLAGS
        sed -i -E '/^\\[(dev-)?dependencies/,/^$/d; /^arbitrary = /d; /^\\[lints/,/^$/d' Cargo.toml; echo '[workspace]' >> Cargo.toml",
        source_of("regex-syntax")
    );
    script(&sides, Side::Disk, &prepare).ok();
    script(&sides, Side::Mount, &prepare).ok();
    let cargo = |arguments: &str| {
        let text = format!(
            "cd crate; unset CARGO_TARGET_DIR RUSTFLAGS; cargo {arguments} --offline --color never 2>&1 |
            sed -E 's/ in [0-9.]+m?s.*//; s/-[0-9a-f]{{16}}//'"
        );
        let (disk, mount) = sides.both(|side| said(&sides, side, &text));
        // Tests run side by side, and cargo reports them in the order in which they end.
        let sorted = |said: &str| {
            let mut lines: Vec<String> = said.lines().map(str::to_string).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&disk), sorted(&mount), "cargo {arguments}");
        mount
    };
    assert!(cargo("build").contains("Compiling regex-syntax"));
    assert!(!cargo("build").contains("Compiling"), "nothing has changed");
    let tested = cargo("test --lib");
    assert!(tested.contains("test result: ok."), "{tested}");
    assert!(!cargo("test --lib --no-run").contains("Compiling"), "nothing has changed");
    let (disk, mount) = sides.both(|side| {
        script(&sides, side, "cd crate; sed -i 's/^pub fn is_meta_character/\\n&/' src/lib.rs").ok()
    });
    assert_eq!((disk, mount), (String::new(), String::new()));
    assert!(cargo("build").contains("Compiling regex-syntax"), "a source has changed");
    assert!(!cargo("build").contains("Compiling"), "nothing has changed");
    same_trees(&sides, Times::Ignored, &|name| name.starts_with("crate/target"));
}

#[test]
fn npm_installs_a_package_with_all_that_it_needs() {
    needs!("node", "npm");
    let Some(sides) = Sides::new(LONG) else { return };
    let cache = sides.project.dir().join("npm-cache");
    let npm =
        format!("npm --cache {} --no-audit --no-fund --no-update-notifier --loglevel=error", cache.display());
    let install = |side: Side, how: &str| {
        let text = format!(
            "mkdir -p app; cd app; {npm} init -y >/dev/null; {npm} install {how} express@4.21.2 >/dev/null"
        );
        script(&sides, side, &text)
    };
    let first = install(Side::Disk, "");
    if first.code != Some(0) {
        assert!(std::env::var_os("CI").is_none(), "{first:#?}");
        return eprintln!("skipped: npm cannot reach its registry: {}", first.stderr);
    }
    install(Side::Mount, "--prefer-offline").ok();
    same_trees(&sides, Times::Ignored, &nothing);
    let used = format!(
        "cd app; node -e 'const app = require(\"express\")(); console.log(typeof app.listen)'; npm ls --all | wc -l
        ls node_modules/.bin; node node_modules/.bin/mime x.html
        {npm} --offline uninstall express >/dev/null; ls -A node_modules; cat package.json"
    );
    assert!(same(&sides, Times::Ignored, &used, &nothing).starts_with("function\n"));
}

const MAKEFILE: &str = r#"
CFLAGS = -O1 -frandom-seed=1 -Wl,--build-id=none
prog: main.o sum.o
	$(CC) $(CFLAGS) -o $@ $^
%.o: %.c sum.h
	$(CC) $(CFLAGS) -c -o $@ $<
"#;

#[test]
fn gcc_make_and_patch_build_a_program() {
    needs!("gcc", "make", "patch");
    let Some(sides) = Sides::new(LIMIT) else { return };
    let text = format!(
        r#"
cat > Makefile <<'END'
{MAKEFILE}
END
echo 'int sum(int, int);' > sum.h
printf '#include "sum.h"\nint sum(int a, int b) {{ return a - b; }}\n' > sum.c
printf '#include <stdio.h>\n#include "sum.h"\nint main(void) {{ printf("%%d\\n", sum(20, 3)); return 0; }}\n' > main.c
make CC=gcc; ./prog; make CC=gcc
cat > fix.patch <<'END'
--- a/sum.c
+++ b/sum.c
@@ -1,2 +1,2 @@
 #include "sum.h"
-int sum(int a, int b) {{ return a - b; }}
+int sum(int a, int b) {{ return a + b; }}
END
patch -p1 < fix.patch; make CC=gcc; ./prog
patch -R -p1 --dry-run < fix.patch; touch sum.h; make CC=gcc; make -n CC=gcc
ar rcs libsum.a sum.o; gcc -shared -o libshared.so -fPIC -Wl,--build-id=none sum.c
gcc -o with-library main.c -L. -lshared -Wl,-rpath,'$ORIGIN' -Wl,--build-id=none; ./with-library; strip prog; ./prog
rm libsum.a
"#
    );
    let said = same(&sides, Times::Ignored, &text, &nothing);
    assert!(said.contains("\n17\n") && said.ends_with("23\n23\n"), "{said}");
    assert_eq!(find("gcc").is_some(), said.contains("gcc"));
}
