//! `cargo dev chaos`: injects random faults into a whole cluster under load, records the run, and checks every promise.

mod check;
mod clients;
mod collect;
pub mod downloader;
mod faults;
mod history;
mod jobs;
mod process;
mod recorder;
mod report;
mod schedule;
mod source;
mod world;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use millrace_harness::{
    checkout,
    programs::{Programs, SERVICES},
    tools::Tools,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use self::{
    check::Recovery,
    history::{Death, History},
    recorder::{Injected, now},
    report::Rest,
    world::{JANITOR_INTERVAL, LEASE, World},
};

/// How long jobs may take to end after the last fault; some wait for their next attempt.
const JOBS_MAX: Duration = Duration::from_secs(330);
/// Longer than the promised time, which the checks enforce.
const CLIENTS_MAX: Duration = Duration::from_secs(40);
/// How long cleaning may take: unfinished uploads and files of dead workers.
const CLEAN_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(500);

const HELP: &str = "\
Runs a nats-server cluster with three replicas, two projectors, three edges, four workers, an object store and some
hundred WebSocket clients over a stream of jobs. At random it kills processes (-9), freezes them, cuts, stalls and
slows their connections, kills and freezes nats-servers, loses and delays republished messages, fills a disk, and lets
the object store answer 503 or hang. Then it removes the faults, waits until the system is idle, and checks every
promise. Exit code 0 if no promise was broken, 1 otherwise.

The seed determines the faults, their times and the submissions; it cannot determine how the processes interleave.

Examples:
  cargo dev chaos --minutes 2 --seed 1
  cargo dev chaos --minutes 30 --seed 7 --keep";

/// Injects random faults into a whole cluster and checks every promise
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// How long faults are injected, in minutes
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    minutes: f64,
    /// Determines the faults and their times; random by default
    #[arg(long, value_name = "S", default_value_t = rand::random::<u32>().into())]
    seed: u64,
    /// nats-servers, each with a replica of every stream
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// WebSocket clients at once
    #[arg(long, value_name = "N", default_value_t = 200)]
    clients: usize,
    /// Keeps the processes' logs, and prints their folder
    #[arg(long)]
    keep: bool,
    /// Runs the existing binaries instead of building them
    #[arg(long)]
    no_build: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let root = checkout();
    let programs = Programs::beside_us(!cfg!(debug_assertions))?;
    if !args.no_build {
        programs.build(&root, &SERVICES)?;
    }
    let tools = Tools::ensure(&root, &mut |words| println!("{words}"))?;
    let mut folder = tempfile::Builder::new().prefix("millrace-chaos-").tempdir()?;
    println!("chaos for {} minutes with seed {}", args.minutes, args.seed);
    let clean = tokio::runtime::Runtime::new()?.block_on(chaos(args, &programs, &tools, folder.path()))?;
    if args.keep || !clean {
        folder.disable_cleanup(true);
        println!("process logs: {}", folder.path().join("logs").display());
    }
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether every promise was kept.
async fn chaos(args: &Args, programs: &Programs, tools: &Tools, folder: &std::path::Path) -> anyhow::Result<bool> {
    let world = Arc::new(World::start(args, programs, tools, folder).await?);
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let (jobs, watched) = watch::channel(clients::Jobs::default());
    let clients: Vec<_> = (0..args.clients)
        .map(|number| tokio::spawn(clients::client(Arc::clone(&world), number, args.seed, watched.clone())))
        .collect();
    let submitting = tokio::spawn(jobs::submit(Arc::clone(&world), args.seed, length, jobs.clone()));
    println!("the cluster is ready; injecting faults");
    faults::run(&world, schedule::schedule(args.seed, length)).await;
    world.wait_ready().await?;
    let calm_at = now();
    let calm = Instant::now();
    println!("no more faults; waiting until the system is idle");
    submitting.await.context("the submissions")?;
    jobs.send_modify(|jobs| jobs.over = true);

    let mut rest = Rest { jobs: None, clients: None, disk: world.disk.is_some() };
    while rest.jobs.is_none() && calm.elapsed() < JOBS_MAX {
        match collect::unended(&world.client).await {
            Ok(jobs) if jobs.is_empty() => rest.jobs = Some(calm.elapsed()),
            _ => sleep(POLL).await,
        }
    }
    let aborts: Vec<_> = clients.iter().map(tokio::task::JoinHandle::abort_handle).collect();
    if timeout(CLIENTS_MAX, futures::future::join_all(clients)).await.is_ok() {
        rest.clients = Some(calm.elapsed());
    }
    aborts.iter().for_each(tokio::task::AbortHandle::abort);
    let history = collect(&world, calm_at).await?;
    let violations = check::check(&history);
    let recoveries: Vec<Recovery> = check::recoveries(&history).into_iter().map(|(_, recovery)| recovery).collect();
    let kept = world.recorder.kept();
    println!("\n{}", report::text(&history, &kept, &recoveries, &rest, &violations));
    Ok(violations.is_empty())
}

/// Waits until late clean-up is done, stops the services, and collects what remains.
async fn collect(world: &Arc<World>, calm_at: u64) -> anyhow::Result<History> {
    let reader = millrace_cli::operators::verify::verify(&world.client, Duration::from_secs(30)).await?;
    if let Some(at) = reader.behind_at {
        eprintln!("the projector has only reached sequence {at}");
    }
    // The janitor gets another turn for what the last job left behind.
    sleep(2 * JANITOR_INTERVAL).await;
    let begun = Instant::now();
    let dirty = || !collect::uploads(&world.s3).is_empty() || !collect::processes(&world.work).is_empty();
    while dirty() && begun.elapsed() < CLEAN_MAX {
        sleep(POLL).await;
    }
    let states = collect::states(&world.client).await?;
    let log = collect::log(&world.client).await?;
    let stopping: Vec<_> = world
        .processes
        .iter()
        .map(Arc::clone)
        .map(|process| tokio::task::spawn_blocking(move || process.stop(STOP_MAX)))
        .collect();
    for stopped in stopping {
        if !stopped.await? {
            eprintln!("a service did not stop within {STOP_MAX:?}");
        }
    }
    let kept = world.recorder.kept();
    let worker_deaths = kept.worker_kills.iter().map(|(worker, at)| {
        let worker = worker.clone();
        Death { worker, at: *at, clear: is_clear(&kept.injected, *at) }
    });
    Ok(History {
        calm_at,
        lease_ms: u64::try_from(LEASE.as_millis())?,
        base_url: world.base_url.clone(),
        accepted: kept.accepted.clone(),
        acked: kept.acked.clone(),
        log,
        states,
        sessions: kept.sessions.clone(),
        worker_deaths: worker_deaths.collect(),
        objects: collect::objects(&world.s3)?,
        uploads: collect::uploads(&world.s3),
        stray_parts: collect::strays(&world.s3),
        processes: collect::processes(&world.work),
        files: collect::files(&world.work).iter().map(|path| path.display().to_string()).collect(),
    })
}

/// Whether no other fault kept workers from taking over the jobs of a worker killed at this time.
fn is_clear(injected: &[Injected], at: u64) -> bool {
    let lease = u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX);
    let (from, to) = (at.saturating_sub(lease), at + 2 * lease);
    let mut others = injected.iter().filter(|it| it.fault.hinders_recovery() && it.from.abs_diff(at) > 100);
    others.all(|it| it.to < from || it.from > to)
}
