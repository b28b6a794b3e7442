//! Finds what the live feed has lost without a successor to show the gap: asks the log for the last sequence of
//! watched jobs that are quiet, every few seconds, and of all at once after a disturbance of the connection.

use std::collections::HashMap;

use tokio::{sync::broadcast, time::Instant};
use tokio_util::sync::CancellationToken;

use millrace_domain::{
    JobId,
    limits::{SNAPSHOT_BATCH_MAX, SWEEP_INTERVAL},
    subjects,
};
use millrace_runtime::{log::Log, nats::Disturbance};

use super::Feed;

pub async fn run(
    feed: Feed,
    log: Log,
    mut disturbances: broadcast::Receiver<Disturbance>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let all = tokio::select! {
            _ = ticks.tick() => false,
            // Lagged behind: there was more than one. Closed cannot be: the feed holds the connection.
            _ = disturbances.recv() => true,
            () = super::closed(&feed, &shutdown) => return Ok(()),
        };
        let quiet = quiet_jobs(&feed, all);
        for ids in quiet.chunks(SNAPSHOT_BATCH_MAX) {
            sweep(&feed, &log, ids).await;
        }
    }
}

fn quiet_jobs(feed: &Feed, all: bool) -> Vec<JobId> {
    let now = Instant::now();
    let table = feed.table();
    let due = table.iter().filter(|(_, watched)| {
        !watched.stitch.is_final() && (all || now.duration_since(watched.heard_at) >= SWEEP_INTERVAL)
    });
    due.map(|(id, _)| id.clone()).collect()
}

async fn sweep(feed: &Feed, log: &Log, ids: &[JobId]) {
    let filters: Vec<_> = ids.iter().map(subjects::job_filter).collect();
    match log.last(&filters).await {
        Ok(last) => {
            let mut newest: HashMap<JobId, u64> = HashMap::new();
            for (id, stored) in last {
                let seq = newest.entry(id).or_default();
                *seq = stored.seq.max(*seq);
            }
            for (id, seq) in newest {
                feed.with(id.as_str(), |_, stitch| {
                    let todo = stitch.swept(seq);
                    if todo.load.is_some() {
                        feed.0.metrics.sweep_finds.inc();
                    }
                    todo
                });
            }
        }
        // The next sweep comes.
        Err(error) => tracing::warn!(%error, jobs = ids.len(), "quiet jobs could not be swept"),
    }
}
