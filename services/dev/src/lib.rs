//! The one entry for developers and CI. `cargo dev up`, `test` and `schemas` are here, each a module with `Args` and
//! `run`. `bench` and `chaos` are the program `lab`, and `verify`, `rebuild` and `provision` the program `millrace`
//! (`elsewhere`).
//!
//! What fails says in one sentence what to do, and ends with an exit code other than 0.

mod elsewhere;
pub mod schemas;
mod schemas_command;
mod terminal;
mod test;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use millrace_harness::programs::SERVICES;

const EXAMPLES: &str = "\
Examples:
  cargo dev up                         Run everything here; the page is at http://localhost:3001
  cargo dev up --port 3101 --nats-port 4322 --sample-port 8199 --admin-port 9201 --data /tmp/second
                                       The same once more, beside it
  cargo dev test                       Everything that CI checks
  cargo dev test canceled              Only the tests with `canceled` in their name
  cargo dev verify                     Is the state of each job what its log says?
  cargo dev rebuild --adopt            Fold the log again, and repair the states that differ
  cargo dev bench e2e                  How long it all takes on this machine
  cargo dev bench room                 How much of NATS's disk and memory a finished job takes
  cargo dev chaos --minutes 2          Does it keep its promises while everything goes wrong?

`cargo dev COMMAND --help` tells more.";

/// Runs, tests, checks and measures Millrace.
///
/// Needs Rust, Python 3 with pip and, as everything here, a checkout. Other tools are found on the PATH or installed
/// into `.tools/` in the checkout.
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
    /// Makes every state anew from the log, and compares: `millrace rebuild`
    Rebuild(elsewhere::Args),
    /// Creates or updates the stream, buckets and consumers in NATS: `millrace provision`
    Provision(elsewhere::Args),
    /// Measures Millrace on this machine
    Bench(elsewhere::Args),
    /// Hits a whole cluster at random and checks every promise
    Chaos(elsewhere::Args),
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(args) => up::run(args),
        Command::Test(args) => test::run(&args),
        Command::Schemas(args) => schemas_command::run(&args),
        // With the services: one of them is run, and what all share is compiled once.
        Command::Verify(_) | Command::Rebuild(_) | Command::Provision(_) => {
            elsewhere::run("millrace", &[&SERVICES[..], &["millrace-cli"]].concat(), false)
        }
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
