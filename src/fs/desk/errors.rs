//! From reasons to errnos: the one place where a refusal becomes what `open(2)` answers (C22, C24).
//!
//! Must never: answer EINTR, which agent programs retry for ever, or lose the sentence.

use super::super::FsError;
use crate::engine::Failure;
use crate::log::LogError;
use crate::queue::Refusal;

impl From<&Refusal> for FsError {
    fn from(refusal: &Refusal) -> FsError {
        let errno = match refusal {
            Refusal::Unknown { .. }
            | Refusal::Finished { .. }
            | Refusal::Rejected { .. }
            | Refusal::NoFile { .. }
            | Refusal::NothingReady { .. }
            | Refusal::NothingForWorker { .. }
            | Refusal::AllPrivate { .. } => libc::ENOENT,
            Refusal::Held { .. } | Refusal::AlreadyYours { .. } | Refusal::AlreadyFinished { .. } => {
                libc::EEXIST
            }
            Refusal::Blocked { .. } | Refusal::InUse { .. } | Refusal::Cycle { .. } => libc::EBUSY,
            Refusal::HasFile { .. } => libc::EPERM,
            Refusal::OverBudget { .. } => libc::EDQUOT,
            Refusal::Paused
            | Refusal::Draining { .. }
            | Refusal::Incapable { .. }
            | Refusal::TooMany { .. }
            | Refusal::Private { .. }
            | Refusal::NotHolder { .. }
            | Refusal::Stale { .. }
            | Refusal::NoNote(_)
            | Refusal::NameTaken { .. }
            | Refusal::NoMember { .. }
            | Refusal::OperatorOnly { .. } => libc::EACCES,
            Refusal::NotFinished { .. } => libc::EINVAL,
        };
        FsError { refusal: Some(Box::new(refusal.clone())), ..FsError::new(errno) }
    }
}

impl From<&Failure> for FsError {
    fn from(failure: &Failure) -> FsError {
        let errno = match failure {
            Failure::Refused(refusal) => return refusal.into(),
            Failure::Check { errno } => return FsError::new(*errno),
            Failure::Log(_) | Failure::Stopping => libc::EIO,
            Failure::ReadOnly(_) => libc::EROFS,
            Failure::DiskFull => libc::ENOSPC,
        };
        FsError::because(errno, failure.to_string())
    }
}

impl From<LogError> for FsError {
    fn from(error: LogError) -> FsError {
        FsError::because(libc::EIO, error.to_string())
    }
}
