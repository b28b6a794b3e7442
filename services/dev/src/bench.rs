//! `cargo dev bench`: measures on this machine, and prints how. No exit code depends on what comes out.

mod append;
mod cold;
mod e2e;
mod edge;
mod live;
mod machine;
mod observe;
mod observers;
mod room;
mod stats;
mod submissions;
mod world;

use std::process::ExitCode;

/// Measures Millrace on this machine
///
/// Prints a table with the targets, the machine and the method. Whatever comes out, the exit code is 0: another machine is not a
/// failure.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, clap::Subcommand)]
enum Bench {
    Append(append::Args),
    E2e(e2e::Args),
    Edge(edge::Args),
    Room(room::Args),
    #[command(hide = true)]
    EdgeLoad(edge::load::Args),
    #[command(hide = true)]
    EdgeFloor(edge::floor::Args),
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.bench {
        Bench::Append(args) => append::run(&args),
        Bench::E2e(args) => e2e::run(&args),
        Bench::Edge(args) => edge::run(&args),
        Bench::Room(args) => room::run(&args),
        Bench::EdgeLoad(args) => edge::load::run(&args),
        Bench::EdgeFloor(args) => edge::floor::run(&args),
    }
}
