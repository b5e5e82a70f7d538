//! `owns`: converts the globs that people write to globs that match the intended files.
//!
//! May assume: globs mean what they mean in a `.gitignore`, as the `ignore` library reads it.
//! Must never: accept a glob that the library would drop, or a glob that can only match files other than the intended ones.
//!
//! The library compares a glob with paths from the root of the project, character by character. So `./a`, `a//b` and the absolute path of a
//! file match nothing. A glob with one meaning is converted to the form that matches, and all spellings of one path become one. A glob with
//! no meaning, or with several, is refused with a sentence.

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::shown;
use super::tokens::{Token, alternatives, literal, tokens};
use crate::limits::LIST_ITEMS;

/// Top-level directories of a machine. A path that begins with one of them is hardly meant from the root of the project.
const SYSTEM_DIRECTORIES: [&str; 17] = [
    "Users", "Volumes", "dev", "etc", "home", "media", "mnt", "opt", "private", "proc", "root", "run", "srv",
    "sys", "tmp", "usr", "var",
];

/// The matcher of some globs, as the guard of the files uses it.
///
/// # Errors
/// Why one of the globs would match nothing, or why they cannot be compiled together.
pub fn matcher<'a>(globs: impl IntoIterator<Item = &'a str>) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new(".");
    let mut count = 0;
    for glob in globs {
        builder.add_line(None, glob).map_err(|error| error.to_string())?;
        count += 1;
    }
    let matcher = builder.build().map_err(|error| error.to_string())?;
    match matcher.num_ignores() + matcher.num_whitelists() == count {
        true => Ok(matcher),
        // The library accepts a blank line or a comment without an error.
        false => Err("one of the globs is blank or a comment".into()),
    }
}

/// The normal form of a list of globs. `roots` are the absolute paths of the project.
///
/// # Errors
/// What is wrong, and the index of the wrong item, if it is one item.
pub(super) fn normal_list(items: &[&str], roots: &[String]) -> Result<Vec<String>, (Option<usize>, String)> {
    let mut globs: Vec<String> = Vec::new();
    for (n, item) in items.iter().enumerate() {
        let normal = normal(item, roots).map_err(|why| (Some(n), format!("{} {why}", shown(item))))?;
        for glob in normal {
            // A later line overrides an earlier one, so a glob may only be dropped if it directly repeats the one before.
            if globs.last() != Some(&glob) {
                globs.push(glob);
            }
        }
        if globs.len() > LIST_ITEMS {
            let why = format!("{} stands for too many globs; there may be {LIST_ITEMS}", shown(item));
            return Err((Some(n), why));
        }
    }
    if !globs.is_empty() && globs.iter().all(|glob| glob.starts_with('!')) {
        let why = "every glob takes files out with !, and none names files that are owned";
        return Err((None, why.into()));
    }
    match matcher(globs.iter().map(String::as_str)) {
        Ok(_) => Ok(globs),
        Err(why) => Err((None, format!("the globs cannot be used: {why}"))),
    }
}

/// The normal form of a path, for lists of paths that are not globs; `None` if it has none.
pub(super) fn normal_path(text: &str, roots: &[String]) -> Option<String> {
    if why_outside(text).is_some() || text.contains('\\') {
        return None;
    }
    let tokens: Vec<Token> =
        text.chars().map(|c| if c == '/' { Token::Slash } else { Token::Char(c) }).collect();
    let path = Path::parse(&tokens, roots).ok()?;
    Some(path.parts.iter().map(|part| literal(part)).collect::<Option<Vec<_>>>()?.join("/"))
}

/// The globs that match what one item of the list means.
fn normal(text: &str, roots: &[String]) -> Result<Vec<String>, String> {
    let text = text.trim_start();
    let text = if text.ends_with("\\ ") { text } else { text.trim_end() };
    if text.contains(char::is_control) {
        return Err("holds a line break or a control character; write each glob as an item of its own".into());
    }
    let (negated, text) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text),
    };
    if let Some(why) = why_outside(text) {
        return Err(why.into());
    }
    let mut globs = Vec::new();
    for tokens in alternatives(&tokens(text)?)? {
        let path = Path::parse(&tokens, roots)?;
        for glob in [false, true].into_iter().filter_map(|as_names| path.render(negated, as_names)) {
            matcher([glob.as_str()]).map_err(|why| format!("cannot be used: {why}"))?;
            if !globs.contains(&glob) {
                globs.push(glob);
            }
        }
    }
    Ok(globs)
}

