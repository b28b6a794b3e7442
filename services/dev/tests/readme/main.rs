//! What README.md promises: settings are what the binaries have, and each command does what it says.

mod commands;

use std::process::Command;

use millrace_harness::{checkout, processes::binary};

/// Flags of `--help` with their variables, as `(--flag, MILLRACE_FLAG)`.
fn settings(name: &str) -> Vec<(String, String)> {
    let program = binary(name).expect("built");
    let output = Command::new(program).arg("--help").output().expect("it runs");
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).expect("text");
    let flags = help.split_whitespace().filter(|word| word.starts_with("--") && word.len() > 2);
    let mut flags: Vec<_> = flags.map(str::to_owned).collect();
    flags.retain(|flag| flag != "--help" && flag != "--version" && !flag.contains(['.', ',', ';']));
    flags.dedup();
    assert!(flags.len() >= 5, "{name} has settings: {flags:?}");
    flags
        .into_iter()
        .map(|flag| {
            let variable = format!("MILLRACE_{}", flag.trim_start_matches('-').to_uppercase().replace('-', "_"));
            assert!(help.contains(&variable), "{name} --help names the variable of {flag}");
            (flag, variable)
        })
        .collect()
}

#[test]
fn the_configuration_table_has_every_setting_and_no_other() {
    let readme = std::fs::read_to_string(checkout().join("README.md")).expect("README.md");
    let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| `--")).collect();
    let mut told: Vec<_> =
        ["millrace-edge", "millrace-worker", "millrace-projector"].iter().flat_map(|name| settings(name)).collect();
    told.sort();
    told.dedup();
    for (flag, variable) in &told {
        let row = format!("| `{flag}` | `{variable}` |");
        assert!(rows.iter().any(|line| line.starts_with(&row)), "README.md has no row {row}");
    }
    assert_eq!(rows.len(), told.len(), "README.md has rows for settings that do not exist");
}
