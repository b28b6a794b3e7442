//! The program `millrace`, for people who run or use a Millrace and need no checkout of it.
//!
//! Each subcommand is a module with `Args` and `run`, in the folder of those whom it is for: [`operators`]. An error is
//! one sentence that says what to do, and the exit code is then other than 0.

mod connect;
pub mod operators;
pub mod table;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};

const EXAMPLES: &str = "\
Examples:
  millrace provision --replicas 3      Create or update what Millrace keeps in NATS
  millrace verify                      Is the state of each job what its log says?
  millrace rebuild --adopt             Fold the log again, and repair the states that differ

The NATS servers are those of --nats-url, or of the variable MILLRACE_NATS_URL.
`millrace COMMAND --help` says more about each command.";

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
