//! The latency from a submission over HTTP to the worker's `started` event, with an idle worker.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use millrace_domain::{Event, EventBody, subjects};
use millrace_harness::media::MediaServer;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use super::{
    stats::{Latencies, Summary},
    world::World,
};

/// How long one job may take.
const JOB_MAX: Duration = Duration::from_secs(60);

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Before the POST → `started` received on its live subject.
    pub started: Summary,
    /// Before the POST → its response, 202.
    pub accepted: Summary,
    /// Before the POST → `completed` received; mostly the downloader's time.
    pub completed: Summary,
}

/// An event with its job and its time of arrival.
type Live = (String, EventBody, Instant);

/// Submits `count` jobs, each after the end of the one before.
pub async fn run(world: &World, media: &MediaServer, count: u64) -> anyhow::Result<Outcome> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut live = live(&world.connect().await?).await?;
    let (mut started, mut accepted, mut completed) = (Latencies::new(), Latencies::new(), Latencies::new());
    // The first one opens the connection, and is not counted.
    for number in 0..=count {
        let begun = Instant::now();
        let request = client.post(world.url("/api/download")).json(&json!({"url": media.url("/video.mp4")}));
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let answered = begun.elapsed();
        let id = answer["jobId"].as_str().context("an answer without a job id")?;
        let (start, end) = follow(&mut live, id).await?;
        if number > 0 {
            accepted.record(answered);
            started.record(start - begun);
            completed.record(end - begun);
        }
    }
    Ok(Outcome { started: started.summary(), accepted: accepted.summary(), completed: completed.summary() })
}

/// When the job started and when it was completed.
async fn follow(live: &mut UnboundedReceiver<Live>, id: &str) -> anyhow::Result<(Instant, Instant)> {
    let mut started = None;
    loop {
        let next = timeout(JOB_MAX, live.recv()).await.context("a job did not end in time")?;
        let (of, body, at) = next.context("the subscription has ended")?;
        match body {
            _ if of != id => {}
            EventBody::Started { .. } => started = Some(at),
            EventBody::Completed => return Ok((started.context("completed without a start")?, at)),
            EventBody::Failed(failure) => bail!("a job has failed: {}", failure.message),
            _ => {}
        }
    }
}

/// All live events, each with its time of arrival.
async fn live(client: &async_nats::Client) -> anyhow::Result<UnboundedReceiver<Live>> {
    let mut messages = client.subscribe(subjects::LIVE_ALL).await?;
    client.flush().await?;
    let (sender, receiver) = unbounded_channel();
    let client = client.clone();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            let at = Instant::now();
            let id = subjects::parse_live(&message.subject).map(|(_, id)| id.to_owned());
            if let (Some(id), Ok(event)) = (id, Event::decode(&message.payload))
                && sender.send((id, event.body, at)).is_err()
            {
                break;
            }
        }
        drop(client);
    });
    Ok(receiver)
}
