//! `tests/run.sh` on a simulated machine. All test programs run whichever fails, and the end of the output names the failures. The FUSE
//! device gets its old mode back, however the script ends.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::as_root;
use crate::process::until;

/// Stands in for `cargo test`: two programs, of which one fails, and one that is killed.
const CARGO: &str = r#"
[ "$1" = test ] || exit 0
echo "$*" > "$HERE/asked"
echo "cargo sees $(cat "$HERE/mode")"
[ ! -e "$HERE/slow" ] || { touch "$HERE/started"; sleep 61; }
printf 'test a ... ok\n\ntest result: ok. 1 passed; 0 failed\n\n'
[ -e "$HERE/failing" ] || exit 0
printf 'test x::one ... FAILED\n\nfailures:\n\n---- x::one stdout ----\n    odd\n\n\nfailures:\n    x::one\n    y::two\n\n' >&2
printf 'test result: FAILED. 3 passed; 2 failed\n\nerror: test failed, to rerun pass `--test core`\n'
printf 'error: test failed, to rerun pass `--test kit`\n\nCaused by:\n  signal: 9\n'
printf 'error: 2 targets failed:\n    `--test core`\n    `--test kit`\n'
exit 101
"#;

/// A machine on which everything is installed, with a device of this mode.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new(mode: &str) -> Machine {
        let machine = Machine(tempfile::tempdir().unwrap());
        fs::create_dir(machine.at("bin")).unwrap();
        fs::write(machine.at("mode"), mode).unwrap();
        for (name, script) in [
            ("cargo", CARGO),
            ("dpkg-query", "echo ok installed"),
            ("npm", ""),
            ("debootstrap", "mkdir \"$4\""),
            ("shellcheck", "[ ! -e \"$HERE/failing\" ]"),
            ("stat", "cat \"$HERE/mode\""),
            ("chmod", "printf %s \"$1\" > \"$HERE/mode\"; echo \"$*\" >> \"$HERE/changes\""),
        ] {
            let file = machine.at("bin").join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
        }
        machine
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn has(&self, name: &str) {
        fs::write(self.at(name), "").unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    fn start(&self) -> Child {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/run.sh"));
        let path = format!("{}:{}", self.at("bin").display(), std::env::var("PATH").unwrap());
        command.args(["--test", "core"]).env("PATH", path).env("HERE", self.0.path());
        command.env("CARGO_TARGET_DIR", self.at("target")).env("TMPDIR", self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Run the script to its end. Returns the exit code and the output.
    fn run(&self) -> (Option<i32>, String) {
        let output = self.start().wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }
}

/// Make the simulated machine; only root and the device must be real.
macro_rules! machine {
    ($mode:expr) => {{
        as_root!();
        if !Path::new("/dev/fuse").exists() {
            return eprintln!("skipped: there is no /dev/fuse");
        }
        Machine::new($mode)
    }};
}

#[test]
fn all_tests_run_and_the_end_says_what_failed() {
    let machine = machine!("600");
    machine.has("failing");
    let (code, said) = machine.run();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(machine.read("asked"), "test --locked --no-fail-fast --test core\n");
    let (tests, end) = said.split_once("\nfailed:\n").unwrap_or_else(|| panic!("{said}"));
    assert!(tests.contains("test result: ok. 1 passed") && tests.contains("test result: FAILED."), "{said}");
    assert_eq!(
        end,
        "  shellcheck: what it says stands before the tests\n  --test core\n    x::one\n    y::two\n  --test kit\n    ended without naming a test\n/dev/fuse has its mode 600 again\n"
    );
    assert!(said.contains("giving /dev/fuse the mode 666 instead of 600") && said.contains("cargo sees 666"));
    assert_eq!(machine.read("changes"), "666 /dev/fuse\n600 /dev/fuse\n");
}

#[test]
fn where_the_device_is_for_everybody_it_is_left_alone() {
    let machine = machine!("666");
    let (code, said) = machine.run();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("\nall tests passed\n") && !said.contains("/dev/fuse"), "{said}");
    assert_eq!(machine.read("changes"), "");
}

#[test]
fn the_device_has_its_rights_again_when_the_tests_are_interrupted() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let machine = machine!("600");
        machine.has("slow");
        let script = machine.start();
        until("the tests run", || machine.at("started").exists());
        assert_eq!(machine.read("mode"), "666");
        kill_process(Pid::from_child(&script), signal).unwrap();
        let output = script.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(machine.read("mode"), "600");
        let left = fs::read_dir(machine.0.path()).unwrap().flatten().map(|entry| entry.file_name());
        assert!(
            left.into_iter().all(|name| !name.to_string_lossy().starts_with("tmp.")),
            "its notes are gone"
        );
    }
}
