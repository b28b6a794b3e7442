//! The log is unavailable for a while, as during a change of its leader: downloads continue, sockets stay open, state
//! changes wait and arrive, and a submission is either accepted or can be repeated.

use std::time::Duration;

use async_nats::jetstream;
use millrace_domain::subjects::STREAM;
use millrace_harness::{
    wait::until,
    ws::{Watcher, What},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    api::Api,
    stack::{JOB_MAX, Nats, Options, Stack, files_under},
    support::{STEPS, steps},
};

/// As long as the election of a new leader.
const AWAY: Duration = Duration::from_secs(8);
/// 20 MB at this rate take longer than the log is unavailable.
const RATE: u64 = 1_500_000;

/// A job that is past `progress`, and its watcher with the statuses so far.
pub async fn downloading(stack: &Stack, progress: u64) -> (String, Watcher, Vec<Value>) {
    let id = stack.submit(&format!("/video.mp4?rate={RATE}")).await;
    let mut watcher = stack.watch(&id);
    let mut statuses = Vec::new();
    loop {
        let message = watcher.next_json(JOB_MAX).await.expect("a message");
        statuses.push(message["data"].clone());
        if message["data"]["progress"].as_u64() > Some(progress) {
            return (id, watcher, statuses);
        }
    }
}

/// Bytes that the download has so far.
fn downloaded(stack: &Stack) -> u64 {
    let files = files_under(&stack.folder.path().join("work"));
    files.iter().filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
}

/// Everything on the same socket, in order, in one attempt, and each state change once in the log.
pub async fn assert_went_on(stack: &Stack, id: &str, mut watcher: Watcher, mut statuses: Vec<Value>) {
    while statuses.last().is_none_or(|status| status["status"] != "completed") {
        match watcher.next(JOB_MAX).await.expect("a message before long").what {
            What::Text(text) => statuses.push(serde_json::from_str::<Value>(&text).unwrap()["data"].clone()),
            other => panic!("the socket did not stay open: {other:?} after {:?}", statuses.last()),
        }
    }
    for pair in statuses.windows(2) {
        assert!(pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64(), "seq must rise: {} {}", pair[0], pair[1]);
        assert!(pair[0]["progress"].as_u64() <= pair[1]["progress"].as_u64(), "progress fell: {} {}", pair[0], pair[1]);
    }
    assert_eq!(statuses.last().unwrap()["attempt"], 1);
    assert_eq!(steps(&stack.history(id).await), STEPS);
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn a_download_goes_on_while_nats_is_frozen_and_its_client_sees_the_end_on_the_same_socket() {
    let mut stack = Stack::start().await;
    let (id, watcher, statuses) = downloading(&stack, 20).await;
    stack.nats.one().pause();
    let before = downloaded(&stack);
    sleep(AWAY).await;
    let meanwhile = downloaded(&stack) - before;
    stack.nats.one().resume();
    assert!(meanwhile > RATE * AWAY.as_secs() / 2, "the download came only {meanwhile} bytes further");
    assert_went_on(&stack, &id, watcher, statuses).await;
}

#[tokio::test]
async fn a_download_that_ends_while_nats_is_dead_waits_with_its_changes_and_loses_none() {
    let mut stack = Stack::start().await;
    let (id, watcher, statuses) = downloading(&stack, 60).await;
    stack.nats.one().kill();
    // As long as an election takes, and until the download is complete and its state changes wait.
    let files = stack.folder.path().join("files");
    let uploading = until("the upload begins without the log", JOB_MAX, async || !files_under(&files).is_empty());
    tokio::join!(sleep(AWAY), uploading);
    stack.nats.one().restart().await.expect("nats-server again");
    assert_went_on(&stack, &id, watcher, statuses).await;
}

#[tokio::test]
async fn a_submission_while_the_log_is_dead_gets_503_with_retry_after_and_its_repeat_makes_one_job() {
    let mut stack = Stack::queue_only().await;
    stack.nats.one().kill();
    let body = json!({"url": stack.media.url("/video.mp4")}).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "the same")];
    let answer = stack.api.post_with("/api/download", &body, &headers).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("log_unavailable")), "{answer:?}");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
    stack.nats.one().restart().await.expect("nats-server again");
    let first = taken(&stack, &body, &headers).await;
    assert_eq!(taken(&stack, &body, &headers).await, first);
    assert_eq!(events(&stack.nats).await, 1, "one job, despite late requests");
    stack.verify();
}

