//! The latency from an event's append to its WebSocket message under an even load, with two peers in the same run.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use millrace_domain::{Event, EventBody, JobId, Submission, VideoInfo, event::Progress};
use millrace_runtime::{
    log::{Append, Log},
    now,
};
use serde::Serialize;

use super::{
    observe::{Events, Seen},
    observers::{self, Observer},
    stats::{Latencies, Summary, median},
    world::World,
};

/// Number of jobs that are polled.
const POLLED: usize = 10;
/// Seconds of warm-up, whose events are not counted.
const WARM_UP_S: u64 = 2;

/// The load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Load {
    pub jobs: u64,
    pub events_per_s: u64,
    pub seconds: u64,
}

/// The results of one run, or the medians of several.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Append sent → WebSocket message received.
    pub websocket: Summary,
    /// Append sent → republished message received by a plain NATS subscriber: what NATS itself takes.
    pub nats_subscriber: Summary,
    /// Append sent → seen by a client that GETs the status once a second.
    pub polling: Summary,
    /// Append sent → acknowledged to the writer.
    pub append: Summary,
    /// Events for which a WebSocket client received only a later state.
    pub conflated: u64,
    /// The largest delay of an append against its schedule.
    pub send_lag_max_ms: f64,
}

impl Outcome {
    /// The median of each number over the runs; events are added.
    pub fn median(runs: &[Self]) -> Self {
        let of = |field: fn(&Self) -> Summary| Summary::median(&runs.iter().map(field).collect::<Vec<_>>());
        Self {
            websocket: of(|run| run.websocket),
            nats_subscriber: of(|run| run.nats_subscriber),
            polling: of(|run| run.polling),
            append: of(|run| run.append),
            conflated: runs.iter().map(|run| run.conflated).sum(),
            send_lag_max_ms: median(&runs.iter().map(|run| run.send_lag_max_ms).collect::<Vec<_>>()),
        }
    }
}

/// One run, with new jobs.
pub async fn run(world: &World, load: Load) -> anyhow::Result<Outcome> {
    let ids: Vec<JobId> = (0..load.jobs).map(|_| JobId::from_entropy(rand::random())).collect();
    let begun = try_join_all(ids.iter().map(|id| begin(&world.log, id))).await?;
    let each = |seconds: u64| (load.events_per_s * seconds).div_ceil(load.jobs);
    let events = Arc::new(Events::new(&ids, each(load.seconds + WARM_UP_S), each(WARM_UP_S)));

    let subscriber = observers::subscriber(&world.connect().await?, &events).await?;
    let clients = try_join_all(ids.iter().map(|id| observers::client(world, &events, id))).await?;
    let pollers = ids.iter().take(POLLED).enumerate();
    let pollers: Vec<_> = pollers.map(|(number, id)| observers::poller(world, &events, id, number, POLLED)).collect();

    let sent = send_all(world, &events, &ids, &begun, load).await?;
    let websocket = seen(clients).await?;
    let outcome = Outcome {
        websocket: websocket.latencies.summary(),
        nats_subscriber: seen(vec![subscriber]).await?.latencies.summary(),
        polling: seen(pollers).await?.latencies.summary(),
        append: sent.append.summary(),
        conflated: websocket.conflated,
        send_lag_max_ms: sent.lag_max.as_secs_f64() * 1e3,
    };
    for (id, last) in ids.iter().zip(sent.last) {
        world.log.append(&Append::new(id, last, &event(EventBody::Canceled))).await?;
    }
    Ok(outcome)
}

/// The sum of what these observers saw.
async fn seen(observers: Vec<Observer>) -> anyhow::Result<Seen> {
    let mut all = Seen::new();
    for observer in observers {
        all.add(&observer.finish().await?);
    }
    Ok(all)
}

/// The writers' results.
struct Sent {
    append: Latencies,
    lag_max: Duration,
    /// The last sequence of each job's events.
    last: Vec<u64>,
}

/// Sends the events at even intervals, one job after the other. The schedule does not wait for acknowledgements: a slow
/// append delays only the next one of its own job.
async fn send_all(
    world: &World,
    events: &Arc<Events>,
    ids: &[JobId],
    begun: &[u64],
    load: Load,
) -> anyhow::Result<Sent> {
    let between_events = Duration::from_secs(1).div_f64(load.events_per_s as f64);
    let between_own = Duration::from_secs(1).mul_f64(load.jobs as f64 / load.events_per_s as f64);
    let start = Instant::now() + Duration::from_millis(100);
    let writers = ids.iter().zip(begun).enumerate().map(|(job, (id, &last))| {
        let writer = Writer { log: world.log.clone(), id: id.clone(), job, events: Arc::clone(events), last };
        tokio::spawn(writer.run(start + between_events.mul_f64(job as f64), between_own))
    });
    let writers: Vec<_> = writers.collect();
    let mut all = Sent { append: Latencies::new(), lag_max: Duration::ZERO, last: Vec::new() };
    for writer in writers {
        let sent = writer.await??;
        all.append.add(&sent.append);
        all.lag_max = all.lag_max.max(sent.lag_max);
        all.last.extend(sent.last);
    }
    Ok(all)
}

struct Writer {
    log: Log,
    id: JobId,
    job: usize,
    events: Arc<Events>,
    last: u64,
}

impl Writer {
    async fn run(mut self, first: Instant, between: Duration) -> anyhow::Result<Sent> {
        let mut sent = Sent { append: Latencies::new(), lag_max: Duration::ZERO, last: Vec::new() };
        for number in 1..=self.events.each() {
            let due = first + between.mul_f64((number - 1) as f64);
            tokio::time::sleep_until(due.into()).await;
            let progress = Progress {
                downloaded_bytes: number,
                total_bytes: Some(self.events.each()),
                bytes_per_second: Some(1_000_000),
                eta_seconds: Some(10),
            };
            let append = Append::new(&self.id, self.last, &event(EventBody::Progress(progress)));
            let at = Instant::now();
            self.events.sent(self.job, number);
            self.last = self.log.append(&append).await?;
            if self.events.counts(number) {
                sent.append.record(at.elapsed());
                sent.lag_max = sent.lag_max.max(at.saturating_duration_since(due));
            }
        }
        sent.last.push(self.last);
        Ok(sent)
    }
}

/// Appends a job's events up to its running download; returns the last sequence.
async fn begin(log: &Log, id: &JobId) -> anyhow::Result<u64> {
    let submission = Submission { url: "http://127.0.0.1/video.mp4".parse()?, quality: None };
    let video_info = VideoInfo {
        id: Some("video-1".to_owned()),
        title: Some("A video with a title of usual length".to_owned()),
        thumbnail: Some("http://127.0.0.1/thumb.jpg".to_owned()),
        duration: Some(100),
        quality: Some("1080p".to_owned()),
    };
    log.append(&Append::new(id, 0, &event(EventBody::Submitted(submission)))).await?;
    let started = EventBody::Started { worker: "bench".to_owned(), attempt: 1 };
    let started = log.append(&Append::new(id, 0, &event(started))).await?;
    Ok(log.append(&Append::new(id, started, &event(EventBody::Info { video_info }))).await?)
}

fn event(body: EventBody) -> Event {
    Event { at: now(), body }
}
