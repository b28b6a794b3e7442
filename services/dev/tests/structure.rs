//! The dependency rule: `domain` ← `runtime` ← services, and `domain` ← `media` ← `worker`. Services never depend on
//! each other, and the crate that handles foreign bytes reaches nothing that could misuse them.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// The crates of the workspace that each crate may depend on, except in tests.
const ALLOWED: &[(&str, &[&str])] = &[
    ("millrace-domain", &[]),
    ("millrace-runtime", &["millrace-domain"]),
    ("millrace-edge", &["millrace-domain", "millrace-runtime"]),
    ("millrace-media", &["millrace-domain"]),
    ("millrace-worker", &["millrace-domain", "millrace-media", "millrace-runtime"]),
    ("millrace-projector", &["millrace-domain", "millrace-runtime"]),
    ("millrace-harness", &[]),
    ("millrace-cli", &["millrace-domain", "millrace-runtime"]),
    ("millrace-dev", &["millrace-domain", "millrace-runtime", "millrace-harness"]),
    ("millrace-lab", &["millrace-domain", "millrace-runtime", "millrace-cli", "millrace-harness"]),
];

/// Crates that would make the pure core impure.
const IMPURE: &[&str] = &["tokio", "async-nats", "axum", "rand", "object_store", "tracing", "prometheus"];

/// Crates by the beginning of their names that `millrace-media` must not reach, through however many others: all of
/// ours but the domain, NATS, object stores, and everything that speaks HTTP or TLS.
const OUT_OF_REACH_OF_MEDIA: &[&str] = &[
    "millrace-",
    "async-nats",
    "nkeys",
    "object_store",
    "aws-",
    "http",
    "hyper",
    "reqwest",
    "ureq",
    "axum",
    "rustls",
    "native-tls",
    "openssl",
];

fn metadata() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(millrace_harness::checkout())
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().expect("dependencies").iter();
            (name(package), all.filter(|dependency| dependency["kind"].is_null()).map(name).collect())
        })
        .collect()
}

#[test]
fn crates_depend_only_downwards() {
    let crates = metadata();
    let known: Vec<_> = ALLOWED.iter().map(|(name, _)| *name).collect();
    for (name, dependencies) in &crates {
        let allowed = ALLOWED.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name} has no rule")).1;
        for dependency in dependencies.iter().filter(|dependency| known.contains(&dependency.as_str())) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
    assert_eq!(crates.len(), ALLOWED.len());
}

#[test]
fn the_core_has_no_dependency_that_does_io() {
    let domain = &metadata()["millrace-domain"];
    let found: Vec<_> = IMPURE.iter().filter(|name| domain.iter().any(|dependency| dependency == *name)).collect();
    assert!(found.is_empty(), "the domain is pure: {found:?}");
}

#[test]
fn what_handles_foreign_bytes_reaches_no_nats_no_store_and_no_credentials() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--package", "millrace-media", "--edges", "normal,build", "--prefix", "none", "--offline"])
        .current_dir(millrace_harness::checkout())
        .output()
        .expect("cargo tree");
    let tree = String::from_utf8(output.stdout).expect("text");
    let reached: BTreeSet<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(reached.contains("millrace-media") && reached.contains("tokio"), "{tree}");
    let wrong: Vec<_> = reached
        .into_iter()
        .filter(|name| !["millrace-media", "millrace-domain"].contains(name))
        .filter(|name| OUT_OF_REACH_OF_MEDIA.iter().any(|beginning| name.starts_with(beginning)))
        .collect();
    assert!(wrong.is_empty(), "millrace-media must not depend on {wrong:?}, not even through others");
    // Credentials come to a service by its environment.
    for (file, code) in code_of("media") {
        assert!(
            !["env::var", "env!(", "env::{"].iter().any(|read| code.contains(read)),
            "{file} reads the environment"
        );
    }
}

#[test]
fn only_media_starts_programs() {
    for service in ["domain", "runtime", "edge", "worker", "projector"] {
        for (file, code) in code_of(service) {
            assert!(!starts_programs(&code), "{file} starts a program: only millrace-media does");
        }
    }
    // The check finds a crate that does reach one.
    assert!(code_of("media").iter().any(|(_, code)| starts_programs(code)));
    for starts in [
        "use std::{fs, process::{self, Command}};",
        "tokio::process::Command::new(x)",
        "use std::process::*;",
        "use std::process as other;",
    ] {
        assert!(starts_programs(starts), "{starts}");
    }
    for does_not in ["use millrace_domain::Command;", "use std::{process::ExitCode, sync::Arc}; Command::Cancel"] {
        assert!(!starts_programs(does_not), "{does_not}");
    }
}

/// Whether code names the standard library's or tokio's `process::Command`, or hides it behind another name.
fn starts_programs(code: &str) -> bool {
    let code: String = code.split_whitespace().collect();
    let named = |path: &str| path.starts_with('*') || path.starts_with("Command");
    let through = |rest: &str| match rest.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap_or_default().split(',').any(named),
        None => named(rest),
    };
    code.contains("::processas") || code.split("process::").skip(1).any(through)
}

/// A crate's files by their paths, without tests and comments.
fn code_of(service: &str) -> Vec<(String, String)> {
    let folder = format!("services/{service}/src");
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", &folder])
        .current_dir(millrace_harness::checkout())
        .output()
        .expect("git");
    let files = String::from_utf8(output.stdout).expect("text");
    let sources = files.lines().filter(|file| file.ends_with(".rs") && !file.contains("/tests"));
    let code: Vec<_> = sources
        // A removed file that is not yet committed is skipped.
        .filter_map(|file| Some((file, std::fs::read_to_string(millrace_harness::checkout().join(file)).ok()?)))
        .map(|(file, text)| {
            let tests = ["#[cfg(test)]\nmod ", "#[cfg(all(test"].iter().filter_map(|tests| text.find(tests)).min();
            let lines = text[..tests.unwrap_or(text.len())].lines().filter(|line| !line.trim_start().starts_with("//"));
            (file.to_owned(), lines.collect::<Vec<_>>().join("\n"))
        })
        .collect();
    assert!(!code.is_empty(), "{folder} has no code");
    code
}

#[test]
fn the_top_level_has_only_what_the_design_names() {
    let output =
        Command::new("git").args(["ls-files"]).current_dir(millrace_harness::checkout()).output().expect("git");
    let named =
        ["Cargo.toml", "Cargo.lock", "services", "schemas", "nats", "k8s", "README.md", "ARCHITECTURE.md", "LICENSE"];
    for file in String::from_utf8(output.stdout).expect("text").lines() {
        let top = file.split('/').next().unwrap_or_default();
        assert!(top.starts_with('.') || named.contains(&top), "{file} is out of place");
    }
}
