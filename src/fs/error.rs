//! The error that a request to a filesystem can end with: an errno and a sentence.
//!
//! Must never: hold EINTR. Agent programs retry it for ever.

use std::borrow::Cow;

use super::desk::sentences::Sentences;
use crate::queue::Refusal;

/// Why a call fails: the errno that the caller gets, and a sentence for the log and for `why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FsError {
    /// An errno of `errno(3)`. Never EINTR: agent programs retry it for ever.
    pub errno: i32,
    /// One sentence, where there is more to say than the errno does.
    pub why: Option<Cow<'static, str>>,
    /// What the queue refuses, if it does.
    pub refusal: Option<Box<Refusal>>,
}

impl FsError {
    /// An error that its errno says whole.
    pub const fn new(errno: i32) -> FsError {
        FsError { errno, why: None, refusal: None }
    }

    /// An error with one sentence that says why.
    pub fn because(errno: i32, why: impl Into<Cow<'static, str>>) -> FsError {
        FsError { errno, why: Some(why.into()), refusal: None }
    }

    /// One sentence for the caller; `tasks` is the name of the tasks directory.
    pub fn sentence(&self, tasks: &str) -> Option<String> {
        let refusal = self.refusal.as_ref().map(|refusal| Sentences(tasks).refusal(refusal));
        refusal.or_else(|| self.why.as_ref().map(|why| why.to_string()))
    }
}

impl From<rustix::io::Errno> for FsError {
    fn from(errno: rustix::io::Errno) -> FsError {
        FsError::new(errno.raw_os_error())
    }
}

impl From<std::io::Error> for FsError {
    fn from(error: std::io::Error) -> FsError {
        FsError::new(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// What a filesystem method comes to.
pub type Result<T> = std::result::Result<T, FsError>;
