//! Three ways to observe an event: the edge's WebSocket, the republished message itself, and polling once a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use futures::StreamExt;
use millrace_domain::{Event, EventBody, JobId, subjects};
use serde::Deserialize;
use tokio::{
    task::JoinHandle,
    time::{interval_at, timeout},
};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use super::{
    observe::{Events, Seen},
    world::World,
};

/// How long after the last append an observer may take to see it.
const SETTLE_MAX: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A running observer.
pub struct Observer {
    what: &'static str,
    task: JoinHandle<anyhow::Result<Seen>>,
}

/// The fields of a client's state message that the bench reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    downloaded_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Frame {
    data: Option<State>,
}

impl Observer {
    fn spawn(what: &'static str, task: impl Future<Output = anyhow::Result<Seen>> + Send + 'static) -> Self {
        Self { what, task: tokio::spawn(task) }
    }

    /// Waits until it has seen the last event.
    pub async fn finish(self) -> anyhow::Result<Seen> {
        match timeout(SETTLE_MAX, self.task).await {
            Ok(seen) => seen?.with_context(|| self.what.to_owned()),
            Err(_) => bail!("{} had not seen every job's last event after {SETTLE_MAX:?}", self.what),
        }
    }
}

/// A plain subscription to all republished events.
pub async fn subscriber(client: &async_nats::Client, events: &Arc<Events>) -> anyhow::Result<Observer> {
    let mut messages = client.subscribe(subjects::LIVE_ALL).await?;
    // After this round trip the server has the subscription.
    client.flush().await?;
    let (client, events) = (client.clone(), Arc::clone(events));
    Ok(Observer::spawn("the NATS subscriber", async move {
        let mut jobs: Vec<Seen> = Vec::new();
        while let Some(message) = messages.next().await {
            let at = Instant::now();
            let Some(job) = subjects::parse_live(&message.subject).and_then(|(_, id)| events.job(id)) else { continue };
            let Ok(Event { body: EventBody::Progress(progress), .. }) = Event::decode(&message.payload) else {
                continue;
            };
            while jobs.len() <= job {
                jobs.push(Seen::new());
            }
            jobs[job].note(&events, job, progress.downloaded_bytes, at);
            if jobs.len() == events.jobs() && jobs.iter().all(|seen| seen.is_complete(&events)) {
                drop(client);
                let mut all = Seen::new();
                jobs.iter().for_each(|seen| all.add(seen));
                return Ok(all);
            }
        }
        bail!("the subscription has ended")
    }))
}

/// A WebSocket client of one job; returns once the first state has arrived.
pub async fn client(world: &World, events: &Arc<Events>, id: &JobId) -> anyhow::Result<Observer> {
    let url = format!("ws://127.0.0.1:{}/ws/download/{id}", world.edge_port);
    let (mut socket, _) = connect_async(&url).await.with_context(|| format!("cannot connect to {url}"))?;
    socket.next().await.context("the edge has closed the socket")??;
    let events = Arc::clone(events);
    let job = events.job(id.as_str()).context("a job of another run")?;
    Ok(Observer::spawn("a WebSocket client", async move {
        let mut seen = Seen::new();
        while let Some(message) = socket.next().await {
            let at = Instant::now();
            if let Message::Text(text) = message?
                && let Some(State { downloaded_bytes: Some(number) }) = serde_json::from_str::<Frame>(&text)?.data
            {
                seen.note(&events, job, number, at);
                if seen.is_complete(&events) {
                    return Ok(seen);
                }
            }
        }
        bail!("the edge has closed the socket")
    }))
}

/// A client that polls the state once a second; `number` of `count` pollers, which take turns at even intervals.
pub fn poller(world: &World, events: &Arc<Events>, id: &JobId, number: usize, count: usize) -> Observer {
    let url = world.url(&format!("/api/status/{id}"));
    let first = tokio::time::Instant::now() + POLL_INTERVAL.mul_f64(number as f64 / count as f64);
    let (events, job) = (Arc::clone(events), events.job(id.as_str()).unwrap_or(0));
    Observer::spawn("a polling client", async move {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let (mut seen, mut ticks) = (Seen::new(), interval_at(first, POLL_INTERVAL));
        while !seen.is_complete(&events) {
            ticks.tick().await;
            let body = client.get(&url).send().await?.error_for_status()?.bytes().await?;
            let at = Instant::now();
            if let Some(number) = serde_json::from_slice::<State>(&body)?.downloaded_bytes {
                seen.note(&events, job, number, at);
            }
        }
        Ok(seen)
    })
}
