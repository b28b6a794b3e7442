//! `cargo dev bench`: measures on this machine, and prints the numbers with the method. The exit code does not depend
//! on how good the numbers are.

mod append;
mod cold;
mod e2e;
mod edge;
mod files;
mod growth;
mod live;
mod machine;
mod observe;
mod observers;
mod room;
mod stats;
mod submissions;
mod world;

use std::{path::Path, process::ExitCode};

use anyhow::{Context, ensure};

/// Measures Millrace on this machine
///
/// Prints a table with the targets, the machine and the method. A missed target does not change the exit code, since
/// machines differ.
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
    Growth(growth::Args),
    Room(room::Args),
    #[command(hide = true)]
    EdgeLoad(edge::load::Args),
    #[command(hide = true)]
    EdgeFloor(edge::floor::Args),
}

/// Runs the command.
///
/// # Errors
/// When something cannot be built, started or measured, and when this program is not the optimised build.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(
        !cfg!(debug_assertions),
        "this build is not optimised, so its numbers would be wrong: run `cargo dev bench`"
    );
    match args.bench {
        Bench::Append(args) => append::run(&args),
        Bench::E2e(args) => e2e::run(&args),
        Bench::Edge(args) => edge::run(&args),
        Bench::Growth(args) => growth::run(&args),
        Bench::Room(args) => room::run(&args),
        Bench::EdgeLoad(args) => edge::load::run(&args),
        Bench::EdgeFloor(args) => edge::floor::run(&args),
    }
}

/// The command line as it was typed.
fn command() -> String {
    let args = std::env::args().skip(1);
    ["cargo dev".to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}

fn write_json(path: &Path, report: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut json = serde_json::to_vec_pretty(report)?;
    json.push(b'\n');
    std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}
