//! Parcels: descriptors that wait in a socket. One parcel holds as many as one message can carry, and costs one descriptor.
//!
//! May assume: the process seldom lacks as many descriptors as a parcel holds.
//! Must never: lose a descriptor. Unpacking gives all packed descriptors in the same order, or fails and leaves the parcel as it was.
//!
//! A process may have fewer descriptors than a project has files. A descriptor that was sent through a socket (SCM_RIGHTS, unix(7))
//! and not yet received keeps its file alive, and takes no place in the descriptor table of the process.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// The number of descriptors that one message carries: `SCM_MAX_FD` of Linux.
pub(super) const PARCEL_MAX: usize = 253;

const SPACE: usize = rustix::cmsg_space!(ScmRights(PARCEL_MAX));

/// Descriptors in a socket.
#[derive(Debug)]
pub(super) struct Parcel {
    socket: OwnedFd,
    count: usize,
}

impl Parcel {
    /// Pack copies of these descriptors, in this order.
    ///
    /// # Errors
    /// ETOOMANYREFS when a user without CAP_SYS_ADMIN has as many descriptors in flight as a process may have open; EMFILE.
    pub(super) fn pack<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Parcel> {
        let descriptors: Vec<BorrowedFd> = descriptors.collect();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // The other end may be closed as soon as the message waits at this one.
        let (socket, other) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&other, &[IoSlice::new(&[0])], &mut control, SendFlags::empty())?;
        Ok(Parcel { socket, count: descriptors.len() })
    }

    /// Copies of all descriptors, in their order. The caller can drop the parcel then.
    ///
    /// # Errors
    /// EMFILE when the process has no room for all of them.
    pub(super) fn unpack(&self) -> io::Result<Vec<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let (mut byte, flags) = ([0], RecvFlags::CMSG_CLOEXEC | RecvFlags::PEEK);
        recvmsg(self.socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        let rights = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors: Vec<OwnedFd> = rights.flatten().collect();
        // The kernel leaves out the descriptors for which there is no room.
        if descriptors.len() == self.count { Ok(descriptors) } else { Err(Errno::MFILE.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_packed_comes_out_in_its_order_also_when_it_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<File> =
            (0..PARCEL_MAX).map(|n| File::create(dir.path().join(n.to_string())).unwrap()).collect();
        let numbers =
            |files: &[File]| files.iter().map(|file| file.metadata().unwrap().ino()).collect::<Vec<_>>();
        let expected = numbers(&files);
        let parcel = Parcel::pack(files.iter().map(|file| file.as_fd())).unwrap();
        drop(files);
        drop(dir);
        for _ in 0..2 {
            let files: Vec<File> = parcel.unpack().unwrap().into_iter().map(File::from).collect();
            assert_eq!(numbers(&files), expected);
        }
        let files: Vec<File> = parcel.unpack().unwrap().into_iter().map(File::from).collect();
        drop(parcel);
        assert!(files.iter().all(|file| file.metadata().unwrap().nlink() == 0));
    }

    #[test]
    fn more_than_a_message_takes_is_refused() {
        let file = File::open("/dev/null").unwrap();
        assert!(Parcel::pack((0..=PARCEL_MAX).map(|_| file.as_fd())).is_err());
        assert_eq!(Parcel::pack(std::iter::once(file.as_fd())).unwrap().unpack().unwrap().len(), 1);
    }
}
