//! What holds of `decide`, and of `decide` and `fold` together.

use std::collections::VecDeque;

use millrace_domain::{
    Command, Event, EventBody, JobState, Refusal, Stage, decide, failure::FailureKind, fold, fold_all,
};
use proptest::{collection::vec, prelude::*};

use crate::{
    generate::{Step, body, garbage, job, steps, submission, time_of},
    log::{Conflict, Log, command, is_end},
};

const CLAIM: fn() -> Command = || Command::Claim { worker: "other".into() };

fn history() -> impl Strategy<Value = Log> {
    (submission(), steps()).prop_map(|(submission, steps)| Log::of(submission, &steps))
}

/// Where in an attempt an event stands. `None` for what may come at any time.
const fn milestone(body: &EventBody) -> Option<u8> {
    match body {
        EventBody::Submitted(_) => Some(0),
        EventBody::Started { .. } => Some(1),
        EventBody::Info { .. } => Some(2),
        EventBody::Progress(_) => Some(3),
        EventBody::Downloaded { .. } => Some(4),
        EventBody::Uploading { .. } => Some(5),
        EventBody::Uploaded(_) => Some(6),
        EventBody::Completed => Some(7),
        EventBody::Failed(_) | EventBody::Retrying { .. } | EventBody::Canceled | EventBody::Unknown => None,
    }
}

/// One who decides on what it last read, and appends event by event while others do the same.
#[derive(Clone, Debug, Default)]
struct Decider {
    state: Option<JobState>,
    pending: VecDeque<EventBody>,
}

impl Decider {
    fn act(&mut self, log: &mut Log, step: &Step, stale: usize) {
        if let Some(body) = self.pending.pop_front() {
            let expected = self.state.as_ref().map_or(0, |state| state.events_seq);
            match log.append(expected, &Event { at: time_of(log.entries.len()), body }) {
                Ok(entry) => self.state = fold(self.state.take(), &job(), &entry),
                Err(Conflict) => *self = Self::default(),
            }
            return;
        }
        if self.state.is_none() {
            self.state = log.state(log.entries.len().saturating_sub(stale).max(1));
        }
        let state = self.state.clone().expect("the job was submitted");
        match decide(Some(&state), command(step, &state), time_of(log.entries.len())) {
            Ok(bodies) => self.pending = bodies.into(),
            Err(_) => self.state = None,
        }
    }
}

