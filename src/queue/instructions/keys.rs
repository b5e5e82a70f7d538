//! The keys of front matter: the known keys, and the known key that an unknown one probably means.
//!
//! Must never: take a common word for a misspelled key. A key that is like no known key is the user's own.

use serde_json::Value;

/// Every known key.
pub(super) const KEYS: [&str; 10] = [
    "title",
    "priority",
    "needs",
    "requires",
    "owns",
    "deadline",
    "not_before",
    "lease",
    "attempts",
    "context",
];

/// Names of keys in other systems, without case and punctuation.
const SYNONYMS: [(&str, &[&str]); 8] = [
    (
        "needs",
        &[
            "after",
            "blockedby",
            "blockedon",
            "blockers",
            "dep",
            "dependencies",
            "dependency",
            "depends",
            "dependson",
            "dependsupon",
            "deps",
            "predecessor",
            "predecessors",
            "prereq",
            "prereqs",
            "prerequisite",
            "prerequisites",
            "requirestasks",
            "upstream",
            "waitfor",
            "waitsfor",
            "waitson",
        ],
    ),
    (
        "deadline",
        &[
            "completeby",
            "due",
            "dueat",
            "dueby",
            "duedate",
            "dueon",
            "duetime",
            "expires",
            "expiresat",
            "finishby",
        ],
    ),
    (
        "owns",
        &[
            "allowedpaths",
            "edits",
            "file",
            "files",
            "glob",
            "globs",
            "lock",
            "locks",
            "modifies",
            "own",
            "owned",
            "ownedfiles",
            "ownedpaths",
            "path",
            "paths",
            "touches",
            "writes",
        ],
    ),
    (
        "requires",
        &[
            "capabilities",
            "capability",
            "requiredcapabilities",
            "requiredskills",
            "requirement",
            "requirements",
            "skill",
            "skills",
        ],
    ),
    ("priority", &["importance", "pri", "prio", "priorities", "severity", "urgency"]),
    (
        "attempts",
        &[
            "attemptlimit",
            "maxattempts",
            "maxretries",
            "maxtries",
            "retries",
            "retry",
            "retrycount",
            "retrylimit",
            "tries",
        ],
    ),
    (
        "lease",
        &[
            "claimtimeout",
            "leaseduration",
            "leasetime",
            "leasetimeout",
            "timeout",
            "ttl",
            "visibilitytimeout",
        ],
    ),
    (
        "not_before",
        &[
            "availableat",
            "availablefrom",
            "defer",
            "deferred",
            "deferuntil",
            "delay",
            "delayuntil",
            "earliest",
            "earlieststart",
            "embargo",
            "notearlierthan",
            "runafter",
            "runat",
            "schedule",
            "scheduled",
            "scheduledat",
            "scheduledfor",
            "snooze",
            "snoozeuntil",
            "startafter",
            "startat",
            "startdate",
            "starttime",
            "wait",
            "waituntil",
        ],
    ),
];

/// English words that are spelled almost like a key.
const WORDS: [&str; 19] = [
    "attends", "consent", "content", "contents", "contest", "deadlift", "deadlock", "decline", "leash",
    "least", "leave", "needy", "owes", "owls", "rehires", "retires", "rewires", "tile", "tithe",
];

/// A key without case, blanks and punctuation. Two spellings of one key are equal in this form.
fn bare(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The known key that differs at most in case and punctuation.
pub(super) fn known_key(key: &str) -> Option<&'static str> {
    let bare_key = bare(key);
    KEYS.into_iter().find(|known| bare(known) == bare_key)
}

/// The known key that an unknown key probably means.
pub(super) fn intended_key(key: &str) -> Option<&'static str> {
    let key = bare(key);
    if let Some(known) = known_key(&key) {
        return Some(known);
    }
    let synonym = SYNONYMS.into_iter().find(|(_, others)| others.contains(&key.as_str()));
    if let Some((known, _)) = synonym {
        return Some(known);
    }
    if WORDS.contains(&key.as_str()) {
        return None;
    }
    let near = |known: &&str| {
        let known = bare(known);
        let allowed = if known.len() >= 8 { 2 } else { 1 };
        begins_alike(&key, &known) && distance(&key, &known) <= allowed
    };
    KEYS.into_iter().find(near)
}

/// Whether a key decides when the task runs, which workers may run it, or which tasks may run at the same time.
fn schedules(known: &str) -> bool {
    !matches!(known, "title" | "context")
}

/// The scheduling key that this key is, without doubt: the key itself, perhaps in other case and punctuation, or a synonym that is no
/// English word, such as `depends_on`.
pub(super) fn scheduling_key(key: &str) -> Option<&'static str> {
    const COMPOUND: [&str; 9] = [
        "blockedby",
        "deferuntil",
        "dependson",
        "duedate",
        "leasetimeout",
        "maxattempts",
        "maxretries",
        "startafter",
        "waitsfor",
    ];
    let key = key.trim();
    if key.contains(char::is_whitespace) {
        return None;
    }
    let known = match known_key(key) {
        Some(known) => known,
        None if COMPOUND.contains(&bare(key).as_str()) => intended_key(key)?,
        None => return None,
    };
    schedules(known).then_some(known)
}

