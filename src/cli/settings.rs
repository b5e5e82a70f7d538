//! A file of settings, as a rule `/etc/crewfs/NAME.toml`: which project is mounted where, and how (C72).
//!
//! ```toml
//! source = "/srv/project"
//! mountpoint = "/mnt/project"     # the project itself when left out
//! lease = "45m"                   # every mount option, by the name that -o knows
//! threads = 8
//! allow_other = true
//! ```
//!
//! Must never: ignore an unknown key, or accept a relative path: a service has no directory of its own.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::error::CliError;
use super::options::Options;
use crate::log::LOG_FILE;
use crate::state_directory;

/// The directory of the settings of a server's projects, each in a file NAME.toml.
pub(super) const DIRECTORY: &str = "/etc/crewfs";

/// The content of such a file.
#[derive(Debug)]
pub(super) struct Settings {
    /// The project's directory, absolute.
    pub(super) source: PathBuf,
    /// Where it is mounted, absolute. The project itself if the file does not name a place.
    pub(super) mountpoint: PathBuf,
    file: PathBuf,
    options: Table,
}

impl Settings {
    /// Read a file.
    pub(super) fn read(file: &Path) -> Result<Settings, CliError> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let shown = file.display();
            CliError::failed(format!("the settings in {shown} cannot be read: {error}"))
        })?;
        Settings::parse(file, &text)
    }

    /// The state directory that the files of this machine name for a project, if the state is not in the project.
    pub(super) fn state_of(source: &Path) -> Option<PathBuf> {
        if std::fs::symlink_metadata(source.join(state_directory::NAME).join(LOG_FILE)).is_ok() {
            return None;
        }
        let files = std::fs::read_dir(DIRECTORY).ok()?.flatten().map(|entry| entry.path());
        let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "toml"));
        let settings = files.filter_map(|file| Settings::read(&file).ok());
        let settings = settings.filter(|settings| settings.source == source);
        settings.filter_map(|settings| settings.apply(Options::defaults(false, 1)).ok()?.state).next()
    }

    fn parse(file: &Path, text: &str) -> Result<Settings, CliError> {
        let wrong = |why: &str| CliError::usage(format!("{}: {why}", file.display()));
        let mut options: Table =
            text.parse().map_err(|error: toml::de::Error| wrong(error.to_string().trim()))?;
        let mut path = |key: &str| match options.remove(key) {
            None => Ok(None),
            Some(Value::String(path)) if Path::new(&path).is_absolute() => Ok(Some(PathBuf::from(path))),
            Some(_) => {
                Err(wrong(&format!("{key} must be an absolute path in quotes, such as \"/srv/project\"")))
            }
        };
        let mountpoint = path("mountpoint")?;
        let source = path("source")?
            .ok_or_else(|| wrong("it does not say which project to mount: add source = \"/srv/project\""))?;
        let mountpoint = mountpoint.unwrap_or_else(|| source.clone());
        Ok(Settings { source, mountpoint, file: file.to_path_buf(), options })
    }

    /// Apply the options of the file.
    pub(super) fn apply(&self, options: Options) -> Result<Options, CliError> {
        let named = |failure: CliError| CliError {
            message: format!("{}: {}", self.file.display(), failure.message),
            ..failure
        };
        self.options.iter().try_fold(options, |options, (key, value)| {
            let value = match value {
                // An option without a value after -o is true or false here.
                Value::Boolean(true) => None,
                Value::Boolean(false) => return options.set(&format!("no{key}"), None).map_err(named),
                Value::String(value) => Some(value.clone()),
                Value::Integer(number) => Some(number.to_string()),
                _ => {
                    return Err(named(CliError::usage(format!(
                        "{key} must be text, a number, true or false"
                    ))));
                }
            };
            options.set(key, value.as_deref()).map_err(named)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Span;

    fn parse(text: &str) -> Result<Settings, CliError> {
        Settings::parse(Path::new("/etc/crewfs/x.toml"), text)
    }

    #[test]
    fn a_file_says_what_is_mounted_where_and_how() {
        let settings = parse("source = '/srv/x'\nlease = '45m'\nthreads = 8\nallow_other = false\n").unwrap();
        assert_eq!(settings.source, Path::new("/srv/x"));
        assert_eq!(settings.mountpoint, Path::new("/srv/x"));
        let options = settings.apply(Options::defaults(true, 2)).unwrap();
        assert_eq!((options.lease(), options.threads, options.allow_other), (Span(2_700_000), 8, false));
        let elsewhere = parse("source = '/srv/x'\nmountpoint = '/mnt/x'\nallow_other = true").unwrap();
        assert_eq!(elsewhere.mountpoint, Path::new("/mnt/x"));
        assert!(elsewhere.apply(Options::defaults(false, 2)).unwrap().allow_other);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file_and_the_reason() {
        let refused = |text: &str, part: &str| {
            let outcome = parse(text).and_then(|settings| settings.apply(Options::defaults(true, 2)));
            let failure = outcome.unwrap_err();
            assert_eq!(failure.code, 2);
            assert!(failure.message.starts_with("/etc/crewfs/x.toml: "), "{}", failure.message);
            assert!(failure.message.contains(part), "{}", failure.message);
        };
        refused("", "add source = ");
        refused("source = 'srv/x'", "absolute path");
        refused("source = '/x'\nmountpoint = 3", "mountpoint must be an absolute path");
        refused("source = '/x'\nleas = '3m'", "there is no option \"leas=3m\"");
        refused("source = '/x'\nlease = 3", "takes a span of time");
        refused("source = '/x'\nthreads = true", "takes a number");
        refused("source = '/x'\nthreads = [3]", "threads must be text, a number, true or false");
        refused("source = '/x'\nfaster = false", "there is no option \"nofaster\"");
        refused("source = '/x'\n= 3", "2");
    }
}
