//! Whether two lists of `owns` globs can match the same file. All possible files count, also those that do not exist yet.
//!
//! May assume: globs mean what they mean in a `.gitignore`; the guard of the files reads them in the same way.
//! Must never: miss any other overlap. A line with `!`, which takes files out again, is ignored. Alternatives (`{a,b}`) count as anything.
//! So an overlap may be found where there is none.
//!
//! Each glob becomes a small automaton that reads a path character by character. Two automata overlap if some path leads both to an
//! accepting state. The search visits pairs of their states. A glob that matches a path also owns everything below it. But a last name with
//! an ending (`login.rs`, `*.md`) counts as the name of a file, with nothing below it. Otherwise `*.md` would overlap with every file,
//! because `*.md` might match a directory that contains a README. A `/` at the end marks a directory.

use std::collections::BTreeSet;

/// A set of characters, which one step of an automaton reads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Set {
    /// This character.
    One(char),
    /// All characters but `/`.
    NotSlash,
    /// All characters.
    Any,
    /// The characters in one of the ranges; if negated, the characters in none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Set {
    fn contains_char(&self, c: char) -> bool {
        match self {
            Set::One(one) => *one == c,
            Set::NotSlash => c != '/',
            Set::Any => true,
            Set::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
            }
        }
    }

    /// Collects the ends of the ranges and the characters next to them. Between two such characters of two sets, all characters behave
    /// alike.
    fn boundaries(&self, into: &mut Vec<char>) {
        let Set::Class { ranges, .. } = self else { return };
        let next = |c: char| char::from_u32(c as u32 + 1);
        let previous = |c: char| (c as u32).checked_sub(1).and_then(char::from_u32);
        for (first, last) in ranges {
            into.extend([*first, *last].into_iter().chain(next(*last)).chain(previous(*first)));
        }
    }

    /// Whether some character but `/` is in both sets.
    fn intersects(&self, other: &Set) -> bool {
        match (self, other) {
            (Set::One(c), set) | (set, Set::One(c)) => *c != '/' && set.contains_char(*c),
            (Set::Class { .. }, _) | (_, Set::Class { .. }) => {
                let mut candidates = vec!['.', '0'];
                self.boundaries(&mut candidates);
                other.boundaries(&mut candidates);
                candidates.into_iter().any(|c| c != '/' && self.contains_char(c) && other.contains_char(c))
            }
            (Set::NotSlash | Set::Any, Set::NotSlash | Set::Any) => true,
        }
    }
}

/// One state of an automaton: the characters that it reads, and the states that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AutomatonState {
    /// Reads one character of the set and goes on to the next state.
    One(Set),
    /// Reads any number of characters of the set.
    Many(Set),
    /// Reads any number of directories, each with its `/`. In this state, a directory is complete.
    Directories,
    /// Within the name of a directory. Always follows `Directories`.
    Directory,
    /// The glob is read, and it matches a file.
    File,
    /// The glob is read. The path is matched, and a `/` may follow.
    End,
    /// Below the matched path. Always follows `End`.
    Below,
}

/// One glob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob(Vec<AutomatonState>);

impl Glob {
    /// The automaton of one line; `None` for a line that matches nothing, such as a comment.
    fn parse(line: &str) -> Option<Glob> {
        let line = if line.ends_with("\\ ") { line } else { line.trim_end() };
        if line.is_empty() || line.starts_with(['#', '!']) {
            return None;
        }
        let line = match line.strip_prefix('\\') {
            Some(rest) if rest.starts_with(['#', '!']) => rest,
            _ => line,
        };
        let (rooted, line) = match line.strip_prefix('/') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        // A `/` at the end makes no other difference, because everything below a matched directory is owned.
        let file = line.rsplit('/').next().is_some_and(has_ending);
        let line = line.strip_suffix('/').map_or(line, |line| line.strip_suffix('\\').unwrap_or(line));
        let anywhere = !rooted && !line.contains('/') && line != "**";
        let mut parser = Parser { rest: line.chars().collect(), at: 0, states: Vec::new() };
        if anywhere {
            parser.directories();
        }
        parser.run();
        let mut states = parser.states;
        match file {
            true => states.push(AutomatonState::File),
            false => states.extend([AutomatonState::End, AutomatonState::Below]),
        }
        Some(Glob(states))
    }

