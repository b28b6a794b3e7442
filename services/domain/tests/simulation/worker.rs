//! What a worker does with a job that the queue has handed to it, as `services/worker` does.

use millrace_domain::{
    Command, EventBody, JobState, Provider, Refusal, Stage, VideoInfo,
    event::{Progress, StoredFile},
    failure::FailureKind,
    retry::Budget,
};

use crate::operation::Defect;

/// A job in a worker's hands.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Work {
    pub job: usize,
    /// Which delivery it is.
    pub delivery: u64,
    /// The attempt and what is known of the job, once it is claimed.
    pub attempt: Option<(u32, JobState)>,
}

/// What becomes of the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    GoOn,
    Acknowledge,
    GiveBack,
    /// Somebody else has the job.
    LetGo,
}

pub fn claim(name: &str) -> Command {
    Command::Claim { worker: name.to_owned(), submitted_seq: u64::MAX, budget: Budget::default() }
}

impl Work {
    /// What is reported next; `bad_luck` ends the attempt.
    pub fn report(&self, bad_luck: bool) -> Command {
        let (attempt, state) = self.attempt.as_ref().expect("it is claimed");
        let body = if bad_luck { EventBody::Failed(FailureKind::WorkerFailed.failure()) } else { next(state) };
        Command::Report { attempt: *attempt, body }
    }

    /// What follows from what came of a claim or a report.
    pub fn done(&mut self, result: Result<JobState, Option<Refusal>>, defect: Defect) -> After {
        match result {
            Ok(state) if state.is_end() => After::Acknowledge,
            Ok(state) => {
                let attempt = self.attempt.as_ref().map_or(state.attempt, |(attempt, _)| *attempt);
                self.attempt = Some((attempt, state));
                After::GoOn
            }
            Err(Some(Refusal::Ended(_) | Refusal::Superseded { .. })) => After::Acknowledge,
            Err(Some(Refusal::TooEarly { .. })) => After::GiveBack,
            Err(Some(Refusal::Fenced { .. } | Refusal::Exists)) => fenced(defect),
            Err(Some(Refusal::Unknown)) if self.attempt.is_some() => fenced(defect),
            // Of a claim: the submission cannot be decoded, so nobody can do it.
            Err(Some(Refusal::Unknown)) => After::Acknowledge,
            Err(Some(Refusal::OutOfOrder(_) | Refusal::NotEnded(_))) => After::GoOn,
            Err(None) if self.attempt.is_some() => After::GoOn,
            Err(None) => After::GiveBack,
        }
    }

    /// What follows from a look at the job while the attempt has nothing to say.
    pub fn looked(&mut self, newest: Option<JobState>, defect: Defect) -> After {
        let (attempt, known) = self.attempt.as_mut().expect("it is claimed");
        match newest {
            // A leader who still catches up has seen less.
            None => After::GoOn,
            Some(state) if state.seq <= known.seq => After::GoOn,
            Some(state) if state.is_end() => After::Acknowledge,
            Some(state) if state.attempt == *attempt => {
                *known = state;
                After::GoOn
            }
            _ => fenced(defect),
        }
    }
}

fn fenced(defect: Defect) -> After {
    if defect == Defect::AcknowledgeFenced { After::Acknowledge } else { After::LetGo }
}

fn next(state: &JobState) -> EventBody {
    let storage_provider = Provider::S3;
    match state.stage {
        Stage::Queued | Stage::Retrying | Stage::FetchingInfo => EventBody::Info { video_info: VideoInfo::default() },
        Stage::Downloading if state.progress < 50 => EventBody::Progress(Progress {
            downloaded_bytes: u64::from(state.progress) + 20,
            total_bytes: Some(100),
            ..Progress::default()
        }),
        Stage::Downloading => EventBody::Downloaded { file_size: 1, storage_provider, video_info: None },
        Stage::Uploading => EventBody::Uploaded(StoredFile {
            key: "k".into(),
            file_size: 1,
            sha256: String::new(),
            content_type: String::new(),
            file_name: String::new(),
        }),
        Stage::Finishing | Stage::Completed | Stage::Failed | Stage::Canceled => EventBody::Completed,
    }
}
