//! What was installed: `.crew/installed.json`, so that it can be taken out again, and so that what a user has changed since can
//! be told from what crewfs wrote.

use serde::{Deserialize, Serialize};

use super::place::{Found, Place};
use crate::cli::failure::Failure;

/// Where it is kept, from the root of the project.
pub(super) const RECORD: &str = ".crew/installed.json";
const HOME: &str = ".crew";
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    format: u32,
    /// The agent programs that it was installed for, by the names of `--client`.
    pub(super) clients: Vec<String>,
    /// The directories that were made, those above first.
    pub(super) directories: Vec<String>,
    pub(super) files: Vec<Installed>,
}

/// What was put into one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Installed {
    pub(super) path: String,
    /// Whether there was no such file before.
    pub(super) created: bool,
    /// What was put in, byte for byte.
    pub(super) pieces: Vec<String>,
}

impl Record {
    /// The record of a project; `None` where nothing was installed.
    pub(super) fn read(place: &Place) -> Result<Option<Record>, Failure> {
        let damaged = |why: String| {
            Failure::failed(format!(
                "{RECORD}, which tells what was installed, is of no use: {why}; remove it, and what is there already is left as it is"
            ))
        };
        match place.find(RECORD)? {
            Found::Nothing => Ok(None),
            Found::Unfit(why) => Err(damaged(why)),
            Found::Text(text) => match serde_json::from_str::<Record>(&text) {
                Ok(record) if record.format == FORMAT => Ok(Some(record)),
                Ok(record) => Err(damaged(format!("its format {} belongs to another crewfs", record.format))),
                Err(error) => Err(damaged(error.to_string())),
            },
        }
    }

    pub(super) fn of(&self, path: &str) -> Option<&Installed> {
        self.files.iter().find(|installed| installed.path == path)
    }

    /// Note what was put into a file, instead of what was noted before.
    pub(super) fn note(&mut self, installed: Installed) {
        match self.files.iter_mut().find(|known| known.path == installed.path) {
            Some(known) => *known = installed,
            None => self.files.push(installed),
        }
    }

    /// Decide that it shall be on the disk as it is now.
    pub(super) fn write(&mut self, place: &mut Place) -> Result<(), Failure> {
        self.format = FORMAT;
        place.make_directory(HOME, &mut self.directories);
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        place.write(RECORD, text, false, &mut self.directories)
    }
}