/// Why a text cannot be a path of the project, judged by its beginning.
fn why_outside(text: &str) -> Option<&'static str> {
    let first = text.split('/').next().unwrap_or_default();
    if first == "~" || first.starts_with('~') && text.contains('/') {
        return Some("begins in a home directory; write the path from the root of the project");
    }
    let variable = first.strip_prefix('$').map(|name| name.trim_matches(['{', '}']));
    let is_variable =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    if variable.is_some_and(is_variable) {
        return Some(
            "begins with a variable, and none is filled in; write the path from the root of the project",
        );
    }
    let mut chars = text.chars();
    let drive = (chars.next(), chars.next(), chars.next());
    if matches!(drive, (Some(c), Some(':'), Some('/' | '\\')) if c.is_ascii_alphabetic()) {
        return Some("begins with a drive; write the path from the root of the project");
    }
    text.contains("://").then_some("is an address; write the path from the root of the project")
}

/// A parsed glob: its names, from the root of the project.
struct Path {
    parts: Vec<Vec<Token>>,
    /// Whether the glob is bound to the root of the project, which the names alone may not show.
    anchored: bool,
    /// Whether the glob was written with a slash at the beginning.
    slashed: bool,
    /// Whether the glob matches only directories.
    directory: bool,
}

impl Path {
    fn parse(tokens: &[Token], roots: &[String]) -> Result<Path, String> {
        let written: Vec<&[Token]> = tokens.split(|token| *token == Token::Slash).collect();
        let absolute = tokens.first() == Some(&Token::Slash);
        let (inner, last) = written.split_at(written.len() - 1);
        // As in a `.gitignore`, a slash that is not at the end binds the glob to the root.
        let mut path =
            Path { parts: Vec::new(), anchored: false, slashed: absolute, directory: last[0].is_empty() };
        for (n, part) in written.iter().enumerate() {
            let is_last = n == inner.len();
            path.anchored |= !is_last && !written[n + 1..].iter().all(|part| part.is_empty());
            match literal(part).as_deref() {
                Some("") => {}
                Some(".") => path.directory |= is_last,
                Some("..") => {
                    match path.parts.pop() {
                        None => return Err("leads out of the project".into()),
                        Some(above) if literal(&above).is_none() => {
                            return Err("goes up from a name with wildcards, which could be anywhere".into());
                        }
                        Some(_) => {}
                    }
                    path.directory |= is_last;
                    path.anchored = true;
                }
                _ => path.parts.push(part.to_vec()),
            }
            path.anchored |= !is_last && literal(part).as_deref() == Some(".");
        }
        if absolute {
            path.strip_root(roots)?;
        }
        if path.parts.is_empty() {
            return Err("is the project as a whole; write \"**\" to own everything".into());
        }
        path.check_stars()?;
        Ok(path)
    }

