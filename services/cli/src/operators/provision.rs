//! `millrace provision`: the stream, the buckets and the consumers, as `nats/` defines them.

use std::process::ExitCode;

use async_nats::jetstream;
use millrace_runtime::provision::{Done, apply};
use tokio::runtime::Runtime;

use crate::connect::NatsArgs;

const EXAMPLES: &str = "\
Examples:
  millrace provision
  millrace provision --nats-url tls://nats.example.org:4222 --nats-credentials operator.creds --replicas 3

The definitions are part of this program. The `nats` CLI applies the same files, which are in the source's folder nats/:
`nats stream add JOBS --config nats/stream-JOBS.json`.";

/// Creates or updates the stream, buckets and consumers in NATS
///
/// The command may be run again at any time: it keeps definitions that match, applies changes that are safe, and
/// refuses a change that would lose data, with the reason. `cargo dev up` runs it by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    /// Replicas of each stream: 1, 3 or 5; without the option, existing streams keep theirs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Runtime::new()?.block_on(async {
        let client = args.nats.connect().await?;
        for (file, done) in apply(&jetstream::new(client), args.replicas).await? {
            let done = match done {
                Done::Kept => "kept",
                Done::Created => "created",
                Done::Updated => "updated",
            };
            println!("{done:<8} nats/{file}");
        }
        Ok(ExitCode::SUCCESS)
    })
}
