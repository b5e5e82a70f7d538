//! The record of what was installed (`.crew/installed.json`). With it the installation can be removed, and later changes of a user can
//! be distinguished from the text of crewfs.

use serde::{Deserialize, Serialize};

use super::plan::{ChangePlan, FileContent};
use crate::cli::error::CliError;

/// The path of the record in the project.
pub(super) const RECORD: &str = ".crew/installed.json";
const HOME: &str = ".crew";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InstallRecord {
    format: u32,
    /// The agent programs, by their names in `--client`.
    pub(super) clients: Vec<String>,
    /// The directories that were made, parents first.
    pub(super) directories: Vec<String>,
    pub(super) files: Vec<InstalledFile>,
}

/// What was inserted into one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InstalledFile {
    pub(super) path: String,
    /// Whether the file is new.
    pub(super) created: bool,
    /// The inserted pieces, byte for byte.
    pub(super) pieces: Vec<String>,
}

impl InstallRecord {
    /// The record of a project. `None` if nothing was installed.
    pub(super) fn read(plan: &ChangePlan) -> Result<Option<InstallRecord>, CliError> {
        let damaged = |why: String| {
            CliError::failed(format!(
                "{RECORD}, which tells what was installed, is of no use: {why}; remove it, and what is there already is left as it is"
            ))
        };
        match plan.find(RECORD)? {
            FileContent::Missing => Ok(None),
            FileContent::Unfit(why) => Err(damaged(why)),
            FileContent::Text(text) => match serde_json::from_str::<InstallRecord>(&text) {
                Ok(record) if record.format == FORMAT => Ok(Some(record)),
                Ok(record) => Err(damaged(format!("its format {} belongs to another crewfs", record.format))),
                Err(error) => Err(damaged(error.to_string())),
            },
        }
    }

    pub(super) fn of(&self, path: &str) -> Option<&InstalledFile> {
        self.files.iter().find(|installed| installed.path == path)
    }

    /// Record a file, instead of an earlier record of it.
    pub(super) fn note(&mut self, installed: InstalledFile) {
        match self.files.iter_mut().find(|known| known.path == installed.path) {
            Some(known) => *known = installed,
            None => self.files.push(installed),
        }
    }

    /// Plan to write the record.
    pub(super) fn write(&mut self, plan: &mut ChangePlan) -> Result<(), CliError> {
        self.format = FORMAT;
        plan.make_directory(HOME, &mut self.directories);
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        plan.write(RECORD, text, false, &mut self.directories)
    }
}
