//! The journal of one attempt: carries its reports to the log.
//!
//! The data path does not wait for the log: state changes queue up here, and of progress only the newest is kept.

use std::time::Duration;

use millrace_domain::{
    Command, EventBody, JobState, Refusal, Stage,
    event::Progress,
    failure::FailureKind,
    limits::{ATTEMPT_CHECK_INTERVAL, ATTEMPT_OUTBOX_MAX, PROGRESS_INTERVAL_MIN},
    retry::Budget,
    subjects,
};
use millrace_runtime::jobs::{ExecuteError, Jobs, Patience};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

/// The attempt's side of the journal. On drop, the writer appends the pending changes and ends.
pub struct Journal {
    attempt: u32,
    changes: mpsc::Sender<Change>,
    progress: watch::Sender<Option<Progress>>,
}

/// A state change, and a channel for the report that it is in the log.
struct Change {
    command: Command,
    written: Option<oneshot::Sender<()>>,
}

/// The log's side of the journal.
pub struct Writer {
    jobs: Jobs,
    state: JobState,
    attempt: u32,
    changes: mpsc::Receiver<Change>,
    progress: watch::Receiver<Option<Progress>>,
}

/// Why the attempt must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Another writer has ended the job, for example a user who canceled it.
    Ended(Stage),
    /// Another worker has the job.
    Fenced,
}

/// Creates the journal of the attempt that `state` is in.
pub fn journal(jobs: Jobs, state: JobState) -> (Journal, Writer) {
    let (changes, changes_out) = mpsc::channel(ATTEMPT_OUTBOX_MAX);
    let (progress, progress_out) = watch::channel(None);
    let attempt = state.attempt;
    (
        Journal { attempt, changes, progress },
        Writer { jobs, state, attempt, changes: changes_out, progress: progress_out },
    )
}

impl Journal {
    /// Reports a state change.
    pub fn change(&self, body: EventBody) {
        self.put(Change { command: self.report(body), written: None });
    }

    /// Reports a state change and waits until it, and all before it, are in the log. Returns `false` when the attempt
    /// must stop.
    pub async fn change_and_wait(&self, body: EventBody) -> bool {
        let (written, is_written) = oneshot::channel();
        self.put(Change { command: self.report(body), written: Some(written) });
        is_written.await.is_ok()
    }

    /// Reports that the attempt has failed. The append decides whether that ends the job or another attempt follows.
    pub fn fail(&self, kind: FailureKind, retry_after: Option<Duration>, budget: Budget) {
        let random = rand::random_range(0.0..1.0);
        let command = Command::Fail { attempt: self.attempt, kind, retry_after, random, budget };
        self.put(Change { command, written: None });
    }

    /// Reports that the attempt stops because the worker stops.
    pub fn stop(&self) {
        self.put(Change { command: Command::Stop { attempt: self.attempt }, written: None });
    }

    const fn report(&self, body: EventBody) -> Command {
        Command::Report { attempt: self.attempt, body }
    }

    fn put(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            // The channel cannot be full, since an attempt has fewer changes; closed means that the attempt is
            // stopping.
            tracing::debug!("change reported after the attempt's end; dropping it");
        }
    }

    /// Reports progress; only the newest counts.
    pub fn progress(&self, progress: Progress) {
        self.progress.send_replace(Some(progress));
    }
}

impl Writer {
    /// Writes until the journal is dropped and all changes are in the log, or until the attempt must stop.
    pub async fn run(mut self) -> Result<JobState, Stop> {
        let mut checks = interval(ATTEMPT_CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress_due = Instant::now();
        let mut progressing = true;
        loop {
            tokio::select! {
                biased;
                change = self.changes.recv() => match change {
                    Some(Change { command, written }) => {
                        self.write(command).await?;
                        // No caller may wait any more.
                        let _ = written.map(|written| written.send(()));
                    }
                    None => return Ok(self.state),
                },
                _ = checks.tick() => self.check().await?,
                changed = async { sleep_until(progress_due).await; self.progress.changed().await }, if progressing => {
                    progressing = changed.is_ok();
                    let newest = *self.progress.borrow_and_update();
                    if let (Some(progress), Stage::FetchingInfo | Stage::Downloading) = (newest, self.state.stage) {
                        let body = EventBody::Progress(progress);
                        self.write(Command::Report { attempt: self.attempt, body }).await?;
                        progress_due = Instant::now() + PROGRESS_INTERVAL_MIN;
                    }
                }
            }
        }
    }

    async fn write(&mut self, command: Command) -> Result<(), Stop> {
        let is_progress = matches!(command, Command::Report { body: EventBody::Progress(_), .. });
        let id = self.state.job_id.clone();
        // Do not retry progress: the next report is newer.
        let patience = if is_progress { Patience::Bounded } else { Patience::Endless };
        loop {
            match self.jobs.execute(&id, Some(self.state.clone()), &command, patience).await {
                Ok(state) => {
                    self.state = state;
                    return Ok(());
                }
                Err(ExecuteError::Refused(refusal)) => return self.refused(refusal),
                Err(error) if is_progress => {
                    tracing::debug!(job = %id, %error, "cannot append progress");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(job = %id, %error, "cannot append state change; retrying");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Result<(), Stop> {
        match refusal {
            Refusal::Ended(stage) => Err(Stop::Ended(stage)),
            Refusal::Fenced { .. }
            | Refusal::Superseded { .. }
            | Refusal::TooEarly { .. }
            | Refusal::NotEnded(_)
            | Refusal::Unknown
            | Refusal::Exists => Err(Stop::Fenced),
            Refusal::OutOfOrder(stage) => {
                // A defect in this program; the job continues with the events that fit.
                tracing::error!(job = %self.state.job_id, ?stage, "event does not fit the job's stage; dropping it");
                Ok(())
            }
        }
    }

    /// Checks whether another writer has appended to the job, also while the attempt has nothing to report.
    async fn check(&mut self) -> Result<(), Stop> {
        let id = &self.state.job_id;
        let newest = match self.jobs.log.last(&[subjects::job_filter(id)]).await {
            Ok(last) => last.iter().map(|(_, stored)| stored.seq).max().unwrap_or(0),
            // The log is unavailable; the attempt continues.
            Err(_) => return Ok(()),
        };
        if newest <= self.state.seq {
            return Ok(());
        }
        match self.jobs.snapshots.get_from_leader(id).await {
            // The leader is stale.
            Ok(Some(state)) if state.seq <= self.state.seq => Ok(()),
            Ok(Some(state)) => {
                self.state = state;
                if self.state.is_end() {
                    Err(Stop::Ended(self.state.stage))
                } else if self.state.attempt == self.attempt {
                    Ok(())
                } else {
                    Err(Stop::Fenced)
                }
            }
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
