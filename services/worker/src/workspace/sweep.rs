//! Parts leave that their jobs do not need any more.

use std::{collections::HashSet, sync::Arc};

use millrace_domain::{
    JobId,
    limits::{PARTS_LAST_SWEEP_MAX, PARTS_SWEEP_INTERVAL},
    state::Status,
};
use tokio::time::{sleep, timeout};

use crate::Worker;

/// Looks now and then until the shutdown, and a last time then.
pub async fn run(worker: Arc<Worker>) -> anyhow::Result<()> {
    let pause = || PARTS_SWEEP_INTERVAL.mul_f64(rand::random_range(0.5..1.0));
    let mut begun = HashSet::new();
    while worker.shutdown.run_until_cancelled(sleep(pause())).await.is_some() {
        begun = sweep(&worker, &begun).await;
    }
    if timeout(PARTS_LAST_SWEEP_MAX, sweep(&worker, &begun)).await.is_err() {
        tracing::debug!("log too slow to say which parts are needed; the next worker asks again");
    }
    Ok(())
}

/// Removes what is kept of jobs that have ended, or that had begun anew already the last time. Returns those that have
/// begun anew: this worker may have begun one, and be about to use what is kept.
async fn sweep(worker: &Worker, begun_before: &HashSet<JobId>) -> HashSet<JobId> {
    worker.workspace.bound_kept();
    let kept = worker.workspace.kept();
    if kept.is_empty() {
        return HashSet::new();
    }
    let ids: Vec<_> = kept.iter().map(|kept| kept.id.clone()).collect();
    let states = match worker.jobs.snapshots.load(&ids).await {
        Ok(states) => states,
        Err(error) => {
            // They are bounded whatever the log says.
            tracing::debug!(%error, "cannot read which parts are needed");
            return begun_before.clone();
        }
    };
    let mut begun = HashSet::new();
    for kept in kept {
        let Some(state) = states.get(&kept.id) else { continue };
        let again = state.attempt > kept.attempt && state.stage.status() == Status::Processing;
        if state.is_end() || (again && begun_before.contains(&kept.id)) {
            worker.workspace.remove_kept(&kept);
        } else if again {
            begun.insert(kept.id);
        }
    }
    begun
}
