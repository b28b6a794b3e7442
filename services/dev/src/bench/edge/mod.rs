#![doc = include_str!("README.md")]

pub mod floor;
mod frame;
pub(super) mod job;
pub mod load;
mod loads;
mod mark;
mod measure;
pub(super) mod proc;
mod report;
mod subject;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context;
use millrace_harness::checkout;

use self::loads::{CLIENTS_PER_PROCESS_MAX, Loads};
use self::measure::{Bench, Measure, Metrics, Scale};
use self::report::Report;
use self::subject::{Ground, Name};
use super::machine::Machine;
use crate::programs::Programs;

/// What is built and measured.
const PACKAGES: [&str; 2] = ["millrace-edge", "millrace-projector"];

const HELP: &str = "\
The method is in services/dev/src/bench/edge/README.md. Other work on the machine shows in every number.

Examples:
  cargo dev bench edge                                        Everything, with medians of three runs
  cargo dev bench edge --only edge,floor --quick              A look at ours against the floor
  cargo dev bench edge --only edge --measure hot,spread --quick";

/// Live delivery: ours, what else is used for it, and the floor
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// One run, shorter loads, no measurement at the open-file limit
    #[arg(long)]
    quick: bool,
    /// Measures these alone
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<Name>,
    /// Takes these measurements alone
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    measure: Vec<Measure>,
    /// Runs; the numbers are medians over them
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Clients, where the measurement does not say otherwise
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients: usize,
    /// Writes all numbers to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Set when this is the optimised build already
    #[arg(long, hide = true)]
    built: bool,
}

impl Args {
    fn scale(&self) -> Scale {
        let clients = self.clients.clamp(20, CLIENTS_PER_PROCESS_MAX);
        Scale {
            clients,
            clients_max: if self.quick { clients } else { CLIENTS_PER_PROCESS_MAX },
            jobs: clients / 10,
            seconds: if self.quick { 5.0 } else { 10.0 },
            after_storm_s: if self.quick { 10.0 } else { 60.0 },
            storms: if self.quick { 1 } else { 3 },
        }
    }
}

/// Runs the bench.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (root, programs) = (checkout(), Programs::beside_us(true)?);
    if !args.built {
        match programs.build_and_become(&root, &PACKAGES)? {}
    }
    let report = crate::runtime()?.block_on(measure_all(args, root, programs))?;
    println!("\n{}", report.text());
    if let Some(path) = &args.json {
        let mut json = serde_json::to_vec_pretty(&report)?;
        json.push(b'\n');
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure_all(args: &Args, root: PathBuf, programs: Programs) -> anyhow::Result<Report> {
    let scale = args.scale();
    let runs = args.runs.unwrap_or(if args.quick { 1 } else { 3 }).max(1);
    let names: Vec<_> = Name::ALL.into_iter().filter(|name| args.only.is_empty() || args.only.contains(name)).collect();
    let measures = if args.measure.is_empty() { Measure::ALL.to_vec() } else { args.measure.clone() };
    let mut all: BTreeMap<&'static str, Vec<Metrics>> = BTreeMap::new();
    let mut notes: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    for run in 1..=runs {
        // In turn, so that what the machine does meanwhile hits all of them.
        for name in &names {
            let begun = Instant::now();
            println!("{}, run {run} of {runs}", name.text());
            let ground = Ground::new(root.clone(), programs.clone(), scale.clients_max)?;
            let (metrics, said) = measure_one(*name, &ground, scale, &measures)
                .await
                .with_context(|| format!("{} could not be measured", name.text()))?;
            println!("    {} numbers in {:.0} s", metrics.len(), begun.elapsed().as_secs_f64());
            all.entry(name.text()).or_default().push(metrics);
            notes.entry(name.text()).or_default().extend(said);
        }
    }
    let machine = Machine::here(&nats_version(&root)?);
    Ok(Report::new(command(), machine, scale, all, notes))
}

async fn measure_one(
    name: Name,
    ground: &Ground,
    scale: Scale,
    measures: &[Measure],
) -> anyhow::Result<(Metrics, Vec<String>)> {
    let mut subject = name.start(ground).await?;
    let mut loads = Loads::start(scale.clients_max, ground.epoch_us).await?;
    let mut bench =
        Bench { subject: &mut *subject, loads: &mut loads, scale, metrics: Metrics::new(), notes: Vec::new() };
    bench.run(measures).await?;
    Ok((bench.metrics, bench.notes))
}

fn nats_version(root: &Path) -> anyhow::Result<String> {
    let program = millrace_harness::tools::nats_server(root, &mut |_| {})?;
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.rsplit('v').next().unwrap_or_default().trim().to_owned())
}

/// As it was typed, without what we add ourselves.
fn command() -> String {
    let args = std::env::args().skip(1).filter(|arg| arg != "--built");
    ["cargo dev".to_owned()].into_iter().chain(args).collect::<Vec<_>>().join(" ")
}
