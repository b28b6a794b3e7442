//! The stream in memory: how JetStream handles appends, for one job.

use millrace_domain::{
    Command, Entry, Event, EventBody, JobState, Refusal, Stage, Submission, decide,
    event::{Progress, StoredFile},
    fold, fold_all,
    retry::Budget,
};

use crate::generate::{Step, job, time_of};

/// Another writer was first.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict;

/// One job's part of the stream.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub entries: Vec<Entry>,
}

impl Log {
    /// Stores `event` if `expected` is the last sequence of its subject. Sequences have gaps, as if there were other
    /// jobs.
    pub fn append(&mut self, expected: u64, event: &Event) -> Result<Entry, Conflict> {
        let kind = event.body.kind();
        let last = self.entries.iter().rev().find(|entry| entry.kind == kind).map_or(0, |entry| entry.seq);
        if last != expected {
            return Err(Conflict);
        }
        let seq =
            self.entries.last().map_or(0, |entry| entry.seq) + 1 + u64::from(self.entries.len().is_multiple_of(3));
        let stored = Event::decode(&event.encode()).expect("what is written can be read");
        self.entries.push(Entry { seq, kind, event: Ok(stored) });
        Ok(self.entries.last().unwrap().clone())
    }

    /// The state after the first `count` entries, as a stale replica returns it.
    pub fn state(&self, count: usize) -> Option<JobState> {
        fold_all(None, &job(), &self.entries[..count.min(self.entries.len())])
    }

    /// The state now.
    pub fn newest(&self) -> Option<JobState> {
        self.state(self.entries.len())
    }

    /// Carries out a command without concurrent writers.
    pub fn execute(&mut self, command: Command) -> Result<JobState, Refusal> {
        let mut state = self.newest();
        let now = late(state.as_ref(), self.entries.len());
        for body in decide(state.as_ref(), command, now)? {
            let expected = state.as_ref().map_or(0, |state| state.last_seq(body.kind()));
            let event = Event { at: time_of(self.entries.len()), body };
            let entry = self.append(expected, &event).expect("nobody else writes");
            state = fold(state, &job(), &entry);
        }
        Ok(state.expect("a command that is carried out leaves a job"))
    }

    /// The log of a job that was submitted and then went through `steps`; refused commands left no entry.
    pub fn of(submission: Submission, steps: &[Step]) -> Self {
        let mut log = Self::default();
        log.execute(Command::Submit(submission)).expect("the first submission is taken");
        for step in steps {
            let state = log.newest().unwrap();
            let _ = log.execute(command(step, &state));
        }
        log
    }
}

/// A time after the job's current pause, if there is one.
pub fn late(state: Option<&JobState>, n: usize) -> jiff::Timestamp {
    state.and_then(|state| state.retry_at).map_or(time_of(n), |retry_at| retry_at.max(time_of(n)))
}

/// The command that a step stands for in a state.
pub fn command(step: &Step, state: &JobState) -> Command {
    match step {
        Step::Next => next(state),
        Step::Claim => claim(state, "w"),
        Step::Fail { behind, kind } => Command::Fail {
            attempt: state.attempt.wrapping_sub(*behind),
            kind: *kind,
            retry_after: None,
            random: 0.5,
            budget: Budget::default(),
        },
        Step::Stop { behind } => Command::Stop { attempt: state.attempt.wrapping_sub(*behind) },
        Step::Retry => Command::Retry,
        Step::Report { behind, body } => {
            Command::Report { attempt: state.attempt.wrapping_sub(*behind), body: (**body).clone() }
        }
        Step::Cancel => Command::Cancel,
    }
}

/// A claim with the newest submission, by a worker whose clock is past every pause.
pub fn claim(state: &JobState, worker: &str) -> Command {
    Command::Claim { worker: worker.into(), submitted_seq: state.submitted_seq, budget: Budget::default() }
}

fn next(state: &JobState) -> Command {
    let provider = millrace_domain::Provider::S3;
    let body = match state.stage {
        Stage::Queued | Stage::Retrying => return claim(state, "diligent"),
        Stage::FetchingInfo => EventBody::Info { video_info: millrace_domain::VideoInfo::default() },
        Stage::Downloading if state.progress < 60 => EventBody::Progress(Progress {
            downloaded_bytes: u64::from(state.progress) + 20,
            total_bytes: Some(100),
            ..Progress::default()
        }),
        Stage::Downloading => {
            EventBody::Downloaded { file_size: 100, storage_provider: provider, video_info: state.video_info.clone() }
        }
        Stage::Uploading if state.progress < 92 => EventBody::Uploading {
            storage_provider: provider,
            key: Some(format!("jobs/job_1-A/{}/video.mp4", state.attempt)),
            upload_id: Some("id".into()),
        },
        Stage::Uploading => EventBody::Uploaded(StoredFile {
            key: "jobs/job_1-A/1/video.mp4".into(),
            file_size: 100,
            sha256: "0".repeat(64),
            content_type: "video/mp4".into(),
            file_name: "Näme.mp4".into(),
        }),
        Stage::Finishing | Stage::Completed | Stage::Failed | Stage::Canceled => EventBody::Completed,
    };
    Command::Report { attempt: state.attempt, body }
}

/// Whether the event ends a job.
pub fn is_end(body: &EventBody) -> bool {
    matches!(body, EventBody::Completed | EventBody::Failed(_) | EventBody::Canceled)
}