    /// The literal prefix of all matched paths: whole names, each followed by `/`.
    fn root(&self) -> String {
        let mut literal = String::new();
        for state in &self.0 {
            match state {
                AutomatonState::One(Set::One(c)) => literal.push(*c),
                AutomatonState::File | AutomatonState::End => {
                    literal.push('/');
                    break;
                }
                _ => break,
            }
        }
        literal.truncate(literal.rfind('/').map_or(0, |slash| slash + 1));
        literal
    }

    /// The sets that can be read in a state, each with the next state.
    fn moves(&self, state: usize) -> impl Iterator<Item = (Set, usize)> {
        let moves = match &self.0[state] {
            AutomatonState::One(set) => [Some((set.clone(), state + 1)), None],
            AutomatonState::Many(set) => [Some((set.clone(), state)), None],
            AutomatonState::Directories => [Some((Set::One('/'), state)), Some((Set::NotSlash, state + 1))],
            AutomatonState::Directory => [Some((Set::One('/'), state - 1)), Some((Set::NotSlash, state))],
            AutomatonState::File => [None, None],
            AutomatonState::End => [Some((Set::One('/'), state + 1)), None],
            AutomatonState::Below => [Some((Set::Any, state)), None],
        };
        moves.into_iter().flatten()
    }

    /// The state that can be reached without reading a character.
    fn skips_to(&self, state: usize) -> Option<usize> {
        match self.0[state] {
            AutomatonState::Many(_) => Some(state + 1),
            AutomatonState::Directories => Some(state + 2),
            AutomatonState::One(_)
            | AutomatonState::Directory
            | AutomatonState::File
            | AutomatonState::End
            | AutomatonState::Below => None,
        }
    }

    fn accepts(&self, state: usize) -> bool {
        matches!(self.0[state], AutomatonState::File | AutomatonState::End | AutomatonState::Below)
    }

    fn overlaps(&self, other: &Glob) -> bool {
        // Most pairs differ in a name that both globs spell out.
        for (a, b) in self.0.iter().zip(&other.0) {
            match (a, b) {
                (AutomatonState::One(Set::One(a)), AutomatonState::One(Set::One(b))) if a == b => {}
                (AutomatonState::One(Set::One(_)), AutomatonState::One(Set::One(_))) => return false,
                _ => break,
            }
        }
        let width = other.0.len();
        let mut visited = vec![false; self.0.len() * width * 2];
        // A pair of states, and whether a name must begin. Names are not empty, and a path ends with a name.
        let mut to_visit = vec![(0, 0, true)];
        while let Some((a, b, begins)) = to_visit.pop() {
            if std::mem::replace(&mut visited[(a * width + b) * 2 + usize::from(begins)], true) {
                continue;
            }
            if !begins && self.accepts(a) && other.accepts(b) {
                return true;
            }
            to_visit.extend(self.skips_to(a).map(|a| (a, b, begins)));
            to_visit.extend(other.skips_to(b).map(|b| (a, b, begins)));
            for (mine, next_a) in self.moves(a) {
                for (theirs, next_b) in other.moves(b) {
                    if !begins && mine.contains_char('/') && theirs.contains_char('/') {
                        to_visit.push((next_a, next_b, true));
                    }
                    if mine.intersects(&theirs) {
                        to_visit.push((next_a, next_b, false));
                    }
                }
            }
        }
        false
    }
}

/// Whether a name looks like that of a file: it has a dot that is neither its first nor its last character.
fn has_ending(name: &str) -> bool {
    name.char_indices().any(|(at, c)| c == '.' && at > 0 && at + 1 < name.len())
}

/// Parses a glob as the `ignore` library does, with which the guard matches files.
struct Parser {
    rest: Vec<char>,
    at: usize,
    states: Vec<AutomatonState>,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn one(&mut self, set: Set) {
        self.states.push(AutomatonState::One(set));
    }

    fn many(&mut self, set: Set) {
        self.states.push(AutomatonState::Many(set));
    }

    fn directories(&mut self) {
        if self.states.last() != Some(&AutomatonState::Directory) {
            self.states.extend([AutomatonState::Directories, AutomatonState::Directory]);
        }
    }

