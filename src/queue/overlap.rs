//! Whether two lists of `owns` globs can match the same file: a question about all files, also those that do not exist yet.
//!
//! May assume: globs mean what they mean in a `.gitignore`; whoever guards the files reads them so, too.
//! Must never: miss any other overlap. A line that takes files out again (`!`) counts for nothing, and alternatives (`{a,b}`) as
//! anything; so an overlap may be seen where there is none.
//!
//! Each glob becomes a small automaton that reads a path character by character. Two of them overlap if some path leads
//! both to their ends; that is looked for among the pairs of their states. What a glob matches, it owns with all below;
//! but a name with an ending (`login.rs`, `*.md`) is taken for that of a file, below which there is nothing. Else
//! `*.md` would overlap with every file, which might be a directory with a README. A `/` at the end says that it is one.

use std::collections::BTreeSet;

/// The characters that one step of an automaton reads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Set {
    /// This one.
    One(char),
    /// All but `/`.
    NotSlash,
    /// All.
    Any,
    /// Those in one of the ranges, or, negated, those in none.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Set {
    fn holds(&self, c: char) -> bool {
        match self {
            Set::One(one) => *one == c,
            Set::NotSlash => c != '/',
            Set::Any => true,
            Set::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *negated
            }
        }
    }

    /// The ends of its ranges, and what is next to them: between those of two sets all characters are alike.
    fn ends(&self, into: &mut Vec<char>) {
        let Set::Class { ranges, .. } = self else { return };
        let next = |c: char| char::from_u32(c as u32 + 1);
        let previous = |c: char| (c as u32).checked_sub(1).and_then(char::from_u32);
        for (first, last) in ranges {
            into.extend([*first, *last].into_iter().chain(next(*last)).chain(previous(*first)));
        }
    }

    /// Whether some character of a name, which is any but `/`, is in both.
    fn meets(&self, other: &Set) -> bool {
        match (self, other) {
            (Set::One(c), set) | (set, Set::One(c)) => *c != '/' && set.holds(*c),
            (Set::Class { .. }, _) | (_, Set::Class { .. }) => {
                let mut some = vec!['.', '0'];
                self.ends(&mut some);
                other.ends(&mut some);
                some.into_iter().any(|c| c != '/' && self.holds(c) && other.holds(c))
            }
            (Set::NotSlash | Set::Any, Set::NotSlash | Set::Any) => true,
        }
    }
}

/// One state of an automaton: what it reads, and where that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
enum AutomatonState {
    /// One of these, on to the next state.
    One(Set),
    /// Any number of these.
    Many(Set),
    /// Any number of directories, each with its `/`: here, one is complete.
    Directories,
    /// Within the name of one of them. Always follows `Directories`.
    Directory,
    /// All is read: it is a file.
    File,
    /// All is read: the path is matched, and a `/` may follow.
    End,
    /// Below what is matched. Always follows `End`.
    Below,
}

/// One glob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob(Vec<AutomatonState>);

impl Glob {
    /// The automaton of one line; `None` for one that matches nothing, such as a comment.
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
        // Whether it is for directories only makes no other difference to what it can share: all below is matched.
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

    /// What every path that is matched begins with: whole names, each followed by `/`.
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

    /// What can be read in a state, and the state after it.
    fn moves(&self, at: usize) -> impl Iterator<Item = (Set, usize)> {
        let both = match &self.0[at] {
            AutomatonState::One(set) => [Some((set.clone(), at + 1)), None],
            AutomatonState::Many(set) => [Some((set.clone(), at)), None],
            AutomatonState::Directories => [Some((Set::One('/'), at)), Some((Set::NotSlash, at + 1))],
            AutomatonState::Directory => [Some((Set::One('/'), at - 1)), Some((Set::NotSlash, at))],
            AutomatonState::File => [None, None],
            AutomatonState::End => [Some((Set::One('/'), at + 1)), None],
            AutomatonState::Below => [Some((Set::Any, at)), None],
        };
        both.into_iter().flatten()
    }

