//! A worker killed at each named point, and restarted on the same folder as a supervisor would: each job still has one
//! end and one file, and no unfinished work is left.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::future::join_all;
use millrace_harness::{
    processes::Service,
    s3::{BUCKET, S3Server},
    wait::holds_within,
};
use millrace_runtime::failpoints::POINTS;
use serde_json::Value;

use crate::{
    s3,
    stack::{JOB_MAX, Options, Stack, files_under},
    support::sha256,
};

/// Long enough for a busy machine to renew it, short enough to wait for.
const LEASE: Duration = Duration::from_secs(3);
/// Stacks at once.
const LANES: usize = 3;

/// Where one worker after the other is killed; the last one is not.
type Deaths = Vec<&'static str>;

/// Every point once, each in a life that reaches it.
fn every_point() -> Vec<Deaths> {
    let deaths = |point: &'static str| match point {
        "before_retrying" | "after_retrying" => vec!["after_started", point],
        // The second time: of an attempt that follows one with an upload.
        "before_clean_up" | "after_clean_up" => vec!["after_uploading", point],
        point => vec![point],
    };
    POINTS.iter().copied().map(deaths).collect()
}

/// The relevant fields of an upload to S3.
fn every_step_of_an_upload() -> Vec<Deaths> {
    vec![
        vec!["after_create_upload"],
        vec!["after_uploading", "before_clean_up"],
        vec!["between_parts:2", "between_parts:1"],
        vec!["before_complete_upload"],
        vec!["after_complete_upload", "after_clean_up", "before_uploaded"],
        vec!["after_uploaded"],
        vec!["after_completed"],
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_step_leaves_one_end_one_file_and_nothing_else() {
    join_all((0..LANES).map(async |lane| {
        let options = Options { without_worker: true, lease: Some(LEASE), ..Default::default() };
        let stack = Stack::start_with(options).await;
        for deaths in every_point().into_iter().skip(lane).step_by(LANES) {
            let id = live_and_die(&stack, &deaths, || true).await;
            let stored = files_under(&stack.folder.path().join("files/jobs").join(&id));
            check_file(&stack, &id, &stored, &deaths).await;
        }
        let strays = files_under(&stack.folder.path().join("files"))
            .into_iter()
            .filter(|path| path.to_string_lossy().contains('#'));
        assert_eq!(strays.count(), 0, "uploads are left half done");
        stack.verify();
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_at_any_step_of_an_upload_leaves_no_upload_in_the_bucket() {
    let s3 = S3Server::start().expect("an S3 server");
    let mut options = Options { without_worker: true, lease: Some(LEASE), ..s3::options(&s3) };
    // The janitor runs all the time: it must not touch the uploads of a running attempt.
    options.env.push(("MILLRACE_JANITOR_MINUTES".to_owned(), "0.003".to_owned()));
    let stack = Stack::start_with(options).await;
    for deaths in every_step_of_an_upload() {
        let is_clean = || uploads_in(s3.root()).0.is_empty();
        let id = live_and_die(&stack, &deaths, is_clean).await;
        let stored = files_under(&s3.root().join(BUCKET).join("jobs").join(&id));
        check_file(&stack, &id, &stored, &deaths).await;
        let (uploads, parts) = uploads_in(s3.root());
        assert!(parts.is_empty() && uploads.is_empty(), "{deaths:?}: {uploads:?} and {parts:?} are left");
    }
    stack.verify();
}

/// The files in which the S3 server keeps uploads and their parts.
fn uploads_in(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let files: Vec<_> = files.collect();
    let of = |begin: &str| files.iter().filter(|path| name(path).starts_with(begin)).cloned().collect();
    (of(".upload-"), of(".upload_id-"))
}

/// One job through the deaths of its workers to its end; returns when the queue is empty, the store is clean, and the
/// last worker has stopped.
async fn live_and_die(stack: &Stack, deaths: &Deaths, is_clean: impl Fn() -> bool) -> String {
    let fails = deaths.iter().any(|point| point.ends_with("_failed"));
    let id = stack.submit(if fails { "/missing.mp4" } else { "/video.mp4?rate=40000000" }).await;
    for point in deaths {
        let (mut worker, _) = stack.spawn_worker("work", &[("MILLRACE_FAILPOINT", point)]);
        let status =
            worker.wait(JOB_MAX).await.unwrap_or_else(|error| panic!("{deaths:?}: never at {point}: {error:#}"));
        assert_eq!(status.signal(), Some(9), "{deaths:?}: {point}: {}", worker.log_tail());
    }
    let (mut worker, admin) = stack.spawn_worker("work", &[]);
    worker.wait_ready(&admin, JOB_MAX).await.expect("a worker");
    let is_over = async || stack.queued().await == (0, 0) && ended(&stack.status(&id).await) && is_clean();
    let is_over = holds_within(JOB_MAX, is_over).await;
    assert!(is_over, "{deaths:?}: no end: {}\n{}", stack.status(&id).await, worker.log_tail());
    stop(&mut worker).await;
    assert_eq!(files_under(&stack.folder.path().join("work")), Vec::<PathBuf>::new(), "{deaths:?}");
    assert_eq!(stack.tools_in("work"), 0, "{deaths:?}: processes are left");
    id
}

fn ended(status: &Value) -> bool {
    matches!(status["status"].as_str(), Some("completed" | "failed"))
}

async fn stop(worker: &mut Service) {
    let status = worker.terminate(Duration::from_secs(30)).await.expect("it stops");
    assert!(status.success(), "{status}");
}

/// Asserts one end in the log, and the one file that it names, if any.
pub async fn check_file(stack: &Stack, id: &str, stored: &[PathBuf], deaths: &Deaths) {
    let history = stack.api.get(&format!("/api/download/{id}/events")).await.text();
    let events: Vec<Value> = history.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends =
        events.iter().filter(|event| matches!(event["type"].as_str(), Some("completed" | "failed" | "canceled")));
    assert_eq!(ends.count(), 1, "{deaths:?}: {history}");
    assert!(!history.contains("storage_failed"), "{deaths:?}: an upload of a running attempt was taken: {history}");
    let status = stack.status(id).await;
    let started = events.iter().filter(|event| event["type"] == "started").count();
    assert_eq!(status["attempt"], started, "{deaths:?}: each worker claims the next attempt: {history}");
    if status["status"] == "failed" {
        assert!(stored.is_empty(), "{deaths:?}: {stored:?}");
        return;
    }
    let [file] = stored else { panic!("{deaths:?}: {stored:?}") };
    let key = events.iter().rfind(|event| event["type"] == "uploaded").unwrap()["key"].as_str().unwrap();
    assert!(file.ends_with(key), "{deaths:?}: {} is stored, the log names {key}", file.display());
    assert_eq!(sha256(std::fs::read(file).unwrap()), stack.media.video_sha256(), "{deaths:?}");
}
