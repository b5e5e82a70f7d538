//! Why a request to a filesystem fails, and the one place where the reason becomes an errno.
//!
//! Must never: return EINTR. Agent programs retry it for ever.

use rustix::io::Errno;

use super::desk::misuse::Misuse;
use super::desk::sentences::Sentences;
use super::guard::GuardRefusal;
use super::identity::nameless::Nameless;
use super::tree::Reserved;
use crate::engine::Failure;
use crate::log::LogError;
use crate::queue::Refusal;

/// What a filesystem method returns.
pub type Result<T> = std::result::Result<T, FsError>;

/// Why a request fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FsError {
    /// The operating system refused a call.
    Os(OsError),
    /// The request cannot be served, and its errno says why.
    Plain(Fault),
    /// The queue refuses a command.
    Queue(Box<Refusal>),
    /// The engine could not carry out a command.
    Engine(Box<Failure>),
    /// The event log could not be read, with this error.
    Log(String),
    /// The history of changes could not be written or read, with this error.
    History(String),
    /// The guard refuses a change of a file of the project.
    Guard(GuardRefusal),
    /// The caller has no name.
    Nameless(Nameless),
    /// The tasks directory does not support this use.
    Misuse(Misuse),
    /// The name or the file belongs to crewfs.
    Reserved(Reserved),
}

/// An errno of the operating system; never EINTR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsError(Errno);

/// Faults that an errno describes completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The file does not exist at present.
    Absent,
    /// A file of that name exists.
    Exists,
    /// The node's file is no longer at its name. The kernel looks the path up again.
    Stale,
    /// No open file has this handle, or it is of another kind.
    NoHandle,
    /// The file is not a directory.
    NotDirectory,
    /// The file is a directory.
    IsDirectory,
    /// The file has no such attribute.
    NoAttribute,
    /// Source and target are on two filesystems, as far as the caller can tell.
    OtherFilesystem,
    /// The argument is not valid here.
    Invalid,
    /// The file would be too large.
    TooLarge,
    /// The position is beyond the end.
    BeyondEnd,
    /// The file does not support the operation.
    Unsupported,
    /// No file supports the operation. The kernel does not request it again.
    NotImplemented,
    /// The file on the disk is of an unknown kind.
    UnknownKind,
    /// Another process has a lease on the file.
    Leased,
    /// The caller does not own the file.
    NotOwner,
}

impl FsError {
    /// The errno that the caller gets.
    pub fn errno(&self) -> i32 {
        let errno = match self {
            FsError::Os(OsError(errno)) => *errno,
            FsError::Plain(fault) => of_fault(*fault),
            FsError::Queue(refusal) => of_refusal(refusal),
            FsError::Engine(failure) => of_failure(failure),
            FsError::Log(_) | FsError::History(_) => Errno::IO,
            FsError::Guard(refusal) => of_guard(refusal),
            FsError::Nameless(Nameless::Misnamed(_)) => Errno::ACCESS,
            FsError::Nameless(Nameless::Unknown(_)) => Errno::AGAIN,
            FsError::Misuse(misuse) => of_misuse(misuse),
            FsError::Reserved(reserved) => of_reserved(*reserved),
        };
        errno.raw_os_error()
    }

    /// One sentence that says more than the errno; `tasks` is the name of the tasks directory.
    pub fn sentence(&self, tasks: &str) -> Option<String> {
        match self {
            FsError::Os(_) | FsError::Plain(_) => None,
            FsError::Queue(refusal) => Some(Sentences(tasks).refusal(refusal)),
            FsError::Engine(failure) => Some(failure.to_string()),
            FsError::Log(error) | FsError::History(error) => Some(error.clone()),
            FsError::Guard(refusal) => Some(refusal.to_string()),
            FsError::Nameless(nameless) => Some(nameless.to_string()),
            FsError::Misuse(misuse) => Some(Sentences(tasks).misuse(misuse)),
            FsError::Reserved(reserved) => Some(reserved.to_string()),
        }
    }
}

fn of_fault(fault: Fault) -> Errno {
    match fault {
        Fault::Absent => Errno::NOENT,
        Fault::Exists => Errno::EXIST,
        Fault::Stale => Errno::STALE,
        Fault::NoHandle => Errno::BADF,
        Fault::NotDirectory => Errno::NOTDIR,
        Fault::IsDirectory => Errno::ISDIR,
        Fault::NoAttribute => Errno::NODATA,
        Fault::OtherFilesystem => Errno::XDEV,
        Fault::Invalid => Errno::INVAL,
        Fault::TooLarge => Errno::FBIG,
        Fault::BeyondEnd => Errno::NXIO,
        Fault::Unsupported => Errno::OPNOTSUPP,
        Fault::NotImplemented => Errno::NOSYS,
        Fault::UnknownKind => Errno::IO,
        Fault::Leased => Errno::AGAIN,
        Fault::NotOwner => Errno::PERM,
    }
}

