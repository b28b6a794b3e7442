//! Takes jobs from the queue and runs their attempts: one slot, one job at a time.

use std::{sync::Arc, time::Duration};

use millrace_domain::{
    Command, JobState, Refusal, fold,
    limits::{CLAIM_RETRY_PAUSE_MAX, WORK_ROOM_INTERVAL},
};
use millrace_runtime::{
    admin::Check,
    failpoints,
    jobs::{ExecuteError, Patience},
    queue::Delivery,
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Worker,
    attempt::{self, Outcome},
    upkeep::cleaning,
};

/// Pause before the first redelivery of a job that could not be claimed; it doubles each time.
const CLAIM_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Takes jobs until the shutdown. `check` belongs to this slot.
pub async fn slot(worker: Arc<Worker>, check: Check) -> anyhow::Result<()> {
    check.pass();
    let mut is_full = false;
    loop {
        let room = worker.workspace.room();
        if let Some(bytes) = room.bytes {
            worker.metrics.work_room_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        // Leave jobs to other workers, or in the queue, while there is no room.
        if let Some(shortage) = room.shortage {
            if !is_full {
                tracing::error!(shortage, "no room; not taking jobs");
            }
            is_full = true;
            worker.workspace.make_room();
            check.fail(shortage);
            if worker.shutdown.run_until_cancelled(sleep(WORK_ROOM_INTERVAL)).await.is_none() {
                return Ok(());
            }
            continue;
        }
        if is_full {
            tracing::info!("room available again; taking jobs");
            is_full = false;
            check.pass();
        }
        let next = tokio::select! {
            () = worker.shutdown.cancelled() => return Ok(()),
            next = worker.queue.next() => next,
        };
        match next {
            Ok(Some(delivery)) => {
                check.pass();
                // The disk may have filled up during the wait for a job.
                match worker.workspace.room().shortage {
                    Some(_) => give_back(delivery).await,
                    None => take(&worker, delivery, &check).await,
                }
            }
            Ok(None) => check.pass(),
            Err(error) => {
                check.fail(format!("{error:#}"));
                tracing::warn!(error = format!("{error:#}"), "cannot take a job from the queue; retrying");
                sleep(Duration::from_millis(rand::random_range(500..1500))).await;
            }
        }
    }
}

async fn take(worker: &Worker, delivery: Delivery, check: &Check) {
    // Renew the lease from before the claim on, since the claim may wait for the log.
    let over = CancellationToken::new();
    let work = async {
        let outcome = work(worker, &delivery, check).await;
        over.cancel();
        outcome
    };
    let (outcome, ()) = tokio::join!(work, hold(&delivery, worker.queue.lease(), &over));
    match outcome {
        Outcome::Ended => end(worker, delivery).await,
        Outcome::Waits(pause) => delivery.give_back(pause).await,
        Outcome::NotClaimed => give_back(delivery).await,
        // The job's new holder has a delivery of its own, which our acknowledgement would clear.
        Outcome::Fenced => tracing::warn!(job = %delivery.id, "fenced: another worker has taken over"),
    }
}

/// Acknowledges the delivery of an ended job. If the job's leftovers cannot be removed from the store, returns the
/// delivery to the queue instead.
async fn end(worker: &Worker, delivery: Delivery) {
    match cleaning::clean_up_after_end(worker, &delivery.id).await {
        Ok(()) => {
            failpoints::reach("before_ack");
            delivery.ack().await;
            failpoints::reach("after_ack");
        }
        Err(error) => {
            tracing::warn!(job = %delivery.id, error = format!("{error:#}"), "cannot remove the job's leftovers from \
            the store; retrying");
            give_back(delivery).await;
        }
    }
}

/// Returns a delivery to the queue after a temporary failure, with a pause that grows with each delivery.
async fn give_back(delivery: Delivery) {
    let doublings = u32::try_from(delivery.delivered.clamp(1, 6)).unwrap_or(1);
    let pause = (CLAIM_RETRY_PAUSE * 2u32.pow(doublings - 1)).min(CLAIM_RETRY_PAUSE_MAX);
    delivery.give_back(pause.mul_f64(rand::random_range(0.5..1.0))).await;
}

async fn work(worker: &Worker, delivery: &Delivery, check: &Check) -> Outcome {
    failpoints::reach("delivered");
    let id = &delivery.id;
    let state = match claim(worker, delivery).await {
        Ok(state) if state.is_end() => {
            tracing::error!(job = %id, workers_lost = state.workers_lost + 1, "job lost too many workers; failing it");
            return Outcome::Ended;
        }
        Ok(state) => state,
        Err(ExecuteError::Refused(Refusal::Ended(stage))) => {
            tracing::debug!(job = %id, ?stage, "job has already ended");
            return Outcome::Ended;
        }
        Err(ExecuteError::Refused(Refusal::Superseded { newest })) => {
            tracing::debug!(job = %id, seq = delivery.entry.seq, newest, "work item superseded by a newer submission");
            return Outcome::Ended;
        }
        Err(ExecuteError::Refused(Refusal::TooEarly { wait })) => {
            tracing::debug!(job = %id, ?wait, "next attempt is not due yet");
            return Outcome::Waits(wait);
        }
        // The leader has the delivery's message, but no job before it.
        Err(ExecuteError::Refused(Refusal::Unknown)) => {
            tracing::error!(job = %id, seq = delivery.entry.seq, "cannot decode submission, or retry without a job; \
            acknowledged and left in the log");
            return Outcome::Ended;
        }
        Err(error) => {
            check.fail(error.to_string());
            tracing::warn!(job = %id, %error, "cannot claim job");
            return Outcome::NotClaimed;
        }
    };
    worker.metrics.attempts_running.inc();
    let outcome = attempt::run(worker, state).await;
    worker.metrics.attempts_running.dec();
    outcome
}

/// Renews the lease until `over` is canceled.
async fn hold(delivery: &Delivery, lease: Duration, over: &CancellationToken) {
    let mut ticks = interval(lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    loop {
        tokio::select! {
            () = over.cancelled() => return,
            _ = ticks.tick() => {
                if let Err(error) = delivery.extend().await {
                    tracing::warn!(job = %delivery.id, %error, "cannot renew lease");
                }
            }
        }
    }
}

/// Claims the job's next attempt, or ends a job that has lost too many workers.
///
/// The first delivery of a job's first submission needs no read: the submission is the state, and if that is stale the
/// append fails.
async fn claim(worker: &Worker, delivery: &Delivery) -> Result<JobState, ExecuteError> {
    let id = &delivery.id;
    // For a first delivery the state is read only if it is a retry's.
    let first = fold(None, id, &delivery.entry);
    let read = if delivery.delivered == 1 && first.is_some() { None } else { worker.jobs.snapshots.get(id).await? };
    // A stale replica may not know the job: this worker knows that it was submitted.
    let known = read.or(first);
    let command =
        Command::Claim { worker: worker.name.clone(), submitted_seq: delivery.entry.seq, budget: worker.budget };
    worker.jobs.execute(id, known, &command, Patience::Bounded).await
}
