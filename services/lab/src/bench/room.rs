//! `cargo dev bench room`: the disk and memory that NATS uses for finished jobs, and whether it frees them when the
//! jobs expire.

mod jobs;
mod sample;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use async_nats::jetstream;
use millrace_cli::table;
use millrace_domain::subjects::STREAM;
use millrace_harness::{
    checkout,
    nats::{NatsCluster, NatsOptions, NatsServer},
    ports::free_port,
    processes::{Service, ServiceOptions},
    programs::Programs,
    tools::Tools,
};
use millrace_runtime::provision;
use sample::Sample;
use serde::Serialize;
use tokio::time::sleep;

use super::{machine::Machine, stats};

const HELP: &str = "\
Starts nats-server with nats/local.conf (or several with nats/cluster.conf), an empty folder and a projector. Appends
jobs with the workers' code: 47 events each (submitted, started, info, 40 progress, downloaded, uploading, uploaded,
completed), fenced and with a message id; takes each submission from the queue and acknowledges it. Disk is the blocks
that files occupy; memory is nats-server's resident memory. Each sample follows --settle-seconds without writes: longer
than the two minutes for which nats-server keeps each message id in memory, and after which Go returns unused memory.
The use per job is the slope of a least-squares line; for memory, the line excludes the empty server, which has not
worked yet.

Then a worker starts with a retention of one second, all jobs expire, and the command takes another sample. A second
round with the same number of jobs, and more with --rounds, show whether the remainder grows. The speed of the programs
does not matter here, so they are not optimised.

Takes about half an hour, and 12 minutes with --quick.

Examples:
  cargo dev bench room --json room.json
  cargo dev bench room --quick
  cargo dev bench room --nodes 3
  cargo dev bench room --jobs 500 --points 2 --rounds 10 --settle-seconds 5      Does the remainder grow?";

const READY_MAX: Duration = Duration::from_secs(60);
/// How long all jobs of a round may take to expire.
const EXPIRY_MAX: Duration = Duration::from_secs(3600);
/// With fewer jobs, the memory that Go's runtime takes and returns by itself exceeds theirs.
const JOBS_FOR_MEMORY_MIN: usize = 10_000;
const JOBS_A_DAY: f64 = 1e6;
const DAYS: f64 = 7.0;

/// Disk and memory of NATS for each finished job, and after they have expired
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub struct Args {
    /// Finished jobs of each round
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    jobs: usize,
    /// Samples taken while the jobs are made
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=20))]
    points: u8,
    /// Rounds in which this number of jobs is made and expires
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100))]
    rounds: u8,
    /// 2,000 jobs, two samples
    #[arg(long)]
    quick: bool,
    /// nats-servers, each with a replica of every stream
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Seconds without writes before each sample
    #[arg(long, value_name = "N", default_value_t = 130)]
    settle_seconds: u64,
    /// Writes all numbers to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs the existing binaries instead of building them
    #[arg(long)]
    no_build: bool,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    settings: Args,
    /// Samples while jobs were made; the first is of the empty server.
    filling: Vec<Sample>,
    /// Bytes for each job.
    each: Each,
    /// The sample after all jobs of each round had expired, and the jobs that expired per second.
    expired: Vec<(Sample, f64)>,
}

/// Bytes for each finished job.
#[derive(Clone, Copy, Debug, Serialize)]
struct Each {
    log: f64,
    states: f64,
    consumers: f64,
    disk: f64,
    memory: f64,
}

enum Nats {
    One(NatsServer),
    More(NatsCluster),
}

impl Nats {
    async fn start(root: &Path, tools: &Tools, nodes: u8) -> anyhow::Result<Self> {
        let program = Some(tools.nats_server.clone());
        if nodes > 1 {
            return Ok(Self::More(NatsCluster::start(program, nodes.into()).await?));
        }
        let config = Some(root.join("nats/local.conf"));
        Ok(Self::One(NatsServer::start(NatsOptions { program, config, ..NatsOptions::default() }).await?))
    }

