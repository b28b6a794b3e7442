//! The live feed: one subscription to all republished events, and a table from job to its watchers.
//!
//! The feed registers a watcher first and reads the snapshot afterwards, so no event is lost in between. It drops a
//! message for an unwatched job after reading its subject and sequence.

mod recent;
mod stitch;
mod loader;
mod sweep;
mod claim;
mod frame;
mod mailbox;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use async_nats::header::{HeaderName, NATS_LAST_SEQUENCE, NATS_SEQUENCE};
use futures::StreamExt;
use millrace_domain::{
    JobId,
    subjects::{self, LIVE_ALL},
};
use millrace_runtime::{
    log::Log,
    nats::{Disturbance, Nats},
    snapshots::Snapshots,
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc,
    },
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    claim::{Claim, Verdict},
    frame::Frame,
};
use self::{
    loader::Load,
    mailbox::Mailbox,
    recent::Recent,
    stitch::{Heard, Source, Stitch, Todo},
};
use crate::metrics::Metrics;

/// The feed of one edge.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    table: Mutex<HashMap<JobId, Watched>>,
    recent: Mutex<Recent>,
    loads: mpsc::UnboundedSender<Load>,
    /// Counts the first watches; the source of `Watched::number`.
    watches: AtomicU64,
    public_base_url: String,
    metrics: Metrics,
}

/// A job with at least one watcher on this edge.
struct Watched {
    /// Unique to this period of watching. A load for an earlier period may be older than what the current watchers
    /// have, and is dropped.
    number: u64,
    stitch: Stitch,
    watchers: Vec<Arc<dyn Watcher>>,
    newest: Option<Arc<Frame>>,
    schedule: sweep::Schedule,
}

/// Receives a job's states: an event loop, or the mailbox of one SSE stream.
pub trait Watcher: Send + Sync {
    /// Takes the next state. Must not block.
    fn put(&self, frame: Arc<Frame>);
}

/// One client's watch; ends on drop.
pub struct Watch {
    feed: Feed,
    id: JobId,
    mailbox: Arc<Mailbox>,
}

/// The feed's tasks, before they are spawned.
pub struct Parts {
    feed: Feed,
    nats: Nats,
    log: Log,
    loader: loader::Loader,
}

impl Feed {
    /// A feed and its tasks.
    #[must_use]
    pub fn new(nats: Nats, log: Log, snapshots: Snapshots, public_base_url: String, metrics: Metrics) -> (Self, Parts) {
        let (loads, requests) = mpsc::unbounded_channel();
        let feed = Self(Arc::new(Inner {
            table: Mutex::default(),
            recent: Mutex::default(),
            loads,
            watches: AtomicU64::new(0),
            public_base_url,
            metrics,
        }));
        let loader = loader::Loader::new(feed.clone(), snapshots, requests);
        (feed.clone(), Parts { feed, nats, log, loader })
    }

    /// Watches a job: `watcher` gets every state from now on. Returns the newest state if it is known; otherwise
    /// `watcher` gets it once it is loaded.
    ///
    /// `since`: a sequence that a client claims to have seen at another edge; the feed loads until it has that sequence
    /// or the leader refutes it.
    pub fn watch(&self, id: &JobId, since: u64, watcher: Arc<dyn Watcher>) -> Option<Arc<Frame>> {
        let mut table = self.table();
        let first = !table.contains_key(id.as_str());
        let watched = table.entry(id.clone()).or_insert_with(|| Watched {
            number: self.0.watches.fetch_add(1, Ordering::Relaxed),
            stitch: Stitch::default(),
            watchers: Vec::with_capacity(1),
            newest: None,
            schedule: sweep::Schedule::new(Instant::now()),
        });
        watched.watchers.push(watcher);
        let todo = if first {
            self.0.metrics.jobs_watched.inc();
            let todo = watched.stitch.watched();
            // A load is in flight already: this only records the sequence.
            watched.stitch.announced(since);
            todo
        } else {
            watched.stitch.announced(since)
        };
        self.carry_out(id, watched, todo);
        watched.newest.clone()
    }

    /// Ends a watch.
    pub fn unwatch(&self, id: &JobId, watcher: &Arc<dyn Watcher>) {
        let mut table = self.table();
        if let Some(watched) = table.get_mut(id.as_str()) {
            watched.watchers.retain(|other| !Arc::ptr_eq(other, watcher));
            if watched.watchers.is_empty() {
                table.remove(id.as_str());
                self.0.metrics.jobs_watched.dec();
            }
        }
    }

    /// Watches a job for one client, which reads at its own speed.
    #[must_use]
    pub fn follow(&self, id: &JobId, since: u64) -> Watch {
        let mailbox = Arc::new(Mailbox::default());
        if let Some(newest) = self.watch(id, since, mailbox.clone()) {
            mailbox.put(newest);
        }
        Watch { feed: self.clone(), id: id.clone(), mailbox }
    }

    /// Whether the log has answered since the watch began, be it that it has no such job.
    pub fn was_answered(&self, id: &JobId) -> bool {
        self.table().get(id.as_str()).is_some_and(|watched| watched.stitch.was_answered())
    }

    /// Loads the job from the log's leader if this edge has less of it than `since`.
    pub fn refresh(&self, id: &JobId, since: u64) {
        self.with(id.as_str(), |_, stitch| stitch.announced(since));
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.recent.lock().expect("no panic while held")
    }

