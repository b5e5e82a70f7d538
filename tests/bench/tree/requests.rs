//! The number of requests that the kernel sent to crewfs, by kind: the cost that the kernel's caches did not save.
//!
//! May assume: a build of crewfs that counts requests shows the counts in an extended attribute of the mount's root. Other builds have
//! no such attribute.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::fs::getxattr;
use serde_json::Value;

const ATTRIBUTE: &str = "user.crewfs.session";

/// Requests by their kind.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Counts the requests from its creation on.
pub(crate) struct Counter<'a> {
    root: &'a Path,
    before: Counts,
    /// The requests that reading the counts causes.
    asking: Counts,
}

impl<'a> Counter<'a> {
    /// Starts to count; `None` for a build that does not count.
    pub(crate) fn start(root: &'a Path) -> Option<Self> {
        let first = counts(root)?;
        let before = counts(root)?;
        let asking = difference(&before, &first);
        Some(Self { root, before, asking })
    }

    /// The counts since the start.
    pub(crate) fn stop(self) -> Option<Counts> {
        let mut made = difference(&difference(&counts(self.root)?, &self.before), &self.asking);
        made.retain(|_, count| *count > 0);
        Some(made)
    }
}

fn counts(root: &Path) -> Option<Counts> {
    let mut text = vec![0_u8; 1 << 16];
    let length = getxattr(root, ATTRIBUTE, &mut text[..]).ok()?;
    let session: Value = serde_json::from_slice(&text[..length]).ok()?;
    let counts = session.pointer("/tree/requests")?.as_object()?;
    Some(counts.iter().filter_map(|(kind, count)| Some((kind.clone(), count.as_u64()?))).collect())
}

fn difference(later: &Counts, earlier: &Counts) -> Counts {
    let passed = |(kind, count): (&String, &u64)| {
        (kind.clone(), count.saturating_sub(earlier.get(kind).copied().unwrap_or(0)))
    };
    later.iter().map(passed).collect()
}

/// The counts in words, the most frequent first.
pub(crate) fn in_words(counts: &Counts) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    sorted.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}
