//! What an attempt reports, on its way to the log.
//!
//! Nothing on the data path waits for the log: state changes queue up here, progress is conflated to the newest.

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

/// The attempt's end of the journal. Dropped, the writer writes what is left and ends.
pub struct Journal {
    attempt: u32,
    changes: mpsc::Sender<Change>,
    progress: watch::Sender<Option<Progress>>,
}

/// A state change, and who wants to know that it is in the log.
struct Change {
    command: Command,
    written: Option<oneshot::Sender<()>>,
}

/// The log's end.
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
    /// Somebody else has ended the job, like a person who cancels it.
    Ended(Stage),
    /// Another worker has the job.
    Fenced,
}

/// A journal of the attempt that `state` is in.
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

    /// Reports a state change and waits until it, and all before it, are in the log. False when the attempt must stop.
    pub async fn change_and_wait(&self, body: EventBody) -> bool {
        let (written, is_written) = oneshot::channel();
        self.put(Change { command: self.report(body), written: Some(written) });
        is_written.await.is_ok()
    }

    /// Reports that the attempt has failed. Whether that ends the job or another attempt follows is decided when it is
    /// written.
    pub fn fail(&self, kind: FailureKind, retry_after: Option<Duration>, budget: Budget) {
        let random = rand::random_range(0.0..1.0);
        let command = Command::Fail { attempt: self.attempt, kind, retry_after, random, budget };
        self.put(Change { command, written: None });
    }

    /// Reports that the attempt stops since the worker does.
    pub fn stop(&self) {
        self.put(Change { command: Command::Stop { attempt: self.attempt }, written: None });
    }

    const fn report(&self, body: EventBody) -> Command {
        Command::Report { attempt: self.attempt, body }
    }

    fn put(&self, change: Change) {
        if self.changes.try_send(change).is_err() {
            // Full cannot be, an attempt has fewer changes; closed means that the attempt is being stopped.
            tracing::debug!("change reported after the attempt's end; ignoring it");
        }
    }

    /// Reports progress; only the newest counts.
    pub fn progress(&self, progress: Progress) {
        self.progress.send_replace(Some(progress));
    }
}

impl Writer {
    /// Writes until the journal is dropped and everything is in the log, or until the attempt must stop.
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
                        // Nobody may wait any more.
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
        // Progress is not worth repeating: the next one says more.
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
                // A defect of ours; the job goes on with what fits.
                tracing::error!(job = %self.state.job_id, ?stage, "event does not fit the job's stage; dropping it");
                Ok(())
            }
        }
    }

    /// Looks whether somebody else has written to the job, also while the attempt has nothing to say.
    async fn check(&mut self) -> Result<(), Stop> {
        let id = &self.state.job_id;
        let newest = match self.jobs.log.last(&[subjects::job_filter(id)]).await {
            Ok(last) => last.iter().map(|(_, stored)| stored.seq).max().unwrap_or(0),
            // The log is away; the attempt goes on.
            Err(_) => return Ok(()),
        };
        if newest <= self.state.seq {
            return Ok(());
        }
        match self.jobs.snapshots.get_from_leader(id).await {
            // Of a leader who still catches up.
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
