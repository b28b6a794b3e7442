//! Removes kept parts that their jobs do not need any more.

use std::{collections::HashSet, sync::Arc};

use millrace_domain::{
    JobId,
    limits::{PARTS_LAST_SWEEP_MAX, PARTS_SWEEP_INTERVAL},
    state::Status,
};
use tokio::time::{sleep, timeout};

use crate::Worker;

/// Sweeps at intervals until the shutdown, and once more then.
pub async fn run(worker: Arc<Worker>) -> anyhow::Result<()> {
    let pause = || PARTS_SWEEP_INTERVAL.mul_f64(rand::random_range(0.5..1.0));
    let mut begun = HashSet::new();
    while worker.shutdown.run_until_cancelled(sleep(pause())).await.is_some() {
        begun = sweep(&worker, &begun).await;
    }
    if timeout(PARTS_LAST_SWEEP_MAX, sweep(&worker, &begun)).await.is_err() {
        tracing::debug!("cannot read in time which parts are needed; leaving them to the next worker");
    }
    Ok(())
}

/// Removes the parts of jobs that have ended, or that had a newer attempt already at the last sweep. Returns the jobs
/// with a newer attempt: it may be this worker's, which is about to take the part.
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
            // Kept parts are bounded even without the log.
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
