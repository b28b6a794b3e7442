//! The edge's record of recent events of all jobs: it replaces requests to the log, and reveals lost events.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, future::join_all};
use millrace_domain::{EventBody, event::Progress, limits::SWEEPS_FREQUENT};
use millrace_harness::{
    proxy::{MessageFault, Proxy},
    wait::until,
};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::{
    stack::{JOB_MAX, Stack},
    support::{SOON, append, started},
};

const JOBS: usize = 64;
const ASKED: &str = "millrace_edge_quiet_jobs_asked_total";
const FOUND: &str = "millrace_edge_sweep_finds_total";
const SPARED: &str = "millrace_log_spared_total";

fn progress(bytes: u64) -> EventBody {
    EventBody::Progress(Progress { downloaded_bytes: bytes, total_bytes: Some(100), ..Default::default() })
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn client(port: u16, id: &str) -> Client {
    let url = format!("ws://127.0.0.1:{port}/ws/download/{id}");
    tokio_tungstenite::connect_async(url).await.expect("a socket").0
}

/// The sequence of the next status.
async fn next_seq(client: &mut Client) -> u64 {
    let message = timeout(SOON, client.next()).await.expect("a message in time").unwrap().unwrap();
    let status: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
    status["data"]["seq"].as_u64().expect("a sequence")
}

/// Connects a client for each job, all at once; returns the first sequence that each receives. Then they leave.
async fn storm(stack: &Stack, ids: &[String]) -> Vec<u64> {
    let told = join_all(ids.iter().map(|id| async move {
        let mut client = client(stack.port(), id).await;
        next_seq(&mut client).await
    }))
    .await;
    until("they leave", SOON, async || stack.metric("millrace_edge_jobs_watched").await == 0.0).await;
    told
}

#[tokio::test]
async fn of_many_who_come_at_once_each_gets_the_newest_state_whether_or_not_the_log_was_asked() {
    let stack = Stack::queue_only().await;
    let log = stack.log().await;
    let (mut ids, mut last) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        let id = stack.submit("/video.mp4").await;
        last.push(append(&log, &id, 0, started()).await);
        ids.push(id);
    }
    // Chance decides how many arrive together; the first ones make the edge read the projector's position.
    let deadline = Instant::now() + JOB_MAX;
    while stack.metric(SPARED).await == 0.0 {
        assert!(Instant::now() < deadline, "the log is asked for everybody");
        assert_eq!(storm(&stack, &ids).await, last);
    }

    // The bucket stays as it is.
    stack.projector.pause();
    for (number, id) in ids.iter().enumerate().step_by(2) {
        last[number] = append(&log, id, last[number], progress(1)).await;
    }
    let before = stack.metric(SPARED).await;
    let deadline = Instant::now() + JOB_MAX;
    while stack.metric(SPARED).await == before {
        assert!(Instant::now() < deadline, "the log is asked for everybody");
        assert_eq!(storm(&stack, &ids).await, last);
    }
    stack.projector.resume();
}

#[tokio::test]
async fn a_last_message_that_is_lost_is_found_at_once_also_of_a_job_that_has_long_been_quiet() {
    let stack = Stack::queue_only().await;
    let log = stack.log().await;
    let nats: SocketAddr = stack.nats.url().trim_start_matches("nats://").parse().unwrap();
    let link = Proxy::start(nats, 1).await.unwrap();
    let edge = stack.edge_through(format!("nats://{}", link.address())).await;
    let metric = async |name| Stack::metric_at(&edge.admin, name).await;
    let id = stack.submit("/video.mp4").await;
    let last = append(&log, &id, 0, started()).await;
    let mut client = client(edge.port, &id).await;
    assert_eq!(next_seq(&mut client).await, last);

    // The edge requests it less and less often: the next request is further away than an answer may take.
    let asked = f64::from(SWEEPS_FREQUENT + 2);
    until("the job has long been quiet", JOB_MAX, async || metric(ASKED).await >= asked).await;
    let found = metric(FOUND).await;
    let lost = MessageFault { subject: "live.".into(), lost: 1.0, late: 0.0, lateness: Duration::ZERO };
    link.set_messages(Some(lost));
    let last = append(&log, &id, last, progress(50)).await;
    assert_eq!(next_seq(&mut client).await, last);
    assert_eq!(link.lost(), 1);
    assert_eq!(metric(FOUND).await, found + 1.0);
}
