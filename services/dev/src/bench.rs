//! `cargo dev bench`
use std::process::ExitCode;
/// Measures
#[derive(Debug, clap::Args)]
pub struct Args {}
/// Runs.
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
