#![doc = include_str!("edge/README.md")]

pub mod floor;
mod frame;
pub(super) mod job;
pub mod load;
pub mod loads;
mod mark;
pub mod measure;
pub mod proc;
pub mod report;
pub mod subject;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::bail;
use millrace_harness::{checkout, programs::Programs};

use self::{
    loads::CLIENTS_PER_PROCESS_MAX,
    measure::{Bench, Measure, Metrics, Scale},
    report::Report,
    subject::{Ground, Name},
};
use super::{command, files, machine::Machine, write_json};

/// What is built and measured.
pub const PACKAGES: [&str; 2] = ["millrace-edge", "millrace-projector"];

const HELP: &str = "\
services/lab/src/bench/edge/README.md describes the method. Other load on the machine changes every number.

Examples:
  cargo dev bench edge                                        Everything, with medians of three runs
  cargo dev bench edge --only edge,floor --quick              A quick comparison of ours with the floor
  cargo dev bench edge --only edge --measure hot,spread --quick";

/// Live delivery by ours, by other servers, and by a floor
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// One run, shorter loads, no measurement at the open-file limit
    #[arg(long)]
    quick: bool,
    /// Measures only these subjects
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<Name>,
    /// Takes only these measurements
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    measure: Vec<Measure>,
    /// Runs; the numbers are medians over them
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Clients, unless the measurement sets its own number
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients: usize,
    /// Writes all numbers to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    /// `files`: the clients that a process's open-file limit allows.
    fn scale(&self, files: usize) -> Scale {
        let clients = self.clients();
        Scale {
            clients,
            clients_max: if self.quick { clients } else { CLIENTS_PER_PROCESS_MAX.min(files) },
            jobs: clients / 10,
            seconds: if self.quick { 5.0 } else { 10.0 },
            after_storm_s: 5.0,
        }
    }

    fn clients(&self) -> usize {
        self.clients.clamp(20, CLIENTS_PER_PROCESS_MAX)
    }
}

/// Runs the bench.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (root, programs) = (checkout(), Programs::beside_us(true)?);
    let files = files::clients_max(args.clients())?;
    programs.build(&root, &PACKAGES)?;
    let (report, is_complete) =
        tokio::runtime::Runtime::new()?.block_on(measure_all(args, args.scale(files), root, programs))?;
    println!("\n{}", report.text());
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    // A peer's failure is a result; a failure of ours is an error.
    if !is_complete {
        bail!("some measurements of ours failed; see the notes above");
    }
    Ok(ExitCode::SUCCESS)
}

/// The numbers, and whether all of ours were measured.
async fn measure_all(args: &Args, scale: Scale, root: PathBuf, programs: Programs) -> anyhow::Result<(Report, bool)> {
    let runs = args.runs.unwrap_or(if args.quick { 1 } else { 3 }).max(1);
    let names: Vec<_> = Name::ALL.into_iter().filter(|name| args.only.is_empty() || args.only.contains(name)).collect();
    let mut all: BTreeMap<&'static str, Vec<Metrics>> = BTreeMap::new();
    let mut notes: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut is_complete = true;
    for run in 1..=runs {
        // In turn, so that other load on the machine affects all of them.
        for name in &names {
            let begun = Instant::now();
            println!("{}, run {run} of {runs}", name.text());
            let mut scale = scale;
            if run > 1 {
                scale.clients_max = scale.clients;
            }
            if *name == Name::Edge {
                scale.after_storm_s = if args.quick { 10.0 } else { 60.0 };
            }
            let measures: Vec<_> = Measure::of(*name)
                .iter()
                .copied()
                .filter(|one| args.measure.is_empty() || args.measure.contains(one))
                .collect();
            let ground = Ground::new(root.clone(), programs.clone(), scale.clients_max)?;
            let (metrics, said, has_failed) = measure_one(*name, &ground, scale, &measures).await;
            println!("    {} numbers in {:.0} s", metrics.len(), begun.elapsed().as_secs_f64());
            is_complete &= !(has_failed && *name == Name::Edge);
            all.entry(name.text()).or_default().push(metrics);
            notes.entry(name.text()).or_default().extend(said);
        }
    }
    let machine = Machine::here(&nats_version(&root)?);
    Ok((Report::new(command(), machine, scale, all, notes), is_complete))
}

/// The numbers, the notes, and whether a number is missing.
async fn measure_one(name: Name, ground: &Ground, scale: Scale, measures: &[Measure]) -> (Metrics, Vec<String>, bool) {
    let measured = async {
        let mut subject = name.start(ground).await?;
        let mut bench = Bench::new(&mut *subject, scale, ground.epoch_us).await?;
        bench.run(measures).await;
        anyhow::Ok((bench.metrics, bench.notes, bench.has_failed))
    };
    measured.await.unwrap_or_else(|error| {
        let note = format!("cannot start: {error:#}");
        println!("    note: {note}");
        (Metrics::new(), vec![note], true)
    })
}

/// The version that nats-server reports.
pub fn nats_version(root: &Path) -> anyhow::Result<String> {
    let program = millrace_harness::tools::nats_server(root, &mut |_| {})?;
    let output = Command::new(program).arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.rsplit('v').next().unwrap_or_default().trim().to_owned())
}