    /// The state that can be gone to without reading anything.
    fn skips_to(&self, at: usize) -> Option<usize> {
        match self.0[at] {
            AutomatonState::Many(_) => Some(at + 1),
            AutomatonState::Directories => Some(at + 2),
            AutomatonState::One(_)
            | AutomatonState::Directory
            | AutomatonState::File
            | AutomatonState::End
            | AutomatonState::Below => None,
        }
    }

    fn accepts(&self, at: usize) -> bool {
        matches!(self.0[at], AutomatonState::File | AutomatonState::End | AutomatonState::Below)
    }

    fn overlaps(&self, other: &Glob) -> bool {
        // Most pairs differ in a name that both spell out.
        for (a, b) in self.0.iter().zip(&other.0) {
            match (a, b) {
                (AutomatonState::One(Set::One(a)), AutomatonState::One(Set::One(b))) if a == b => {}
                (AutomatonState::One(Set::One(_)), AutomatonState::One(Set::One(_))) => return false,
                _ => break,
            }
        }
        let width = other.0.len();
        let mut seen = vec![false; self.0.len() * width * 2];
        // With the pair of states, whether a name is to begin: names are not empty, and a path ends with one.
        let mut open = vec![(0, 0, true)];
        while let Some((a, b, begins)) = open.pop() {
            if std::mem::replace(&mut seen[(a * width + b) * 2 + usize::from(begins)], true) {
                continue;
            }
            if !begins && self.accepts(a) && other.accepts(b) {
                return true;
            }
            open.extend(self.skips_to(a).map(|a| (a, b, begins)));
            open.extend(other.skips_to(b).map(|b| (a, b, begins)));
            for (mine, next_a) in self.moves(a) {
                for (theirs, next_b) in other.moves(b) {
                    if !begins && mine.holds('/') && theirs.holds('/') {
                        open.push((next_a, next_b, true));
                    }
                    if mine.meets(&theirs) {
                        open.push((next_a, next_b, false));
                    }
                }
            }
        }
        false
    }
}

/// Whether a name is that of a file, as far as one can tell: a dot stands within it.
fn has_ending(name: &str) -> bool {
    name.char_indices().any(|(at, c)| c == '.' && at > 0 && at + 1 < name.len())
}

/// Reads a glob as the `ignore` library does, which is what guards the files.
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

    /// One star was read: it is one, or two that stand for directories if they stand alone between slashes.
    fn stars(&mut self) {
        let alone = self.at < 2 || self.rest[self.at - 2] == '/';
        if self.peek() != Some('*') || !alone || !matches!(self.rest.get(self.at + 1), None | Some('/')) {
            return self.many(Set::NotSlash);
        }
        self.next();
        match self.next() {
            Some(_) => self.directories(),
            // All that is in the directory, but not the directory itself.
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
                // Never closed: the bracket stands for itself.
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
        // A range that goes backwards makes the glob invalid; it counts as anything.
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

    /// Whether some path is matched by both.
    pub(super) fn overlap(&self, other: &Globs) -> bool {
        self.0.iter().any(|mine| other.0.iter().any(|theirs| mine.overlaps(theirs)))
    }

    /// Directories, each ending in `/`, of which one is above, or is, whatever is matched. The root of all is empty.
    pub(super) fn roots(&self) -> BTreeSet<String> {
        self.0.iter().map(Glob::root).collect()
    }
}

/// The directories that the globs of an `owns` name before their first wildcard, without a `/` at the end; nothing for those
/// that match at any depth, or take files out.
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

    /// All paths of a small world.
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
                // What two globs of this size share is no deeper than the paths of our world.
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
        fn whatever_is_owned_lies_below_a_root(a in glob()) {
            let (mine, roots) = (guard(&a), globs(&[&a]).roots());
            for path in paths() {
                if mine.matched_path_or_any_parents(Path::new(path), false).is_ignore() {
                    prop_assert!(roots.iter().any(|root| format!("{path}/").starts_with(root)), "{} of {}", path, a);
                }
            }
        }
    }
}