    fn servers(&self) -> Vec<&NatsServer> {
        match self {
            Self::One(server) => vec![server],
            Self::More(cluster) => cluster.nodes().iter().collect(),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::One(server) => server.url(),
            Self::More(cluster) => cluster.url(),
        }
    }

    async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        match self {
            Self::One(server) => Ok(async_nats::connect(server.url()).await?),
            Self::More(cluster) => cluster.connect().await,
        }
    }
}

struct World {
    // Drop order: the service, then the servers that it writes to.
    _projector: Service,
    nats: Nats,
    client: async_nats::Client,
    programs: Programs,
    tools: Tools,
    folder: tempfile::TempDir,
    settle: Duration,
}

/// Runs the bench.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut args = args.clone();
    if args.quick {
        (args.jobs, args.points) = (2_000, 2);
    }
    let root = checkout();
    let programs = Programs::beside_us(false)?;
    if !args.no_build {
        programs.build(&root, &["millrace-projector", "millrace-worker"])?;
    }
    let tools = Tools::ensure(&root, &mut |words| println!("{words}"))?;
    let json = args.json.clone();
    let report = tokio::runtime::Runtime::new()?.block_on(measure(&root, programs, tools, args))?;
    print(&report);
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(root: &Path, programs: Programs, tools: Tools, args: Args) -> anyhow::Result<Report> {
    let world = World::start(root, programs, tools, &args).await?;
    let mut filling = vec![world.sample(0).await?];
    let mut made = 0;
    for point in 1..=usize::from(args.points) {
        let upto = args.jobs * point / usize::from(args.points);
        world.make(upto - made).await?;
        made = upto;
        filling.push(world.sample(made).await?);
    }
    let mut expired = Vec::new();
    for round in 1..=args.rounds {
        if round > 1 {
            world.make(args.jobs).await?;
        }
        let rate = world.expire(args.jobs).await?;
        expired.push((world.sample(0).await?, rate));
    }
    let machine = Machine::here(&world.client.server_info().version);
    let each = |from: usize, of: fn(&Sample) -> f64| {
        stats::slope(&filling[from..].iter().map(|sample| (sample.jobs as f64, of(sample))).collect::<Vec<_>>())
    };
    let each = Each {
        log: each(0, |sample| sample.log),
        states: each(0, |sample| sample.states),
        consumers: each(0, |sample| sample.consumers),
        disk: each(0, |sample| sample.disk),
        // A server that has just started has not worked yet.
        memory: each(1, |sample| sample.memory),
    };
    Ok(Report { machine, settings: args, filling, each, expired })
}

impl World {
    async fn start(root: &Path, programs: Programs, tools: Tools, args: &Args) -> anyhow::Result<Self> {
        let nats = Nats::start(root, &tools, args.nodes).await?;
        let client = nats.connect().await?;
        provision::apply(&jetstream::new(client.clone()), Some(args.nodes)).await?;
        if let Nats::More(cluster) = &nats {
            cluster.wait_for_stream(&client, STREAM).await?;
        }
        let folder = tempfile::Builder::new().prefix("millrace-bench-").tempdir()?;
        let projector = spawn(&programs, &nats, "millrace-projector", &[]).await?;
        let settle = Duration::from_secs(args.settle_seconds);
        Ok(Self { _projector: projector, nats, client, programs, tools, folder, settle })
    }

    async fn make(&self, count: usize) -> anyhow::Result<()> {
        println!("making {count} jobs of {} events", jobs::EVENTS);
        let begun = Instant::now();
        jobs::make(&self.client, count).await?;
        println!("  in {:.0} s", begun.elapsed().as_secs_f64());
        Ok(())
    }

    async fn sample(&self, jobs: usize) -> anyhow::Result<Sample> {
        println!("waiting {} s before a sample", self.settle.as_secs());
        sleep(self.settle).await;
        Sample::take(&self.nats.servers(), jobs)
    }

