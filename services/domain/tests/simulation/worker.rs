//! How a worker handles a delivered job, as in `services/worker`.

use millrace_domain::{
    Command, EventBody, JobState, Provider, Refusal, Stage, VideoInfo,
    event::{Progress, StoredFile},
    failure::FailureKind,
    retry::Budget,
};

use crate::{operation::Defect, rules::BUDGET};

/// A job held by a worker.
#[derive(Clone, Debug, PartialEq, Hash)]
pub struct Work {
    pub job: usize,
    /// The work item: the sequence of the submission.
    pub item: u64,
    /// The number of the delivery.
    pub delivery: u64,
    /// The attempt and the job's known state, once the job is claimed.
    pub attempt: Option<(u32, JobState)>,
}

/// The outcome of the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum After {
    GoOn,
    Acknowledge,
    GiveBack,
    /// Another worker has the job.
    LetGo,
}

/// The course of an attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Luck {
    Good,
    /// It fails, and may succeed later. The number is for the pause.
    Transient(f64),
    Permanent,
}

impl Work {
    pub fn claim(&self, name: &str, known: Option<&JobState>, defect: Defect) -> Command {
        let submitted_seq = match known {
            Some(state) if defect == Defect::IgnoreSupersession => self.item.max(state.submitted_seq),
            _ => self.item,
        };
        Command::Claim { worker: name.to_owned(), submitted_seq, budget: BUDGET }
    }

    /// The next report.
    pub fn report(&self, luck: Luck, defect: Defect) -> Command {
        let (attempt, state) = self.attempt.as_ref().expect("it is claimed");
        let (kind, random) = match luck {
            Luck::Good => return Command::Report { attempt: *attempt, body: next(state) },
            Luck::Transient(random) => (FailureKind::SourceUnavailable, random),
            Luck::Permanent => (FailureKind::Unsupported, 0.0),
        };
        let attempts_max = match defect {
            Defect::CountAllAttempts => BUDGET.attempts_max.saturating_sub(attempt - 1 - state.failures),
            Defect::CountNoAttempts => u32::MAX,
            _ => BUDGET.attempts_max,
        };
        let budget = Budget { attempts_max, ..BUDGET };
        Command::Fail { attempt: *attempt, kind, retry_after: None, random, budget }
    }

    /// The next step after the result of a claim or a report.
    pub fn done(&mut self, result: Result<JobState, Option<Refusal>>, defect: Defect) -> After {
        match result {
            Ok(state) if state.is_end() => After::Acknowledge,
            // The attempt has failed, and another one follows.
            Ok(state) if state.stage == Stage::Retrying => After::GiveBack,
            Ok(state) => {
                let attempt = self.attempt.as_ref().map_or(state.attempt, |(attempt, _)| *attempt);
                self.attempt = Some((attempt, state));
                After::GoOn
            }
            Err(Some(Refusal::Superseded { .. })) if defect == Defect::GiveBackSuperseded => After::GiveBack,
            Err(Some(Refusal::TooEarly { .. })) if defect == Defect::AcknowledgeTooEarly => After::Acknowledge,
            Err(Some(Refusal::Ended(_) | Refusal::Superseded { .. })) => After::Acknowledge,
            Err(Some(Refusal::TooEarly { .. })) => After::GiveBack,
            Err(Some(Refusal::Fenced { .. } | Refusal::Exists)) => fenced(defect),
            Err(Some(Refusal::Unknown)) if self.attempt.is_some() => fenced(defect),
            // The result of a claim: the submission is undecodable, or is a retry without a job, so no worker can do
            // it.
            Err(Some(Refusal::Unknown)) => After::Acknowledge,
            Err(Some(Refusal::OutOfOrder(_) | Refusal::NotEnded(_))) => After::GoOn,
            Err(None) if self.attempt.is_some() => After::GoOn,
            Err(None) => After::GiveBack,
        }
    }

    /// The next step after a check of the job while the attempt has nothing to report.
    pub fn looked(&mut self, newest: Option<JobState>, defect: Defect) -> After {
        let (attempt, known) = self.attempt.as_mut().expect("it is claimed");
        match newest {
            // A leader that is still catching up has fewer entries.
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
