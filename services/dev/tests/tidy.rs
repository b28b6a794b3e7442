//! The house rules that neither the compiler nor rustfmt enforces: sizes, imports, and that paths and tests named in
//! documents exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use millrace_harness::checkout;

const LINES_MAX: usize = 400;
const COLUMNS_MAX: usize = 120;

/// A file that git tracks, by its path from the root.
struct Tracked {
    path: String,
    text: String,
}

/// All tracked files with this ending, as they are in the working tree.
fn tracked(ending: &str) -> Vec<Tracked> {
    let output = Command::new("git").args(["ls-files"]).current_dir(checkout()).output().expect("git");
    let paths = String::from_utf8(output.stdout).expect("text");
    let files: Vec<_> = paths
        .lines()
        .filter(|path| path.ends_with(ending))
        // A removed file that is not yet committed is skipped.
        .filter_map(|path| {
            Some(Tracked { path: path.to_owned(), text: std::fs::read_to_string(checkout().join(path)).ok()? })
        })
        .collect();
    assert!(!files.is_empty(), "git tracks no *{ending}");
    files
}

fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}; {} places:\n{}", found.len(), found.join("\n"));
}

#[test]
fn no_rust_file_is_too_long() {
    let files = tracked(".rs");
    let lengths = files.iter().map(|file| (file.text.lines().count(), &file.path));
    let long: Vec<_> =
        lengths.filter(|(lines, _)| *lines > LINES_MAX).map(|(lines, path)| format!("{path}: {lines}")).collect();
    assert_none(&format!("at most {LINES_MAX} lines in a file"), &long);
}

/// Exempt are a long word (an address) alone on its line, and in Markdown tables and code blocks. Files made from a
/// template (`schemas/`) are checked at their template.
#[test]
fn no_line_of_code_or_prose_is_too_wide() {
    let mut wide = Vec::new();
    for file in tracked(".rs").iter().chain(&tracked(".md")).filter(|file| !file.path.starts_with("schemas/")) {
        let is_prose = file.path.ends_with(".md");
        let mut in_block = false;
        for (number, line) in file.text.lines().enumerate() {
            let fence = is_prose && line.trim_start().starts_with("```");
            in_block ^= fence;
            let exempt = is_prose && (fence || in_block || line.starts_with('|'));
            let words = line.split_whitespace().filter(|word| !matches!(*word, "//" | "///" | "//!" | "-")).count();
            if line.chars().count() > COLUMNS_MAX && !exempt && words > 1 {
                wide.push(format!("{}:{}: {}", file.path, number + 1, line.chars().count()));
            }
        }
    }
    assert_none(&format!("at most {COLUMNS_MAX} columns in a line"), &wide);
}

/// `foo.rs` beside `foo/`: so each of many open files has its own name. `main.rs` in a folder is a program.
#[test]
fn no_module_is_called_mod() {
    let named: Vec<_> =
        tracked(".rs").into_iter().map(|file| file.path).filter(|path| path.ends_with("/mod.rs")).collect();
    assert_none("a module is `foo.rs` beside `foo/`, not `foo/mod.rs`", &named);
}

/// `cargo dev test` leaves out rustdoc, which would start once for each crate.
#[test]
fn no_comment_holds_a_test_that_would_not_run() {
    let is_doc = |line: &str| line.trim_start().starts_with("///") || line.trim_start().starts_with("//!");
    let fenced = |line: &str| is_doc(line) && line.contains("```");
    let files = tracked(".rs");
    let found: Vec<_> =
        files.iter().filter(|file| file.text.lines().any(fenced)).map(|file| file.path.clone()).collect();
    assert_none("examples in comments are not tested; write a test", &found);
}

/// Where a `use` at the left margin leads, and which of the three groups that is.
fn root_of(line: &str) -> Option<(usize, &str)> {
    let root = line.strip_prefix("use ")?.split([':', ';', ' ', '{']).next()?;
    let group = match root {
        "std" | "core" | "alloc" => 0,
        "crate" | "super" | "self" => 2,
        _ => 1,
    };
    Some((group, root))
}

/// std, other crates, this crate: between groups a blank line, and one `use` for each root. So a glance shows what a
/// file depends on, and a changed import is one changed line.
#[test]
fn imports_come_in_three_groups_with_one_use_for_each_root() {
    let mut wrong = Vec::new();
    for file in tracked(".rs") {
        let (mut roots, mut last, mut blank, mut over) = (BTreeSet::new(), None, true, false);
        for (number, line) in file.text.lines().enumerate() {
            let Some((group, root)) = root_of(line) else {
                // A `pub use` belongs to no group, and stands with the imports.
                blank |= line.is_empty();
                // The first item that is no import ends them; a module's `use` further down is its own business.
                over |= ["fn ", "pub fn ", "struct ", "pub struct ", "impl", "const ", "async "]
                    .iter()
                    .any(|item| line.starts_with(item));
                continue;
            };
            if over {
                continue;
            }
            let is_ordered = last.is_none_or(|last| last == group || (last < group && blank));
            let once = root == "super" || root == "self" || root == "crate" || roots.insert(root.to_owned());
            if !is_ordered || !once {
                wrong.push(format!("{}:{}: {line}", file.path, number + 1));
            }
            (last, blank) = (Some(group), false);
        }
    }
    assert_none("imports: std, other crates, this crate, a blank line between; one `use` for each root", &wrong);
}