    /// Lets a worker remove all jobs; returns the jobs removed per second.
    async fn expire(&self, count: usize) -> anyhow::Result<f64> {
        let folder = |name: &str| self.folder.path().join(name).display().to_string();
        let args = [
            "--name=worker-1".to_owned(),
            format!("--work-dir={}", folder("work")),
            format!("--storage={}", folder("files")),
            format!("--yt-dlp={}", self.tools.yt_dlp.display()),
            format!("--ffmpeg={}", self.tools.ffmpeg.display()),
            format!("--ffprobe={}", self.tools.ffprobe.display()),
            "--retention-hours=0.0003".to_owned(),
            "--janitor-minutes=0".to_owned(),
        ];
        println!("removing {count} jobs");
        let begun = Instant::now();
        let mut worker = spawn(&self.programs, &self.nats, "millrace-worker", &args).await?;
        let log = jetstream::new(self.client.clone()).get_stream_no_info(STREAM).await?;
        while log.get_info().await?.state.messages > 0 {
            if begun.elapsed() > EXPIRY_MAX {
                bail!("the jobs do not expire; the worker's last lines:\n{}", worker.log_tail());
            }
            sleep(Duration::from_millis(500)).await;
        }
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        println!("  in {:.0} s", begun.elapsed().as_secs_f64());
        worker.terminate(READY_MAX).await?;
        Ok(rate)
    }
}

async fn spawn(programs: &Programs, nats: &Nats, name: &str, args: &[String]) -> anyhow::Result<Service> {
    let admin = format!("127.0.0.1:{}", free_port());
    let common = [format!("--nats-url={}", nats.url()), format!("--admin-listen={admin}")];
    let options = ServiceOptions { args: [&common, args].concat(), ..ServiceOptions::default() };
    let mut service = Service::spawn_program(name, &programs.path(name)?, options)?;
    service.wait_ready(&format!("http://{admin}"), READY_MAX).await?;
    Ok(service)
}

fn print(report: &Report) {
    let row = |name: String, sample: &Sample| {
        let of = [sample.log, sample.states, sample.consumers, sample.disk, sample.memory];
        std::iter::once(name).chain(of.map(|bytes| format!("{:.1}", bytes / 1e6))).collect()
    };
    let heading = ["MB of each nats-server", "log", "states", "consumers", "all on disk", "memory"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(report.filling.iter().map(|sample| row(format!("{} jobs", sample.jobs), sample)));
    rows.extend(
        report.expired.iter().zip(1..).map(|((sample, _), round)| row(format!("expired, round {round}"), sample)),
    );
    println!("\n{}", table::render(&rows));
    let Each { log, states, consumers, disk, memory } = report.each;
    let (jobs, gb) = (JOBS_A_DAY * DAYS, 1e9);
    println!(
        "a finished job: {disk:.0} bytes on disk (log {log:.0}, states {states:.0}, consumers {consumers:.0}); \
        {JOBS_A_DAY:.0} jobs a day, kept for {DAYS:.0} days: {:.0} GB",
        disk * jobs / gb
    );
    if report.settings.jobs < JOBS_FOR_MEMORY_MIN {
        println!("the memory per job is indistinguishable from noise with fewer than {JOBS_FOR_MEMORY_MIN} jobs");
    } else {
        println!("and {memory:.0} bytes of memory; for that many jobs, extrapolated: {:.1} GB", memory * jobs / gb);
    }
    let (full, empty) = (report.filling.last().expect("one at least"), report.filling[0]);
    for ((sample, rate), round) in report.expired.iter().zip(1..) {
        println!(
            "round {round}: one worker removed {rate:.0} jobs/s; of the disk that {} jobs had used, {:.1} % is still \
             used; memory {:.0} MB, with all jobs {:.0} MB",
            report.settings.jobs,
            100.0 * (sample.disk - empty.disk) / (full.disk - empty.disk),
            sample.memory / 1e6,
            full.memory / 1e6
        );
    }
    println!(
        "{} events a job, {} nats-server(s), sampled {} s after the last write\n{}",
        jobs::EVENTS,
        report.settings.nodes,
        report.settings.settle_seconds,
        report.machine.line()
    );
}
