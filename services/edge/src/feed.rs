//! The live feed: one standing subscription to all republished events, and a table from job to its watchers.
//!
//! A watcher is registered first and the snapshot read after, so nothing falls in between. A message for a job that
//! nobody watches is dropped after its subject and its sequence were read.

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
    /// How many times a job's first watcher came.
    watches: AtomicU64,
    public_base_url: String,
    metrics: Metrics,
}

/// A job that somebody on this edge watches.
struct Watched {
    /// Another one each time that a first watcher comes: what was loaded for those who have left may be older than what
    /// those who came after have heard.
    number: u64,
    stitch: Stitch,
    watchers: Vec<Arc<dyn Watcher>>,
    newest: Option<Arc<Frame>>,
    schedule: sweep::Schedule,
}

/// Who is told of a job's states: a loop of sockets, or the mailbox of one stream.
pub trait Watcher: Send + Sync {
    /// Takes the next state. Must not block.
    fn put(&self, frame: Arc<Frame>);
}

/// A watch by one client; dropped, it is over.
pub struct Watch {
    feed: Feed,
    id: JobId,
    mailbox: Arc<Mailbox>,
}

/// The feed's tasks, to be spawned.
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

    /// Watches a job: `watcher` is told every state from now on. Returns the newest one, if it is known; if not, it is
    /// told as soon as it is.
    ///
    /// `since`: somebody has seen that sequence elsewhere; this edge then does not rest before it has it too.
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
            // Kept in mind: a load is under way already.
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

    /// Watches a job for one client, who reads at its own speed.
    #[must_use]
    pub fn follow(&self, id: &JobId, since: u64) -> Watch {
        let mailbox = Arc::new(Mailbox::default());
        if let Some(newest) = self.watch(id, since, mailbox.clone()) {
            mailbox.put(newest);
        }
        Watch { feed: self.clone(), id: id.clone(), mailbox }
    }

    /// Whether the log has answered since the job is watched, if only that it has no such job.
    pub fn was_answered(&self, id: &JobId) -> bool {
        self.table().get(id.as_str()).is_some_and(|watched| watched.stitch.was_answered())
    }

    /// Asks the log's leader for whatever this edge has not heard of the job.
    pub fn refresh(&self, id: &JobId, since: u64) {
        self.with(id.as_str(), |_, stitch| stitch.announced(since));
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.0.recent.lock().expect("no panic while held")
    }

    fn table(&self) -> MutexGuard<'_, HashMap<JobId, Watched>> {
        self.0.table.lock().expect("no panic while held")
    }

    /// Does something with a job if it is watched, and what follows from it.
    fn with(&self, id: &str, act: impl FnOnce(&JobId, &mut Stitch) -> Todo) {
        let mut table = self.table();
        let Some(id) = table.get_key_value(id).map(|(id, _)| id.clone()) else { return };
        let Some(watched) = table.get_mut(&id) else { return };
        let todo = act(&id, &mut watched.stitch);
        self.carry_out(&id, watched, todo);
    }

    /// Like [`Feed::with`], if it is still watched by those for whom the load was asked for.
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
            // The leader may have been elected just now, and what was heard be true.
            watched.schedule = sweep::Schedule::new(Instant::now());
        }
        // Not kept: for who comes later it is to be asked anew.
        if let (true, Some(state)) = (todo.refuted, watched.stitch.state()) {
            let frame = Arc::new(Frame::last_word(state, &self.0.public_base_url));
            watched.watchers.iter().for_each(|watcher| watcher.put(frame.clone()));
        }
        if let Some(source) = todo.load {
            // The loader ends with the process only.
            let _ = self.0.loads.send(Load { id: id.clone(), source, watch: watched.number });
        }
    }

    fn heard(&self, log: &Log, message: &async_nats::Message) {
        self.0.metrics.events_heard.inc();
        let number =
            |name: HeaderName| message.headers.as_ref().and_then(|headers| headers.get(name)?.as_str().parse().ok());
        let Some(seq) = number(NATS_SEQUENCE) else {
            // Not republished by the stream: somebody else publishes under our subjects.
            tracing::warn!(subject = %message.subject, "live message without a sequence; skipping it");
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
    /// When the subscription is refused.
    pub async fn spawn(self, tasks: &millrace_runtime::tasks::Tasks) -> anyhow::Result<()> {
        let Self { feed, nats, log, loader } = self;
        let disturbances = nats.disturbances();
        let messages = nats.client.subscribe(LIVE_ALL).await.context("cannot subscribe to the live feed")?;
        // The subscription is on the server before the first snapshot is asked for, on the same connection.
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

/// At once, whatever the sweep waits for: who comes meanwhile is not to rely on what was heard before.
async fn mark_disturbances(feed: Feed, mut disturbances: broadcast::Receiver<Disturbance>) -> Infallible {
    loop {
        match disturbances.recv().await {
            // Lagged behind: there was more than one.
            Ok(_) | Err(RecvError::Lagged(_)) => feed.recent().disturbed(),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Goes on after the shutdown was told: clients are served until they are closed.
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
        () = feeding => anyhow::ensure!(shutdown.is_cancelled(), "the live subscription was closed"),
        () = closed(&feed, &shutdown) => {}
    }
    Ok(())
}

/// Resolves when the process is to stop and nobody watches any more.
async fn closed(feed: &Feed, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    while !feed.table().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