    fn run(&mut self) {
        while let Some(c) = self.next() {
            match c {
                '?' => self.one(Set::NotSlash),
                '*' => self.stars(),
                '[' => self.class(),
                '{' => {
                    self.many(Set::Any);
                    return;
                }
                '\\' => {
                    let c = self.next().unwrap_or('\\');
                    self.one(Set::One(c));
                }
                c => self.one(Set::One(c)),
            }
        }
    }

    /// Parses what follows a star. Two stars mean directories if they stand alone between slashes. Any other star is a wildcard within a
    /// name.
    fn stars(&mut self) {
        let alone = self.at < 2 || self.rest[self.at - 2] == '/';
        if self.peek() != Some('*') || !alone || !matches!(self.rest.get(self.at + 1), None | Some('/')) {
            return self.many(Set::NotSlash);
        }
        self.next();
        match self.next() {
            Some(_) => self.directories(),
            // Everything in the directory, but not the directory itself.
            None if self.at > 2 => {
                self.one(Set::NotSlash);
                self.many(Set::Any);
            }
            None => self.many(Set::Any),
        }
    }

    fn class(&mut self) {
        let start = self.at;
        let negated = matches!(self.peek(), Some('!' | '^'));
        self.at += usize::from(negated);
        let mut ranges: Vec<(char, char)> = Vec::new();
        let mut open = false;
        loop {
            match self.next() {
                // The bracket is not closed, so it is a literal character.
                None => {
                    self.at = start;
                    return self.one(Set::One('['));
                }
                Some(']') if !ranges.is_empty() => break,
                Some('-') if !open && !ranges.is_empty() => open = true,
                Some(c) if open => {
                    open = false;
                    if let Some(last) = ranges.last_mut() {
                        last.1 = c;
                    }
                }
                Some(c) => ranges.push((c, c)),
            }
        }
        if open {
            ranges.push(('-', '-'));
        }
        // A backward range makes the glob invalid. It counts as anything.
        match ranges.iter().any(|(first, last)| first > last) {
            true => self.many(Set::Any),
            false => self.one(Set::Class { negated, ranges }),
        }
    }
}

/// A list of `owns` globs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Globs(Vec<Glob>);

impl Globs {
    /// The globs of a front matter.
    pub(super) fn new(lines: &[String]) -> Globs {
        Globs(lines.iter().filter_map(|line| Glob::parse(line)).collect())
    }

    /// Whether some path is matched by both lists.
    pub(super) fn overlap(&self, other: &Globs) -> bool {
        self.0.iter().any(|mine| other.0.iter().any(|theirs| mine.overlaps(theirs)))
    }

    /// Directories, each ending in `/`. Every matched path is one of them or below one of them. The root of the project is the empty
    /// string.
    pub(super) fn roots(&self) -> BTreeSet<String> {
        self.0.iter().map(Glob::root).collect()
    }
}

