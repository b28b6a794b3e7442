//! The program `lab`, behind `cargo dev bench` and `cargo dev chaos`: measures a whole system, and injects random
//! faults into it.
//!
//! Each subcommand is a module with `Args` and `run`.

pub mod bench;
mod chaos;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, error::ErrorKind};

/// Measures Millrace, and injects random faults into it.
#[derive(Debug, Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Bench(bench::Args),
    Chaos(chaos::Args),
    #[command(hide = true)]
    ChaosDownloader(chaos::downloader::Args),
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::Chaos(args) => chaos::run(&args),
        Command::ChaosDownloader(args) => chaos::downloader::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        let error = clap::Error::raw(ErrorKind::Io, format!("{error:#}\n")).with_cmd(&Cli::command());
        // Standard error is closed: there is nowhere else to report to.
        let _ = error.print();
        ExitCode::FAILURE
    })
}
