//! `millrace rebuild`: folds the whole log into a bucket beside the live one, compares both with the log, and repairs
//! live states that differ.

mod adopt;
mod fill;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use async_nats::jetstream;
use millrace_domain::subjects::{self, REBUILD_BUCKET, STATE_BUCKET};
use tokio::runtime::Runtime;

use super::verify::{Report, compare, read, verify};
use crate::{connect::NatsArgs, table};

/// The program that folds the log.
const PROJECTOR: &str = "millrace-projector";

const HELP: &str = "\
A second projector folds the whole log from zero into the bucket JOB_STATE_REBUILD, while the live projector keeps
running. Then this command folds the log once more and compares both buckets with the result. With --adopt it rewrites
every live state that differs from the log, by compare-and-set, so that an older state never replaces a newer one, and
deletes JOB_STATE_REBUILD. Without --adopt it keeps JOB_STATE_REBUILD if anything differs. The projector puts messages
that it cannot decode into the quarantine again.

Safe while the system runs. Run one rebuild at a time: each begins by deleting the bucket of the one before.

Exit code 0 if nothing differs, or if --adopt repaired every difference; 1 otherwise.

Examples:
  millrace rebuild
  millrace rebuild --adopt --nats-url nats://127.0.0.1:4322";

/// Rebuilds every state from the log and compares it with the live one
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    /// Repairs live states that differ from the log
    #[arg(long)]
    adopt: bool,
    /// How long the projector may take to catch up with the log
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait_seconds: u64,
    /// The program millrace-projector; by default the one beside this program, else the one on the PATH
    #[arg(long, value_name = "FILE", env = "MILLRACE_PROJECTOR")]
    projector: Option<PathBuf>,
}

/// The outcome of a rebuild.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// Report on the bucket that was filled from zero.
    pub rebuilt: Report,
    /// Report on the live bucket.
    pub live: Report,
    /// Report on the live bucket after its wrong states were rewritten.
    pub adopted: Option<Report>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    // Before anything is created in NATS.
    let program = projector(args.projector.as_deref())?;
    let say = |text: &str| eprintln!("{text}");
    let rebuilt = Runtime::new()?.block_on(async {
        rebuild(&args.nats, &program, args.adopt, Duration::from_secs(args.wait_seconds), &say).await
    })?;
    println!("{}", rebuilt.text());
    Ok(if rebuilt.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The projector as given, or beside this program, or on the PATH.
fn projector(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let beside = || env::current_exe().ok().map(|this| this.with_file_name(PROJECTOR)).filter(|path| path.is_file());
    match given {
        Some(path) => which::which(path).with_context(|| format!("cannot run {}", path.display())),
        None => beside().map_or_else(|| which::which(PROJECTOR), Ok).with_context(|| {
            format!(
                "cannot find {PROJECTOR} beside this program or on the PATH; install it (in a checkout: \
                 `cargo install --locked --path services/projector`), or give its path with --projector"
            )
        }),
    }
}

/// Rebuilds with `program`, a projector, and compares; with `adopt` repairs live states that differ.
///
/// # Errors
/// When NATS does not answer, or the projector exits before it has folded the whole log.
pub async fn rebuild(
    nats: &NatsArgs,
    program: &Path,
    adopt: bool,
    wait: Duration,
    say: &dyn Fn(&str),
) -> anyhow::Result<Rebuilt> {
    let client = nats.connect().await?;
    let context = jetstream::new(client.clone());
    fill::make_bucket(&context).await?;
    let end = fill::run(nats, program, say).await?;

    say("comparing with the log");
    let reader = read::Reader::new(&client);
    // The rebuilt bucket reflects the log up to `end`; the live one must reflect the log as it is now.
    let mut log = read::Log::default();
    reader.read_on(&mut log, Some(end)).await?;
    let rebuilt = compare::run(&reader, REBUILD_BUCKET, log.jobs.clone(), Report::default()).await?;
    reader.read_on(&mut log, None).await?;
    let applied = reader.wait_for_projector(log.last, wait).await?;
    let behind_at = (applied < log.last).then_some(applied);
    let report = Report { behind_at, ..Report::default() };
    let live = compare::run(&reader, STATE_BUCKET, log.jobs, report).await?;

    let mut adopted = None;
    if adopt && !live.wrong.is_empty() {
        say(&format!("rewriting {} live states", live.wrong.len()));
        adopt::run(&client, &reader, &live.wrong).await?;
        adopted = Some(verify(&client, wait).await?);
    }
    let outcome = Rebuilt { rebuilt, live, adopted };
    if adopt || outcome.is_clean() {
        context.delete_stream(subjects::bucket_stream(REBUILD_BUCKET)).await?;
    }
    Ok(outcome)
}

impl Rebuilt {
    /// Whether no difference is left.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rebuilt.is_clean() && self.adopted.as_ref().unwrap_or(&self.live).is_clean()
    }

    fn text(&self) -> String {
        let names = ["bucket", "jobs", "equal", "different", "missing", "stray"];
        let mut rows = vec![names.map(str::to_owned).to_vec()];
        let mut row = |name: &str, of: &Report| {
            let numbers = [of.jobs, of.equal, of.different, of.missing, of.stray];
            rows.push(std::iter::once(name.to_owned()).chain(numbers.map(|number| number.to_string())).collect());
        };
        row("rebuilt", &self.rebuilt);
        row("live", &self.live);
        if let Some(adopted) = &self.adopted {
            row("adopted", adopted);
        }
        let mut text = table::render(&rows);
        for (name, report) in [("rebuilt", &self.rebuilt), ("live", &self.live)] {
            for sentence in &report.shown {
                text.push_str(&format!("\n{name}: {sentence}"));
            }
        }
        if let Some(at) = self.live.behind_at {
            text.push_str(&format!("\nThe live projector has only reached sequence {at}: is one running?"));
        }
        if let (false, Some(adopted)) = (self.is_clean(), &self.adopted) {
            text.push_str(&format!("\n\nStill wrong after that:\n{}", adopted.text()));
        }
        text
    }
}
