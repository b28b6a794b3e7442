//! Parts leave that their jobs do not need any more.

use std::sync::Arc;

use millrace_domain::{
    JobState,
    limits::{PARTS_LAST_SWEEP_MAX, PARTS_SWEEP_INTERVAL},
    state::Status,
};
use tokio::time::{sleep, timeout};

use super::Kept;
use crate::Worker;

/// Looks now and then until the shutdown, and a last time then.
pub async fn run(worker: Arc<Worker>) -> anyhow::Result<()> {
    let pause = || PARTS_SWEEP_INTERVAL.mul_f64(rand::random_range(0.5..1.0));
    while worker.shutdown.run_until_cancelled(sleep(pause())).await.is_some() {
        sweep(&worker).await;
    }
    if timeout(PARTS_LAST_SWEEP_MAX, sweep(&worker)).await.is_err() {
        tracing::debug!("the log did not say in time which jobs need what is kept; the next worker asks again");
    }
    Ok(())
}

async fn sweep(worker: &Worker) {
    worker.workspace.bound_kept();
    let kept = worker.workspace.kept();
    if kept.is_empty() {
        return;
    }
    let ids: Vec<_> = kept.iter().map(|kept| kept.id.clone()).collect();
    match worker.jobs.snapshots.load(&ids).await {
        Ok(states) => {
            let is_needed = |kept: &&Kept| states.get(&kept.id).is_none_or(|state| needs(state, kept, &worker.name));
            kept.iter().filter(|kept| !is_needed(kept)).for_each(|kept| worker.workspace.remove_kept(kept));
        }
        // They are bounded whatever the log says.
        Err(error) => tracing::debug!(%error, "the log does not say which jobs need what is kept"),
    }
}

/// A job that this worker has just begun is about to use it.
fn needs(state: &JobState, kept: &Kept, name: &str) -> bool {
    let elsewhere = state.stage.status() == Status::Processing
        && state.attempt > kept.attempt
        && state.worker.as_deref() != Some(name);
    !state.is_end() && !elsewhere
}
