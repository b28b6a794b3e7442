//! `cargo dev schemas`: writes what [`crate::schemas`] makes, or tells how it differs.

use std::process::ExitCode;

use millrace_harness::checkout;

use crate::schemas;

/// Writes schemas/ from the Rust types, or checks it
///
/// Run it after a change of an event, a message, a limit or an error code, and commit what it writes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo dev schemas\n  cargo dev schemas --check")]
pub struct Args {
    /// Changes nothing, and fails if a file is not as it would be written
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let root = checkout();
    if args.check {
        return check();
    }
    let changed = schemas::write(&root)?;
    for path in &changed {
        println!("written  {}", path.strip_prefix(&root).unwrap_or(path).display());
    }
    if changed.is_empty() {
        println!("schemas/ is up to date");
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints how `schemas/` differs from the Rust types; fails if it does.
pub fn check() -> anyhow::Result<ExitCode> {
    let drift = schemas::drift(&checkout())?;
    for sentence in &drift {
        println!("{sentence}");
    }
    if drift.is_empty() {
        println!("schemas/ is up to date");
    }
    Ok(if drift.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
