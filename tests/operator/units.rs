//! systemd accepts the unit and the examples of the documents.

use std::fs;
use std::path::Path;

use crate::machine::machine;

/// The text of the fenced block that contains this line.
pub(crate) fn block(document: &str, line: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    let text = fs::read_to_string(path).unwrap();
    let blocks = text.split("```").skip(1).step_by(2);
    let found = blocks.filter_map(|block| block.split_once('\n')).find(|(_, block)| block.contains(line));
    found.unwrap_or_else(|| panic!("no block with {line:?} in {document}")).1.to_string()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_and_the_example_of_a_mount() {
    let machine = machine!(Bare);
    machine.deploy("--project /srv/demo").ok();
    fs::write(machine.srv().join("mnt-demo.mount"), block("operations.md", "[Mount]")).unwrap();
    let said = machine.run("cp /srv/mnt-demo.mount /etc/systemd/system && systemd-analyze verify crewfs@demo.service mnt-demo.mount");
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (Some(0), "", ""), "{said:?}");
}

/// `name` or `name=value` of each option that gives the unit a mount namespace of its own, according to systemd.exec(5).
const HIDES_THE_MOUNT: [&str; 24] = [
    "PrivateTmp",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateUsers",
    "ProtectSystem",
    "ProtectHome",
    "ProtectProc",
    "ProcSubset",
    "ProtectKernelTunables",
    "ProtectKernelModules",
    "ProtectKernelLogs",
    "ProtectControlGroups",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "InaccessiblePaths",
    "ExecPaths",
    "NoExecPaths",
    "BindPaths",
    "BindReadOnlyPaths",
    "TemporaryFileSystem",
    "RootDirectory",
    "RootImage",
    "MountFlags",
    "DynamicUser",
];

#[test]
fn no_option_of_the_unit_hides_the_mount() {
    let unit = include_str!("../../mount-scripts/crewfs@.service");
    for line in unit.lines() {
        let option = line.split('=').next().unwrap();
        assert!(!HIDES_THE_MOUNT.contains(&option), "{line}");
    }
}