    /// Removes the path of the project from an absolute path.
    fn strip_root(&mut self, roots: &[String]) -> Result<(), String> {
        let names = |root: &'_ str| -> Vec<String> {
            root.split('/').filter(|name| !name.is_empty()).map(str::to_string).collect()
        };
        let names_here: Vec<Option<String>> = self.parts.iter().map(|part| literal(part)).collect();
        // Longest first, because a mount point can be within the project.
        let mut roots: Vec<Vec<String>> = roots.iter().map(|root| names(root)).collect();
        roots.sort_by_key(|root| std::cmp::Reverse(root.len()));
        for root in roots.iter().filter(|root| !root.is_empty()) {
            let begins = names_here.len() >= root.len()
                && root.iter().zip(&names_here).all(|(a, b)| Some(a) == b.as_ref());
            if begins {
                self.parts.drain(..root.len());
                (self.slashed, self.anchored) = (false, true);
                return Ok(());
            }
        }
        let Some(Some(first)) = names_here.first() else { return Ok(()) };
        let elsewhere = SYSTEM_DIRECTORIES.contains(&first.as_str())
            || roots.iter().any(|root| root.first().is_some_and(|name| name == first));
        if elsewhere && names_here.len() > 1 {
            let first = shown(first);
            return Err(format!(
                "is a path of this machine outside of the project; if the project has a directory {first}, leave out the first /"
            ));
        }
        Ok(())
    }

    /// Refuses `**` as a part of a name. There it is a single star and matches fewer files than the writer meant.
    fn check_stars(&mut self) -> Result<(), String> {
        let star = Token::Wildcard('*');
        for part in &self.parts {
            let double = part.windows(2).any(|two| two == [star.clone(), star.clone()]);
            if double && part.len() != 2 {
                return Err("has ** within a name, where it does not reach into directories; write **/*.rs, not **.rs".into());
            }
        }
        // `a/**/` would match the directories in `a`, but not its files.
        if self.parts.last().is_some_and(|part| *part == [star.clone(), star]) {
            self.directory = false;
        }
        Ok(())
    }

    /// The equivalent line of a `.gitignore`. Names in brackets are written as sets, or as literal names if `as_names`. `None` if the glob
    /// has no such form.
    fn render(&self, negated: bool, as_names: bool) -> Option<String> {
        let mut names = false;
        let mut text = String::new();
        for (n, part) in self.parts.iter().enumerate() {
            if n > 0 {
                text.push('/');
            }
            for token in part {
                match token {
                    Token::Char(c) | Token::Wildcard(c) => text.push(*c),
                    Token::Escaped(c) => text.extend(['\\', *c]),
                    Token::Class { inner, name: true, .. } if as_names => {
                        names = true;
                        text.push_str("\\[");
                        text.push_str(&inner.replace('[', "\\["));
                        text.push_str("\\]");
                    }
                    Token::Class { only: true, .. } => return None,
                    Token::Class { inner, .. } => {
                        text.push('[');
                        text.push_str(inner);
                        text.push(']');
                    }
                    Token::Slash | Token::Open | Token::Comma | Token::Close => {}
                }
            }
        }
        if as_names && !names {
            return None;
        }
        let is_everything = text == "**";
        if self.directory {
            text.push('/');
        }
        if (self.slashed || self.anchored && self.parts.len() == 1) && !is_everything {
            text.insert(0, '/');
        }
        if !negated && text.starts_with(['#', '!']) {
            text.insert(0, '\\');
        }
        Some(if negated { format!("!{text}") } else { text })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path as FilePath;

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::queue::overlap::Globs;

    fn roots() -> Vec<String> {
        vec!["/srv/demo".into(), "/srv/demo mount/".into(), "/".into()]
    }

    fn list(items: &[&str]) -> Result<Vec<String>, String> {
        normal_list(items, &roots()).map_err(|(_, why)| why)
    }

    fn guards(globs: &[String], path: &str) -> bool {
        let matcher = matcher(globs.iter().map(String::as_str)).unwrap();
        matcher.matched_path_or_any_parents(FilePath::new(path), false).is_ignore()
    }

    #[test]
    fn what_has_one_meaning_gets_the_form_that_matches() {
        for (written, kept) in [
            ("src/x", "src/x"),
            ("/src/x", "/src/x"),
            ("x", "x"),
            ("x/", "x/"),
            ("/x/", "/x/"),
            ("*.rs", "*.rs"),
            ("**", "**"),
            ("/**", "**"),
            ("./**", "**"),
            ("src/**", "src/**"),
            ("src/**/", "src/**"),
            ("./src/x", "src/x"),
            ("././src/./x", "src/x"),
            ("./x", "/x"),
            (".//x/", "/x/"),
            ("src//x", "src/x"),
            ("src/x//", "src/x/"),
            ("//x", "/x"),
            ("src/x/.", "src/x/"),
            ("x/.", "/x/"),
            ("src/a/../x", "src/x"),
            ("a/../x", "/x"),
            ("a/b/../../x", "/x"),
            ("src/a/..", "/src/"),
            ("/srv/demo/src/x", "src/x"),
            ("/srv/demo/x", "/x"),
            ("/srv//demo/./x/", "/x/"),
            ("/srv/demo mount/a/*.rs", "a/*.rs"),
            ("/srv/demo/**/*.rs", "**/*.rs"),
            ("#x", "\\#x"),
            ("./#a/b", "\\#a/b"),
            ("\\#x", "\\#x"),
            ("\\!x", "\\!x"),
            ("./!a/b", "\\!a/b"),
            ("a\\*b", "a\\*b"),
            ("a\\ ", "a\\ "),
            ("  a b  ", "a b"),
            ("$page.tsx", "$page.tsx"),
            ("@x/y", "@x/y"),
            ("(group)/y", "(group)/y"),
            ("~x", "~x"),
            ("...x/y", "...x/y"),
            ("[a-c]x", "[a-c]x"),
            ("[!ab]x", "[!ab]x"),
            ("[]-]x", "[]-]x"),
            ("{x}", "\\{x\\}"),
            ("{{cookie.slug}}/y", "\\{\\{cookie.slug\\}\\}/y"),
            ("/etc", "/etc"),
        ] {
            assert_eq!(list(&[written]), Ok(vec![kept.to_string()]), "{written:?}");
        }
        for (written, kept) in [
            ("src/{a,b}.rs", &["src/a.rs", "src/b.rs"][..]),
            ("{./a,b//c}/x", &["a/x", "b/c/x"]),
            ("x{,.txt}", &["x", "x.txt"]),
            ("{a, b}", &["a", "b"]),
            ("{a,{b,c}d}/{e,f}", &["a/e", "a/f", "bd/e", "bd/f", "cd/e", "cd/f"]),
            ("a/{b,c}/../d", &["a/d"]),
            ("app/[id]/x", &["app/[id]/x", "app/\\[id\\]/x"]),
            ("app/[[...slug]]/x", &["app/[[...slug]]/x", "app/\\[\\[...slug\\]]/x"]),
            ("app/[user-id]/x", &["app/\\[user-id\\]/x"]),
        ] {
            assert_eq!(list(&[written]).unwrap(), kept, "{written:?}");
        }
        assert_eq!(list(&["a/**", "!./a/x", "! /srv/demo/a/y"]).unwrap(), ["a/**", "!a/x", "!a/y"]);
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_a_sentence() {
        for (written, why) in [
            (".", "the project as a whole"),
            ("./", "the project as a whole"),
            ("/", "the project as a whole"),
            ("a/..", "the project as a whole"),
            ("/srv/demo", "the project as a whole"),
            ("!", "the project as a whole"),
            ("..", "leads out of the project"),
            ("../x", "leads out of the project"),
            ("a/../../x", "leads out of the project"),
            ("/srv/demo/../x", "outside of the project"),
            ("*/../x", "goes up from a name with wildcards"),
            ("a/[bc]/../x", "goes up"),
            ("~", "home directory"),
            ("~/x", "home directory"),
            ("~bob/x", "home directory"),
            ("$HOME/x", "variable"),
            ("${HOME}/x", "variable"),
            ("C:\\x", "drive"),
            ("c:/x", "drive"),
            ("file:///x", "address"),
            ("/srv/other/x", "leave out the first /"),
            ("/etc/hosts", "leave out the first /"),
            ("src\\x", "backslash"),
            ("src\\\\x", "backslash"),
            ("x\\", "backslash"),
            ("src/[x", "bracket that is not closed"),
            ("[", "bracket that is not closed"),
            ("[]", "bracket that is not closed"),
            ("[a/b]", "/ between brackets"),
            ("[a\\]]", "backslash between brackets"),
            ("[[:alpha:]]", "class by its name"),
            ("[z-a]", "backwards"),
            ("[ä]", "not ASCII"),
            ("{a,b", "brace that is not closed"),
            ("a}", "brace that is not open"),
            ("{1..3}", "counts with"),
            ("src/**.rs", "** within a name"),
            ("a/***", "** within a name"),
            ("a, b", "comma and a blank"),
            ("a\nb", "line break"),
            ("a\tb\u{7}", "control character"),
            ("!a", "none names files that are owned"),
        ] {
            let said = list(&[written]).expect_err(written);
            assert!(said.contains(why), "{written:?}: {said}");
        }
        let braces = "{a,b}".repeat(12);
        assert!(list(&[&braces]).unwrap_err().contains("more than 1000"));
        assert!(list(&["a", "{b,c}", "../x"]).unwrap_err().starts_with("\"../x\" leads out"));
        assert_eq!(normal_list(&["a", "../x"], &roots()).unwrap_err().0, Some(1));
        assert_eq!(list(&[]), Ok(Vec::new()));
        assert!(matcher(["a", ""]).is_err() && matcher(["#a"]).is_err() && matcher(["{a"]).is_err());
    }

    #[test]
    fn two_spellings_of_one_file_bar_each_other() {
        let spellings = [
            "src/x.rs",
            "./src/x.rs",
            "src//x.rs",
            "src/a/../x.rs",
            "/src/x.rs",
            "/srv/demo/src/x.rs",
            "src/{x,y}.rs",
        ];
        for a in spellings {
            for b in spellings {
                let globs = |text| Globs::new(&list(&[text]).unwrap());
                assert!(globs(a).overlap(&globs(b)), "{a} and {b}");
            }
        }
    }

    /// A possible name of a file, and a spelling of it in a glob.
    fn name() -> impl Strategy<Value = (String, String)> {
        let plain = "[a-z]{1,3}(\\.[a-z]{1,2})?".prop_map(|name: String| (name.clone(), name));
        let special = prop::sample::select(vec![
            ("#x", "#x"),
            ("!y", "\\!y"),
            ("a b", "a b"),
            ("é", "é"),
            ("[id]", "[id]"),
            ("[...the-slug]", "[...the-slug]"),
            ("[[...opt]]", "[[...opt]]"),
            ("x*", "x\\*"),
            ("{k}", "{k}"),
            (".hid", ".hid"),
            ("-d", "-d"),
            ("a,b", "a,b"),
        ]);
        let special = special.prop_map(|(name, glob)| (name.to_string(), glob.to_string()));
        let wild = "[a-z]{2,3}".prop_flat_map(|name| {
            let globs = vec![
                "*".into(),
                format!("{}*", &name[..1]),
                format!("?{}", &name[1..]),
                format!("[a-z]{}", &name[1..]),
                format!("{{zz,{name}}}"),
                format!("{name}{{,.x}}"),
            ];
            prop::sample::select(globs).prop_map(move |glob: String| (name.clone(), glob))
        });
        prop_oneof![4 => plain, 2 => special, 2 => wild]
    }

    /// Separators that a writer may put between two names without a change of meaning.
    fn between() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["/", "/", "//", "/./", "/zz/../", "///././"])
    }

    fn before() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "",
            "",
            "/",
            "./",
            ".//",
            "zz/../",
            "/srv/demo/",
            "//srv/./demo//",
            "/srv/demo mount/",
        ])
    }

    fn after() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "", "", "/", "/**", "//", "/.", "/zz/..", "/**/", "/**/*", "\\", "}", "[", "/..",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 600,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn whatever_is_accepted_guards_the_file_that_is_meant(
            first in before(),
            names in prop::collection::vec((name(), between()), 1..4),
            last in after(),
        ) {
            let mut path = Vec::new();
            let mut written = first.to_string();
            for (n, ((name, glob), gap)) in names.iter().enumerate() {
                if n > 0 {
                    written.push_str(gap);
                }
                written.push_str(glob);
                path.push(name.as_str());
            }
            written.push_str(last);
            let mut path = path.join("/");
            match last {
                "/.." => match path.rfind('/') {
                    Some(slash) => path.truncate(slash),
                    None => path.clear(),
                },
                // Only a directory is matched, and everything in it.
                "" => {}
                _ => path.push_str("/deep"),
            }
            if last == "/.." {
                path.push_str("/any");
            }
            match list(&[&written]) {
                Ok(globs) => prop_assert!(guards(&globs, &path), "{written:?} as {globs:?} does not guard {path}"),
                Err(why) => prop_assert!(!["", "/", "/**", "//", "/./"].contains(&last), "{written:?}: {why}"),
            }
        }

        #[test]
        fn any_text_is_refused_or_makes_globs_that_stay_as_they_are(text in "[a-c./*?\\[\\]{},!#~\\\\ -]{0,12}") {
            if let Ok(globs) = list(&[&text]) {
                for glob in &globs {
                    prop_assert!(matcher([glob.as_str()]).is_ok(), "{text:?} as {glob:?}");
                }
                let again: Vec<&str> = globs.iter().map(String::as_str).collect();
                prop_assert_eq!(list(&again), Ok(globs.clone()), "{:?}", text);
            }
        }
    }
}
