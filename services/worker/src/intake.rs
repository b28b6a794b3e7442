//! From the queue to an attempt: one slot takes one job at a time.

use std::{sync::Arc, time::Duration};

use millrace_domain::{Command, JobState, Refusal, failure::FailureKind, fold, limits::DELIVERIES_MAX};
use millrace_runtime::{
    admin::Check,
    jobs::{ExecuteError, Patience},
    queue::Delivery,
};
use tokio::time::sleep;

use crate::{
    Worker,
    attempt::{self, Outcome},
};

/// Before a job that could not be claimed is delivered again.
const CLAIM_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Takes jobs until the shutdown.
pub async fn slot(worker: Arc<Worker>, check: Check) -> anyhow::Result<()> {
    check.pass();
    loop {
        let next = tokio::select! {
            () = worker.shutdown.cancelled() => return Ok(()),
            next = worker.queue.next() => next,
        };
        match next {
            Ok(Some(delivery)) => {
                check.pass();
                take(&worker, delivery).await;
            }
            Ok(None) => check.pass(),
            Err(error) => {
                check.fail(format!("{error:#}"));
                tracing::warn!(error = format!("{error:#}"), "no job could be taken; trying again");
                sleep(Duration::from_millis(rand::random_range(500..1500))).await;
            }
        }
    }
}

async fn take(worker: &Worker, delivery: Delivery) {
    let id = delivery.id.clone();
    let state = match claim(worker, &delivery).await {
        Ok(state) => state,
        Err(ExecuteError::Refused(Refusal::Ended(stage))) => {
            tracing::debug!(job = %id, ?stage, "the job has ended already");
            return delivery.ack().await;
        }
        Err(ExecuteError::Refused(Refusal::Unknown)) => {
            tracing::error!(job = %id, seq = delivery.entry.seq, "a submission cannot be decoded; it stays in the log");
            return delivery.ack().await;
        }
        Err(error) => {
            tracing::warn!(job = %id, %error, "the job could not be claimed");
            return delivery.give_back(CLAIM_RETRY_PAUSE).await;
        }
    };
    worker.metrics.running.inc();
    let outcome = attempt::run(worker, state, &delivery).await;
    worker.metrics.running.dec();
    worker.metrics.attempts.with_label_values(&[outcome.label()]).inc();
    match outcome {
        Outcome::Ended(_) => delivery.ack().await,
        Outcome::Stopped => delivery.give_back(Duration::ZERO).await,
        // Whoever has the job now has a delivery of its own, which our acknowledgement would clear.
        Outcome::Fenced => tracing::warn!(job = %id, "another worker has taken over"),
    }
}

/// Makes the job's next attempt ours.
///
/// A first delivery needs no read: the submission itself is the state, and if it is not any more the append tells.
async fn claim(worker: &Worker, delivery: &Delivery) -> Result<JobState, ExecuteError> {
    let id = &delivery.id;
    let known =
        if delivery.delivered == 1 { fold(None, id, &delivery.entry) } else { worker.jobs.snapshots.get(id).await? };
    if delivery.delivered > DELIVERIES_MAX {
        tracing::error!(job = %id, delivered = delivery.delivered, "the job is given up");
        let command = Command::GiveUp(FailureKind::TooManyAttempts);
        let state = worker.jobs.execute(id, known, &command, Patience::Bounded).await?;
        return Err(Refusal::Ended(state.stage).into());
    }
    let command = Command::Claim { worker: worker.name.clone() };
    worker.jobs.execute(id, known, &command, Patience::Bounded).await
}
