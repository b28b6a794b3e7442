//! The dependency rule: `domain` ← `runtime` ← services, and services never depend on each other.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// What each crate may depend on within the workspace, tests aside.
const ALLOWED: &[(&str, &[&str])] = &[
    ("millrace-domain", &[]),
    ("millrace-runtime", &["millrace-domain"]),
    ("millrace-edge", &["millrace-domain", "millrace-runtime"]),
    ("millrace-worker", &["millrace-domain", "millrace-runtime"]),
    ("millrace-projector", &["millrace-domain", "millrace-runtime"]),
    ("millrace-harness", &[]),
    ("millrace-cli", &["millrace-domain", "millrace-runtime"]),
    ("millrace-dev", &["millrace-domain", "millrace-runtime", "millrace-harness"]),
    ("millrace-lab", &["millrace-domain", "millrace-runtime", "millrace-cli", "millrace-harness"]),
];

/// Crates that would make the pure core impure.
const IMPURE: &[&str] = &["tokio", "async-nats", "axum", "rand", "object_store", "tracing", "prometheus"];

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
