//! Rules for every stored message, checked by the real fold and by an independent count.

use jiff::Timestamp;
use millrace_domain::{
    EventBody, JobState,
    failure::{FailureKind, Nature},
    retry::Budget,
};

use crate::message::Publish;

/// A small budget, so that jobs reach its limits.
pub const BUDGET: Budget = Budget { attempts_max: 3, workers_lost_max: 4 };

/// A job since its last submission.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Round {
    /// The newest submission; 0 before the first.
    submitted_seq: u64,
    has_ended: bool,
    /// The last attempt that was started, ever.
    attempt: u32,
    failures: u32,
    workers_lost: u32,
    retry_at: Option<Timestamp>,
}

impl Round {
    /// Counts a message at `seq`; returns a violation, if any.
    pub fn count(&mut self, seq: u64, message: &Publish) -> Option<&'static str> {
        let Publish { event, item, .. } = message;
        if self.has_ended && event.body != EventBody::Resubmitted {
            return Some("it follows the end");
        }
        match &event.body {
            EventBody::Submitted(_) | EventBody::Resubmitted => {
                let (is_first, is_retry) = (self.submitted_seq == 0, event.body == EventBody::Resubmitted);
                if is_first == is_retry || (is_retry && !self.has_ended) {
                    return Some("it is submitted again before its end");
                }
                *self = Self { submitted_seq: seq, attempt: self.attempt, ..Self::default() };
            }
            EventBody::Started { attempt, .. } => {
                if *item != Some(self.submitted_seq) {
                    return Some("an older work item starts an attempt");
                }
                if *attempt <= self.attempt {
                    return Some("an attempt is started twice");
                }
                if self.retry_at.is_some_and(|at| event.at < at) {
                    return Some("it starts too early");
                }
                (self.attempt, self.retry_at) = (*attempt, None);
            }
            EventBody::Retrying { code, until, .. } => {
                if *code == *FailureKind::WorkerLost.code() {
                    self.workers_lost += 1;
                } else {
                    self.failures += 1;
                }
                if self.failures >= BUDGET.attempts_max || self.workers_lost >= BUDGET.workers_lost_max {
                    return Some("it goes on although it has cost all that it may");
                }
                self.retry_at = Some(*until);
            }
            EventBody::Failed(failure) => {
                let kind = FailureKind::ALL.iter().find(|kind| *kind.code() == failure.code).expect("a kind");
                let is_early = match kind {
                    FailureKind::TooManyAttempts => self.workers_lost + 1 < BUDGET.workers_lost_max,
                    kind => kind.nature() == Nature::Transient && self.failures + 1 < BUDGET.attempts_max,
                };
                self.has_ended = true;
                return is_early.then_some("it fails although something is left of its budget");
            }
            EventBody::Completed | EventBody::Canceled => self.has_ended = true,
            _ => {}
        }
        None
    }
}

/// The violation of a message, by the states before and after it.
pub fn misfit(message: &Publish, before: Option<&JobState>, after: Option<&JobState>) -> Option<&'static str> {
    let Publish { event, writer, reports, .. } = message;
    let Some(after) = after else { return Some("there is no job yet") };
    // Each event has a distinct time: the state takes on that of the last one that fitted.
    if after.updated_at != event.at {
        return Some("it does not fit");
    }
    let before = before?;
    if reports.is_some_and(|attempt| attempt != before.attempt || before.worker.as_ref() != Some(writer)) {
        return Some("its writer is fenced");
    }
    (after.attempt == before.attempt && after.progress < before.progress).then_some("progress falls")
}
