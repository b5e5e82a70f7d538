//! The rows of the table: the work of each, and its preparation.
//!
//! May assume: a [`Site`] of its own for every run. Must never: report work as done that was not. Each row checks its result.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::Outcome;
use crate::material::{self, Material, RARE_FILES, RARE_WORD};
use crate::{guarded, storms};

/// The time limit of one step.
pub(crate) const LIMIT: Duration = Duration::from_secs(180);
/// The crate that is built: it has few dependencies, and is on this machine already because crewfs needs it.
const BUILT: &str = "serde_json";

/// The place where a row is measured.
pub(crate) struct Site<'a> {
    /// The project, as the filesystem shows it.
    pub(crate) top: PathBuf,
    /// An unused name in the project; the file does not exist.
    pub(crate) fresh: PathBuf,
    /// The one file for rows that need only one.
    pub(crate) one: PathBuf,
    /// The filesystem's name.
    pub(crate) peer: &'static str,
    pub(crate) material: &'a Material,
}

impl Site<'_> {
    fn tree(&self) -> PathBuf {
        self.top.join("tree")
    }

    fn big(&self) -> PathBuf {
        self.top.join("big")
    }

    fn pages(&self) -> usize {
        (self.material.megabytes * 80).min(20_000)
    }

    /// The files of the part, below a copy of it.
    fn in_part(&self) -> Vec<PathBuf> {
        let inside = self.material.part.iter().map(|path| path.strip_prefix("part").unwrap_or(path));
        inside.map(Path::to_path_buf).collect()
    }
}

/// The state of the caches when a row begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// The same work was done once just before.
    Warm,
    /// A new mount, with the kernel's caches dropped if that is possible.
    Cold,
    /// Prepared through the same mount. The work can be done only once.
    Prepared,
}

