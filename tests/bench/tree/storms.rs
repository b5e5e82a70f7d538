//! Series of system calls, made by this process itself without a shell.
//!
//! Paths are relative to a directory that is opened once, so that the path to it costs the same on every filesystem.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, statat};
use rustix::io::{pread, pwrite, read, write};

use crate::common::Outcome;
use crate::material::{Chance, block};

const MIB: usize = 1 << 20;
const PAGE: usize = 4 << 10;

fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn file(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::from(0o644))?)
}

fn whole(expected: usize, done: usize) -> io::Result<()> {
    if done == expected { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Opens each file for reading and closes it.
pub(crate) fn open_close(top: &Path, files: &[PathBuf]) -> Outcome<()> {
    let top = directory(top)?;
    for path in files {
        drop(openat(&top, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    }
    Ok(())
}

/// Opens one file for reading and closes it, this many times.
pub(crate) fn open_close_one(path: &Path, times: usize) -> Outcome<()> {
    for _ in 0..times {
        drop(file(path, OFlags::RDONLY)?);
    }
    Ok(())
}

/// Reads the attributes of each file.
pub(crate) fn stat(top: &Path, files: &[PathBuf]) -> Outcome<()> {
    let top = directory(top)?;
    for path in files {
        statat(&top, path, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// Reads the attributes of one file, this many times.
pub(crate) fn stat_one(path: &Path, times: usize) -> Outcome<()> {
    for _ in 0..times {
        rustix::fs::lstat(path)?;
    }
    Ok(())
}

/// Creates this many files with a line in each, 100 in a directory.
pub(crate) fn create(top: &Path, count: usize) -> Outcome<()> {
    let text = [b'x'; 200];
    for number in 0..count {
        let inside = top.join(format!("d{:03}", number / 100));
        if number % 100 == 0 {
            std::fs::create_dir_all(&inside)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let made = file(&inside.join(format!("f{number:05}")), flags)?;
        whole(text.len(), write(&made, &text)?)?;
    }
    Ok(())
}

/// Truncates and rewrites each existing file, as a shell's `>` and most agents do.
pub(crate) fn rewrite(top: &Path, files: &[PathBuf]) -> Outcome<()> {
    let top = directory(top)?;
    let text = [b'y'; 1_000];
    for path in files {
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let opened = openat(&top, path, flags, Mode::empty())?;
        whole(text.len(), write(&opened, &text)?)?;
    }
    Ok(())
}

/// Reads a file of this many MiB from start to end, in blocks of a MiB.
pub(crate) fn read_all(path: &Path, megabytes: usize) -> Outcome<()> {
    let opened = file(path, OFlags::RDONLY)?;
    let (mut buffer, mut total) = (vec![0; MIB], 0);
    loop {
        match read(&opened, &mut buffer[..])? {
            0 => break,
            length => total += length,
        }
    }
    Ok(whole(megabytes * MIB, total)?)
}

/// Writes a new file of this many MiB, in blocks of a MiB.
pub(crate) fn write_all(path: &Path, megabytes: usize) -> Outcome<()> {
    let opened = file(path, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    let block = block(0);
    for _ in 0..megabytes {
        let mut rest = &block[..];
        while !rest.is_empty() {
            rest = &rest[write(&opened, rest)?..];
        }
    }
    Ok(())
}

/// Reads this many pages of 4 KiB at random positions.
pub(crate) fn read_pages(path: &Path, megabytes: usize, count: usize) -> Outcome<()> {
    let opened = file(path, OFlags::RDONLY)?;
    let (mut page, mut chance) = ([0; PAGE], Chance::new(1));
    for _ in 0..count {
        let at = chance.below(megabytes * MIB / PAGE) * PAGE;
        whole(PAGE, pread(&opened, &mut page[..], at as u64)?)?;
    }
    Ok(())
}

/// Overwrites this many pages of 4 KiB at random positions.
pub(crate) fn write_pages(path: &Path, megabytes: usize, count: usize) -> Outcome<()> {
    let opened = file(path, OFlags::WRONLY)?;
    let (page, mut chance) = ([b'z'; PAGE], Chance::new(2));
    for _ in 0..count {
        let at = chance.below(megabytes * MIB / PAGE) * PAGE;
        whole(PAGE, pwrite(&opened, &page, at as u64)?)?;
    }
    Ok(())
}

/// Checks that the file exists with this size.
pub(crate) fn expect_size(path: &Path, bytes: u64) -> Outcome<()> {
    let found = File::open(path)?.metadata()?.len();
    if found == bytes {
        Ok(())
    } else {
        Err(format!("{} has {found} bytes, not {bytes}", path.display()).into())
    }
}
