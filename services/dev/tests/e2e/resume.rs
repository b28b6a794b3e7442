//! A worker never downloads the same part of a file twice, however an attempt ended; and that part never becomes part
//! of another file.

use std::{path::Path, time::Duration};

use millrace_domain::limits::TOOL_RETRIES_MAX;
use millrace_harness::{wait::until, ws::Watcher};
use serde_json::Value;

use crate::{
    stack::{JOB_MAX, Options, Stack, files_under, media_files},
    support::sha256,
};

const LEASE: Duration = Duration::from_secs(3);
/// Parts that are not needed have left after this, on a busy machine too.
const SWEPT_MAX: Duration = Duration::from_secs(10);

async fn start() -> Stack {
    Stack::start_with(Options { without_worker: true, lease: Some(LEASE), ..Default::default() }).await
}

/// The downloader probes an address, then requests the file as often as it may: all these responses break off half way.
fn broken(rate: u64) -> String {
    format!("/video.mp4?breaks={}&rate={rate}", 1 + 1 + TOOL_RETRIES_MAX)
}

async fn next(watcher: &mut Watcher) -> Value {
    watcher.next_json(JOB_MAX).await.expect("a message")["data"].clone()
}

async fn until_progress(watcher: &mut Watcher, progress: u64) {
    while next(watcher).await["progress"].as_u64() < Some(progress) {}
}

async fn until_retrying(watcher: &mut Watcher) {
    while next(watcher).await["stage"] != "retrying" {}
}

fn is_kept(stack: &Stack, work: &str) -> bool {
    let in_kept = |path: &Path| path.parent().is_some_and(|folder| folder.extension().is_some_and(|end| end == "kept"));
    files_under(&stack.folder.path().join(work)).iter().any(|path| in_kept(path))
}

/// The job ends completed in its second attempt; the SHA-256 of its file.
async fn completed(stack: &Stack, watcher: &mut Watcher, id: &str) -> String {
    let end = stack.watch_to_end(watcher).await.pop().unwrap();
    assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &2.into()), "{end}");
    let stored = files_under(&stack.folder.path().join("files/jobs").join(id));
    let [file] = &stored[..] else { panic!("{stored:?}") };
    sha256(std::fs::read(file).unwrap())
}

/// The second attempt has requested the rest, and the file equals the source's.
async fn assert_resumed(stack: &Stack, admin: &str, watcher: &mut Watcher, id: &str) {
    assert_eq!(completed(stack, watcher, id).await, stack.media.video_sha256());
    let resumed = Stack::metric_at(admin, "millrace_worker_resumed_bytes_total").await;
    assert!(resumed > stack.media.video_size() as f64 / 8.0, "{resumed}");
    assert_eq!(stack.media.ranges("/video.mp4").last(), Some(&format!("bytes={resumed}-")));
    until("nothing is left", SWEPT_MAX, async || stack.left_in("work").is_empty()).await;
    assert_eq!(stack.tools_in("work"), 0);
    stack.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_off_is_asked_for_the_rest_by_the_next_attempt() {
    let stack = start().await;
    let (_worker, admin) = stack.spawn_worker("work", &[]);
    let id = stack.submit(&broken(20_000_000)).await;
    assert_resumed(&stack, &admin, &mut stack.watch(&id), &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_killed_and_one_that_was_stopped_go_on_when_they_are_there_again() {
    for kill in [true, false] {
        let stack = start().await;
        let (mut worker, _) = stack.spawn_worker("work", &[]);
        let id = stack.submit("/video.mp4?rate=5000000").await;
        let mut watcher = stack.watch(&id);
        until_progress(&mut watcher, 50).await;
        if kill {
            worker.kill9();
        } else {
            let status = worker.terminate(JOB_MAX).await.expect("it stops");
            assert!(status.success() && is_kept(&stack, "work"), "{status}");
        }
        let (_again, admin) = stack.spawn_worker("work", &[]);
        assert_resumed(&stack, &admin, &mut watcher, &id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_another_one_by_the_next_attempt_is_stored_as_a_whole() {
    let stack = start().await;
    let (worker, admin) = stack.spawn_worker("work", &[]);
    let id = stack.submit(&broken(20_000_000)).await;
    let mut watcher = stack.watch(&id);
    until_retrying(&mut watcher).await;
    // As long as before, and other bytes from a quarter on: players look at the beginning first.
    let mut other = std::fs::read(media_files().video()).unwrap();
    let from = other.len() / 4;
    other.iter_mut().skip(from).step_by(500).for_each(|byte| *byte = !*byte);
    stack.media.replace("/video.mp4", other.clone());
    assert_eq!(completed(&stack, &mut watcher, &id).await, sha256(&other), "{}", worker.log_tail());
    assert!(
        stack.media.ranges("/video.mp4").len() > usize::try_from(TOOL_RETRIES_MAX).unwrap(),
        "it has tried to go on"
    );
    assert_eq!(Stack::metric_at(&admin, "millrace_worker_resumed_bytes_total").await, 0.0);
    stack.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_job_leaves_when_the_job_is_canceled() {
    let stack = start().await;
    let (_worker, _) = stack.spawn_worker("work", &[]);
    let id = stack.submit(&broken(20_000_000)).await;
    let mut watcher = stack.watch(&id);
    until_retrying(&mut watcher).await;
    assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.status, 202);
    until("nothing is left", SWEPT_MAX, async || stack.left_in("work").is_empty()).await;
    stack.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_of_a_job_leaves_when_another_worker_has_begun_it() {
    let stack = start().await;
    // With one slot, which the second job takes as soon as the first one waits.
    let (_first, _) = stack.spawn_worker("first", &[]);
    let id = stack.submit(&broken(2_000_000)).await;
    let mut watcher = stack.watch(&id);
    while next(&mut watcher).await["stage"] != "downloading" {}
    let other = stack.submit("/video.mp4?rate=500000").await;
    let mut of_other = stack.watch(&other);
    until_progress(&mut of_other, 10).await;
    assert!(is_kept(&stack, "first"));
    let (_second, _) = stack.spawn_worker("second", &[]);
    until_retrying(&mut watcher).await;
    while next(&mut watcher).await["status"] != "processing" {}
    until("the first worker's part leaves", SWEPT_MAX, async || !is_kept(&stack, "first")).await;
    let status = stack.status(&id).await;
    assert_eq!(status["status"], "processing", "too late to see: {status}");
    assert_eq!(completed(&stack, &mut watcher, &id).await, stack.media.video_sha256());
    assert_eq!(stack.api.delete(&format!("/api/download/{other}")).await.status, 202);
    stack.verify();
}
