//! Events of jobs without clients: the cost of each for every edge and for nats-server.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    super::edge::{measure::send_unwatched, subject::ours::Edge},
    reading::Reading,
};

/// The columns of each point. Events reach every edge.
pub const COLUMNS: [&str; 11] = [
    "edges",
    "asked_per_s",
    "sent_per_s",
    "heard_per_s",
    "edge_us_per_s",
    "nats_us_per_s",
    "edge_us_per_event",
    "nats_us_per_event",
    "lost",
    "nats_connections",
    "nats_subscriptions",
];

const WARM_UP: Duration = Duration::from_secs(1);
/// The edges count as done once they have received no event for this long.
const SILENCE_MAX: Duration = Duration::from_secs(2);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Sends `events_per_s`, or as many as the bench can. The cost of the idle system is subtracted.
pub async fn point(edge: &Edge, edges: usize, events_per_s: u64, lasting: Duration) -> anyhow::Result<Vec<f64>> {
    let all = edges as u64;
    let begun = Reading::of(edge).await?;
    sleep(lasting).await;
    let idle = Reading::of(edge).await?.since(&begun);
    let heard = edge.heard().await?;
    let sent = send_unwatched(edge, events_per_s, WARM_UP).await?;
    let (heard, _) = settle(edge, heard + sent * all).await?;

    let begun = Reading::of(edge).await?;
    let sent = send_unwatched(edge, events_per_s, lasting).await?;
    let (after, at) = settle(edge, heard + sent * all).await?;
    let ended = Reading::of(edge).await?;
    let used = ended.since(&begun);
    if used.slow_consumers > 0 {
        println!("    nats-server has closed {} connections of edges that were too slow", used.slow_consumers);
    }
    let heard = after - heard;
    let taken_s = at.duration_since(begun.at).as_secs_f64();
    let edges_us = used.edges_us - idle.edges_us / idle.seconds * used.seconds;
    let nats_us = used.nats_us - idle.nats_us / idle.seconds * used.seconds;
    Ok(vec![
        edges as f64,
        events_per_s as f64,
        sent as f64 / lasting.as_secs_f64(),
        heard as f64 / edges as f64 / taken_s,
        edges_us / edges as f64 / taken_s,
        nats_us / taken_s,
        edges_us / heard.max(1) as f64,
        nats_us / sent.max(1) as f64,
        (sent * all).saturating_sub(heard) as f64,
        ended.nats_connections,
        ended.nats_subscriptions,
    ])
}

/// Waits until the edges have received this number of events, or receive no more; returns the number, and the time of
/// the last one.
async fn settle(edge: &Edge, events: u64) -> anyhow::Result<(u64, Instant)> {
    let (mut heard, mut at) = (edge.heard().await?, Instant::now());
    while heard < events && at.elapsed() < SILENCE_MAX {
        sleep(LOOK_INTERVAL).await;
        let now = edge.heard().await?;
        if now > heard {
            (heard, at) = (now, Instant::now());
        }
    }
    Ok((heard, at))
}