/// The errno of a refusal by the queue (C22, C24).
fn of_refusal(refusal: &Refusal) -> Errno {
    match refusal {
        Refusal::Unknown { .. }
        | Refusal::Finished { .. }
        | Refusal::Rejected { .. }
        | Refusal::NoFile { .. }
        | Refusal::NothingReady { .. }
        | Refusal::NothingForWorker { .. }
        | Refusal::AllPrivate { .. } => Errno::NOENT,
        Refusal::Held { .. } | Refusal::AlreadyYours { .. } | Refusal::AlreadyFinished { .. } => Errno::EXIST,
        Refusal::Blocked { .. } | Refusal::InUse { .. } | Refusal::Cycle { .. } => Errno::BUSY,
        Refusal::HasFile { .. } => Errno::PERM,
        Refusal::OverBudget { .. } => Errno::DQUOT,
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
        | Refusal::OperatorOnly { .. } => Errno::ACCESS,
        Refusal::NotFinished { .. } => Errno::INVAL,
    }
}

fn of_failure(failure: &Failure) -> Errno {
    match failure {
        Failure::Refused(refusal) => of_refusal(refusal),
        Failure::Check => Errno::AGAIN,
        Failure::Log(_) | Failure::Stopping => Errno::IO,
        Failure::ReadOnly(_) => Errno::ROFS,
        Failure::DiskFull => Errno::NOSPC,
    }
}

fn of_guard(refusal: &GuardRefusal) -> Errno {
    match refusal {
        GuardRefusal::Held { .. }
        | GuardRefusal::HeldAndChanged { .. }
        | GuardRefusal::Changed { .. }
        | GuardRefusal::ShowedRefused { .. }
        | GuardRefusal::Gone { .. }
        | GuardRefusal::Owned { .. }
        | GuardRefusal::Superseded { .. } => Errno::BUSY,
        GuardRefusal::LocksFull { .. } => Errno::NOLCK,
        GuardRefusal::OwnAttribute { .. } => Errno::PERM,
    }
}

fn of_misuse(misuse: &Misuse) -> Errno {
    match misuse {
        Misuse::NotAnId | Misuse::NoTaskReady | Misuse::NoClaim => Errno::NOENT,
        Misuse::NotWritable
        | Misuse::ScratchOfAnother { .. }
        | Misuse::CapabilitiesOfAnother { .. }
        | Misuse::NoteOfAnother { .. }
        | Misuse::NothingToNote { .. } => Errno::ACCESS,
        Misuse::NoteTooLong | Misuse::TextTooLong { .. } => Errno::FBIG,
        Misuse::TooMuchOpen { .. } => Errno::NFILE,
        Misuse::TooManyScratches => Errno::NOSPC,
        Misuse::NotWords => Errno::INVAL,
        Misuse::OurName
        | Misuse::OurDirectory
        | Misuse::NotMakeable
        | Misuse::NotMovable
        | Misuse::NotRemovable
        | Misuse::OnlyFiles
        | Misuse::NoSymlinks
        | Misuse::MadeByWriting { .. }
        | Misuse::WithdrawnByRemoving { .. }
        | Misuse::KeepsItsName { .. }
        | Misuse::StatusIsForReading
        | Misuse::ChangesAreForReading
        | Misuse::NoSuchMove => Errno::PERM,
    }
}

fn of_reserved(reserved: Reserved) -> Errno {
    match reserved {
        Reserved::StateDirectory | Reserved::WithoutQueue | Reserved::Link | Reserved::SessionAttribute => {
            Errno::PERM
        }
        Reserved::TasksDirectory => Errno::BUSY,
    }
}

impl From<Errno> for OsError {
    fn from(errno: Errno) -> OsError {
        OsError(if errno == Errno::INTR { Errno::IO } else { errno })
    }
}

impl From<Errno> for FsError {
    fn from(errno: Errno) -> FsError {
        FsError::Os(errno.into())
    }
}

impl From<std::io::Error> for FsError {
    fn from(error: std::io::Error) -> FsError {
        Errno::from_io_error(&error).unwrap_or(Errno::IO).into()
    }
}

impl From<Fault> for FsError {
    fn from(fault: Fault) -> FsError {
        FsError::Plain(fault)
    }
}

impl From<Refusal> for FsError {
    fn from(refusal: Refusal) -> FsError {
        FsError::Queue(Box::new(refusal))
    }
}

impl From<Failure> for FsError {
    fn from(failure: Failure) -> FsError {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            failure => FsError::Engine(Box::new(failure)),
        }
    }
}

impl From<LogError> for FsError {
    fn from(error: LogError) -> FsError {
        FsError::Log(error.to_string())
    }
}

impl From<GuardRefusal> for FsError {
    fn from(refusal: GuardRefusal) -> FsError {
        FsError::Guard(refusal)
    }
}

impl From<Nameless> for FsError {
    fn from(nameless: Nameless) -> FsError {
        FsError::Nameless(nameless)
    }
}

impl From<Misuse> for FsError {
    fn from(misuse: Misuse) -> FsError {
        FsError::Misuse(misuse)
    }
}

impl From<Reserved> for FsError {
    fn from(reserved: Reserved) -> FsError {
        FsError::Reserved(reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eintr_never_comes_out() {
        let interrupted = std::io::Error::from_raw_os_error(libc::EINTR);
        for error in [Errno::INTR.into(), interrupted.into()] {
            assert_eq!(FsError::errno(&error), libc::EIO);
        }
        assert_eq!(FsError::from(Errno::NOENT).errno(), libc::ENOENT);
        let without_errno = std::io::Error::other("why");
        assert_eq!(FsError::from(without_errno).errno(), libc::EIO);
    }
}
