//! The guides, run on a real mount as they are. Each block `console NAME` has commands of that worker together with their output; the
//! commands of `console coordinator` run without a worker name. A page is one story, from an empty project on.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Mounted, project};

/// A text with every time replaced by a fixed word, so that two runs can be compared.
pub(crate) fn normalized(text: &str) -> String {
    let shape = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |bytes: &[u8]| {
        bytes.len() >= shape.len()
            && bytes
                .iter()
                .zip(shape)
                .all(|(byte, form)| if *form == b'd' { byte.is_ascii_digit() } else { byte == form })
    };
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let time = fits(rest.as_bytes());
        let len = if time { shape.len() } else { c.len_utf8() };
        out.push_str(if time { "TIME" } else { &rest[..len] });
        rest = &rest[len..];
    }
    out
}

/// The worker that runs a block, and its commands, each with its output.
struct Block {
    who: String,
    line: usize,
    steps: Vec<(String, String)>,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut open) = (Vec::new(), None::<Block>);
    for (line, number) in page.lines().zip(1..) {
        match &mut open {
            None => {
                if let Some(who) = line.strip_prefix("```console ") {
                    open = Some(Block { who: who.to_string(), line: number, steps: Vec::new() });
                }
            }
            Some(_) if line == "```" => blocks.extend(open.take()),
            Some(block) => match (line.strip_prefix("$ "), line.strip_prefix("> ")) {
                (Some(command), _) => block.steps.push((format!("{command}\n"), String::new())),
                (None, Some(more)) => block.steps.last_mut().expect("a command").0 += &format!("{more}\n"),
                (None, None) => block.steps.last_mut().expect("a command").1 += &format!("{line}\n"),
            },
        }
    }
    blocks
}

fn told(mounted: &Mounted, page: &str) {
    let text = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let blocks = blocks(&text);
    assert!(blocks.len() >= 4, "{page} has only {} blocks to run", blocks.len());
    for Block { who, line, steps } in blocks {
        for (command, printed) in steps {
            let both = format!("exec 2>&1; {command}");
            let ran = if who == "coordinator" { mounted.operator(&both) } else { mounted.sh(&who, &both) };
            let end = |text: &str| normalized(text).trim_end().to_string();
            assert_eq!(end(&ran.stdout), end(&printed), "{page}, block of line {line}: {command}");
        }
    }
}

#[test]
fn the_coordinators_guide() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    told(&mounted, "docs/coordinator-guide.md");
    mounted.stop();
}

#[test]
fn the_workers_guide() {
    let project = project!();
    let mut mounted = project.mount(&[]);
    told(&mounted, "docs/worker-guide.md");
    mounted.stop();
}
