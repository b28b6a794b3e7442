//! Dependencies: each is used, what `cargo dev up` builds is compiled once, and the outside programs have one oldest
//! version.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use millrace_harness::{checkout, programs::SERVICES};
use serde_json::Value;

/// Dependencies that no line uses, and that their Cargo.toml gives a reason for.
const FOR_THEIR_FEATURES: &[(&str, &str)] = &[("millrace-dev", "tungstenite")];

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(checkout()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn crates() -> Vec<Value> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// The Rust files under a folder; none if it does not exist.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).filter(is_rust).collect()
}

/// Their lines of code, without comments.
fn code(folder: &Path) -> String {
    let texts = sources(folder).into_iter().map(|path| fs::read_to_string(path).expect("a source"));
    let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Whether `code` has a path that begins with this crate.
fn names(code: &str, dependency: &str) -> bool {
    let name = dependency.replace('-', "_");
    code.match_indices(&name).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + name.len()..]);
        let is_whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let is_import = before.ends_with("use ") && [";", " as "].iter().any(|end| after.starts_with(end));
        is_whole && (after.starts_with("::") || is_import)
    })
}

#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    for package in crates() {
        let name = package["name"].as_str().expect("a name");
        let folder = Path::new(package["manifest_path"].as_str().expect("a path")).parent().expect("a folder");
        let src = code(&folder.join("src"));
        let all = format!("{src}\n{}", code(&folder.join("tests")));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let wanted = dependency["rename"].as_str().or(dependency["name"].as_str()).expect("a name");
            let code = if dependency["kind"] == "dev" { &all } else { &src };
            if !names(code, wanted) && !FOR_THEIR_FEATURES.contains(&(name, wanted)) {
                unused.push(format!("{name}: {wanted}"));
            }
        }
    }
    assert!(
        unused.is_empty(),
        "no line of the crate uses these; a dependency of tests is a dev-dependency: {unused:#?}"
    );
}

#[test]
fn every_dependency_of_the_workspace_is_one_of_a_crate() {
    let manifest = fs::read_to_string(checkout().join("Cargo.toml")).expect("Cargo.toml");
    let (_, table) = manifest.split_once("[workspace.dependencies]\n").expect("the table");
    let lines = table.lines().take_while(|line| !line.starts_with('['));
    let shared: BTreeSet<_> = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    assert!(shared.len() > 20, "{shared:?}");
    let crates = crates();
    let wanted = crates.iter().flat_map(|package| package["dependencies"].as_array().expect("dependencies"));
    let known: BTreeSet<_> = wanted.map(|dependency| dependency["name"].as_str().expect("a name")).collect();
    let unused: Vec<_> = shared.iter().filter(|name| !known.contains(**name)).collect();
    assert!(unused.is_empty(), "no crate has these: {unused:?}");
}

/// Each package that a build of `selected` compiles, with its features.
fn built(selected: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut args = vec!["tree", "--offline", "--edges", "normal,build", "--prefix", "none", "--format", "{p}|{f}"];
    args.extend(selected.iter().flat_map(|package| ["--package", package]));
    let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in cargo(&args).lines() {
        if let Some((package, features)) = line.trim_end_matches(" (*)").split_once('|') {
            all.entry(package.to_owned()).or_default().insert(features.to_owned());
        }
    }
    all
}

#[test]
fn what_cargo_dev_and_the_services_share_is_compiled_once() {
    let (dev, services) = (built(&["millrace-dev"]), built(&SERVICES));
    assert!(dev.len() > 100 && services.len() > 100);
    for (package, features) in &dev {
        if let Some(others) = services.get(package) {
            assert_eq!(features, others, "{package} has other features for `cargo dev` than for the services");
        }
    }
}

#[test]
fn each_outside_program_has_one_oldest_version() {
    let all = sources(&checkout().join("services")).into_iter().map(|path| fs::read_to_string(path).expect("a source"));
    let all: Vec<_> = all.collect();
    for constants in [["NATS_SERVER_MIN", "SERVER_VERSION_MIN"], ["YT_DLP_MIN", "YT_DLP_VERSION_MIN"]] {
        let versions = constants.map(|name| {
            let start = format!("const {name}: ");
            let line = all.iter().flat_map(|text| text.lines()).find(|line| line.contains(&start));
            let line = line.unwrap_or_else(|| panic!("{name} is defined"));
            let (_, value) = line.split_once(" = ").expect("a value");
            let numbers = value.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
            numbers.collect::<Vec<_>>().join(".").trim_end_matches(".0").to_owned()
        });
        assert_eq!(versions[0], versions[1], "{constants:?}");
    }
}
