//! `cargo dev bench append`: the cost of the fence and the message id of our appends, compared with a bare publisher in
//! the same run.

use std::{process::ExitCode, time::Duration};

use async_nats::jetstream;
use futures::future::try_join_all;
use millrace_cli::table;
use millrace_domain::{
    Event, EventBody, JobId,
    event::Progress,
    subjects::{self, Kind, STREAM},
};
use millrace_harness::{checkout, nats::NatsCluster, tools::Tools};
use millrace_runtime::{
    log::{Append, Log},
    now, provision,
};
use tokio::time::Instant;

use super::{machine::Machine, stats};

const HELP: &str = "\
One nats-server with one replica, then three with three replicas, configured by nats/cluster.conf: an acknowledgement
follows the fsync. Two kinds of writers take turns on the same stream, over the same connection, each writer with one
event in flight:
  bare   `publish` of async-nats and its acknowledgement, no header
  ours   the workers' append: an expected sequence and a message id with each event
Each number is the median over the turns. The order of the two kinds alternates with each turn.

Example:
  cargo dev bench append --seconds 3 --turns 5 --writers 64";

/// Appends per second, ours compared with a bare publisher
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Seconds of each turn
    #[arg(long, value_name = "N", default_value_t = 3)]
    seconds: u64,
    /// Turns of each kind
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,
    /// Writers at once, each with its own job
    #[arg(long, value_name = "N", default_value_t = 64)]
    writers: usize,
}

/// Runs the bench.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let root = checkout();
    let tools = Tools::ensure(&root, &mut |words| println!("{words}"))?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut rows = vec![["replicas", "bare, per s", "ours, per s", "ours / bare"].map(str::to_owned).to_vec()];
        let mut version = String::new();
        for replicas in [1, 3] {
            let cluster = NatsCluster::start(Some(tools.nats_server.clone()), replicas.into()).await?;
            let client = cluster.connect().await?;
            provision::apply(&jetstream::new(client.clone()), Some(replicas)).await?;
            cluster.wait_for_stream(&client, STREAM).await?;
            let (bare, ours) = turns(args, &client).await?;
            // The connection is established by now.
            version = client.server_info().version;
            let ratios: Vec<_> = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
            rows.push(vec![
                format!("{replicas}"),
                format!("{:.0}", stats::median(&bare)),
                format!("{:.0}", stats::median(&ours)),
                format!("{:.3} ({:.3} to {:.3})", stats::median(&ratios), least(&ratios), most(&ratios)),
            ]);
        }
        println!("{}", table::render(&rows));
        println!(
            "target: ours within 20 % of bare, on three replicas\n{} writers, {} turns of {} s each; sync_interval: \
            always\n{}",
            args.writers,
            args.turns,
            args.seconds,
            Machine::here(&version).line()
        );
        Ok(ExitCode::SUCCESS)
    })
}

/// Appends per second of each turn, bare and ours.
async fn turns(args: &Args, client: &async_nats::Client) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let log = Log::open(client, &prometheus::Registry::new()).await?;
    let context = jetstream::new(client.clone());
    let (mut bare_rates, mut our_rates) = (Vec::new(), Vec::new());
    // The first turn is not counted.
    for turn in 0..=args.turns {
        for kind in [turn % 2, (turn + 1) % 2] {
            let until = Instant::now() + Duration::from_secs(args.seconds);
            let begun = Instant::now();
            let ids = (0..args.writers).map(|_| JobId::from_entropy(rand::random()));
            let counts = if kind == 0 {
                try_join_all(ids.map(|id| tokio::spawn(bare(context.clone(), id, until)))).await?
            } else {
                try_join_all(ids.map(|id| tokio::spawn(ours(log.clone(), id, until)))).await?
            };
            let count = counts.into_iter().sum::<anyhow::Result<u64>>()?;
            let rate = count as f64 / begun.elapsed().as_secs_f64();
            if turn > 0 {
                if kind == 0 { bare_rates.push(rate) } else { our_rates.push(rate) }
            }
        }
    }
    Ok((bare_rates, our_rates))
}

async fn bare(context: jetstream::Context, id: JobId, until: Instant) -> anyhow::Result<u64> {
    let subject = subjects::subject(Kind::Events, &id);
    let mut count = 0;
    while Instant::now() < until {
        context.publish(subject.clone(), event(count).encode().into()).await?.await?;
        count += 1;
    }
    Ok(count)
}

async fn ours(log: Log, id: JobId, until: Instant) -> anyhow::Result<u64> {
    let (mut count, mut last) = (0, 0);
    while Instant::now() < until {
        last = log.append(&Append::new(&id, last, &event(count))).await?;
        count += 1;
    }
    Ok(count)
}

fn event(number: u64) -> Event {
    let progress = Progress {
        downloaded_bytes: number,
        total_bytes: Some(u64::MAX),
        bytes_per_second: Some(1_000_000),
        eta_seconds: Some(60),
    };
    Event { at: now(), body: EventBody::Progress(progress) }
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
