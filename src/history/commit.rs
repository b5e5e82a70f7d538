//! A commit as git stores it.
//!
//! Must never: interpret the text.

use git2::{ObjectType, Oid};

use super::HistoryError;
use super::objects::Objects;
use crate::queue::Wall;

/// The committer of every commit, and the address of every author: names that lead nowhere.
const COMMITTER: &str = "crewfs <history@crewfs>";
const ADDRESS: &str = "worker@crewfs";

/// A commit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Commit {
    /// The tree.
    pub(super) tree: Oid,
    /// The commit before, unless it is the first one.
    pub(super) parent: Option<Oid>,
    /// The name of the author.
    pub(super) author: String,
    /// When it was made.
    pub(super) at: Wall,
    /// What it says.
    pub(super) text: String,
}

impl Commit {
    /// Write it.
    pub(super) fn write(&self, objects: &Objects) -> Result<Oid, HistoryError> {
        let Commit { tree, parent, author, at, text } = self;
        // Git has no times before 1970 and none after 2099 that all its parts agree upon.
        let seconds = at.0.div_euclid(1_000).clamp(0, 4_102_444_800);
        let parent = parent.map_or_else(String::new, |parent| format!("parent {parent}\n"));
        let data = format!(
            "tree {tree}\n{parent}author {author} <{ADDRESS}> {seconds} +0000\ncommitter {COMMITTER} {seconds} +0000\n\n{text}"
        );
        objects.write(ObjectType::Commit, data.as_bytes())
    }

    /// Read one.
    pub(super) fn read(objects: &Objects, id: Oid) -> Result<Commit, HistoryError> {
        let data = objects.read(id, ObjectType::Commit)?;
        let commit = String::from_utf8(data).ok().and_then(|data| Commit::parse(&data));
        commit.ok_or_else(|| HistoryError::reading(format_args!("crewfs did not write the commit {id}")))
    }

    fn parse(data: &str) -> Option<Commit> {
        let (header, text) = data.split_once("\n\n")?;
        let field = |name: &str| header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let oid = |text| Oid::from_str(text).ok();
        let (author, rest) = field("author")?.split_once(" <")?;
        let seconds: i64 = rest.split(' ').nth(1)?.parse().ok()?;
        let parent = match field("parent") {
            Some(parent) => Some(oid(parent)?),
            None => None,
        };
        Some(Commit {
            tree: oid(field("tree")?)?,
            parent,
            author: author.to_string(),
            at: Wall(seconds.saturating_mul(1_000)),
            text: text.to_string(),
        })
    }
}
