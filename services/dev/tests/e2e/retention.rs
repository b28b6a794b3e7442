//! What has ended long ago leaves, all of it; what has not ended stays.

use std::time::Duration;

use millrace_domain::subjects::{STATE_BUCKET, STREAM};
use tokio::time::{Instant, sleep};

use crate::stack::{JOB_MAX, Options, Stack, files_under};

#[tokio::test]
async fn an_ended_job_expires_with_its_file_and_its_events_and_an_unfinished_one_does_not() {
    // Three seconds and a half.
    let env = vec![("MILLRACE_RETENTION_HOURS".to_owned(), "0.001".to_owned())];
    let stack = Stack::start_with(Options { env, ..Default::default() }).await;
    let unfinished = stack.submit("/stall.mp4").await;
    let mut ids = Vec::new();
    for path in ["/video.mp4", "/missing.mp4"] {
        ids.push(stack.end_of(path).await["jobId"].as_str().unwrap().to_owned());
    }
    let deadline = Instant::now() + JOB_MAX;
    for id in &ids {
        while stack.api.get(&format!("/api/status/{id}")).await.status != 404 {
            assert!(Instant::now() < deadline, "{id} does not expire");
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(stack.api.get(&format!("/api/download/{id}/file")).await.status, 404);
        assert_eq!(stack.api.get(&format!("/api/download/{id}/events")).await.status, 404);
    }
    assert!(files_under(&stack.folder.path().join("files")).is_empty());
    assert_eq!(stack.api.get(&format!("/api/status/{unfinished}")).await.json()["status"], "processing");

    let client = async_nats::connect(stack.nats.url()).await.unwrap();
    let context = async_nats::jetstream::new(client);
    for (stream, subjects) in [(STREAM.to_owned(), 2), (format!("KV_{STATE_BUCKET}"), 1)] {
        let info = context.get_stream(stream).await.unwrap().cached_info().clone();
        assert_eq!(info.state.subjects_count, subjects, "{}: only the unfinished job is left", info.config.name);
    }
    stack.verify();
}
