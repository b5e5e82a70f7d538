//! What the checks of `crewfs doctor` read of the machine.

use std::fs;
use std::path::PathBuf;

use crate::cli::settings;

/// The names of the projects that are configured on this machine.
pub(super) fn configured_projects() -> Vec<String> {
    let entries = fs::read_dir(settings::DIRECTORY).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".toml")?.to_string());
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    names
}

/// The number in a file of the kernel.
pub(super) fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The path of a program: in `PATH`, or in the directories of system programs.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}