/// A scheduling key within the value of an unknown key, where it is not read.
pub(super) fn nested_scheduling_key(value: &Value) -> Option<&str> {
    match value {
        Value::Object(members) => members.iter().find_map(|(key, value)| {
            scheduling_key(key).map(|_| key.as_str()).or_else(|| nested_scheduling_key(value))
        }),
        Value::Array(items) => items.iter().find_map(nested_scheduling_key),
        _ => None,
    }
}

/// Whether two words begin alike. Most misspelled words begin with the right letters.
fn begins_alike(key: &str, known: &str) -> bool {
    let (mut a, mut b) = (key.chars(), known.chars());
    let (a, b) = ([a.next(), a.next()], [b.next(), b.next()]);
    a[0] == b[0] || (a[0] == b[1] && a[1] == b[0]) || Some(key) == known.get(1..)
}

/// The edit distance, with insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The lengths differ too much. This also keeps the table small for a very long key.
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let mut least = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                        least = least.min(rows[i - 2][j - 2] + 1);
                    }
                    least
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_near_a_known_one_is_taken_for_it() {
        for (key, known) in [
            ("Needs", "needs"),
            ("NEEDS", "needs"),
            ("need", "needs"),
            ("nedes", "needs"),
            ("eneds", "needs"),
            ("eeds", "needs"),
            ("needs ", "needs"),
            ("\u{feff}needs", "needs"),
            ("dead_line", "deadline"),
            ("dead-line", "deadline"),
            ("deadlne", "deadline"),
            ("deadlines", "deadline"),
            ("not-before", "not_before"),
            ("notBefore", "not_before"),
            ("Not before", "not_before"),
            ("not_befor", "not_before"),
            ("prority", "priority"),
            ("piroirty", "priority"),
            ("require", "requires"),
            ("titel", "title"),
            ("own", "owns"),
            ("contex", "context"),
            ("leases", "lease"),
            ("attempt", "attempts"),
            ("depends_on", "needs"),
            ("dependsOn", "needs"),
            ("depends-on", "needs"),
            ("blocked_by", "needs"),
            ("blockedBy", "needs"),
            ("after", "needs"),
            ("prerequisites", "needs"),
            ("due", "deadline"),
            ("due_date", "deadline"),
            ("files", "owns"),
            ("paths", "owns"),
            ("locks", "owns"),
            ("skills", "requires"),
            ("prio", "priority"),
            ("severity", "priority"),
            ("max_attempts", "attempts"),
            ("retries", "attempts"),
            ("ttl", "lease"),
            ("timeout", "lease"),
            ("start_after", "not_before"),
            ("defer_until", "not_before"),
            ("scheduled", "not_before"),
        ] {
            assert_eq!(intended_key(key), Some(known), "{key:?}");
        }
    }

    #[test]
    fn words_that_mean_something_else_are_not_taken_for_a_key() {
        let words = "acceptance agent area assignee attends author blocks branch category color colour comment comments \
                     completed component content contents contest contact created date deadlock deeds description draft \
                     effort epic estimate feeds goal goals group headline headlines heads id icon kind labels lang layout leads \
                     leaf least leave level link links list milestone minority model name news nodes notes number order output \
                     owner owners parent permalink phase please points priest project property reads ref reference release \
                     releases repo result results retires reviewer reviewers role scope seeds size slug sprint stage state \
                     status steps story summary tags team tempts test tests text theme tile tiles time times title_image \
                     tools topic tows towns type updated url user users uuid version weeds weight x";
        for word in words.split_whitespace() {
            assert_eq!(intended_key(word), None, "{word}");
        }
        assert_eq!(intended_key(""), None);
        assert_eq!(intended_key(&"x".repeat(100_000)), None);
    }

    #[test]
    fn every_known_key_means_itself_and_no_synonym_is_a_key() {
        for key in KEYS {
            assert_eq!((known_key(key), intended_key(key)), (Some(key), Some(key)));
        }
        for (known, synonyms) in SYNONYMS {
            assert!(KEYS.contains(&known));
            for synonym in synonyms {
                assert_eq!((known_key(synonym), bare(synonym).as_str()), (None, *synonym));
                assert_eq!(intended_key(synonym), Some(known), "{synonym}");
            }
        }
    }

    #[test]
    fn keys_within_others_are_found() {
        let nested =
            |text: &str| nested_scheduling_key(&serde_json::from_str(text).unwrap()).map(str::to_string);
        assert_eq!(nested(r#"{"a": {"b": [{"needs": []}]}}"#).as_deref(), Some("needs"));
        assert_eq!(nested(r#"{"Depends_On": []}"#).as_deref(), Some("Depends_On"));
        assert_eq!(nested(r#"{"title": "x", "files": [], "name": "owns", "after": 1}"#), None);
        assert_eq!(nested(r#"["needs"]"#), None);
    }
}
