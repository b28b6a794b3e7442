//! Loads snapshots of jobs, many at a time: a storm of reconnects costs requests by the hundred jobs, not by the job.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt, stream};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use millrace_domain::{
    JobId, JobState,
    limits::{SNAPSHOT_BATCH_MAX, SNAPSHOT_BATCH_WINDOW, SNAPSHOT_BATCHES_IN_FLIGHT_MAX, SNAPSHOT_RETRY_PAUSE},
};
use millrace_runtime::{direct::ReadError, snapshots::Snapshots};

use super::{Feed, Source};

/// Leader reads of one batch at once.
const LEADER_READS_IN_FLIGHT_MAX: usize = 16;

pub struct Loader {
    feed: Feed,
    snapshots: Snapshots,
    requests: mpsc::UnboundedReceiver<(JobId, Source)>,
}

impl Loader {
    /// Requests are bounded by the jobs that are watched: a job has at most one load under way.
    pub fn new(feed: Feed, snapshots: Snapshots, requests: mpsc::UnboundedReceiver<(JobId, Source)>) -> Self {
        Self { feed, snapshots, requests }
    }

    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let feed = self.feed.clone();
        let slots = Arc::new(Semaphore::new(SNAPSHOT_BATCHES_IN_FLIGHT_MAX));
        loop {
            let batch = tokio::select! {
                batch = self.next_batch() => batch,
                () = super::closed(&feed, &shutdown) => return Ok(()),
            };
            let slot = slots.clone().acquire_owned().await?;
            let (feed, snapshots) = (feed.clone(), self.snapshots.clone());
            tokio::spawn(async move {
                let failed = load(&feed, &snapshots, batch).await;
                drop(slot);
                if !failed.is_empty() {
                    sleep(SNAPSHOT_RETRY_PAUSE).await;
                    for id in failed {
                        feed.with(id.as_str(), |_, stitch| stitch.watched());
                    }
                }
            });
        }
    }

    /// The first request and those that come within the window.
    async fn next_batch(&mut self) -> Vec<(JobId, Source)> {
        let mut batch = Vec::new();
        let Some(first) = self.requests.recv().await else { return std::future::pending().await };
        batch.push(first);
        let deadline = Instant::now() + SNAPSHOT_BATCH_WINDOW;
        while batch.len() < SNAPSHOT_BATCH_MAX {
            match timeout_at(deadline, self.requests.recv()).await {
                Ok(Some(request)) => batch.push(request),
                _ => break,
            }
        }
        batch
    }
}

/// Loads and tells the feed; returns the jobs whose load failed.
async fn load(feed: &Feed, snapshots: &Snapshots, batch: Vec<(JobId, Source)>) -> Vec<JobId> {
    feed.0.metrics.snapshot_batches.inc();
    let (any, leader): (Vec<_>, Vec<_>) = batch.into_iter().partition(|(_, source)| *source == Source::Any);
    let any: Vec<_> = any.into_iter().map(|(id, _)| id).collect();
    let mut failed = Vec::new();
    if !any.is_empty() {
        match snapshots.load(&any).await {
            Ok(mut states) => any.iter().for_each(|id| loaded(feed, id, Source::Any, states.remove(id))),
            Err(error) => failed.extend(not_loaded(feed, any, &error)),
        }
    }
    let reads: Vec<_> = leader
        .into_iter()
        .map(|(id, _)| async move {
            let read = snapshots.get_from_leader(&id).await;
            (id, read)
        })
        .collect();
    let read: HashMap<JobId, Result<Option<JobState>, ReadError>> =
        stream::iter(reads).buffer_unordered(LEADER_READS_IN_FLIGHT_MAX).collect().await;
    for (id, read) in read {
        match read {
            Ok(state) => loaded(feed, &id, Source::Leader, state),
            Err(error) => failed.extend(not_loaded(feed, vec![id], &error)),
        }
    }
    failed
}

fn loaded(feed: &Feed, id: &JobId, source: Source, state: Option<JobState>) {
    feed.with(id.as_str(), |id, stitch| stitch.loaded(id, source, state));
}

fn not_loaded(feed: &Feed, ids: Vec<JobId>, error: &ReadError) -> Vec<JobId> {
    tracing::warn!(%error, jobs = ids.len(), "snapshots could not be loaded; trying again");
    feed.0.metrics.snapshot_failures.inc();
    for id in &ids {
        feed.with(id.as_str(), |_, stitch| {
            stitch.load_failed();
            super::Todo::default()
        });
    }
    ids
}
