#![doc = include_str!("README.md")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use millrace_cli::table;
use millrace_harness::{
    checkout,
    media::{MediaFiles, MediaServer, MediaSpec},
    programs::{Programs, SERVICES},
    tools::Tools,
};
use serde::Serialize;

use super::{cold, live, machine::Machine, stats, submissions, world::World};

const HELP: &str = "\
services/lab/src/bench/README.md describes the method; the command prints a summary of it with the numbers. Takes about
three minutes on 2 cores, after the build. Other load on the machine changes the tails.

Examples:
  cargo dev bench e2e
  cargo dev bench e2e --json e2e.json
  cargo dev bench e2e --runs 1 --seconds 3 --submissions 5 --starts 1      A quick look";

/// Latency from a submission to the link, on this machine
#[derive(Clone, Debug, clap::Args, Serialize)]
#[command(after_help = HELP)]
pub struct Args {
    /// Runs of the live part; the numbers are medians over them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    runs: u64,
    /// Measured seconds of each run, after two seconds of warm-up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = positive)]
    seconds: u64,
    /// Jobs at once, each with one WebSocket client
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    jobs: u64,
    /// Events per second, over all jobs
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive)]
    rate: u64,
    /// Jobs that are submitted to an idle worker, one after the other
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = positive)]
    submissions: u64,
    /// Starts of `cargo dev up`
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive)]
    starts: u64,
    /// Writes all numbers to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    command: String,
    machine: Machine,
    settings: Args,
    live: live::Outcome,
    live_runs: Vec<live::Outcome>,
    submissions: submissions::Outcome,
    cold_up_ready_s: f64,
    cold_up_ready_runs_s: Vec<f64>,
}

/// Runs the bench.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let root = checkout();
    let programs = Programs::beside_us(true)?;
    programs.build(&root, &SERVICES)?;
    let tools = Tools::ensure(&root, &mut |words| println!("{words}"))?;
    let report = tokio::runtime::Runtime::new()?.block_on(measure(args, &root, programs, tools))?;
    println!("\n{}", report.text());
    if let Some(path) = &args.json {
        super::write_json(path, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(args: &Args, root: &Path, programs: Programs, tools: Tools) -> anyhow::Result<Report> {
    let spec =
        MediaSpec { video_bytes: 200_000, duration_s: 1, height: 120, hls_heights: vec![120], hls_duration_s: 1 };
    let media = MediaFiles::make(&root.join(".tools"), &tools.ffmpeg, &spec)?;
    let media = MediaServer::start(&media, ([127, 0, 0, 1], 0).into())?;
    let mut world = World::start(root, programs, tools).await?;
    let load = live::Load { jobs: args.jobs, events_per_s: args.rate, seconds: args.seconds };
    let mut live_runs = Vec::new();
    for number in 1..=args.runs {
        let outcome = live::run(&world, load).await?;
        println!(
            "live, run {number} of {}: WebSocket p50 {} ms, p99 {} ms; a late append {} ms at most",
            args.runs,
            ms(outcome.websocket.p50_ms),
            ms(outcome.websocket.p99_ms),
            ms(outcome.send_lag_max_ms)
        );
        live_runs.push(outcome);
    }
    world.start_worker().await?;
    println!("submissions: {} jobs, one after the other", args.submissions);
    let submissions = submissions::run(&world, &media, args.submissions).await?;
    let nats_server = world.client.server_info().version;
    drop(world);
    // The programs that `cargo dev up` and `cargo dev` would build: the measured start must find everything built.
    Programs::beside_us(false)?.build(root, &[&SERVICES[..], &["millrace-dev"]].concat())?;
    let mut cold_up_ready_runs_s = Vec::new();
    for number in 1..=args.starts {
        let ready_s = cold::run(root).await?.as_secs_f64();
        println!("cargo dev up, start {number} of {}: ready in {ready_s:.2} s", args.starts);
        cold_up_ready_runs_s.push(ready_s);
    }
    Ok(Report {
        command: super::command(),
        machine: Machine::here(&nats_server),
        settings: args.clone(),
        live: live::Outcome::median(&live_runs),
        live_runs,
        submissions,
        cold_up_ready_s: stats::median(&cold_up_ready_runs_s),
        cold_up_ready_runs_s,
    })
}

impl Report {
    fn text(&self) -> String {
        let row = |name: &str, of: &stats::Summary, target: &str| {
            let cells = [of.p50_ms, of.p99_ms, of.p999_ms, of.max_ms].map(ms);
            [vec![name.to_owned()], cells.to_vec(), vec![of.count.to_string(), target.to_owned()]].concat()
        };
        let Args { runs, seconds, jobs, rate, submissions, starts, .. } = &self.settings;
        let rows = [
            ["milliseconds", "p50", "p99", "p99.9", "max", "n", "target"].map(str::to_owned).to_vec(),
            row("append → WebSocket message", &self.live.websocket, "p50 < 1, p99 < 10"),
            row("  peer: bare NATS subscriber", &self.live.nats_subscriber, "the floor"),
            row("  peer: GET status each second", &self.live.polling, ""),
            row("  append → acknowledged", &self.live.append, ""),
            row("POST → worker's `started`", &self.submissions.started, "p50 < 10"),
            row("  POST → 202", &self.submissions.accepted, ""),
            row("  POST → `completed`", &self.submissions.completed, ""),
        ];
        format!(
            "{}\n\
             cargo dev up, already built, until ready: {:.2} s (target < 3 s); {}\n\n\
             Live: {rate} events/s evenly over {jobs} jobs, each with one WebSocket client; {runs} runs of\n\
             {seconds} s after 2 s of warm-up; each number is the median over the runs. A latency lasts from just\n\
             before the append is sent to the frame received, by one clock. The edge merged {} events into a later\n\
             state.\n\
             The largest delay of an append against its schedule was {} ms (median run).\n\
             Submissions: {submissions}, one after the other, to an idle worker. Starts: {starts}.\n\
             Everything on one machine: {}.\n\
             {}\n",
            table::render(&rows),
            self.cold_up_ready_s,
            self.cold_up_ready_runs_s.iter().map(|s| format!("{s:.2}")).collect::<Vec<_>>().join(", "),
            self.live.conflated,
            ms(self.live.send_lag_max_ms),
            self.machine.line(),
            self.command,
        )
    }
}

fn ms(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

fn positive(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err("give a whole number of at least 1".to_owned()),
    }
}