/// The spans in backticks of a document, outside of code blocks, with their line.
fn spans(text: &str) -> Vec<(usize, &str)> {
    let mut spans = Vec::new();
    let mut in_block = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number + 1, span)));
        }
    }
    spans
}

/// A path, relative to `services/` or to the root, and what it names in that file: `path` or `path::name`.
fn as_path(span: &str) -> Option<(&str, Option<&str>)> {
    const ENDINGS: [&str; 6] = [".rs", ".md", ".json", ".toml", ".conf", ".html"];
    let (path, name) = span.split_once("::").map_or((span, None), |(path, name)| (path, Some(name)));
    let is_plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c)) && !path.starts_with('/');
    let is_file = ENDINGS.iter().any(|ending| path.ends_with(ending));
    let first = path.split('/').next().filter(|first| path.contains('/') && !first.is_empty());
    let is_ours = first.is_some_and(|first| found(first).is_some());
    (is_plain && (is_file || is_ours)).then_some((path, name))
}

fn found(path: &str) -> Option<PathBuf> {
    let root = checkout();
    [root.join("services").join(path), root.join(path)].into_iter().find(|path| path.exists())
}

/// Whether a function of this name exists, and is a test.
fn function(text: &str, name: &str) -> Option<bool> {
    let lines: Vec<_> = text.lines().collect();
    let at = lines.iter().position(|line| {
        let rest = line.split("fn ").nth(1).and_then(|rest| rest.trim_start().strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with(['(', '<']))
    })?;
    let attributes = lines[..at].iter().rev().take_while(|line| {
        let line = line.trim_start();
        line.starts_with("#[") || line.starts_with("//")
    });
    Some(attributes.into_iter().any(|line| line.contains("#[") && line.contains("test")))
}

#[test]
fn every_path_and_test_that_the_architecture_names_is_there() {
    let text = std::fs::read_to_string(checkout().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let mut wrong = Vec::new();
    let mut paths = 0;
    for (line, span) in spans(&text) {
        let Some((path, name)) = as_path(span) else { continue };
        paths += 1;
        let Some(file) = found(path) else {
            wrong.push(format!("ARCHITECTURE.md:{line}: {path} is not there"));
            continue;
        };
        let Some(name) = name else { continue };
        let code = std::fs::read_to_string(file).unwrap_or_default();
        if function(&code, name).is_none() {
            wrong.push(format!("ARCHITECTURE.md:{line}: {path} has no function {name}"));
        }
    }
    assert!(paths > 20, "only {paths} paths: is this what the architecture looks like?");
    assert_none("what ARCHITECTURE.md names is there", &wrong);
}

#[test]
fn every_invariant_names_a_test_that_would_fail() {
    let text = std::fs::read_to_string(checkout().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = text.split("\n## Invariants\n").nth(1).expect("a section Invariants");
    let section = section.split("\n## ").next().expect("a section");
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() >= 15, "only {} invariants", rows.len());
    let names_a_test = |row: &&&str| {
        spans(row).iter().filter_map(|(_, span)| as_path(span)).any(|(path, name)| {
            let code = found(path).and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
            name.and_then(|name| function(&code, name)) == Some(true)
        })
    };
    let without: Vec<_> = rows.iter().filter(|row| !names_a_test(row)).map(|row| format!("{row:.80}…")).collect();
    assert_none("each invariant names a `path::test_name`", &without);
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let documents = tracked(".md");
    let anchors: BTreeMap<_, BTreeSet<_>> = documents
        .iter()
        .map(|file| {
            let headings = file.text.lines().filter_map(|line| line.strip_prefix('#'));
            (checkout().join(&file.path), headings.map(|line| anchor(line.trim_start_matches('#'))).collect())
        })
        .collect();
    let mut broken = Vec::new();
    for file in &documents {
        let here = checkout().join(&file.path);
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(char::is_whitespace) || target.contains("{{") {
                continue;
            }
            let (path, heading) = target.split_once('#').map_or((target, None), |(path, at)| (path, Some(at)));
            let there = if path.is_empty() { here.clone() } else { here.parent().expect("a folder").join(path) };
            let there = there.canonicalize().unwrap_or(there);
            let is_heading = heading.is_none_or(|at| anchors.get(&there).is_none_or(|known| known.contains(at)));
            // The template of schemas/README.md stands elsewhere than what is made from it.
            let is_template = file.path.ends_with("workers.md");
            if !is_template && (!there.exists() || !is_heading) {
                broken.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert_none("links that lead nowhere", &broken);
}

/// The anchor that GitHub makes from a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}