proptest! {
    #[test]
    fn every_event_that_was_decided_fits_and_comes_after_the_milestone_before_it(log in history()) {
        let mut state: Option<JobState> = None;
        let (mut attempt, mut reached) = (1, 0);
        for entry in &log.entries {
            let Event { at, body } = entry.event.as_ref().unwrap();
            let next = fold(state, &job(), entry).unwrap();
            prop_assert_eq!(next.updated_at, *at, "{:?} did not fit", body);
            prop_assert_eq!(next.is_end(), is_end(body));
            if let Some(milestone) = milestone(body) {
                if next.attempt > attempt {
                    prop_assert_eq!(next.attempt, attempt + 1);
                    (attempt, reached) = (next.attempt, 0);
                }
                let repeatable = [2, 3, 5].contains(&milestone);
                // Info may be told again while the download runs, and the upload's start may be left out.
                let forward = match milestone {
                    0 => reached == 0,
                    2 => [1, 2, 3].contains(&reached),
                    3 => [2, 3].contains(&reached),
                    4 => [2, 3].contains(&reached),
                    6 => [4, 5].contains(&reached),
                    _ => reached + 1 == milestone || (repeatable && reached == milestone),
                };
                prop_assert!(forward, "{:?} after milestone {}", body, reached);
                reached = milestone;
            }
            state = Some(next);
        }
    }

    #[test]
    fn a_claim_starts_a_waiting_job_and_takes_over_a_running_one_with_the_next_attempt(log in history()) {
        let before = log.newest().unwrap();
        let decided = decide(Some(&before), CLAIM(), time_of(0));
        let started = |attempt| EventBody::Started { worker: "other".into(), attempt };
        match before.stage {
            Stage::Completed | Stage::Failed | Stage::Canceled => {
                prop_assert_eq!(decided, Err(Refusal::Ended(before.stage)));
            }
            Stage::Queued | Stage::Retrying => prop_assert_eq!(decided, Ok(vec![started(before.attempt)])),
            _ => {
                let decided = decided.unwrap();
                let lost = FailureKind::WorkerLost.code();
                let says_so = matches!(&decided[0], EventBody::Retrying { code, .. } if code == lost);
                prop_assert!(says_so, "{:?}", decided);
                prop_assert_eq!(&decided[1..], &[started(before.attempt + 1)]);
            }
        }
        let mut log = log;
        if let Ok(after) = log.execute(CLAIM()) {
            prop_assert_eq!((after.stage, after.progress), (Stage::FetchingInfo, 5));
            let waited = matches!(before.stage, Stage::Queued | Stage::Retrying);
            prop_assert_eq!(after.attempt, before.attempt + u32::from(!waited));
        }
    }

    #[test]
    fn an_attempt_that_was_taken_over_is_fenced_whatever_it_reports(log in history(), body in body()) {
        let mut log = log;
        let held = log.newest().unwrap().attempt;
        if log.execute(CLAIM()).is_err() || log.execute(CLAIM()).is_err() {
            return Ok(());
        }
        let current = log.newest().unwrap().attempt;
        let refused = log.execute(Command::Report { attempt: held, body });
        prop_assert_eq!(refused.unwrap_err(), Refusal::Fenced { current });
    }

    #[test]
    fn a_person_cancels_a_job_once_and_only_before_its_end(log in history()) {
        let mut log = log;
        let before = log.newest().unwrap();
        let canceled = log.execute(Command::Cancel);
        if before.is_end() {
            prop_assert_eq!(canceled, Err(Refusal::Ended(before.stage)));
        } else {
            prop_assert_eq!(canceled.unwrap().stage, Stage::Canceled);
        }
        let end = log.newest().unwrap().stage;
        for more in [Command::Cancel, CLAIM()] {
            prop_assert_eq!(log.execute(more), Err(Refusal::Ended(end)));
        }
        let again = Command::Submit(before.submission);
        prop_assert_eq!(log.execute(again), Err(Refusal::Exists));
    }

    #[test]
    fn deciders_who_race_never_make_two_ends_nor_an_event_that_does_not_fit(
        submission in submission(),
        acts in vec((0_usize..3, 0_usize..4, proptest::sample::Index::arbitrary()), 0..120),
        steps in steps(),
    ) {
        let mut log = Log::of(submission, &[]);
        let mut deciders = vec![Decider::default(); 3];
        for (who, stale, which) in acts {
            let step = if steps.is_empty() { &Step::Next } else { &steps[which.index(steps.len())] };
            deciders[who].act(&mut log, step, stale);
        }
        let ends = log.entries.iter().filter(|entry| is_end(&entry.event.as_ref().unwrap().body)).count();
        prop_assert!(ends <= 1, "{ends} ends in {:?}", log.entries);
        for count in 1..=log.entries.len() {
            let event = log.entries[count - 1].event.as_ref().unwrap();
            prop_assert_eq!(log.state(count).unwrap().updated_at, event.at, "{:?} did not fit", event);
        }
    }

    #[test]
    fn a_state_that_no_decision_made_can_still_be_decided_on(mut entries in garbage(), step in steps()) {
        // Whatever foreign writers left in the log, a person can end the job. Not when they wrote to its events subject
        // before its submission: no state remembers those, so every append expects the wrong sequence.
        let submitted = entries.iter().position(|entry| fold(None, &job(), entry).is_some());
        let entries = entries.split_off(submitted.unwrap_or(0));
        let Some(state) = fold_all(None, &job(), &entries) else { return Ok(()) };
        for step in &step {
            let _ = decide(Some(&state), command(step, &state), time_of(0));
        }
        let mut log = Log { entries };
        prop_assert_eq!(log.execute(Command::Cancel).is_ok(), !state.is_end());
        prop_assert!(log.newest().unwrap().is_end());
    }
}

#[test]
fn a_job_that_nobody_submitted_takes_no_command_but_its_submission() {
    for command in [CLAIM(), Command::Cancel] {
        assert_eq!(Log::default().execute(command), Err(Refusal::Unknown));
    }
}

#[test]
fn a_worker_that_reports_every_milestone_brings_the_job_to_its_end() {
    let submission = millrace_domain::Submission { url: "https://example.org/v".parse().unwrap(), quality: None };
    let log = Log::of(submission, &[const { Step::Next }; 9]);
    let progress: Vec<_> = (1..=log.entries.len()).map(|count| log.state(count).unwrap().progress).collect();
    assert_eq!(progress, [0, 5, 10, 37, 57, 71, 90, 92, 98, 100]);
}

#[test]
fn a_job_that_brings_down_its_workers_ends_and_one_whose_workers_are_stopped_goes_on() {
    let submission = millrace_domain::Submission { url: "https://example.org/v".parse().unwrap(), quality: None };
    let mut log = Log::of(submission.clone(), &[]);
    for lost in 0..=millrace_domain::limits::WORKERS_LOST_MAX {
        let state = log.execute(CLAIM()).unwrap();
        assert_eq!((state.workers_lost, state.is_end()), (lost, false));
    }
    let state = log.execute(CLAIM()).unwrap();
    assert_eq!((state.stage, state.failure.unwrap().code.as_str()), (Stage::Failed, "too_many_attempts"));

    let mut log = Log::of(submission, &[]);
    for _ in 0..20 {
        let attempt = log.execute(CLAIM()).unwrap().attempt;
        let body = EventBody::Retrying {
            code: FailureKind::WorkerStopped.code().into(),
            message: String::new(),
            until: jiff::Timestamp::UNIX_EPOCH,
        };
        assert!(!log.execute(Command::Report { attempt, body }).unwrap().is_end());
    }
}
