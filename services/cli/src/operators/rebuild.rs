//! `millrace rebuild`: all states anew from the log, beside the live ones; compared with both, and adopted.

mod adopt;
mod fill;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use async_nats::jetstream;
use millrace_domain::subjects::{self, REBUILD_BUCKET, STATE_BUCKET};
use tokio::runtime::Runtime;

use super::verify::{Report, compare, read, verify};
use crate::{connect::NatsArgs, table};

/// The program that folds the log.
const PROJECTOR: &str = "millrace-projector";

const HELP: &str = "\
A projector folds the whole log from zero into the bucket JOB_STATE_REBUILD, while the one that works goes on beside
it. Then both buckets are compared with the log, folded here a second time. With --adopt every live state that is not
what the log says is written anew, by compare-and-set, so that a newer state is never replaced by an older one; and
JOB_STATE_REBUILD is deleted. Without it, JOB_STATE_REBUILD is kept if anything differs. Messages that cannot be read
are put into the quarantine again.

Everything may go on running meanwhile. One rebuild at a time: another one begins with a bucket of its own.

Exit code 0 if nothing differs, or not any more; 1 otherwise.

Examples:
  millrace rebuild
  millrace rebuild --adopt --nats-url nats://127.0.0.1:4322";

/// Makes every state anew from the log, and compares
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    /// Puts right the live states that are not what the log says
    #[arg(long)]
    adopt: bool,
    /// How long the projector may take to catch up with the log
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait_seconds: u64,
    /// The program millrace-projector; without it, the one beside this program, else the one on the PATH
    #[arg(long, value_name = "FILE", env = "MILLRACE_PROJECTOR")]
    projector: Option<PathBuf>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// Of the bucket that was filled from zero.
    pub rebuilt: Report,
    /// Of the live one.
    pub live: Report,
    /// Of the live one after its wrong states were written anew.
    pub adopted: Option<Report>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let program = args.projector.clone().unwrap_or_else(projector);
    let say = |text: &str| eprintln!("{text}");
    let rebuilt = Runtime::new()?.block_on(async {
        rebuild(&args.nats, &program, args.adopt, Duration::from_secs(args.wait_seconds), &say).await
    })?;
    println!("{}", rebuilt.text());
    Ok(if rebuilt.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where it is expected: the two programs are built and installed together.
fn projector() -> PathBuf {
    let beside = env::current_exe().ok().map(|this| this.with_file_name(PROJECTOR)).filter(|path| path.is_file());
    beside.unwrap_or_else(|| PROJECTOR.into())
}

/// Rebuilds by `program`, a projector, and compares; with `adopt` puts right what is wrong.
///
/// # Errors
/// When NATS does not answer, or the projector ends before it is done.
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
    // The rebuilt bucket has what the log had; the live one must have what it has now.
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
        say(&format!("{} live states are written anew", live.wrong.len()));
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
    /// Whether nothing is wrong, or not any more.
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
            text.push_str(&format!("\nThe live projector has come to sequence {at} only: does one run?"));
        }
        if let (false, Some(adopted)) = (self.is_clean(), &self.adopted) {
            text.push_str(&format!("\n\nStill wrong after that:\n{}", adopted.text()));
        }
        text
    }
}