#[tokio::test]
async fn a_job_whose_logs_leader_is_killed_goes_on_and_submissions_meanwhile_are_taken_or_may_be_repeated() {
    let mut stack = Stack::start_with(Options { cluster: true, ..Default::default() }).await;
    let (id, watcher, statuses) = downloading(&stack, 20).await;
    let client = stack.nats.connect().await;
    let Nats::Three(cluster) = &mut stack.nats else { unreachable!("a cluster was asked for") };
    let leader = cluster.leader(&client, STREAM).await.expect("a leader");
    cluster.node(leader).kill();
    let killed = Instant::now();
    let body = json!({"url": stack.media.url("/video.mp4")}).to_string();
    let headers = [("content-type", "application/json"), ("idempotency-key", "during the election")];
    let second = taken(&stack, &body, &headers).await;
    eprintln!("a submission was taken {:?} after the leader's death", killed.elapsed());
    assert_eq!(taken(&stack, &body, &headers).await, second);
    let mut other = stack.watch(&second);
    let end = stack.watch_to_end(&mut other).await.pop().unwrap();
    assert_eq!(end["status"], "completed", "{end}");
    let Nats::Three(cluster) = &mut stack.nats else { unreachable!("a cluster was asked for") };
    cluster.node(leader).restart().await.expect("the node again");
    cluster.wait_for_stream(&client, STREAM).await.expect("whole again");
    assert_went_on(&stack, &id, watcher, statuses).await;
}

#[tokio::test]
async fn a_history_asked_for_while_the_log_has_no_leader_is_whole_or_503_and_never_breaks_off() {
    let mut stack = Stack::start_with(Options { cluster: true, without_worker: true, ..Default::default() }).await;
    let id = stack.submit("/video.mp4").await;
    let path = format!("/api/download/{id}/events");
    let client = stack.nats.connect().await;
    let Nats::Three(cluster) = &stack.nats else { unreachable!("a cluster was asked for") };
    let leader = cluster.leader(&client, STREAM).await.expect("a leader");
    // An edge that keeps its connection when the leader freezes.
    let follower = cluster.nodes()[(leader + 1) % 3].url();
    let edge = stack.edge_through(follower).await;
    let api = Api::new(format!("http://127.0.0.1:{}", edge.port));
    let whole = api.get(&path).await.text();
    let Nats::Three(cluster) = &mut stack.nats else { unreachable!("a cluster was asked for") };
    cluster.node(leader).pause();
    // Replicas answer reads meanwhile; only a leader knows where the history ends.
    until("another leader", JOB_MAX, async || {
        let answer = api.get(&path).await;
        let is_refused = answer.status == 503;
        assert!(!is_refused || answer.json()["code"] == "log_unavailable", "{answer:?}");
        assert!(is_refused || (answer.status == 200 && answer.text() == whole), "{answer:?}");
        !is_refused
    })
    .await;
    let Nats::Three(cluster) = &mut stack.nats else { unreachable!("a cluster was asked for") };
    cluster.node(leader).resume();
}

/// Submits until the edge accepts it, as a client does after a `Retry-After`; returns the job's id.
pub async fn taken(stack: &Stack, body: &str, headers: &[(&str, &str)]) -> String {
    let deadline = Instant::now() + JOB_MAX;
    loop {
        let answer = stack.api.post_with("/api/download", body, headers).await;
        match answer.status {
            202 => return answer.json()["jobId"].as_str().expect("a job id").to_owned(),
            503 if Instant::now() < deadline => {
                let seconds = answer.header("retry-after").parse().expect("Retry-After");
                sleep(Duration::from_secs(seconds)).await;
            }
            _ => panic!("{answer:?}"),
        }
    }
}

async fn events(nats: &Nats) -> u64 {
    let stream = jetstream::new(nats.connect().await).get_stream(STREAM).await.expect("the stream");
    stream.cached_info().state.messages
}
