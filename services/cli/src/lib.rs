//! The program `millrace`, for operators of a Millrace; it needs no checkout.
//!
//! Each subcommand is a module with `Args` and `run`, in the folder of its audience: [`operators`]. An error is one
//! sentence that says what to do, and sets a non-zero exit code.

mod connect;
pub mod operators;
pub mod table;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};

const EXAMPLES: &str = "\
Examples:
  millrace provision --replicas 3      Create or update Millrace's streams and buckets in NATS
  millrace verify                      Check that each job's state equals the fold of its log
  millrace rebuild --adopt             Fold the log again, and repair the states that differ

The NATS servers come from --nats-url or from the variable MILLRACE_NATS_URL.
`millrace COMMAND --help` describes each command.";

/// Sets up, checks and repairs a Millrace, through its NATS servers.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = EXAMPLES, subcommand_help_heading = "Commands for operators")]
struct Cli {
    #[command(subcommand)]
    command: operators::Command,
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    operators::run(&Cli::parse().command).unwrap_or_else(|error| {
        let error = clap::Error::raw(ErrorKind::Io, format!("{error:#}\n")).with_cmd(&Cli::command());
        // Standard error is closed: there is nowhere else to report to.
        let _ = error.print();
        ExitCode::FAILURE
    })
}
