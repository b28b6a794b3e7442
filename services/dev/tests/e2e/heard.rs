//! What an edge has heard of all jobs: it spares questions to the log, and shows what was lost.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, future::join_all};
use millrace_domain::{Event, EventBody, event::Progress};
use millrace_harness::{
    ports::free_port,
    proxy::{MessageFault, Proxy},
};
use millrace_runtime::log::{Append, Log};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::stack::{Options, Stack};

const JOBS: usize = 64;
const SOON: Duration = Duration::from_secs(30);

async fn log(stack: &Stack) -> Log {
    let nats = async_nats::connect(stack.nats.url()).await.unwrap();
    Log::open(&nats, &prometheus::Registry::new()).await.unwrap()
}

async fn append(log: &Log, id: &str, after: u64, body: EventBody) -> u64 {
    let event = Event { at: millrace_runtime::now(), body };
    log.append(&Append::new(&id.parse().unwrap(), after, &event)).await.expect("appended")
}

fn progress(bytes: u64) -> EventBody {
    EventBody::Progress(Progress { downloaded_bytes: bytes, total_bytes: Some(100), ..Default::default() })
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn client(port: u16, id: &str) -> Client {
    let url = format!("ws://127.0.0.1:{port}/ws/download/{id}");
    tokio_tungstenite::connect_async(url).await.expect("a socket").0
}

/// The sequence of the next status.
async fn next_seq(client: &mut Client, limit: Duration) -> u64 {
    let message = timeout(limit, client.next()).await.expect("a message in time").unwrap().unwrap();
    let status: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
    status["data"]["seq"].as_u64().expect("a sequence")
}

/// A client for each job, all at once; the first sequence that each is told. Then they leave.
async fn storm(stack: &Stack, ids: &[String]) -> Vec<u64> {
    let told = join_all(ids.iter().map(|id| async move {
        let mut client = client(stack.port(), id).await;
        next_seq(&mut client, SOON).await
    }))
    .await;
    let left = async {
        while stack.metric("millrace_edge_jobs_watched").await > 0.0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, left).await.expect("they leave");
    told
}

#[tokio::test]
async fn of_many_who_come_at_once_each_gets_the_newest_state_whether_or_not_the_log_was_asked() {
    let stack = Stack::start_with(Options { without_worker: true, ..Default::default() }).await;
    let log = log(&stack).await;
    let (mut ids, mut last) = (Vec::new(), Vec::new());
    for _ in 0..JOBS {
        let id = stack.submit("/video.mp4").await;
        last.push(append(&log, &id, 0, EventBody::Started { worker: "test".into(), attempt: 1 }).await);
        ids.push(id);
    }
    // How many of them come together, chance decides; and the first of them are what makes the edge ask how far the projector is.
    let deadline = Instant::now() + SOON;
    while stack.metric("millrace_log_spared_total").await == 0.0 {
        assert!(Instant::now() < deadline, "the log is asked for everybody");
        assert_eq!(storm(&stack, &ids).await, last);
    }

    // The bucket stays as it is.
    stack.projector.pause();
    for (number, id) in ids.iter().enumerate().step_by(2) {
        last[number] = append(&log, id, last[number], progress(1)).await;
    }
    let before = stack.metric("millrace_log_spared_total").await;
    let deadline = Instant::now() + SOON;
    while stack.metric("millrace_log_spared_total").await == before {
        assert!(Instant::now() < deadline, "the log is asked for everybody");
        assert_eq!(storm(&stack, &ids).await, last);
    }
    stack.projector.resume();
}

#[tokio::test]
async fn a_last_message_that_is_lost_is_found_at_once_also_of_a_job_that_has_long_been_quiet() {
    let stack = Stack::start_with(Options { without_worker: true, ..Default::default() }).await;
    let log = log(&stack).await;
    let nats: SocketAddr = stack.nats.url().trim_start_matches("nats://").parse().unwrap();
    let link = Proxy::start(nats, 1).await.unwrap();
    let port = free_port();
    let (_edge, admin) = stack.edge_through(&format!("nats://{}", link.address()), port).await;
    let id = stack.submit("/video.mp4").await;
    let last = append(&log, &id, 0, EventBody::Started { worker: "test".into(), attempt: 1 }).await;
    let mut client = client(port, &id).await;
    assert_eq!(next_seq(&mut client, SOON).await, last);

    // The job itself was asked for 16.5 to 19.5 s after it was watched, and will be again 12 s later.
    sleep(Duration::from_secs(20)).await;
    let found = Stack::metric_at(&admin, "millrace_edge_sweep_finds_total").await;
    let lost = MessageFault { subject: "live.".into(), lost: 1.0, late: 0.0, lateness: Duration::ZERO };
    link.set_messages(Some(lost));
    let last = append(&log, &id, last, progress(50)).await;
    assert_eq!(next_seq(&mut client, Duration::from_secs(8)).await, last);
    assert_eq!(link.lost(), 1);
    assert_eq!(Stack::metric_at(&admin, "millrace_edge_sweep_finds_total").await, found + 1.0);
}