/// A row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    title: &'static str,
    pub(crate) state: State,
    /// A program that the row needs.
    pub(crate) needs: Option<&'static str>,
    /// Whether one file is enough.
    pub(crate) one_file: bool,
    /// Runs before each run. Not measured.
    pub(crate) prepare: fn(&Site<'_>) -> Outcome<()>,
    /// The measured work.
    pub(crate) run: fn(&Site<'_>) -> Outcome<()>,
    /// Runs after each run and checks the result. Not measured.
    pub(crate) check: fn(&Site<'_>) -> Outcome<()>,
}

impl Row {
    const fn new(
        name: &'static str,
        title: &'static str,
        state: State,
        run: fn(&Site<'_>) -> Outcome<()>,
    ) -> Self {
        Self { name, title, state, needs: None, one_file: false, prepare: nothing, run, check: nothing }
    }

    const fn needs(self, program: &'static str) -> Self {
        Self { needs: Some(program), ..self }
    }

    const fn one_file(self) -> Self {
        Self { one_file: true, ..self }
    }

    const fn after(self, prepare: fn(&Site<'_>) -> Outcome<()>) -> Self {
        Self { prepare, ..self }
    }

    const fn then(self, check: fn(&Site<'_>) -> Outcome<()>) -> Self {
        Self { check, ..self }
    }

    /// The title for the reader of the table.
    pub(crate) fn title(&self, material: &Material) -> String {
        let temperature = if self.state == State::Cold { ", cold" } else { "" };
        let title = self
            .title
            .replace("{files}", &thousands(material.files.len()))
            .replace("{part}", &thousands(material.part.len()))
            .replace("{megabytes}", &material.megabytes.to_string());
        format!("{title}{temperature}")
    }
}

/// Every row, in the order of the table.
pub(crate) const ROWS: [Row; 25] = [
    Row::new("rg", "`rg` for a rare word", State::Warm, rg).needs("rg"),
    Row::new("rg-cold", "`rg` for a rare word", State::Cold, rg).needs("rg"),
    Row::new("git", "`git status`", State::Warm, git_status).needs("git"),
    Row::new("git-cold", "`git status`", State::Cold, git_status).needs("git").after(git_status),
    Row::new("find", "`find`, by name only", State::Warm, find),
    Row::new("find-cold", "`find`, by name only", State::Cold, find),
    Row::new("find-size", "`find -size +1M`", State::Warm, find_size),
    Row::new("find-size-cold", "`find -size +1M`", State::Cold, find_size),
    Row::new("tar", "`tar c \\| cat`", State::Warm, tar),
    Row::new("tar-cold", "`tar c \\| cat`", State::Cold, tar),
    Row::new("stat", "stat of {files} files", State::Warm, stat),
    Row::new("open", "open and close {files} files", State::Warm, open),
    Row::new("stat-one", "stat of one file, 20,000 times", State::Warm, stat_one).one_file(),
    Row::new("open-one", "open and close one file, 20,000 times", State::Warm, open_one).one_file(),
    Row::new("read", "read {megabytes} MiB in order", State::Warm, read),
    Row::new("read-cold", "read {megabytes} MiB in order", State::Cold, read),
    Row::new("read-4k", "read 4 KiB here and there", State::Warm, read_pages),
    Row::new("write", "write {megabytes} MiB in order", State::Prepared, write).then(written),
    Row::new("write-4k", "write 4 KiB here and there", State::Prepared, write_pages)
        .after(write)
        .then(written),
    Row::new("create", "create {part} files", State::Prepared, create).then(created),
    Row::new("rewrite", "rewrite {part} small files", State::Prepared, rewrite).after(copy).then(rewritten),
    Row::new("untar", "`tar x` of {part} files", State::Prepared, untar).after(make_fresh).then(unpacked),
    Row::new("cp", "`cp -r` of {part} files", State::Prepared, copy).then(copied),
    Row::new("rm", "`rm -rf` of {part} files", State::Prepared, remove).after(copy).then(removed),
    Row::new("cargo", "`cargo build` of serde_json", State::Prepared, cargo_build)
        .needs("cargo")
        .after(make_package)
        .then(built),
];

/// The names of all rows.
pub(crate) fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).collect()
}

fn nothing(_: &Site<'_>) -> Outcome<()> {
    Ok(())
}

fn expect(what: &str, expected: usize, found: usize) -> Outcome<()> {
    if expected == found { Ok(()) } else { Err(format!("{found} {what}, and {expected} are there").into()) }
}

fn lines(command: &mut Command) -> Outcome<usize> {
    Ok(guarded::output(command, LIMIT)?.iter().filter(|&&byte| byte == b'\n').count())
}

fn rg(site: &Site<'_>) -> Outcome<()> {
    let mut command = Command::new("rg");
    command.args(["--no-config", "--files-with-matches", RARE_WORD]).arg(site.tree());
    expect("files match", RARE_FILES, lines(&mut command)?)
}

fn git_status(site: &Site<'_>) -> Outcome<()> {
    let tree = site.tree();
    let mut command = material::git(&tree);
    command.env("GIT_INDEX_FILE", material::index(&tree, site.peer)).args(["status", "--porcelain"]);
    expect("files changed", 0, lines(&mut command)?)
}

/// The tree without git's own files, which would be counted too.
fn find_in(site: &Site<'_>) -> Command {
    let mut command = Command::new("find");
    command.arg(site.tree()).args(["-name", ".git", "-prune", "-o"]);
    command
}

fn find(site: &Site<'_>) -> Outcome<()> {
    let there = site.material.files.len() + site.material.directories;
    expect("entries found", there, lines(find_in(site).arg("-print"))?)
}

fn find_size(site: &Site<'_>) -> Outcome<()> {
    let found = lines(find_in(site).args(["-type", "f", "-size", "+1M", "-print"]))?;
    expect("large files found", site.material.large, found)
}

fn tar(site: &Site<'_>) -> Outcome<()> {
    let mut command = Command::new("tar");
    command.args(["c", "--exclude=.git", "-C"]).arg(&site.top).arg("tree");
    let length = guarded::drained(&mut command, LIMIT)?;
    if length > site.material.bytes { Ok(()) } else { Err("the archive is too short".into()) }
}

fn stat(site: &Site<'_>) -> Outcome<()> {
    storms::stat(&site.top, &site.material.files)
}

fn open(site: &Site<'_>) -> Outcome<()> {
    storms::open_close(&site.top, &site.material.files)
}

fn stat_one(site: &Site<'_>) -> Outcome<()> {
    storms::stat_one(&site.one, 20_000)
}

fn open_one(site: &Site<'_>) -> Outcome<()> {
    storms::open_close_one(&site.one, 20_000)
}

fn read(site: &Site<'_>) -> Outcome<()> {
    storms::read_all(&site.big(), site.material.megabytes)
}

fn read_pages(site: &Site<'_>) -> Outcome<()> {
    storms::read_pages(&site.big(), site.material.megabytes, site.pages())
}

fn write(site: &Site<'_>) -> Outcome<()> {
    storms::write_all(&site.fresh, site.material.megabytes)
}

fn write_pages(site: &Site<'_>) -> Outcome<()> {
    storms::write_pages(&site.fresh, site.material.megabytes, site.pages())
}

fn written(site: &Site<'_>) -> Outcome<()> {
    storms::expect_size(&site.fresh, (site.material.megabytes as u64) << 20)?;
    Ok(fs::remove_file(&site.fresh)?)
}

fn make_fresh(site: &Site<'_>) -> Outcome<()> {
    Ok(fs::create_dir(&site.fresh)?)
}

fn create(site: &Site<'_>) -> Outcome<()> {
    storms::create(&site.fresh, site.material.part.len())
}

fn created(site: &Site<'_>) -> Outcome<()> {
    let last = site.material.part.len() - 1;
    storms::expect_size(&site.fresh.join(format!("d{:03}/f{last:05}", last / 100)), 200)
}

fn rewrite(site: &Site<'_>) -> Outcome<()> {
    storms::rewrite(&site.fresh, &site.in_part())
}

fn rewritten(site: &Site<'_>) -> Outcome<()> {
    site.in_part().last().map_or(Ok(()), |last| storms::expect_size(&site.fresh.join(last), 1_000))
}

fn copy(site: &Site<'_>) -> Outcome<()> {
    let mut command = Command::new("cp");
    command.arg("-r").arg(site.top.join("part")).arg(&site.fresh);
    guarded::output(&mut command, LIMIT).map(drop)
}

fn copied(site: &Site<'_>) -> Outcome<()> {
    same_last(site, &site.fresh)
}

fn untar(site: &Site<'_>) -> Outcome<()> {
    let mut command = Command::new("tar");
    command.arg("xf").arg(&site.material.archive).arg("-C").arg(&site.fresh);
    guarded::output(&mut command, LIMIT).map(drop)
}

fn unpacked(site: &Site<'_>) -> Outcome<()> {
    same_last(site, &site.fresh.join("part"))
}

fn same_last(site: &Site<'_>, copy: &Path) -> Outcome<()> {
    let Some(last) = site.in_part().pop() else { return Ok(()) };
    if fs::read(copy.join(&last))? == fs::read(site.top.join("part").join(&last))? {
        Ok(())
    } else {
        Err(format!("{} differs", last.display()).into())
    }
}

fn remove(site: &Site<'_>) -> Outcome<()> {
    guarded::output(Command::new("rm").arg("-rf").arg(&site.fresh), LIMIT).map(drop)
}

fn removed(site: &Site<'_>) -> Outcome<()> {
    if site.fresh.exists() { Err("it is still there".into()) } else { Ok(()) }
}

/// A package with one dependency, in the version of crewfs's own lock file, which cargo has already.
fn make_package(site: &Site<'_>) -> Outcome<()> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(site.fresh.join("src"))?;
    fs::write(site.fresh.join("src/lib.rs"), format!("pub use {BUILT}::Value;\n"))?;
    // The lock file is written first, so that cargo does not ask crates.io for versions.
    fs::write(site.fresh.join("Cargo.lock"), fs::read(own.join("Cargo.lock"))?)?;
    let manifest = format!(
        "[package]\nname = \"crewfs\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n\
         [dependencies]\n{BUILT} = \"1\"\n\n[workspace]\n"
    );
    Ok(fs::write(site.fresh.join("Cargo.toml"), manifest)?)
}

fn cargo_build(site: &Site<'_>) -> Outcome<()> {
    let mut command = cargo();
    command.current_dir(&site.fresh).args(["build", "--offline", "--quiet", "--target-dir", "target"]);
    guarded::output(&mut command, LIMIT).map(drop)
}

fn built(site: &Site<'_>) -> Outcome<()> {
    let made = site.fresh.join("target/debug/libcrewfs.rlib");
    if made.is_file() { Ok(()) } else { Err(format!("{} was not made", made.display()).into()) }
}

/// The cargo that runs this benchmark, without the settings for this benchmark's own build.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR", "RUSTC_WRAPPER", "RUSTFLAGS"] {
        command.env_remove(variable);
    }
    command
}

fn thousands(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}
