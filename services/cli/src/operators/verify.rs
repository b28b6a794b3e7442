//! `millrace verify`: checks that each stored state equals the fold of its job's log.

pub(crate) mod compare;
pub(crate) mod read;

use std::{process::ExitCode, time::Duration};

use millrace_domain::subjects::{PROJECTOR_CONSUMER, STATE_BUCKET};
use tokio::runtime::Runtime;

use self::read::Reader;
use crate::{connect::NatsArgs, table};

/// How many differing jobs are shown.
const SHOWN_MAX: usize = 10;

const HELP: &str = "\
Reads the whole log, folds each job with the function that all services use, and compares the result with the state
that the projector has stored, field by field. Safe while jobs are running: events appended meanwhile are taken into
account.

  jobs         jobs in the log
  events       messages in the log
  undecodable  messages in the log that are not events; services skip them
  quarantined  undecodable messages that the stream JOBS_QUARANTINE holds, each with the reason
  equal        jobs whose state is the fold of their log
  different    jobs whose state differs from the fold
  missing      jobs without a state
  stray        states without a job in the log

Exit code 0 if no state is different, missing or stray, and every undecodable message is in the quarantine; 1
otherwise. The quarantine keeps a message for 30 days; `millrace rebuild` puts it there again.

Examples:
  millrace verify
  millrace verify --nats-url nats://127.0.0.1:4322 --wait-seconds 60";

/// Compares the state of every job with its log
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    nats: NatsArgs,
    /// How long the projector may take to catch up with the log
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait_seconds: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Runtime::new()?.block_on(async {
        let client = args.nats.connect().await?;
        let report = verify(&client, Duration::from_secs(args.wait_seconds)).await?;
        print!("{}", report.text());
        Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Messages in the log.
    pub events: u64,
    /// Messages in the log that are not events.
    pub undecodable: u64,
    /// Undecodable messages that are in the quarantine.
    pub quarantined: u64,
    /// Jobs that were submitted.
    pub jobs: u64,
    /// Jobs whose state is the fold of their log.
    pub equal: u64,
    /// Jobs whose state differs from the fold.
    pub different: u64,
    /// Jobs without a state.
    pub missing: u64,
    /// States without a job in the log.
    pub stray: u64,
    /// The last sequence that the projector has applied, if it is behind the part of the log that was read.
    pub behind_at: Option<u64>,
    /// The keys of the states that are different, missing or stray.
    pub wrong: Vec<String>,
    /// The first differences, each as a sentence.
    pub shown: Vec<String>,
}

/// Compares the state of every job with its log; waits up to `wait` for the projector to have caught up.
///
/// # Errors
/// When NATS does not answer, or has no log.
pub async fn verify(client: &async_nats::Client, wait: Duration) -> anyhow::Result<Report> {
    let reader = Reader::new(client);
    let log = reader.log().await?;
    let projected_to = reader.wait_for_projector(log.last, wait).await?;
    let undecodable = log.undecodable.len() as u64;
    let report = Report {
        events: log.events,
        undecodable,
        quarantined: reader.quarantined(&log.undecodable).await?,
        behind_at: (projected_to < log.last).then_some(projected_to),
        shown: log.shown,
        ..Report::default()
    };
    compare::run(&reader, STATE_BUCKET, log.jobs, report).await
}

impl Report {
    /// Whether no difference was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.count_of_wrong() == 0 && self.behind_at.is_none()
    }

    fn count_of_wrong(&self) -> u64 {
        self.undecodable - self.quarantined + self.different + self.missing + self.stray
    }

    fn show(&mut self, sentence: String) {
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(sentence);
        }
    }

    /// The table, followed by the shown differences.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = [
            ("jobs", self.jobs),
            ("events", self.events),
            ("undecodable", self.undecodable),
            ("quarantined", self.quarantined),
            ("equal", self.equal),
            ("different", self.different),
            ("missing", self.missing),
            ("stray", self.stray),
        ];
        let names = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut text = table::render(&[names, columns.iter().map(|(_, number)| number.to_string()).collect()]);
        if let Some(at) = self.behind_at {
            text.push_str(&format!(
                "\nThe consumer {PROJECTOR_CONSUMER} has only reached sequence {at} and did not catch up in time: \
                 is a projector running? If so, allow more time with --wait-seconds.\n"
            ));
        }
        if !self.shown.is_empty() {
            text.push('\n');
        }
        for sentence in &self.shown {
            text.push_str(sentence);
            text.push('\n');
        }
        let all = self.undecodable + self.different + self.missing + self.stray;
        if all > self.shown.len() as u64 {
            text.push_str(&format!("… and {} more\n", all - self.shown.len() as u64));
        }
        text
    }
}
