//! NATS has no room: submissions are refused with a reason and may be repeated, running jobs wait and lose nothing, and
//! all goes on when there is room.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use millrace_harness::{
    disk::{Disk, may_mount},
    nats::NatsOptions,
    wait::holds_within,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    log_away::{assert_went_on, downloading, taken},
    stack::{JOB_MAX, Options, Stack},
};

const MIB: u64 = 1024 * 1024;
const BALLAST: &str = "BALLAST";
const NO_ROOM: &str = "millrace_log_no_room_total";

/// A system whose nats-server has its own configuration.
async fn stack(jetstream: &str, store: Option<std::path::PathBuf>) -> (Stack, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("nats.conf");
    std::fs::write(&config, format!("jetstream {{ {jetstream}, store_dir: $STORE_DIR }}\n")).unwrap();
    let nats = NatsOptions { config: Some(config), store, ..Default::default() };
    (Stack::start_with(Options { nats, ..Default::default() }).await, folder)
}

/// Stores messages until there is hardly any room left, as another application on the same NATS might.
async fn fill_most(context: &jetstream::Context) {
    let config = stream::Config { name: BALLAST.into(), discard: stream::DiscardPolicy::New, ..Default::default() };
    let ballast = context.create_stream(config).await.unwrap();
    let stored = store(context, 500_000).await;
    // One message less leaves this much room.
    ballast.purge().keep(stored - 1).await.unwrap();
}

/// Continues until nats-server refuses even a small event.
async fn fill_rest(context: &jetstream::Context) {
    for bytes in [100_000, 10_000, 1_000, 100, 1] {
        store(context, bytes).await;
    }
}

/// Stores messages of a size until one is refused; returns how many it stored.
async fn store(context: &jetstream::Context, bytes: usize) -> u64 {
    let payload = bytes::Bytes::from(vec![0; bytes]);
    let mut stored = 0;
    while context.publish(BALLAST, payload.clone()).await.unwrap().await.is_ok() {
        stored += 1;
    }
    stored
}

/// A submission soon gets 503, with the reason and a `Retry-After`.
async fn assert_refused(stack: &Stack, headers: &[(&str, &str)]) {
    let body = json!({"url": stack.media.url("/video.mp4")}).to_string();
    let asked = Instant::now();
    let answer = stack.api.post_with("/api/download", &body, headers).await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("no_room")), "{answer:?}");
    assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.contains("no room")), "{answer:?}");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
}

#[tokio::test]
async fn without_room_in_nats_submissions_get_503_and_running_jobs_wait_until_there_is_some() {
    // The quarantine keeps 256 MiB for itself.
    let (stack, _folder) = stack("max_file_store: 280MB", None).await;
    let context = stack.jetstream().await;
    fill_most(&context).await;
    let (id, watcher, statuses) = downloading(&stack, 20).await;
    fill_rest(&context).await;
    let json = ("content-type", "application/json");
    let (with_key, without) = ([json, ("idempotency-key", "the same")], [json]);
    assert_refused(&stack, &with_key).await;
    assert_refused(&stack, &without).await;
    assert!(stack.metric(NO_ROOM).await >= 1.0);
    let told = stack.edge.log_tail();
    assert!(told.contains("max_file_store"), "{told}");
    // The download is complete by then, and its event is refused.
    let worker = stack.worker.as_ref().expect("a worker");
    let waits = async || worker.log_tail().contains("a state change waits for it");
    assert!(holds_within(JOB_MAX, waits).await, "the worker does not report it: {}", worker.log_tail());
    assert_eq!(stack.status(&id).await["stage"], "downloading");

    context.delete_stream(BALLAST).await.unwrap();
    let body = json!({"url": stack.media.url("/video.mp4")}).to_string();
    let second = taken(&stack, &body, &with_key).await;
    assert_eq!(taken(&stack, &body, &with_key).await, second);
    let mut other = stack.watch(&second);
    let end = stack.watch_to_end(&mut other).await.pop().unwrap();
    assert_eq!(end["status"], "completed", "{end}");
    assert_went_on(&stack, &id, watcher, statuses).await;
}

#[tokio::test]
async fn a_full_disk_of_nats_costs_no_job_and_nothing_acknowledged() {
    if !may_mount() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let disk = Disk::mount(store.path(), 64 * MIB).unwrap();
    // More than the disk has, as an operator's mistake.
    let (mut stack, _folder) = stack("max_file_store: 10GB", Some(store.path().to_owned())).await;
    let (id, watcher, statuses) = downloading(&stack, 20).await;
    disk.fill(0).unwrap();
    let headers = [("content-type", "application/json"), ("idempotency-key", "the same")];
    let body = json!({"url": stack.media.url("/video.mp4")}).to_string();
    let answer = stack.api.post_with("/api/download", &body, &headers).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("log_unavailable")), "{answer:?}");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
    let told = stack.nats.one().log_tail();
    assert!(told.contains("no space left on device"), "{told}");
    let status = stack.api.get(&format!("/api/status/{id}")).await;
    assert_eq!((status.status, &status.json()["status"]), (200, &"processing".into()), "{status:?}");

    // An operator restarts nats-server, which does not reopen a stream whose file it could not write.
    disk.empty().unwrap();
    stack.nats.one().stop().await.unwrap();
    stack.nats.one().restart().await.unwrap();
    let second = taken(&stack, &body, &headers).await;
    let mut other = stack.watch(&second);
    let end = stack.watch_to_end(&mut other).await.pop().unwrap();
    assert_eq!(end["status"], "completed", "{end}");
    assert_went_on(&stack, &id, watcher, statuses).await;
}
