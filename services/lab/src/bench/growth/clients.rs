//! Idle clients: the resources that a number of them, on a number of jobs, takes from each process.

use std::time::Duration;

use anyhow::bail;
use millrace_domain::limits::WS_PING_INTERVAL;
use tokio::time::sleep;

use super::{
    super::edge::{
        loads::{Arrival, Loads},
        proc::rss_kib,
        subject::{Subject, ours::Edge},
    },
    reading::Reading,
};

/// The columns of each point. `edges` in a name means all edges together.
pub const COLUMNS: [&str; 14] = [
    "clients",
    "jobs",
    "connects_per_s",
    "connect_edges_cpu_us",
    "connect_nats_cpu_us",
    "connect_nats_msgs",
    "edges_kib",
    "nats_kib",
    "projector_kib",
    "idle_edges_us_per_s",
    "idle_nats_us_per_s",
    "idle_nats_msgs_per_s",
    "nats_connections",
    "nats_subscriptions",
];

/// Handshakes in flight at once.
const AT_ONCE: usize = 256;
/// How long each client may take to get its turn and its state, on average.
const CONNECT_EACH_MAX: Duration = Duration::from_millis(3);
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// How long memory settles once all clients are connected.
const SETTLE: Duration = Duration::from_secs(3);
/// The edge pings each client once within this time, so a shorter one would miss part of an idle client's cost.
const IDLE: Duration = WS_PING_INTERVAL;

/// Connects clients to fresh edges of a fresh nats-server, and leaves them idle.
pub async fn point(edge: &mut Edge, loads: &mut Loads, clients: usize, jobs: usize) -> anyhow::Result<Vec<f64>> {
    loads.close().await?;
    edge.renew_all().await?;
    sleep(SETTLE).await;
    let empty = Reading::of(edge).await?;
    let limit = CONNECT_MAX + CONNECT_EACH_MAX * u32::try_from(clients)?;
    let opened = loads.open(&edge.access(), Arrival { clients, jobs, at_once: AT_ONCE, limit }).await?;
    if opened.opened < clients {
        bail!(
            "{} of {clients} clients received their state within {limit:?}; failed attempts: {:?}",
            opened.opened,
            opened.failures
        );
    }
    let full = Reading::of(edge).await?;
    sleep(SETTLE).await;
    let begun = Reading::of(edge).await?;
    sleep(IDLE).await;
    let ended = Reading::of(edge).await?;
    let report = loads.report().await?;
    if report.open < clients {
        bail!("of {clients} idle clients only {} stayed: {:?}", report.open, report.ended);
    }
    let (connect, idle) = (full.since(&empty), ended.since(&begun));
    Ok(vec![
        clients as f64,
        jobs as f64,
        clients as f64 / opened.seconds,
        connect.edges_us / clients as f64,
        connect.nats_us / clients as f64,
        connect.nats_msgs,
        rss_kib(&edge.serving())?,
        rss_kib(&[edge.nats.server.pid()])?,
        rss_kib(&[edge.projector()])?,
        idle.edges_us / idle.seconds,
        idle.nats_us / idle.seconds,
        idle.nats_msgs / idle.seconds,
        ended.nats_connections,
        ended.nats_subscriptions,
    ])
}
