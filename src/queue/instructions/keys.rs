//! The keys of front matter: which are known, and which other one was probably meant.
//!
//! Must never: take a common word for a key that is misspelled. A key that is like none is the user's own.

use serde_json::Value;

/// Every key that is understood.
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

/// What other systems call it, without case and punctuation.
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

/// Words of their own, although they are spelled almost as a key is.
const WORDS: [&str; 19] = [
    "attends", "consent", "content", "contents", "contest", "deadlift", "deadlock", "decline", "leash",
    "least", "leave", "needy", "owes", "owls", "rehires", "retires", "rewires", "tile", "tithe",
];

/// Without case, blanks and punctuation: how far two spellings of one key agree.
fn bare(key: &str) -> String {
    key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The known key that differs in case and punctuation at most.
pub(super) fn spelled(key: &str) -> Option<&'static str> {
    let bare_key = bare(key);
    KEYS.into_iter().find(|known| bare(known) == bare_key)
}

/// The known key that was probably meant by one that is not known.
pub(super) fn meant(key: &str) -> Option<&'static str> {
    let key = bare(key);
    if let Some(known) = spelled(&key) {
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

/// Whether a key decides when the task runs, who may run it, or beside which others.
fn schedules(known: &str) -> bool {
    !matches!(known, "title" | "context")
}

/// The scheduling key that this certainly is: as it is written, or with other case and punctuation, or one of the
/// synonyms that are no words of a language, such as `depends_on`.
pub(super) fn certainly(key: &str) -> Option<&'static str> {
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
    let known = match spelled(key) {
        Some(known) => known,
        None if COMPOUND.contains(&bare(key).as_str()) => meant(key)?,
        None => return None,
    };
    schedules(known).then_some(known)
}

/// A scheduling key within the value of a key that is not known, where nothing reads it.
pub(super) fn nested(value: &Value) -> Option<&str> {
    match value {
        Value::Object(members) => members
            .iter()
            .find_map(|(key, value)| certainly(key).map(|_| key.as_str()).or_else(|| nested(value))),
        Value::Array(items) => items.iter().find_map(nested),
        _ => None,
    }
}

/// Misspelled words mostly begin as they should.
fn begins_alike(key: &str, known: &str) -> bool {
    let (mut a, mut b) = (key.chars(), known.chars());
    let (a, b) = ([a.next(), a.next()], [b.next(), b.next()]);
    a[0] == b[0] || (a[0] == b[1] && a[1] == b[0]) || Some(key) == known.get(1..)
}

/// How many letters must be added, taken away, changed or swapped with the next one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Far longer than any key: no need to compare.
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
            assert_eq!(meant(key), Some(known), "{key:?}");
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
            assert_eq!(meant(word), None, "{word}");
        }
        assert_eq!(meant(""), None);
        assert_eq!(meant(&"x".repeat(100_000)), None);
    }

    #[test]
    fn every_known_key_means_itself_and_no_synonym_is_a_key() {
        for key in KEYS {
            assert_eq!((spelled(key), meant(key)), (Some(key), Some(key)));
        }
        for (known, synonyms) in SYNONYMS {
            assert!(KEYS.contains(&known));
            for synonym in synonyms {
                assert_eq!((spelled(synonym), bare(synonym).as_str()), (None, *synonym));
                assert_eq!(meant(synonym), Some(known), "{synonym}");
            }
        }
    }

    #[test]
    fn keys_within_others_are_found() {
        let nested = |text: &str| nested(&serde_json::from_str(text).unwrap()).map(str::to_string);
        assert_eq!(nested(r#"{"a": {"b": [{"needs": []}]}}"#).as_deref(), Some("needs"));
        assert_eq!(nested(r#"{"Depends_On": []}"#).as_deref(), Some("Depends_On"));
        assert_eq!(nested(r#"{"title": "x", "files": [], "name": "owns", "after": 1}"#), None);
        assert_eq!(nested(r#"["needs"]"#), None);
    }
}
