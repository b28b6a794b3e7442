//! What operators of a running system need: its set-up, and whether the stored states are right.

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
