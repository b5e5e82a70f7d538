//! The names that users choose: task ids and worker names.
//!
//! Must never: accept a name that could be mistaken for another file of the tree, or for a command-line option.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{TASK_ID_BYTES, WORKER_NAME_BYTES};

/// Whether `text` starts with a letter or digit, continues with letters, digits, `.`, `_` and `-`, and has at most `longest` bytes.
fn well_formed(text: &str, longest: usize) -> bool {
    text.len() <= longest
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $longest:expr, $reserved:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name, if `text` is a valid one.
            pub fn parse(text: &str) -> Option<Self> {
                (well_formed(text, $longest) && text != $reserved).then(|| Self(text.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type! {
    /// The id of a task: `[A-Za-z0-9][A-Za-z0-9._-]{0,127}`, and not `next`, which names the best task instead.
    TaskId, TASK_ID_BYTES, "next"
}

name_type! {
    /// The name of a worker: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, and not `self`, which names the caller instead.
    WorkerName, WORKER_NAME_BYTES, "self"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_the_contract_says() {
        for good in ["a", "task-1-auth", "7", "A.b_c-d", &"x".repeat(128)] {
            assert!(TaskId::parse(good).is_some(), "{good}");
        }
        for bad in ["", "next", ".hidden", "-rf", "_x", "a b", "a/b", "ä", "a\n", "a\0", &"x".repeat(129)] {
            assert!(TaskId::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn self_is_no_worker() {
        assert!(WorkerName::parse("self").is_none());
        assert!(WorkerName::parse("selfish").is_some());
        assert!(WorkerName::parse(&"w".repeat(65)).is_none());
    }
}
