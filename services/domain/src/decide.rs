//! From a command to the events that carry it out. A pure function: the shell appends what it returns, expecting
//! the sequence of the state that was given; if somebody else was first, it folds their events and decides anew.

use jiff::Timestamp;

use crate::{
    event::EventBody,
    failure::FailureKind,
    limits::WORKERS_LOST_MAX,
    state::{JobState, Stage},
    submission::Submission,
};

/// What somebody wants of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A person submits it.
    Submit(Submission),
    /// A worker takes it. The queue has handed it the job, so whoever had it before has lost its lease.
    Claim {
        /// The worker's name.
        worker: String,
    },
    /// The holder of an attempt reports what happened in it.
    Report {
        /// The reporter's attempt. Not the current one: the reporter is fenced.
        attempt: u32,
        /// What happened.
        body: EventBody,
    },
    /// A person ends it.
    Cancel,
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
    /// Nothing follows the end.
    #[error("the job has already ended ({})", stage_word(*.0))]
    Ended(Stage),
    /// Another attempt has begun; the one that reports is over.
    #[error("attempt {current} has taken over")]
    Fenced {
        /// The attempt that counts.
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

/// The events that carry out `command` in `state`, to be appended in their order. `now` is used for `retrying` only.
///
/// # Errors
/// Why the command is not carried out.
pub fn decide(state: Option<&JobState>, command: Command, now: Timestamp) -> Result<Vec<EventBody>, Refusal> {
    let state = match (state, command) {
        (None, Command::Submit(submission)) => return Ok(vec![EventBody::Submitted(submission)]),
        (None, _) => return Err(Refusal::Unknown),
        (Some(_), Command::Submit(_)) => return Err(Refusal::Exists),
        (Some(state), _) if state.is_end() => return Err(Refusal::Ended(state.stage)),
        (Some(state), command) => (state, command),
    };
    match state {
        (state, Command::Claim { worker }) => Ok(claim(state, worker, now)),
        (state, Command::Report { attempt, body }) => report(state, attempt, body).map(|body| vec![body]),
        (_, Command::Cancel) => Ok(vec![EventBody::Canceled]),
        (_, Command::Submit(_)) => Err(Refusal::Exists),
    }
}

/// A job that is waiting starts its attempt; one that somebody was at first says that its worker was lost. A job that
/// has cost too many workers ends: whatever it does to them stops.
fn claim(state: &JobState, worker: String, now: Timestamp) -> Vec<EventBody> {
    match state.stage {
        Stage::Queued | Stage::Retrying => vec![EventBody::Started { worker, attempt: state.attempt }],
        _ if state.workers_lost >= WORKERS_LOST_MAX => vec![EventBody::Failed(FailureKind::TooManyAttempts.failure())],
        _ => vec![
            EventBody::Retrying {
                code: FailureKind::WorkerLost.code().into(),
                message: FailureKind::WorkerLost.sentence().into(),
                until: now,
            },
            EventBody::Started { worker, attempt: state.attempt.saturating_add(1) },
        ],
    }
}

fn report(state: &JobState, attempt: u32, body: EventBody) -> Result<EventBody, Refusal> {
    use Stage::{Downloading, FetchingInfo, Finishing, Queued, Retrying, Uploading};
    if attempt != state.attempt || matches!(state.stage, Queued | Retrying) {
        return Err(Refusal::Fenced { current: state.attempt });
    }
    let fits = match &body {
        EventBody::Info { .. } => matches!(state.stage, FetchingInfo | Downloading),
        // Clients are promised the video's info from 10 % on.
        EventBody::Progress(_) | EventBody::Downloaded { .. } => state.stage == Downloading,
        EventBody::Uploading { .. } | EventBody::Uploaded(_) => state.stage == Uploading,
        EventBody::Completed => state.stage == Finishing,
        EventBody::Failed(_) | EventBody::Retrying { .. } => true,
        EventBody::Submitted(_) | EventBody::Started { .. } | EventBody::Canceled | EventBody::Unknown => false,
    };
    if fits { Ok(body) } else { Err(Refusal::OutOfOrder(state.stage)) }
}
