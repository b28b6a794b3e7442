#![doc = include_str!("growth/README.md")]

mod clients;
mod events;
mod line;
mod reading;
mod report;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use millrace_harness::{checkout, programs::Programs};

use self::report::{Report, Series};
use super::{
    command,
    edge::{
        PACKAGES,
        loads::{Arrival, CLIENTS_PER_PROCESS_MAX, Loads},
        nats_version,
        subject::{Ground, Subject, ours::Edge},
    },
    files,
    machine::Machine,
    write_json,
};

const HELP: &str = "\
services/lab/src/bench/growth/README.md describes the method. Other load on the machine changes every number.

Examples:
  cargo dev bench growth --json growth.json      Up to 100,000 clients and jobs, and 50,000 events a second
  cargo dev bench growth --quick                 Up to 20,000";

/// How memory and processor time grow with clients, watched jobs and unwatched events
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Fewer clients, jobs and events
    #[arg(long)]
    quick: bool,
    /// Writes all numbers to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The points.
struct Scale {
    /// Clients, ten of them on each job.
    ten: &'static [usize],
    /// Clients, each on its own job.
    each: &'static [usize],
    /// Edges that share the clients. It divides the number of jobs, so that all clients of a job are on one edge.
    edges: usize,
    /// Unwatched events a second, on one edge.
    rates: &'static [u64],
    /// Edges that receive [`FEEDS_RATE`] events a second.
    feeds: &'static [usize],
    seconds: u64,
}

const FULL: Scale = Scale {
    ten: &[10_000, 20_000, 40_000, 60_000, 80_000, 100_000],
    each: &[1_000, 10_000, 25_000, 50_000, 75_000, 100_000],
    edges: 8,
    rates: &[5_000, 10_000, 20_000, 30_000, 40_000, 50_000],
    feeds: &[1, 2, 4, 8],
    seconds: 10,
};
const QUICK: Scale = Scale {
    ten: &[5_000, 10_000, 20_000],
    each: &[1_000, 10_000, 20_000],
    edges: 2,
    rates: &[5_000, 10_000, 20_000],
    feeds: &[1, 2, 4],
    seconds: 5,
};

/// Events a second where there are several edges.
const FEEDS_RATE: u64 = 5_000;
/// Idle clients during the series of unwatched events.
const BYSTANDERS: usize = 1_000;

/// Runs the bench.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (root, programs) = (checkout(), Programs::beside_us(true)?);
    let scale = if args.quick { QUICK } else { FULL };
    let clients_max = *scale.ten.iter().chain(scale.each).max().unwrap_or(&0);
    files::clients_max(CLIENTS_PER_PROCESS_MAX.min(clients_max))?;
    programs.build(&root, &PACKAGES)?;
    let report = tokio::runtime::Runtime::new()?.block_on(measure(&scale, clients_max, root, programs))?;
    println!("\n{}", report.text());
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(scale: &Scale, clients_max: usize, root: PathBuf, programs: Programs) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let machine = Machine::here(&nats_version(&root)?);
    println!("making {clients_max} jobs");
    let ground = Ground::new(root, programs, clients_max)?;
    let mut edge = Edge::start(&ground, scale.edges).await?;
    let mut loads = Loads::start(clients_max, ground.epoch_us).await?;

    let mut ten = Series::new("clients, ten on each job", &clients::COLUMNS);
    for &clients in scale.ten {
        at(begun, &format!("{clients} clients, ten on each job"));
        ten.points.push(clients::point(&mut edge, &mut loads, clients, clients / 10).await?);
    }
    let mut each = Series::new("clients, a job for each", &clients::COLUMNS);
    for &clients in scale.each {
        at(begun, &format!("{clients} clients, a job for each"));
        each.points.push(clients::point(&mut edge, &mut loads, clients, clients).await?);
    }

    let lasting = Duration::from_secs(scale.seconds);
    let mut rates = Series::new("unwatched events, by rate", &events::COLUMNS);
    bystanders(&mut edge, 1, &mut loads).await?;
    for &rate in scale.rates {
        at(begun, &format!("{rate} unwatched events a second"));
        rates.points.push(events::point(&edge, 1, rate, lasting).await?);
    }
    let mut feeds = Series::new("unwatched events, by edges", &events::COLUMNS);
    for &edges in scale.feeds {
        at(begun, &format!("{FEEDS_RATE} unwatched events a second to {edges} edges"));
        bystanders(&mut edge, edges, &mut loads).await?;
        feeds.points.push(events::point(&edge, edges, FEEDS_RATE, lasting).await?);
    }

    let slopes = [report::of_clients(&ten, &each), report::of_events(&rates, &feeds)].concat();
    Ok(Report { command: command(), machine, edges: scale.edges, series: vec![ten, each, rates, feeds], slopes })
}

/// Starts this number of fresh edges, with clients that stay idle.
async fn bystanders(edge: &mut Edge, edges: usize, loads: &mut Loads) -> anyhow::Result<()> {
    loads.close().await?;
    edge.set_edges(edges).await?;
    let arrival =
        Arrival { clients: BYSTANDERS, jobs: BYSTANDERS, at_once: BYSTANDERS / 10, limit: Duration::from_secs(60) };
    let opened = loads.open(&edge.access(), arrival).await?;
    anyhow::ensure!(opened.opened == BYSTANDERS, "only {} of {BYSTANDERS} clients received their state", opened.opened);
    Ok(())
}

fn at(begun: Instant, what: &str) {
    println!("{:>5.0} s  {what}", begun.elapsed().as_secs_f64());
}
