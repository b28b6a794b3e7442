//! Commands for operators of a running system: set it up, verify the stored states, rebuild them.

pub mod provision;
pub mod rebuild;
pub mod verify;

use std::process::ExitCode;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Provision(provision::Args),
    Verify(verify::Args),
    Rebuild(rebuild::Args),
}

/// Runs the command.
pub(crate) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Provision(args) => provision::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Rebuild(args) => rebuild::run(args),
    }
}
