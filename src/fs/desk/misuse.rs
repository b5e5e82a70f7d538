//! What the tasks directory cannot be asked for: requests that mean no command of the queue.
//!
//! Must never: hold a sentence or an errno.

use crate::queue::{TaskId, WorkerName};

/// Why a request means nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misuse {
    /// The name belongs to crewfs.
    OurName,
    /// The directory belongs to crewfs.
    OurDirectory,
    /// The name belongs to crewfs, and nothing can be made there.
    NotMakeable,
    /// The name belongs to crewfs, and cannot be moved.
    NotMovable,
    /// The name belongs to crewfs, and cannot be removed.
    NotRemovable,
    /// No task can have that name.
    NotAnId,
    /// No task is ready that the caller could move.
    NoTaskReady,
    /// The caller holds no claim.
    NoClaim,
    /// The file is for reading.
    NotWritable,
    /// Devices, sockets and pipes are not made here.
    OnlyFiles,
    /// Symbolic links are not made here.
    NoSymlinks,
    /// A task is made by its instruction file.
    MadeByWriting {
        /// The task.
        task: TaskId,
    },
    /// A task is withdrawn by its instruction file.
    WithdrawnByRemoving {
        /// The task.
        task: TaskId,
    },
    /// A move would rename a task.
    KeepsItsName {
        /// The task.
        task: TaskId,
    },
    /// `status/` is for reading.
    StatusIsForReading,
    /// `changes/` is for reading.
    ChangesAreForReading,
    /// A task does not move from there to here.
    NoSuchMove,
    /// The capabilities are not a list of words.
    NotWords,
    /// Another worker's capabilities.
    CapabilitiesOfAnother {
        /// That worker.
        worker: WorkerName,
    },
    /// Another worker's note.
    NoteOfAnother {
        /// That worker.
        worker: WorkerName,
    },
    /// The worker holds no task that a note could be about.
    NothingToNote {
        /// The worker.
        worker: WorkerName,
    },
    /// The note is too long.
    NoteTooLong,
    /// The text is too long.
    TextTooLong {
        /// How many bytes it may have.
        limit: usize,
    },
    /// The user has too many texts open.
    TooMuchOpen {
        /// The user.
        uid: u32,
    },
    /// Too many temporary files are open.
    TooManyScratches,
    /// Another user's temporary file.
    ScratchOfAnother {
        /// That user.
        uid: u32,
    },
}
