//! What was installed: `.crew/installed.json`, so that it can be taken out again, and so that what a user has changed since can
//! be told from what crewfs wrote.

use serde::{Deserialize, Serialize};

use super::plan::{ChangePlan, FileContent};
use crate::cli::error::CliError;

/// Where it is kept, from the root of the project.
pub(super) const RECORD: &str = ".crew/installed.json";
const HOME: &str = ".crew";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InstallRecord {
    format: u32,
    /// The agent programs that it was installed for, by the names of `--client`.
    pub(super) clients: Vec<String>,
    /// The directories that were made, those above first.
    pub(super) directories: Vec<String>,
    pub(super) files: Vec<InstalledFile>,
}

/// What was put into one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InstalledFile {
    pub(super) path: String,
    /// Whether there was no such file before.
    pub(super) created: bool,
    /// What was put in, byte for byte.
    pub(super) pieces: Vec<String>,
}

impl InstallRecord {
    /// The record of a project; `None` where nothing was installed.
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

    /// Note what was put into a file, instead of what was noted before.
    pub(super) fn note(&mut self, installed: InstalledFile) {
        match self.files.iter_mut().find(|known| known.path == installed.path) {
            Some(known) => *known = installed,
            None => self.files.push(installed),
        }
    }

    /// Decide that it shall be on the disk as it is now.
    pub(super) fn write(&mut self, plan: &mut ChangePlan) -> Result<(), CliError> {
        self.format = FORMAT;
        plan.make_directory(HOME, &mut self.directories);
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        plan.write(RECORD, text, false, &mut self.directories)
    }
}
