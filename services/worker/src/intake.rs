//! From the queue to an attempt: one slot takes one job at a time.

use std::{sync::Arc, time::Duration};

use millrace_domain::{Command, JobState, Refusal, fold, limits::CLAIM_RETRY_PAUSE_MAX};
use millrace_runtime::{
    admin::Check,
    jobs::{ExecuteError, Patience},
    queue::Delivery,
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    attempt::{self, Outcome},
};

/// Before a job that could not be claimed is delivered again, the first time; it doubles.
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
                take(&worker, delivery, &check).await;
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

async fn take(worker: &Worker, delivery: Delivery, check: &Check) {
    // The lease is held from before the claim on: that, too, may wait for the log.
    let over = CancellationToken::new();
    let work = async {
        let outcome = work(worker, &delivery, check).await;
        over.cancel();
        outcome
    };
    let (outcome, ()) = tokio::join!(work, hold(&delivery, worker.queue.lease(), &over));
    match outcome {
        Outcome::Ended(_) => delivery.ack().await,
        Outcome::Stopped => delivery.give_back(Duration::ZERO).await,
        Outcome::NotClaimed => {
            let doublings = u32::try_from(delivery.delivered.clamp(1, 6)).unwrap_or(1);
            let pause = (CLAIM_RETRY_PAUSE * 2u32.pow(doublings - 1)).min(CLAIM_RETRY_PAUSE_MAX);
            delivery.give_back(pause.mul_f64(rand::random_range(0.5..1.0))).await;
        }
        // Whoever has the job now has a delivery of its own, which our acknowledgement would clear.
        Outcome::Fenced => tracing::warn!(job = %delivery.id, "another worker has taken over"),
    }
}

async fn work(worker: &Worker, delivery: &Delivery, check: &Check) -> Outcome {
    let id = &delivery.id;
    let state = match claim(worker, delivery).await {
        Ok(state) if state.is_end() => {
            tracing::error!(job = %id, workers_lost = state.workers_lost, "the job is given up");
            return Outcome::Ended("given_up");
        }
        Ok(state) => state,
        Err(ExecuteError::Refused(Refusal::Ended(stage))) => {
            tracing::debug!(job = %id, ?stage, "the job has ended already");
            return Outcome::Ended("ended");
        }
        Err(ExecuteError::Refused(Refusal::Unknown)) => {
            tracing::error!(job = %id, seq = delivery.entry.seq, "a submission cannot be decoded; it stays in the log");
            return Outcome::Ended("undecodable");
        }
        Err(error) => {
            check.fail(error.to_string());
            tracing::warn!(job = %id, %error, "the job could not be claimed");
            return Outcome::NotClaimed;
        }
    };
    worker.metrics.running.inc();
    let outcome = attempt::run(worker, state).await;
    worker.metrics.running.dec();
    worker.metrics.attempts.with_label_values(&[outcome.label()]).inc();
    outcome
}

/// Renews the lease until the job is out of our hands.
async fn hold(delivery: &Delivery, lease: Duration, over: &CancellationToken) {
    let mut ticks = interval(lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            _ = ticks.tick() => {
                if let Err(error) = delivery.extend().await {
                    tracing::warn!(job = %delivery.id, %error, "the lease could not be renewed");
                }
            }
        }
    }
}

/// Makes the job's next attempt ours, or ends a job that has cost too many workers.
///
/// A first delivery needs no read: the submission itself is the state, and if it is not any more the append tells.
async fn claim(worker: &Worker, delivery: &Delivery) -> Result<JobState, ExecuteError> {
    let id = &delivery.id;
    let read = if delivery.delivered == 1 { None } else { worker.jobs.snapshots.get(id).await? };
    // Whoever still catches up may know nothing of the job: that it was submitted is known here.
    let known = read.or_else(|| fold(None, id, &delivery.entry));
    let command = Command::Claim { worker: worker.name.clone() };
    worker.jobs.execute(id, known, &command, Patience::Bounded).await
}
