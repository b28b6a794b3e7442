//! `cargo dev up`: the whole system on this machine, until Ctrl-C.

mod banner;
mod data;
mod layout;
mod nats;
mod ports;
mod sample;
mod signals;
mod stack;

use std::{path::PathBuf, process::ExitCode, thread, time::Instant};

use anyhow::Context;
use millrace_harness::{
    checkout,
    processes::Service,
    programs::{Programs, SERVICES},
    tools::Tools,
};
use tokio::runtime::Runtime;

use self::{
    data::Data,
    layout::Layout,
    sample::Sample,
    signals::Signals,
    stack::{Stack, Stage},
};
use crate::terminal::Output;

/// The exit code after a second Ctrl-C: that of a process ended by SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

const HELP: &str = "\
Runs these processes:
  nats-server   keeps the log of all jobs, on --nats-port
  projector     folds the log into the current state of each job
  worker-1, …   take jobs, download and store the files
  edge          serves the page, the HTTP API and the WebSockets, on --port
and, in its own process, a small video site on --sample-port, which needs no internet.

All data stays in --data for the next `up`. Ctrl-C stops everything in order; a second Ctrl-C kills all processes at
once.

The services read all settings that `up` does not set from the environment: MILLRACE_LOG=debug, MILLRACE_SLOTS=4,
MILLRACE_STORAGE=s3://bucket with AWS_… variables, and so on; `target/debug/millrace-edge --help` lists them.

Examples:
  cargo dev up
  cargo dev up --workers 3 --release
  cargo dev up --port 3101 --nats-port 4322 --sample-port 8199 --admin-port 9201 --data /tmp/second
                                       A second system beside the first";

/// Builds and runs everything here, until Ctrl-C
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The port of the page, the HTTP API and the WebSockets
    #[arg(long, default_value = "3001", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The port of nats-server
    #[arg(long, value_name = "PORT", default_value = "4222", value_parser = clap::value_parser!(u16).range(1..))]
    nats_port: u16,
    /// The port of the sample video site
    #[arg(long, value_name = "PORT", default_value = "8099", value_parser = clap::value_parser!(u16).range(1..))]
    sample_port: u16,
    /// The first of the admin ports (health, metrics): edge, worker-1, projector, worker-2 and so on
    #[arg(long, value_name = "PORT", default_value = "9101", value_parser = clap::value_parser!(u16).range(1..=65000))]
    admin_port: u16,
    /// The folder for all data; by default `.millrace` in the checkout
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// How many workers to run
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=100))]
    workers: u16,
    /// Builds and runs optimised binaries
    #[arg(long)]
    release: bool,
    /// Runs the existing binaries instead of building them
    #[arg(long)]
    no_build: bool,
    /// Shows all log lines of nats-server, not only its warnings
    #[arg(long)]
    verbose: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = Output::new();
    let root = checkout();
    let programs = Programs::beside_us(args.release)?;
    // Checks that fail fast come first; the build may take minutes.
    let data = Data::open(&args.data.clone().unwrap_or_else(|| root.join(".millrace")))?;
    let ports = layout::ports(&args);
    ports::check_free(&ports)?;
    // Tools download while programs compile.
    let tools = thread::scope(|scope| {
        let tools = scope.spawn(|| Tools::ensure(&root, &mut |words| output.say(words)));
        if !args.no_build {
            programs.build(&root, &SERVICES)?;
        }
        tools.join().expect("the installer does not panic")
    })?;
    let started = Instant::now();
    let layout = Layout { args, root, data, programs, tools };
    ports::check_free(&ports)?;
    let sample = Sample::start(layout.args.sample_port, layout.root.join(".tools"), layout.tools.ffmpeg.clone())?;
    Runtime::new()?.block_on(session(&layout, &sample, output, started))
}

/// From the first process to the end of the last.
async fn session(layout: &Layout, sample: &Sample, output: Output, started: Instant) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let mut stack = Stack::default();
    let ended = tokio::select! {
        ended = live(&mut stack, layout, sample, output, started) => ended,
        signal = signals.next() => {
            output.say(&format!("{signal}: stopping; repeat to kill at once"));
            Ok(())
        }
    };
    if ended.is_err() {
        output.say("stopping everything");
    }
    let stopped = tokio::select! {
        stopped = stack.stop() => stopped,
        signal = signals.next() => {
            output.say(&format!("{signal} again: killing everything"));
            stack.kill();
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
    };
    ended.and(stopped)?;
    output.say("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Starts everything and then watches it. Returns only when something fails.
async fn live(
    stack: &mut Stack,
    layout: &Layout,
    sample: &Sample,
    output: Output,
    started: Instant,
) -> anyhow::Result<()> {
    let notable = if layout.args.verbose { |_: &str| true } else { nats::is_notable };
    let mut options = nats::options(&layout.root, &layout.data, layout.args.nats_port);
    options.sink = Some(output.sink("nats", 0, notable));
    let streams = layout.data.streams();
    let server = Service::spawn_program("nats-server", &layout.tools.nats_server, options)?;
    let server = stack.add("nats", Stage::Nats, server);
    nats::prepare(server, &layout.nats_url(), &layout.data, streams).await?;
    for (order, process) in layout.processes().into_iter().enumerate() {
        let mut options = process.options;
        options.sink = Some(output.sink(&process.name, order + 1, |_| true));
        let service = Service::spawn_program(&process.name, &layout.programs.path(process.program)?, options)?;
        stack.add(&process.name, process.stage, service);
    }
    stack.wait_ready(|name| layout.admin_url(name)).await?;
    output.plain(&banner::text(layout, sample, output, started.elapsed()));
    sample.make();
    Err(stack.watch().await)
}
