//! The files of the benchmark: a project of small files with a git repository, one big file, and an archive.
//!
//! May assume: nothing. Must never: depend on chance or the clock. Every run measures the same bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::common::{Outcome, scratch};
use crate::guarded;

/// The word that `rg` searches, and the number of files that contain it.
pub(crate) const RARE_WORD: &str = "quagmire";
pub(crate) const RARE_FILES: usize = 3;
/// Files in each directory.
const DIRECTORY: usize = 50;
/// One file in this many is larger than a MiB.
const LARGE_EVERY: usize = 10_000;
/// The number of the first such file; small trees have one too.
const LARGE_AT: usize = 42;
const LARGE: usize = 5 << 18;
/// The modification time of every file: long ago, so that git need not doubt its index.
const CHANGED: u64 = 1_700_000_000;
const LIMIT: Duration = Duration::from_secs(600);

const WORDS: [&str; 24] = [
    "fn", "let", "match", "queue", "worker", "state", "event", "return", "task", "lease", "open", "close",
    "impl", "struct", "path", "name", "index", "value", "error", "result", "option", "self", "loop", "count",
];

/// The created files, and their places.
pub(crate) struct Material {
    /// Files of the tree, from the top of the project.
    pub(crate) files: Vec<PathBuf>,
    /// Files of the part of the tree that is copied, unpacked and removed.
    pub(crate) part: Vec<PathBuf>,
    /// The number of directories of the tree, its top included.
    pub(crate) directories: usize,
    /// The number of files larger than a MiB.
    pub(crate) large: usize,
    /// The number of bytes in the files of the tree.
    pub(crate) bytes: u64,
    /// The size of the big file, in MiB.
    pub(crate) megabytes: usize,
    /// The archive of the part; it is outside the project.
    pub(crate) archive: PathBuf,
}

impl Material {
    /// Makes the project in `project`, and the archive beside it.
    pub(crate) fn make(project: &Path, files: usize, megabytes: usize) -> Outcome<Self> {
        fs::create_dir_all(project.join("work"))?;
        scratch::spread_subdirectories(&project.join("work"));
        let (tree, part) = (paths("tree", files), paths("part", (files / 5).max(1)));
        let mut bytes = 0;
        for (number, path) in tree.iter().chain(&part).enumerate() {
            let content = content(number, files);
            bytes += if number < files { content.len() as u64 } else { 0 };
            write(&project.join(path), &content)?;
        }
        fs::write(project.join("one"), content(0, files))?;
        let mut big = File::create(project.join("big"))?;
        for number in 0..megabytes {
            big.write_all(&block(number))?;
        }
        let archive = project.with_extension("tar");
        let mut pack = Command::new("tar");
        pack.arg("cf").arg(&archive).arg("-C").arg(project).arg("part");
        guarded::output(&mut pack, LIMIT)?;
        let made = Self {
            directories: files.div_ceil(DIRECTORY) + files.div_ceil(DIRECTORY * DIRECTORY) + 1,
            large: (0..files).filter(|number| number % LARGE_EVERY == LARGE_AT).count(),
            files: tree,
            part,
            bytes,
            megabytes,
            archive,
        };
        rustix::fs::syncfs(File::open(project)?)?;
        Ok(made)
    }

    /// Makes the tree a git repository with one commit and with an index for each of `peers`.
    pub(crate) fn commit<'a>(&self, project: &Path, peers: impl Iterator<Item = &'a str>) -> Outcome<()> {
        let tree = project.join("tree");
        guarded::output(git(&tree).args(["init", "--quiet"]), LIMIT)?;
        guarded::output(git(&tree).args(["symbolic-ref", "HEAD", "refs/heads/main"]), LIMIT)?;
        guarded::fed(git(&tree).args(["fast-import", "--quiet"]), LIMIT, |stdin| {
            let mut stdin = BufWriter::new(stdin);
            writeln!(stdin, "commit refs/heads/main\ncommitter Bench <bench@example.org> {CHANGED} +0000")?;
            writeln!(stdin, "data 5\ntree\n")?;
            for (number, path) in self.files.iter().enumerate() {
                let content = content(number, self.files.len());
                let path = path.strip_prefix("tree").unwrap_or(path).display();
                writeln!(stdin, "M 100644 inline {path}\ndata {}", content.len())?;
                stdin.write_all(&content)?;
                writeln!(stdin)?;
            }
            stdin.flush()
        })?;
        guarded::output(git(&tree).args(["read-tree", "HEAD"]), LIMIT)?;
        for peer in peers {
            fs::copy(tree.join(".git/index"), index(&tree, peer))?;
        }
        Ok(())
    }
}

/// git on that tree, independent of the user's configuration.
pub(crate) fn git(tree: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(tree).args(["-c", "safe.directory=*"]);
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

/// The path of a peer's index. Each peer shows other inode numbers, which git records in the index.
pub(crate) fn index(tree: &Path, peer: &str) -> PathBuf {
    tree.join(".git").join(format!("index-{peer}"))
}

fn paths(top: &str, count: usize) -> Vec<PathBuf> {
    let path = |number: usize| {
        let (directory, name) = (number / DIRECTORY, number % DIRECTORY);
        let package = directory / DIRECTORY;
        format!("{top}/package-{package:02}/module-{directory:04}/file-{name:02}.rs").into()
    };
    (0..count).map(path).collect()
}

fn content(number: usize, files: usize) -> Vec<u8> {
    let mut chance = Chance::new(number as u64);
    let size = if number % LARGE_EVERY == LARGE_AT { LARGE } else { 200 + chance.below(3_900) };
    let mut text = String::with_capacity(size + 16);
    if (0..RARE_FILES).any(|rare| number == rare * files / RARE_FILES) {
        text.push_str(RARE_WORD);
    }
    while text.len() < size {
        text.push(if chance.below(9) == 0 { '\n' } else { ' ' });
        text.push_str(WORDS[chance.below(WORDS.len())]);
    }
    text.push('\n');
    text.into_bytes()
}

/// A block of a MiB that differs for every number.
pub(crate) fn block(number: usize) -> Vec<u8> {
    let mut chance = Chance::new(number as u64);
    (0..1 << 17).flat_map(|_| chance.next().to_le_bytes()).collect()
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.set_modified(UNIX_EPOCH + Duration::from_secs(CHANGED))
}

/// Pseudo-random numbers that are the same in each run.
pub(crate) struct Chance(u64);

impl Chance {
    /// The sequence of this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit
    }
}