/// The directories that the globs of an `owns` name before their first wildcard, without a `/` at the end. Globs that match at any depth
/// and globs that take files out have no such directory.
pub fn roots(lines: &[String]) -> Vec<String> {
    let roots = Globs::new(lines).roots();
    roots.into_iter().filter_map(|root| Some(root.strip_suffix('/')?.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ignore::gitignore::{Gitignore, GitignoreBuilder};
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use std::path::Path;
    use std::sync::OnceLock;

    fn globs(lines: &[&str]) -> Globs {
        Globs::new(&lines.iter().map(|line| line.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn what_overlaps_and_what_does_not() {
        for (a, b, expected) in [
            ("src/**", "src/api/login.rs", true),
            ("src/api", "src/api/login.rs", true),
            ("src/api/", "src/api/login.rs", true),
            ("*.rs", "src/api/", true),
            ("*.rs", "*.md", false),
            ("*.rs", "a*.rs", true),
            ("src/login.rs", "*.md", false),
            ("src/login", "*.md", true),
            ("src/v1.2", "*.md", false),
            ("src/v1.2/", "*.md", true),
            (".github", "*.md", true),
            ("src/a.rs", "src/b.rs", false),
            ("src/api/**", "src/apis/**", false),
            ("src/[a-m]*", "src/[n-z]*", false),
            ("src/[!a-m]*", "src/n.rs", true),
            ("src/*/mod.rs", "src/**/api/mod.rs", true),
            ("/docs", "/docs2", false),
            ("/docs", "docs2", true),
            ("/a\\*b", "/axb", false),
            ("src/{a,b}.rs", "src/c.rs", true),
            ("src/{a,b}.rs", "doc/c.rs", false),
            ("!src/**", "src/a.rs", false),
            ("# src/**", "src/a.rs", false),
        ] {
            assert_eq!(globs(&[a]).overlap(&globs(&[b])), expected, "{a} and {b}");
            assert_eq!(globs(&[b]).overlap(&globs(&[a])), expected, "{b} and {a}");
        }
    }

    #[test]
    fn roots_are_whole_names() {
        for (glob, root) in [
            ("src/api/**", "src/api/"),
            ("src/api", "src/api/"),
            ("/src/a*.rs", "src/"),
            ("*.rs", ""),
            ("docs", ""),
            ("/docs", "docs/"),
        ] {
            assert_eq!(globs(&[glob]).roots().into_iter().collect::<Vec<_>>(), [root], "{glob}");
        }
    }

    /// All paths of a small project.
    fn paths() -> &'static [String] {
        static PATHS: OnceLock<Vec<String>> = OnceLock::new();
        PATHS.get_or_init(|| {
            let letters = ["a", "b", "c"];
            let names: Vec<String> = (letters.iter().map(|a| a.to_string()))
                .chain(letters.iter().flat_map(|a| letters.iter().map(move |b| format!("{a}{b}"))))
                .collect();
            let mut all = names.clone();
            let mut last = names.clone();
            for _ in 2..=4 {
                last = last
                    .iter()
                    .flat_map(|path| names.iter().map(move |name| format!("{path}/{name}")))
                    .collect();
                all.extend(last.iter().cloned());
            }
            all
        })
    }

    fn guard(glob: &str) -> Gitignore {
        let mut builder = GitignoreBuilder::new(".");
        builder.add_line(None, glob).unwrap();
        builder.build().unwrap()
    }

    fn name() -> impl Strategy<Value = String> {
        let token = prop::sample::select(vec!["a", "b", "*", "?", "[ab]", "[!a]", "c"]);
        prop::collection::vec(token, 1..=2).prop_map(|tokens| tokens.concat())
    }

    fn glob() -> impl Strategy<Value = String> {
        let part = prop_oneof![3 => name(), 1 => Just("**".to_string())];
        let parts = prop::collection::vec(part, 1..=3);
        (prop::bool::weighted(0.2), parts, prop::bool::weighted(0.2)).prop_map(
            |(rooted, mut parts, directory)| {
                // Paths that two globs of this size share are no deeper than those in `paths`.
                if parts.iter().all(|part| part != "**") {
                    parts.truncate(2);
                }
                let slash = |there| if there { "/" } else { "" };
                format!("{}{}{}", slash(rooted), parts.join("/"), slash(directory))
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 80,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn overlaps_are_those_of_the_library_that_guards_the_files(a in glob(), b in glob()) {
            let (mine, theirs) = (guard(&a), guard(&b));
            let owns = |globs: &Gitignore, path: &str| {
                let matched = |directory| globs.matched_path_or_any_parents(Path::new(path), directory).is_ignore();
                matched(true) || matched(false)
            };
            let shared = paths().iter().find(|path| owns(&mine, path) && owns(&theirs, path));
            let overlap = globs(&[&a]).overlap(&globs(&[&b]));
            prop_assert_eq!(overlap, shared.is_some(), "{} and {}: {:?}", a, b, shared);
            prop_assert_eq!(overlap, globs(&[&b]).overlap(&globs(&[&a])));
        }

        #[test]
        fn every_owned_path_is_below_a_root(a in glob()) {
            let (mine, roots) = (guard(&a), globs(&[&a]).roots());
            for path in paths() {
                if mine.matched_path_or_any_parents(Path::new(path), false).is_ignore() {
                    prop_assert!(roots.iter().any(|root| format!("{path}/").starts_with(root)), "{} of {}", path, a);
                }
            }
        }
    }
}
