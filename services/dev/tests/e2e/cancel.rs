//! A user cancels a job.

use std::time::Duration;

use millrace_harness::wait::until;

use crate::stack::{JOB_MAX, Stack};

/// A promise.
const STOPPED_MAX: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_cancel_stops_a_download_and_leaves_nothing() {
    for path in ["/video.mp4?rate=500000", "/hls/master.m3u8?rate=50000", "/stall.mp4"] {
        let stack = Stack::start().await;
        let id = stack.submit(path).await;
        let mut watcher = stack.watch(&id);
        // 10 for the source that stalls before any progress.
        while watcher.next_json(JOB_MAX).await.expect("a message")["data"]["progress"].as_u64() < Some(10) {}
        let answer = stack.api.delete(&format!("/api/download/{id}")).await;
        assert_eq!((answer.status, &answer.json()["errorCode"]), (202, &"canceled".into()), "{answer:?}");
        until("nothing is left", STOPPED_MAX, async || stack.is_clean()).await;
        let end = stack.watch_to_end(&mut watcher).await.pop().unwrap();
        assert_eq!((&end["status"], &end["stage"]), (&"failed".into(), &"canceled".into()));
        assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.status, 409);

        // The slot is free again.
        assert_eq!(stack.end_of("/video.mp4").await["status"], "completed");
        stack.assert_no_leftovers();
        stack.verify();
    }
}

#[tokio::test]
async fn a_job_can_be_canceled_before_any_worker_has_it() {
    let stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.status, 202);
    let status = stack.api.get(&format!("/api/status/{id}")).await.json();
    assert_eq!((&status["status"], &status["errorCode"]), (&"failed".into(), &"canceled".into()));
    assert_eq!(stack.media.requests("/video.mp4"), 0);
    stack.verify();
}
