//! Loads snapshots of jobs in batches: a reconnect storm costs one request per few hundred jobs, not per job.

use std::{collections::HashMap, sync::Arc};

use futures::{StreamExt, stream};
use millrace_domain::{
    JobId, JobState,
    limits::{
        LEADER_READS_IN_FLIGHT_MAX, SNAPSHOT_BATCH_MAX, SNAPSHOT_BATCH_WINDOW, SNAPSHOT_BATCHES_IN_FLIGHT_MAX,
        SNAPSHOT_RETRY_PAUSE,
    },
};
use millrace_runtime::{direct::ReadError, snapshots::Snapshots};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{Feed, Source};

/// An ordered load.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Load {
    pub id: JobId,
    pub source: Source,
    /// The watch that ordered it: `number` in the feed's table.
    pub watch: u64,
}

pub struct Loader {
    feed: Feed,
    snapshots: Snapshots,
    requests: mpsc::UnboundedReceiver<Load>,
}

impl Loader {
    /// `requests` is bounded by the number of watched jobs: each has at most one load in flight.
    pub fn new(feed: Feed, snapshots: Snapshots, requests: mpsc::UnboundedReceiver<Load>) -> Self {
        Self { feed, snapshots, requests }
    }

    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let feed = self.feed.clone();
        let slots = Arc::new(Semaphore::new(SNAPSHOT_BATCHES_IN_FLIGHT_MAX));
        loop {
            // Take the slot first: requests that arrive while all slots are in use become one batch.
            let slot = slots.clone().acquire_owned().await?;
            let batch = tokio::select! {
                batch = self.next_batch() => batch,
                () = super::closed(&feed, &shutdown) => return Ok(()),
            };
            let (feed, snapshots) = (feed.clone(), self.snapshots.clone());
            tokio::spawn(async move {
                let failed = load(&feed, &snapshots, batch).await;
                drop(slot);
                if !failed.is_empty() {
                    sleep(SNAPSHOT_RETRY_PAUSE).await;
                    for load in failed {
                        feed.with_load(&load, |_, stitch| stitch.watched());
                    }
                }
            });
        }
    }

    /// The first request, and the requests that arrive within the window.
    async fn next_batch(&mut self) -> Vec<Load> {
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

/// Loads a batch and reports to the feed; returns the loads that failed.
async fn load(feed: &Feed, snapshots: &Snapshots, batch: Vec<Load>) -> Vec<Load> {
    feed.0.metrics.snapshot_batches.inc();
    let (any, leader): (Vec<_>, Vec<_>) = batch.into_iter().partition(|load| load.source == Source::Any);
    let mut failed = Vec::new();
    if !any.is_empty() {
        let ids: Vec<_> = any.iter().map(|load| load.id.clone()).collect();
        match load_any(feed, snapshots, &ids).await {
            // A batch may hold two loads of one job, for an ended and a new watch: each gets the state.
            Ok(states) => any.iter().for_each(|load| loaded(feed, load, states.get(&load.id).cloned())),
            Err(error) => failed.extend(not_loaded(feed, any, &error)),
        }
    }
    let reads = leader.into_iter().map(|load| async move {
        let read = snapshots.get_from_leader(&load.id).await;
        (load, read)
    });
    let read: Vec<_> = stream::iter(reads).buffer_unordered(LEADER_READS_IN_FLIGHT_MAX).collect().await;
    for (load, read) in read {
        match read {
            Ok(state) => loaded(feed, &load, state),
            Err(error) => failed.extend(not_loaded(feed, vec![load], &error)),
        }
    }
    failed
}

/// Reads from the bucket, and from the log only the jobs whose newest sequence the recently heard events do not show.
async fn load_any(feed: &Feed, snapshots: &Snapshots, ids: &[JobId]) -> Result<HashMap<JobId, JobState>, ReadError> {
    let now = std::time::Instant::now();
    let basis = feed.recent().basis(now);
    if feed.recent().ask(ids.len(), now) {
        let (feed, snapshots) = (feed.clone(), snapshots.clone());
        // For the next loads; this one does not wait for it.
        tokio::spawn(async move {
            match snapshots.progress().await {
                Ok(progress) => feed.recent().projected(progress, now),
                Err(error) => {
                    tracing::debug!(%error, "cannot read the projector's position; reading from the log instead")
                }
            }
        });
    }
    let read = snapshots.read_bucket(ids).await;
    let newest = basis.and_then(|basis| feed.recent().newest(basis, ids));
    snapshots.complete(read, newest).await
}

fn loaded(feed: &Feed, load: &Load, state: Option<JobState>) {
    // The replica may be older than an event heard before the job was watched.
    let heard = feed.recent().newest_of(&load.id);
    feed.with_load(load, |id, stitch| {
        if load.source == Source::Any {
            stitch.swept(heard);
        }
        stitch.loaded(id, load.source, state)
    });
}

fn not_loaded(feed: &Feed, loads: Vec<Load>, error: &ReadError) -> Vec<Load> {
    tracing::warn!(%error, jobs = loads.len(), "cannot load snapshots; retrying");
    feed.0.metrics.snapshot_failures.inc();
    for load in &loads {
        feed.with_load(load, |_, stitch| {
            stitch.load_failed();
            super::Todo::default()
        });
    }
    loads
}