    fn table(&self) -> MutexGuard<'_, HashMap<JobId, Watched>> {
        self.0.table.lock().expect("no panic while held")
    }

    /// Calls `act` on a watched job, and carries out the result.
    fn with(&self, id: &str, act: impl FnOnce(&JobId, &mut Stitch) -> Todo) {
        let mut table = self.table();
        let Some(id) = table.get_key_value(id).map(|(id, _)| id.clone()) else { return };
        let Some(watched) = table.get_mut(&id) else { return };
        let todo = act(&id, &mut watched.stitch);
        self.carry_out(&id, watched, todo);
    }

    /// Like [`Feed::with`], if the watch that ordered the load has not ended.
    fn with_load(&self, load: &Load, act: impl FnOnce(&JobId, &mut Stitch) -> Todo) {
        let mut table = self.table();
        let Some(watched) = table.get_mut(load.id.as_str()).filter(|watched| watched.number == load.watch) else {
            return;
        };
        let todo = act(&load.id, &mut watched.stitch);
        self.carry_out(&load.id, watched, todo);
    }

    fn carry_out(&self, id: &JobId, watched: &mut Watched, todo: Todo) {
        if let (true, Some(state)) = (todo.publish, watched.stitch.state()) {
            let frame = Arc::new(Frame::new(state, &self.0.public_base_url));
            for watcher in &watched.watchers {
                watcher.put(frame.clone());
            }
            watched.newest = Some(frame);
        }
        if todo.refuted {
            // The leader may be newly elected and stale: sweep the job again soon.
            watched.schedule = sweep::Schedule::new(Instant::now());
        }
        // Not stored as `newest`: for a later claim the leader must be read again.
        if let (true, Some(state)) = (todo.refuted, watched.stitch.state()) {
            let frame = Arc::new(Frame::last_word(state, &self.0.public_base_url));
            watched.watchers.iter().for_each(|watcher| watcher.put(frame.clone()));
        }
        if let Some(source) = todo.load {
            // The loader runs until the process ends.
            let _ = self.0.loads.send(Load { id: id.clone(), source, watch: watched.number });
        }
    }

    fn heard(&self, log: &Log, message: &async_nats::Message) {
        self.0.metrics.events_heard.inc();
        let number =
            |name: HeaderName| message.headers.as_ref().and_then(|headers| headers.get(name)?.as_str().parse().ok());
        let Some(seq) = number(NATS_SEQUENCE) else {
            // The stream did not republish it: a foreign client publishes on our subjects.
            tracing::warn!(subject = %message.subject, "live message without a sequence; dropping it");
            return;
        };
        let (kind, id) = subjects::parse_live(&message.subject).unzip();
        self.recent().heard(seq, id.unwrap_or_default());
        let (Some(kind), Some(id)) = (kind, id) else { return };
        let mut table = self.table();
        let Some(watched) = table.get_mut(id) else { return };
        let Some(previous) = number(NATS_LAST_SEQUENCE) else { return };
        let Ok(id) = id.parse::<JobId>() else { return };
        watched.schedule.heard(Instant::now());
        let entry = log.decode(&id, seq, kind, &message.payload);
        let todo = watched.stitch.heard(&id, Heard { entry, previous });
        if todo.load.is_some() {
            self.0.metrics.gaps.inc();
        }
        self.carry_out(&id, watched, todo);
    }
}

impl Watch {
    /// The next frame. Cancel-safe.
    pub async fn next(&self) -> Arc<Frame> {
        self.mailbox.next().await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mailbox: Arc<dyn Watcher> = self.mailbox.clone();
        self.feed.unwatch(&self.id, &mailbox);
    }
}

impl Parts {
    /// Subscribes, then spawns the feed's tasks.
    ///
    /// # Errors
    /// NATS refuses the subscription.
    pub async fn spawn(self, tasks: &millrace_runtime::tasks::Tasks) -> anyhow::Result<()> {
        let Self { feed, nats, log, loader } = self;
        let disturbances = nats.disturbances();
        let messages = nats.client.subscribe(LIVE_ALL).await.context("cannot subscribe to the live feed")?;
        // Makes sure that the server has the subscription before the first snapshot is read.
        nats.client.flush().await.context("cannot subscribe to the live feed")?;
        let disturbed = mark_disturbances(feed.clone(), nats.disturbances());
        let listening = listen(feed.clone(), log.clone(), messages, tasks.shutdown());
        tasks.spawn("feed", async move {
            tokio::select! {
                listened = listening => listened,
                never = disturbed => match never {},
            }
        });
        tasks.spawn("feed-loads", loader.run(tasks.shutdown()));
        tasks.spawn("feed-sweep", sweep::run(feed, log, disturbances, tasks.shutdown()));
        Ok(())
    }
}

/// Marks disturbances at once, even while the sweep waits, so that no new watcher relies on what was heard before.
async fn mark_disturbances(feed: Feed, mut disturbances: broadcast::Receiver<Disturbance>) -> Infallible {
    loop {
        match disturbances.recv().await {
            // Lagged: there was more than one.
            Ok(_) | Err(RecvError::Lagged(_)) => feed.recent().disturbed(),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Continues after the shutdown signal, until all watchers are closed.
async fn listen(
    feed: Feed,
    log: Log,
    mut messages: async_nats::Subscriber,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let feeding = async {
        while let Some(message) = messages.next().await {
            feed.heard(&log, &message);
        }
    };
    tokio::select! {
        () = feeding => anyhow::ensure!(shutdown.is_cancelled(), "the subscription to the live feed ended"),
        () = closed(&feed, &shutdown) => {}
    }
    Ok(())
}

/// Resolves when the process stops and no watcher is left.
async fn closed(feed: &Feed, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    while !feed.table().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
