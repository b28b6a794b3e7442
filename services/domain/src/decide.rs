//! From a command to the events that carry it out. A pure function: the shell appends the returned events, expecting
//! the sequence of the given state. If another writer was first, the shell folds the new events and decides again.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    event::EventBody,
    failure::FailureKind,
    retry::{self, Budget},
    state::{JobState, Stage},
    submission::Submission,
};

/// A request to change a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A person submits the job.
    Submit(Submission),
    /// A worker takes the job. The queue has delivered the job to it, so the previous holder has lost its lease.
    Claim {
        /// The worker's name.
        worker: String,
        /// The sequence of the delivered submission.
        submitted_seq: u64,
        /// What the job may cost.
        budget: Budget,
    },
    /// The holder of an attempt reports what happened in it.
    Report {
        /// The reporter's attempt. If it is not the current one, the reporter is fenced.
        attempt: u32,
        /// What happened, except what other commands decide: how an attempt begins, fails or stops.
        body: EventBody,
    },
    /// The holder of an attempt reports that it has failed.
    Fail {
        /// The holder's attempt.
        attempt: u32,
        /// Why.
        kind: FailureKind,
        /// The pause that the source requests.
        retry_after: Option<Duration>,
        /// Drawn evenly from 0 to 1, for the pause before the next attempt.
        random: f64,
        /// What the job may cost.
        budget: Budget,
    },
    /// The holder of an attempt stops because its worker stops. The next attempt may begin at once.
    Stop {
        /// The holder's attempt.
        attempt: u32,
    },
    /// A person cancels the job.
    Cancel,
    /// A person retries the job after it failed or was canceled.
    Retry,
}

/// Why a command is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such job.
    #[error("there is no such job")]
    Unknown,
    /// The job exists already.
    #[error("the job exists already")]
    Exists,
    /// The job has ended.
    #[error("the job has already ended ({})", stage_word(*.0))]
    Ended(Stage),
    /// There is nothing to retry: the job is waiting or running.
    #[error("the job has not ended ({})", stage_word(*.0))]
    NotEnded(Stage),
    /// The job was submitted again, and the newer submission is the one to work on.
    #[error("the job was submitted again, at sequence {newest}")]
    Superseded {
        /// The sequence of the newest submission.
        newest: u64,
    },
    /// The next attempt may not begin yet.
    #[error("the next attempt begins in {} s", .wait.as_secs_f64())]
    TooEarly {
        /// How long until then, at most [`retry::RETRY_DELAY_MAX`].
        wait: Duration,
    },
    /// Another attempt has begun; the reporter's attempt is over.
    #[error("attempt {current} has taken over")]
    Fenced {
        /// The current attempt.
        current: u32,
    },
    /// The event does not fit the stage: a defect of the reporter.
    #[error("the event does not fit the stage {}", stage_word(*.0))]
    OutOfOrder(Stage),
}

const fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Queued => "queued",
        Stage::FetchingInfo => "fetching info",
        Stage::Downloading => "downloading",
        Stage::Uploading => "uploading",
        Stage::Finishing => "finishing",
        Stage::Completed => "completed",
        Stage::Failed => "failed",
        Stage::Canceled => "canceled",
        Stage::Retrying => "retrying",
    }
}

/// The events that carry out `command` in `state`, to be appended in their order. `now` is used only for retries.
///
/// # Errors
/// Why the command is not carried out.
pub fn decide(state: Option<&JobState>, command: Command, now: Timestamp) -> Result<Vec<EventBody>, Refusal> {
    let Some(state) = state else {
        return match command {
            Command::Submit(submission) => Ok(vec![EventBody::Submitted(submission)]),
            _ => Err(Refusal::Unknown),
        };
    };
    match command {
        Command::Submit(_) => Err(Refusal::Exists),
        Command::Claim { submitted_seq, .. } if submitted_seq < state.submitted_seq => {
            Err(Refusal::Superseded { newest: state.submitted_seq })
        }
        Command::Retry if state.stage.is_retryable() => Ok(vec![EventBody::Resubmitted]),
        _ if state.is_end() => Err(Refusal::Ended(state.stage)),
        Command::Claim { worker, budget, .. } => claim(state, worker, budget, now),
        Command::Report { attempt, body } => report(state, attempt, body),
        Command::Fail { attempt, kind, retry_after, random, budget } => {
            holds(state, attempt)?;
            Ok(vec![if budget.allows_another(kind, state.failures) {
                let delay = retry::delay(state.failures, retry_after, random);
                retrying(kind, now.saturating_add(delay).unwrap_or(now))
            } else {
                EventBody::Failed(kind.failure())
            }])
        }
        Command::Stop { attempt } => {
            holds(state, attempt)?;
            Ok(vec![retrying(FailureKind::WorkerStopped, now)])
        }
        Command::Cancel => Ok(vec![EventBody::Canceled]),
        Command::Retry => Err(Refusal::NotEnded(state.stage)),
    }
}

/// A waiting job starts its attempt when `retry_at` has passed; a running job first reports that its worker was lost. A
/// job that has lost too many workers ends.
fn claim(state: &JobState, worker: String, budget: Budget, now: Timestamp) -> Result<Vec<EventBody>, Refusal> {
    Ok(match state.stage {
        Stage::Queued | Stage::Retrying => {
            if let Some(wait) = state.retry_at.and_then(|at| retry::wait(at, now)) {
                return Err(Refusal::TooEarly { wait });
            }
            vec![EventBody::Started { worker, attempt: state.attempt }]
        }
        _ if state.workers_lost.saturating_add(1) >= budget.workers_lost_max => {
            vec![EventBody::Failed(FailureKind::TooManyAttempts.failure())]
        }
        _ => vec![
            retrying(FailureKind::WorkerLost, now),
            EventBody::Started { worker, attempt: state.attempt.saturating_add(1) },
        ],
    })
}

fn retrying(kind: FailureKind, until: Timestamp) -> EventBody {
    EventBody::Retrying { code: kind.code().into(), message: kind.sentence().into(), until }
}

/// Only the holder of the current attempt may report on it.
const fn holds(state: &JobState, attempt: u32) -> Result<(), Refusal> {
    if attempt != state.attempt || matches!(state.stage, Stage::Queued | Stage::Retrying) {
        return Err(Refusal::Fenced { current: state.attempt });
    }
    Ok(())
}

fn report(state: &JobState, attempt: u32, body: EventBody) -> Result<Vec<EventBody>, Refusal> {
    use Stage::{Downloading, FetchingInfo, Finishing, Uploading};
    holds(state, attempt)?;
    let fits = match &body {
        EventBody::Info { .. } => matches!(state.stage, FetchingInfo | Downloading),
        // The contract with clients: the video's info is present from 10 % on.
        EventBody::Progress(_) | EventBody::Downloaded { .. } => state.stage == Downloading,
        EventBody::Uploading { .. } | EventBody::Uploaded(_) => state.stage == Uploading,
        EventBody::Completed => state.stage == Finishing,
        // Other commands decide on these.
        EventBody::Submitted(_)
        | EventBody::Resubmitted
        | EventBody::Started { .. }
        | EventBody::Failed(_)
        | EventBody::Retrying { .. }
        | EventBody::Canceled
        | EventBody::Unknown => false,
    };
    if fits { Ok(vec![body]) } else { Err(Refusal::OutOfOrder(state.stage)) }
}
