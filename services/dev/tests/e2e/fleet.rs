//! Several edges: clients that move between them, and edges that are restarted under load.

use std::time::Duration;

use futures::StreamExt;
use millrace_domain::{
    EventBody, Provider, VideoInfo,
    event::{Progress, StoredFile},
};
use millrace_harness::wait::until;
use millrace_runtime::log::Log;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    stack::{JOB_MAX, Stack},
    support::{self, SOON, started},
};

const CLIENTS_PER_JOB: usize = 10;
const JOBS: usize = 8;
const EVENTS: u64 = 200;
const OPENED: &str = "millrace_edge_sockets_opened_total";

/// A client that follows the contract: it reconnects with its last sequence, here to the next edge each time. Returns
/// the last status, and the number of connections.
async fn client(ports: Vec<u16>, id: String, mut turn: usize) -> (Value, usize) {
    let (mut seen, mut connected) = (0, 0);
    let deadline = Instant::now() + JOB_MAX;
    loop {
        assert!(Instant::now() < deadline, "job {id}: no end after {connected} connections, at seq {seen}");
        let port = ports[turn % ports.len()];
        turn += 1;
        let url = format!("ws://127.0.0.1:{port}/ws/download/{id}?since={seen}");
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(url).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        connected += 1;
        let stay = Duration::from_millis(300 + 40 * (turn as u64 % 20));
        let leave = Instant::now() + stay;
        while let Ok(Some(Ok(message))) = tokio::time::timeout_at(leave, socket.next()).await {
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let seq = message["data"]["seq"].as_u64().expect("a sequence");
            assert!(seq >= seen, "job {id}: {seq} after {seen}");
            seen = seq;
            if message["data"]["status"] == "completed" {
                return (message["data"].clone(), connected);
            }
        }
    }
}

/// Appends one job's whole life at a steady pace, as a worker would; returns the last sequence.
async fn life(log: Log, id: String) -> u64 {
    let mut last = 0;
    let mut append = async |body: EventBody| {
        last = support::append(&log, &id, last, body).await;
        last
    };
    append(started()).await;
    append(EventBody::Info { video_info: VideoInfo::default() }).await;
    for step in 1..=EVENTS {
        append(EventBody::Progress(Progress {
            downloaded_bytes: step,
            total_bytes: Some(EVENTS),
            ..Default::default()
        }))
        .await;
        sleep(Duration::from_millis(25)).await;
    }
    append(EventBody::Downloaded { file_size: EVENTS, storage_provider: Provider::Local, video_info: None }).await;
    append(EventBody::Uploading { storage_provider: Provider::Local, key: None, upload_id: None }).await;
    let file = StoredFile {
        key: format!("jobs/{id}/1/a.mp4"),
        file_size: EVENTS,
        sha256: "0".repeat(64),
        content_type: "video/mp4".into(),
        file_name: "a.mp4".into(),
    };
    append(EventBody::Uploaded(file)).await;
    append(EventBody::Completed).await
}

#[tokio::test]
async fn clients_that_move_between_edges_that_restart_never_see_the_past_and_all_see_the_end() {
    let stack = Stack::queue_only().await;
    let mut second = stack.another_edge().await;
    let ports = vec![stack.port(), second.port];
    let log = stack.log().await;

    let mut lives = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..JOBS {
        let id = stack.submit("/video.mp4").await;
        lives.push(tokio::spawn(life(log.clone(), id.clone())));
        for number in 0..CLIENTS_PER_JOB {
            clients.push(tokio::spawn(client(ports.clone(), id.clone(), number)));
        }
    }
    // Half of the fleet stops, with its clients, and another edge starts on the same port.
    #[allow(clippy::cast_precision_loss)]
    let all = (JOBS * CLIENTS_PER_JOB) as f64;
    let opened = async || Stack::metric_at(&second.admin, OPENED).await;
    until("as many as there are have come to the second edge", SOON, async || opened().await >= all).await;
    let status = second.service.terminate(Duration::from_secs(15)).await.expect("it stops in time");
    assert!(status.success(), "{status}");
    let third = stack.edge_on(second.port).await;

    let mut ends = Vec::new();
    for life in lives {
        ends.push(life.await.unwrap());
    }
    let mut moves = 0;
    for client in clients {
        let (end, connected) = timeout(JOB_MAX, client).await.expect("every client sees the end").unwrap();
        assert!(ends.contains(&end["seq"].as_u64().unwrap()), "{end}");
        moves += connected;
    }
    assert!(moves > JOBS * CLIENTS_PER_JOB * 2, "clients did move: {moves}");
    let came_back = Stack::metric_at(&third.admin, OPENED).await;
    assert!(came_back > 0.0, "clients came back to the edge that was restarted");
    stack.verify();
}
