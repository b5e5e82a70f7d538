//! Every link between pages has a target, and the first page stays short.

use std::path::Path;

use crate::texts::{at, fences, pages};

/// The name of a heading in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(page: &str) -> Vec<String> {
    let (_, rest) = fences(page);
    let headings = rest.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    for (path, page) in pages() {
        let (_, prose) = fences(&page);
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, part) = target.split_once('#').unwrap_or((target, ""));
            let here = Path::new(&path).parent().expect("a page is in a directory");
            let file = if file.is_empty() { at(&path) } else { at("").join(here).join(file) };
            assert!(file.exists(), "{path} links to {target}, which does not exist");
            if !part.is_empty() {
                let there = std::fs::read_to_string(&file).unwrap_or_default();
                assert!(
                    anchors(&there).iter().any(|a| a == part),
                    "{path} links to {target}: no such heading"
                );
            }
        }
    }
}

#[test]
fn the_first_page_is_read_in_a_minute() {
    for (path, page) in pages().into_iter().filter(|(path, _)| path == "README.md") {
        let lines = page.lines().count();
        assert!(lines <= 120, "{path} has {lines} lines; 120 are enough, the rest belongs into docs/");
    }
}
