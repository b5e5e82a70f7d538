//! Each script that builds crewfs checks for Rust first. If Rust is missing or too old, the script prints how to get it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

/// Each script that builds; paths are relative to the sources.
const BUILDS: [&str; 6] = [
    "mount-scripts/build.sh",
    "mount-scripts/demo.sh",
    "mount-scripts/package.sh",
    "tests/run.sh",
    "tests/clients.sh",
    "tests/package.sh",
];

/// The exit code and the output of a script on a machine with this Rust, where nothing can be installed.
fn run(script: &str, rust: Option<&str>) -> (Option<i32>, String) {
    let bin = tempfile::tempdir().unwrap();
    for tool in ["sh", "dirname", "sed", "cut", "sort", "head", "env", "id"] {
        let found =
            std::env::split_paths("/usr/bin:/bin").map(|dir| dir.join(tool)).find(|path| path.exists());
        symlink(found.unwrap(), bin.path().join(tool)).unwrap();
    }
    let program = |name: &str, script: &str| {
        let file = bin.path().join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
    };
    if let Some(version) = rust {
        program("rustc", &format!("echo 'rustc {version} (a date)'"));
        program("cargo", "echo nothing is built here; exit 1");
    }
    let mut command = Command::new(format!("{}/{script}", env!("CARGO_MANIFEST_DIR")));
    let output = command.env_clear().env("PATH", bin.path()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn where_rust_is_missing_or_too_old_each_script_that_builds_says_how_to_get_it() {
    for script in BUILDS {
        let (code, said) = run(script, None);
        assert_eq!(code, Some(1), "{script}: {said}");
        assert!(said.starts_with("Rust is missing, and building crewfs takes 1."), "{script}: {said}");
        for old in ["1.63.0", "1.85.0", "1.9.0-nightly"] {
            let (code, said) = run(script, Some(old));
            assert_eq!(code, Some(1), "{script}: {said}");
            assert!(said.starts_with(&format!("Rust {old} is too old: building")), "{script}: {said}");
            assert!(said.contains("curl -sSf https://sh.rustup.rs | sh"), "{script}: {said}");
        }
    }
}

#[test]
fn a_newer_rust_is_taken() {
    for new in [concat!(env!("CARGO_PKG_RUST_VERSION"), ".0"), "1.100.2", "2.0.0-nightly"] {
        assert_eq!(run("mount-scripts/need-rust.sh", Some(new)), (Some(0), String::new()), "{new}");
    }
}
