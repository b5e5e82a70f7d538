//! `docs/task-format.md` against the parser: every key, every valid example, and every invalid one with its sentence.

use std::collections::BTreeSet;

use crewfs::queue::{Manifest, Priority, Spec, TaskId, parse_instructions};

use crate::texts::{between, fences, plain, quoted, rows, section, text};

const PAGE: &str = "docs/task-format.md";

fn parse(content: &str) -> Result<Vec<String>, String> {
    match parse_instructions(&TaskId::parse("example").unwrap(), content.as_bytes(), &[]) {
        Manifest::Spec(spec) => Ok(spec.warnings.clone()),
        Manifest::Problem(problem) => Err(problem.to_string()),
    }
}

#[test]
fn right_examples_are_tasks_and_wrong_ones_are_rejected_with_the_sentence_shown() {
    let (fences, _) = fences(&text(PAGE));
    let (mut right, mut wrong) = (0, 0);
    for (n, fence) in fences.iter().enumerate() {
        let (outcome, line) = (parse(&fence.body), fence.line);
        match fence.info.as_str() {
            "markdown right" => {
                assert!(outcome.is_ok(), "{PAGE}, line {line}: {outcome:?}");
                right += 1;
            }
            "markdown wrong" => {
                let shown = fences.get(n + 1).filter(|next| next.info == "text sentence");
                let shown = shown.unwrap_or_else(|| panic!("{PAGE}, line {line}: its sentence must follow"));
                assert_eq!(outcome, Err(shown.body.trim_end().to_string()), "{PAGE}, line {line}");
                wrong += 1;
            }
            "markdown" => panic!("{PAGE}, line {line}: say whether this example is right or wrong"),
            _ => {}
        }
    }
    assert!(right >= 3 && wrong >= 5, "{right} right and {wrong} wrong examples were found");
}

#[test]
fn each_wrong_line_of_front_matter_gets_the_sentence_shown() {
    let page = text(PAGE);
    let lines = rows(section(&page, "### One wrong line of front matter"));
    assert!(lines.len() >= 10, "only {} wrong lines were found", lines.len());
    for row in lines {
        let outcome = parse(&format!("---\n{}\n---\n# Task\n", plain(row[0])));
        assert_eq!(outcome, Err(plain(row[1]).to_string()), "{PAGE}: {}", row[0]);
    }
}

#[test]
fn the_keys_described_are_the_keys_understood() {
    let page = text(PAGE);
    let table = rows(section(&page, "## Front matter"));
    let described: BTreeSet<&str> = table.iter().map(|row| plain(row[0])).collect();
    let source = text("src/queue/instructions/mod.rs");
    let understood: BTreeSet<&str> = quoted(between(&source, "match key.as_str() {", "_ =>"))
        .into_iter()
        .filter(|key| is_key(key))
        .collect();
    // The parser's arms also quote the kind of a list's elements: "globs", "paths".
    let arms: BTreeSet<&str> =
        understood.into_iter().filter(|key| source.contains(&format!("\"{key}\" => spec.{key}"))).collect();
    assert_eq!(described, arms);
    for key in described {
        let outcome = parse(&format!("---\n{key}: 5\n---\n"));
        let known = outcome.map_or_else(|problem| problem.contains(key), |warnings| warnings.is_empty());
        assert!(known, "{key} is described but not understood");
    }
    assert_eq!(parse("---\nkolour: 5\n---\n").unwrap().len(), 1);
}

fn spec(content: &str) -> Spec {
    match parse_instructions(&TaskId::parse("example").unwrap(), content.as_bytes(), &[]) {
        Manifest::Spec(spec) => (*spec).clone(),
        Manifest::Problem(problem) => panic!("{problem} in {content:?}"),
    }
}

/// The parts in backquotes in a cell of a table.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_other_names_of_priorities_and_the_other_spellings_of_globs_are_understood() {
    let page = text(PAGE);
    let priorities = rows(section(&page, "## Priorities"));
    assert_eq!(priorities.len(), Priority::ALL.len());
    for (row, (priority, word, _)) in priorities.iter().zip(Priority::ALL) {
        assert_eq!(plain(row[0]), word);
        for name in code(row[0]).into_iter().chain(code(row[1])) {
            assert_eq!(spec(&format!("---\npriority: {name}\n---\n# T\n")).priority, priority, "{name}");
        }
    }
    let globs = rows(section(&page, "## Globs"));
    assert!(globs.len() >= 5, "{globs:?}");
    for row in globs {
        for written in code(row[0]) {
            assert_eq!(
                spec(&format!("---\nowns: ['{written}']\n---\n# T\n")).owns,
                code(row[1]),
                "{written}"
            );
        }
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn sentences_about_whole_files_are_as_shown() {
    let page = text(PAGE);
    let example = parse_instructions(&TaskId::parse("example").unwrap(), &[b'o', b'k', b'\n', 0xff], &[]);
    let Manifest::Problem(not_utf8) = example else { panic!("that is no text") };
    assert!(page.contains(&format!("`{}`", not_utf8.message)));
    let nul = parse("ok\0").unwrap_err();
    assert!(page.contains(&format!("`{}`", nul.trim_start_matches("line 1: "))));
    assert!(
        page.contains(&format!(
            "`{}",
            parse("---\na: [\n---\n").unwrap_err().split(':').nth(1).unwrap().trim()
        ))
    );
    let publish = text("src/fs/desk/publish.rs");
    for shown in
        ["is a symbolic link; write the instructions into a file of that name", "is not a regular file"]
    {
        assert!(publish.contains(shown) && page.contains(shown), "{shown}");
    }
}

#[test]
fn the_template_and_the_demo_are_tasks_without_a_warning() {
    for file in [
        "templates/task-instruction.md",
        "src/cli/demo/task-1-auth.md",
        "src/cli/demo/task-2-database.md",
        "src/cli/demo/task-3-tests.md",
    ] {
        assert_eq!(parse(&text(file)), Ok(Vec::new()), "{file}");
    }
}
