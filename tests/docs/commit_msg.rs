//! `.githooks/commit-msg`, run as git runs it: which commit messages it accepts.

use std::io::Write;
use std::process::{Command, Output};

use crate::texts::at;

fn hook(message: &str) -> Output {
    let mut file = tempfile::NamedTempFile::new().expect("a file for the message");
    file.write_all(message.as_bytes()).expect("a message that is written");
    Command::new(at(".githooks/commit-msg")).arg(file.path()).output().expect("a hook that can be run")
}

#[test]
fn a_subject_with_a_component_and_at_most_72_characters_is_let_through() {
    let longest = format!("queue: a{}", "ä".repeat(64));
    for message in [
        "desk: refuse a claim while the queue is paused",
        "mount, doctor: name what a container lacks\n\nThe body says why.\n",
        "# a comment of git\n\ntests/run.sh: lend out /dev/fuse\n# another\n\nBody.",
        "fixup! desk: refuse a claim while the queue is paused, however long this line is and whatever it says",
        "Revert \"desk: refuse a claim\"\n\nThis reverts it.",
        &longest,
    ] {
        let output = hook(message);
        assert!(output.status.success(), "{message:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn any_other_is_refused_with_the_reason() {
    let long = format!("queue: {}", "a".repeat(66));
    for (message, why) in [
        ("Refuse a claim while the queue is paused", "a component"),
        ("desk:refuse a claim", "a component"),
        ("desk: Refuse a claim", "a component"),
        ("Desk: refuse a claim", "a component"),
        ("desk: ", "a component"),
        ("", "a component"),
        ("# only a comment\n", "a component"),
        ("desk: refuse a claim.", "full stop"),
        (&long, "it has 73"),
        ("desk: refuse a claim\nThe body at once.", "second line"),
    ] {
        let output = hook(message);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{message:?}: {said}");
    }
}
