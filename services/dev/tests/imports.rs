//! One style of imports: a module has one `use` for each crate root, so that a reader finds each name at one place.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use millrace_harness::checkout;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).filter(is_rust).collect()
}

/// The lines that import a root which a line above in the same module imports with the same visibility.
fn repeated(text: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        // What was deeper is another block's.
        seen.retain(|(of, _)| *of <= indent);
        let Some((visibility, path)) = code.split_once("use ") else { continue };
        if visibility.is_empty() || (visibility.starts_with("pub") && visibility.ends_with(' ')) {
            let root = path.split("::").next().unwrap_or(path).trim_end_matches(';');
            if !seen.insert((indent, format!("{visibility}use {root}"))) {
                found.push(line.to_owned());
            }
        }
    }
    found
}

#[test]
fn a_module_has_one_use_for_each_crate_root() {
    let files = sources(&checkout().join("services"));
    assert!(files.len() > 100);
    let found: Vec<_> = files
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).expect("a source");
            repeated(&text).into_iter().map(move |line| format!("{}: {line}", path.display()))
        })
        .collect();
    assert!(found.is_empty(), "join these with the `use` above them: {found:#?}");
}

#[test]
fn the_second_use_of_a_root_is_found_and_one_of_another_module_or_visibility_is_not() {
    let text =
        "use std::fs;\nuse std::io;\npub use std::env;\nmod a {\n    use std::fs;\n}\nmod b {\n    use std::fs;\n}\n";
    assert_eq!(repeated(text), ["use std::io;"]);
}
