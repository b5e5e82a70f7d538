//! No surprise with a large tree: a table of the daemon's memory and open descriptors.
//!
//! `CREWFS_SCALE=1` sets a million files, ten thousand of them open, and a directory of a hundred thousand. The assertions hold on any
//! machine.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crewfs::limits::Descriptors;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{Mounted, project};
use crate::process::until;
use crate::random::{Random, number, seed};

/// The most bytes of memory that a file known to the kernel may cost.
const BYTES_A_FILE: f64 = 400.0;
/// Files in each directory of the large tree.
const FILES_A_DIRECTORY: usize = 1_000;

struct Sizes {
    known: usize,
    open: usize,
    listed: usize,
    renames: usize,
}

fn sizes() -> Sizes {
    match number("CREWFS_SCALE") {
        Some(_) => Sizes { known: 1_000_000, open: 10_000, listed: 100_000, renames: 100_000 },
        None => Sizes { known: 20_000, open: 2_000, listed: 5_000, renames: 5_000 },
    }
}

/// The table that is printed: one line for each step.
struct Table<'a> {
    mounted: &'a Mounted,
    start: Instant,
    most: usize,
}

impl Table<'_> {
    fn row(&mut self, what: &str) -> (usize, usize) {
        let (resident, descriptors) = (resident(self.mounted), self.mounted.daemon_fds().len());
        let seconds = self.start.elapsed().as_secs_f64();
        println!(
            "{what:44} {:>8.1} MiB {descriptors:>8} {seconds:>8.1} s",
            resident as f64 / f64::from(1 << 20)
        );
        assert!(descriptors <= self.most, "{descriptors} descriptors, after: {what}");
        self.start = Instant::now();
        (resident, descriptors)
    }
}

/// The daemon's resident memory, in bytes.
pub(crate) fn resident(mounted: &Mounted) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", mounted.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// The limit of descriptors of a process.
fn limit_of(process: u32) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap_or(u64::MAX)
}

#[test]
fn a_large_tree_costs_memory_for_what_is_known_and_a_bounded_number_of_descriptors() {
    let project = project!();
    let (sizes, mut random) = (sizes(), Random::new(seed()));
    let (soft, hard) = (getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    let open = sizes.open.min(hard.unwrap_or(u64::MAX) as usize / 2);
    let directory = |n: usize| format!("many/d{n:04}");
    for n in 0..sizes.known.div_ceil(FILES_A_DIRECTORY) {
        let directory = project.source().join(directory(n));
        fs::create_dir_all(&directory).unwrap();
        (0..FILES_A_DIRECTORY)
            .for_each(|n| drop(File::create(directory.join(format!("file{n:04}"))).unwrap()));
    }
    fs::create_dir(project.source().join("large")).unwrap();
    (0..sizes.listed)
        .for_each(|n| drop(File::create(project.source().join(format!("large/file{n:06}"))).unwrap()));

    let mounted = project.mount(&[]);
    let root = mounted.path().to_path_buf();
    let limit = limit_of(mounted.pid());
    let (tree, desk) = (Descriptors::of_tree(limit), Descriptors::of_desk(limit));
    // The last term covers what the daemon always needs, and its callers.
    let most = tree.paths + tree.data + desk.paths + desk.data + 600;
    let mut table = Table { mounted: &mounted, start: Instant::now(), most };
    println!("{:44} {:>12} {:>8}", "", "memory", "open");
    let (before, _) = table.row("start");

    let known = walk(&root.join("many"));
    assert_eq!(known, sizes.known);
    let (after, _) = table.row(&format!("{known} files are known"));
    let each = (after - before) as f64 / known as f64;
    println!("{each:.0} bytes of memory for each file that is known");
    // With few files, the allocator's own memory, of which each thread has some, is the larger part.
    let most = if known >= 500_000 { BYTES_A_FILE } else { 4.0 * BYTES_A_FILE };
    assert!(each < most, "{each:.0}");

    assert_eq!(walk(&root.join("large")), sizes.listed);
    table.row(&format!("a directory of {} is listed and looked at", sizes.listed));

    let place = |n: usize| {
        root.join(directory(n / FILES_A_DIRECTORY)).join(format!("file{:04}", n % FILES_A_DIRECTORY))
    };
    let mut files: Vec<(PathBuf, File)> = (0..open)
        .map(|n| (place(n), File::options().read(true).append(true).open(place(n)).unwrap()))
        .collect();
    files.iter_mut().for_each(|(_, file)| file.write_all(b"x").unwrap());
    table.row(&format!("{open} files are open and written"));

    files.iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    let (_, held) = table.row(&format!("{open} of them are removed"));
    let mut read = String::new();
    for (_, file) in &mut files {
        file.write_all(b"y").unwrap();
        rustix::fs::seek(&*file, rustix::fs::SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut read).unwrap();
    }
    assert_eq!(read, "xy".repeat(open));
    table.row("they are written and read once more");
    drop(files);
    let few = held.saturating_sub(open / 2);
    until("their descriptors are given back", || mounted.daemon_fds().len() <= few);
    table.row("they are closed");

    storm(&root, sizes.renames, sizes.known.div_ceil(FILES_A_DIRECTORY), &mut random);
    table.row(&format!("{} renames across directories, and links", sizes.renames));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: soft, maximum: hard });
}

/// Stat everything below a directory; returns the number of files.
pub(crate) fn walk(directory: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        match entry.metadata().unwrap().is_dir() {
            true => count += walk(&entry.path()),
            false => count += 1,
        }
    }
    count
}

/// Rename files and directories to and fro. Each file keeps its content under all its names.
fn storm(root: &Path, renames: usize, directories: usize, random: &mut Random) {
    const FILES: usize = 200;
    let hall = |n: usize| root.join(format!("many/d{n:04}/hall"));
    let mut halls: Vec<PathBuf> = (0..directories.min(20)).map(hall).collect();
    halls.iter().for_each(|hall| fs::create_dir(hall).unwrap());
    let mut at: Vec<usize> = (0..FILES).map(|n| n % halls.len()).collect();
    for n in 0..FILES {
        let path = halls[at[n]].join(format!("s{n}"));
        fs::write(&path, n.to_string()).unwrap();
        fs::hard_link(&path, root.join(format!("link{n}"))).unwrap();
    }
    for round in 0..renames {
        if round % 100 == 99 {
            let moved = random.below(halls.len());
            let to = root.join(format!("hall{round}"));
            fs::rename(&halls[moved], &to).unwrap();
            halls[moved] = to;
            continue;
        }
        let (n, to) = (random.below(FILES), random.below(halls.len()));
        let name = format!("s{n}");
        fs::rename(halls[at[n]].join(&name), halls[to].join(&name)).unwrap();
        at[n] = to;
    }
    for (n, at) in at.iter().enumerate() {
        for path in [halls[*at].join(format!("s{n}")), root.join(format!("link{n}"))] {
            assert_eq!(fs::read_to_string(path).unwrap(), n.to_string());
        }
    }
}
