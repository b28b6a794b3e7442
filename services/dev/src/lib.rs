//! The one entry for developers and CI. `cargo dev up`, `test` and `schemas` are here, each a module with `Args` and
//! `run`. `bench` and `chaos` are the program `lab`, and `verify`, `rebuild` and `provision` the program `millrace`
//! (`elsewhere`).
//!
//! An error is one sentence that says what to do, and sets a non-zero exit code.

mod elsewhere;
pub mod schemas;
mod schemas_command;
mod terminal;
mod test;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

const EXAMPLES: &str = "\
Examples:
  cargo dev up                         Run everything here; the page is at http://localhost:3001
  cargo dev up --port 3101 --nats-port 4322 --sample-port 8199 --admin-port 9201 --data /tmp/second
                                       A second system beside the first
  cargo dev test                       Everything that CI checks
  cargo dev test canceled              Only the tests with `canceled` in their name
  cargo dev verify                     Check that each job's state equals the fold of its log
  cargo dev rebuild --adopt            Fold the log again, and repair the states that differ
  cargo dev bench e2e                  Measure the latency of jobs on this machine
  cargo dev bench room                 Measure the disk and memory of NATS for each finished job
  cargo dev chaos --minutes 2          Inject random faults and check every promise

`cargo dev COMMAND --help` describes each command.";

/// Runs, tests, checks and measures Millrace.
///
/// Needs Rust, Python 3 with pip, and a checkout. Other tools are found on the PATH or installed into `.tools/` in the
/// checkout.
#[derive(Debug, Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Test(test::Args),
    Schemas(schemas_command::Args),
    /// Compares the state of every job with its log: `millrace verify`
    Verify(elsewhere::Args),
    /// Rebuilds every state from the log and compares it with the live one: `millrace rebuild`
    Rebuild(elsewhere::Args),
    /// Creates or updates the stream, buckets and consumers in NATS: `millrace provision`
    Provision(elsewhere::Args),
    /// Measures Millrace on this machine
    Bench(elsewhere::Args),
    /// Injects random faults into a whole cluster and checks every promise
    Chaos(elsewhere::Args),
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(args) => up::run(args),
        Command::Test(args) => test::run(&args),
        Command::Schemas(args) => schemas_command::run(&args),
        // No service but the one that runs: beside `cargo dev up`, a build would replace its programs.
        Command::Verify(_) | Command::Provision(_) => elsewhere::run("millrace", &["millrace-cli"], false),
        Command::Rebuild(_) => elsewhere::run("millrace", &["millrace-cli", "millrace-projector"], false),
        Command::Bench(_) => elsewhere::run("lab", &["millrace-lab"], true),
        Command::Chaos(_) => elsewhere::run("lab", &["millrace-lab"], !cfg!(debug_assertions)),
    };
    outcome.unwrap_or_else(|error| {
        let error = clap::Error::raw(ErrorKind::Io, format!("{error:#}\n")).with_cmd(&Cli::command());
        // Standard error is closed: there is nowhere else to report to.
        let _ = error.print();
        ExitCode::FAILURE
    })
}
