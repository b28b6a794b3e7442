//! Properties of `decide`, and of `decide` and `fold` together.

use std::collections::VecDeque;

use millrace_domain::{
    Command, Event, EventBody, JobState, Refusal, Stage, decide,
    failure::{FailureKind, Nature},
    fold, fold_all,
    retry::Budget,
};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    generate::{Step, body, garbage, job, steps, submission, time_of},
    log::{Conflict, Log, claim, command, is_end, late},
};

/// Another worker takes the job.
fn take(log: &mut Log) -> Result<JobState, Refusal> {
    let state = log.newest().unwrap();
    log.execute(claim(&state, "other"))
}

fn submitted() -> Log {
    Log::of(millrace_domain::Submission { url: "https://example.org/v".parse().unwrap(), quality: None }, &[])
}

fn history() -> impl Strategy<Value = Log> {
    (submission(), steps()).prop_map(|(submission, steps)| Log::of(submission, &steps))
}

/// The position of an event in an attempt. `None` for an event that may come at any time.
const fn milestone(body: &EventBody) -> Option<u8> {
    match body {
        EventBody::Submitted(_) | EventBody::Resubmitted => Some(0),
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

/// A writer that decides on the state that it last read, and appends event by event while other writers do the same.
#[derive(Clone, Debug, Default)]
struct Decider {
    state: Option<JobState>,
    pending: VecDeque<EventBody>,
}

impl Decider {
    fn act(&mut self, log: &mut Log, step: &Step, stale: usize) {
        if let Some(body) = self.pending.pop_front() {
            let expected = self.state.as_ref().map_or(0, |state| state.last_seq(body.kind()));
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
        match decide(Some(&state), command(step, &state), late(Some(&state), log.entries.len())) {
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
            if next.attempt > attempt {
                prop_assert_eq!(next.attempt, attempt + 1);
                (attempt, reached) = (next.attempt, 0);
            }
            if let Some(milestone) = milestone(body) {
                let repeatable = [2, 3, 5].contains(&milestone);
                // Info may be reported again during the download, and `uploading` may be left out.
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
        let decided = decide(Some(&before), claim(&before, "other"), late(Some(&before), 0));
        let started = |attempt| EventBody::Started { worker: "other".into(), attempt };
        match before.stage {
            Stage::Completed | Stage::Failed | Stage::Canceled => {
                prop_assert_eq!(decided, Err(Refusal::Ended(before.stage)));
            }
            Stage::Queued | Stage::Retrying => prop_assert_eq!(decided, Ok(vec![started(before.attempt)])),
            _ if before.workers_lost + 1 >= Budget::default().workers_lost_max => {
                let failed = EventBody::Failed(FailureKind::TooManyAttempts.failure());
                prop_assert_eq!(decided, Ok(vec![failed]));
                return Ok(());
            }
            _ => {
                let decided = decided.unwrap();
                let lost = FailureKind::WorkerLost.code();
                let says_so = matches!(&decided[0], EventBody::Retrying { code, .. } if code == lost);
                prop_assert!(says_so, "{:?}", decided);
                prop_assert_eq!(&decided[1..], &[started(before.attempt + 1)]);
            }
        }
        let mut log = log;
        if let Ok(after) = take(&mut log) {
            prop_assert_eq!((after.stage, after.progress), (Stage::FetchingInfo, 5));
            let waited = matches!(before.stage, Stage::Queued | Stage::Retrying);
            prop_assert_eq!(after.attempt, before.attempt + u32::from(!waited));
        }
    }

    #[test]
    fn an_attempt_that_was_taken_over_is_fenced_whatever_it_reports(log in history(), body in body()) {
        let mut log = log;
        let held = log.newest().unwrap().attempt;
        for _ in 0..2 {
            if !take(&mut log).is_ok_and(|state| !state.is_end()) {
                return Ok(());
            }
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
        for more in [Command::Cancel, claim(&log.newest().unwrap(), "other")] {
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
        let bodies = || log.entries.iter().map(|entry| &entry.event.as_ref().unwrap().body);
        let ends = bodies().filter(|body| is_end(body)).count();
        let retries = bodies().filter(|body| **body == EventBody::Resubmitted).count();
        prop_assert!(ends == retries || ends == retries + 1, "{ends} ends in {:?}", log.entries);
        for count in 1..=log.entries.len() {
            let event = log.entries[count - 1].event.as_ref().unwrap();
            prop_assert_eq!(log.state(count).unwrap().updated_at, event.at, "{:?} did not fit", event);
        }
    }

    #[test]
    fn a_state_that_no_decision_made_can_still_be_decided_on(mut entries in garbage(), step in steps()) {
        // A person can end the job after any entries of foreign writers, except entries on its events subject before
        // its submission: no state contains those, so every append expects the wrong sequence.
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

    #[test]
    fn a_person_retries_a_failed_or_canceled_job_once_and_no_other(log in history()) {
        let mut log = log;
        let before = log.newest().unwrap();
        let retried = log.execute(Command::Retry);
        match before.stage {
            Stage::Failed | Stage::Canceled => {
                let after = retried.unwrap();
                prop_assert_eq!((after.stage, after.attempt), (Stage::Queued, before.attempt + 1));
                prop_assert_eq!(log.execute(Command::Retry), Err(Refusal::NotEnded(Stage::Queued)));
                // The earlier work item is superseded, even when it is redelivered.
                let stale = claim(&before, "late");
                let refused = Refusal::Superseded { newest: after.submitted_seq };
                prop_assert_eq!(log.execute(stale.clone()), Err(refused));
                prop_assert_eq!(take(&mut log).unwrap().attempt, after.attempt);
                prop_assert_eq!(log.execute(stale), Err(refused));
            }
            Stage::Completed => prop_assert_eq!(retried, Err(Refusal::Ended(Stage::Completed))),
            stage => prop_assert_eq!(retried, Err(Refusal::NotEnded(stage))),
        }
    }

    #[test]
    fn a_failure_is_followed_by_a_retry_only_if_it_may_pass_and_the_budget_lasts(
        log in history(), kind in select(FailureKind::ALL), attempts_max in 1_u32..7, random in 0.0..1.0,
    ) {
        let mut log = log;
        let before = log.newest().unwrap();
        if before.is_end() || matches!(before.stage, Stage::Queued | Stage::Retrying) {
            return Ok(());
        }
        let budget = Budget { attempts_max, ..Budget::default() };
        let fail = Command::Fail { attempt: before.attempt, kind, retry_after: None, random, budget };
        let after = log.execute(fail).unwrap();
        prop_assert_eq!(after.failure.as_ref().unwrap().code.as_str(), kind.code());
        let again = kind.nature() == Nature::Transient && before.failures + 1 < attempts_max;
        prop_assert_eq!(after.stage, if again { Stage::Retrying } else { Stage::Failed });
        if again {
            let early = decide(Some(&after), claim(&after, "early"), time_of(log.entries.len() - 1));
            prop_assert!(matches!(early, Err(Refusal::TooEarly { .. })), "{:?}", early);
            prop_assert_eq!(take(&mut log).unwrap().attempt, before.attempt + 1);
        }
    }
}

/// A single worker claims a job again and again: how many claims it takes until the job ends, and how it ends.
fn ends_after(mut log: Log, stop: impl Fn(&mut Log, u32)) -> (u32, JobState) {
    for claims in 1..50 {
        let state = take(&mut log).unwrap();
        if state.is_end() {
            return (claims, state);
        }
        stop(&mut log, state.attempt);
        let state = log.newest().unwrap();
        if state.is_end() {
            return (claims, state);
        }
    }
    (50, log.newest().unwrap())
}

fn fail(log: &mut Log, attempt: u32, kind: FailureKind) {
    let budget = Budget::default();
    log.execute(Command::Fail { attempt, kind, retry_after: None, random: 0.5, budget }).unwrap();
}

#[test]
fn a_job_whose_attempts_all_fail_ends_with_the_last_of_them_and_a_retry_gives_it_as_many_more() {
    let kind = FailureKind::SourceUnavailable;
    let mut log = submitted();
    for round in 0..2 {
        for attempt in 1..=Budget::default().attempts_max {
            let state = take(&mut log).unwrap();
            assert_eq!(state.attempt, round * Budget::default().attempts_max + attempt);
            fail(&mut log, state.attempt, kind);
        }
        let state = log.newest().unwrap();
        assert_eq!((state.stage, state.failure.unwrap().code.as_str()), (Stage::Failed, kind.code()));
        log.execute(Command::Retry).unwrap();
    }
}

#[test]
fn a_job_that_nobody_submitted_takes_no_command_but_its_submission() {
    let claim = Command::Claim { worker: "other".into(), submitted_seq: 1, budget: Budget::default() };
    for command in [claim, Command::Cancel, Command::Retry] {
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
    // The last claim is by the worker that ends the job.
    let (claims, state) = ends_after(submitted(), |_, _| ());
    assert_eq!(claims, Budget::default().workers_lost_max + 1);
    assert_eq!((state.stage, state.failure.unwrap().code.as_str()), (Stage::Failed, "too_many_attempts"));

    // Failures and lost workers are counted separately.
    let (claims, state) = ends_after(submitted(), |log, attempt| {
        if !attempt.is_multiple_of(3) {
            fail(log, attempt, FailureKind::SourceBroken);
        }
    });
    assert_eq!((claims, state.workers_lost, state.failures), (7, 2, 4));

    let (claims, state) = ends_after(submitted(), |log, attempt| {
        log.execute(Command::Stop { attempt }).unwrap();
    });
    assert_eq!((claims, state.is_end()), (50, false));
}

#[test]
fn a_report_says_neither_how_an_attempt_begins_nor_how_it_fails_or_stops() {
    let mut log = submitted();
    let attempt = take(&mut log).unwrap().attempt;
    let (code, message) = (FailureKind::WorkerStopped.code().into(), String::new());
    for body in [
        EventBody::Resubmitted,
        EventBody::Started { worker: "w".into(), attempt: 2 },
        EventBody::Failed(FailureKind::Unsupported.failure()),
        EventBody::Retrying { code, message, until: time_of(0) },
        EventBody::Canceled,
        EventBody::Unknown,
    ] {
        let refused = log.execute(Command::Report { attempt, body: body.clone() });
        assert_eq!(refused, Err(Refusal::OutOfOrder(Stage::FetchingInfo)), "{body:?}");
    }
}
