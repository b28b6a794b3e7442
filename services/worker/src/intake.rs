//! From the queue to an attempt: one slot takes one job at a time.

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

/// Before a job that could not be claimed is delivered again, the first time; it doubles.
const CLAIM_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// Takes jobs until the shutdown. The check is this slot's own.
pub async fn slot(worker: Arc<Worker>, check: Check) -> anyhow::Result<()> {
    check.pass();
    let mut is_full = false;
    loop {
        let room = worker.workspace.room();
        if let Some(bytes) = room.bytes {
            worker.metrics.work_room_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        // Jobs that it cannot do are for others, or wait.
        if let Some(shortage) = room.shortage {
            if !is_full {
                tracing::error!(shortage, "no room; taking no job until there is");
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
                // The wait was long enough for a disk to fill.
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
    // The lease is held from before the claim on: that, too, may wait for the log.
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
        // Whoever has the job now has a delivery of its own, which our acknowledgement would clear.
        Outcome::Fenced => tracing::warn!(job = %delivery.id, "fenced: another worker has taken over"),
    }
}

/// Acknowledges the delivery of a job at its end, unless something of it is left in the store: then it comes again.
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

/// Gives a job back after something could not be reached, for later with each time.
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
        // Told by a leader who has the delivery's message and nothing of a job before it.
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
                    tracing::warn!(job = %delivery.id, %error, "cannot renew lease");
                }
            }
        }
    }
}

/// Makes the job's next attempt ours, or ends a job that has cost too many workers.
///
/// A first delivery of a job's first submission needs no read: it is the state, and if it is not any more the append
/// tells.
async fn claim(worker: &Worker, delivery: &Delivery) -> Result<JobState, ExecuteError> {
    let id = &delivery.id;
    // A first delivery is read for its job only where it is a retry's.
    let first = fold(None, id, &delivery.entry);
    let read = if delivery.delivered == 1 && first.is_some() { None } else { worker.jobs.snapshots.get(id).await? };
    // Whoever still catches up may know nothing of the job: that it was submitted is known here.
    let known = read.or(first);
    let command =
        Command::Claim { worker: worker.name.clone(), submitted_seq: delivery.entry.seq, budget: worker.budget };
    worker.jobs.execute(id, known, &command, Patience::Bounded).await
}
