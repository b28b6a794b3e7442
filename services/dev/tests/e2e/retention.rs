//! Retention removes all data of jobs that ended long ago, and keeps jobs that have not ended.

use millrace_domain::{
    Event, EventBody, JobId, Submission,
    subjects::{STATE_BUCKET, STREAM, bucket_stream},
};
use millrace_harness::wait::until;
use millrace_runtime::log::Append;

use crate::stack::{JOB_MAX, Options, Stack, files_under};

#[tokio::test]
async fn an_ended_job_expires_with_its_file_and_its_events_whatever_its_writers_clock_and_an_unfinished_one_does_not() {
    // Three seconds and a half.
    let env = vec![("MILLRACE_RETENTION_HOURS".to_owned(), "0.001".to_owned())];
    let stack = Stack::start_with(Options { env, ..Default::default() }).await;
    let unfinished = stack.submit("/stall.mp4").await;
    let mut ids = vec![submit_from_the_future(&stack).await];
    for path in ["/video.mp4", "/missing.mp4"] {
        ids.push(stack.end_of(path).await["jobId"].as_str().unwrap().to_owned());
    }
    for id in &ids {
        let is_gone = async || stack.api.get(&format!("/api/status/{id}")).await.status == 404;
        until("the job expires", JOB_MAX, is_gone).await;
        assert_eq!(stack.api.get(&format!("/api/download/{id}/file")).await.status, 404);
        assert_eq!(stack.api.get(&format!("/api/download/{id}/events")).await.status, 404);
    }
    assert!(files_under(&stack.folder.path().join("files")).is_empty());
    assert_eq!(stack.status(&unfinished).await["status"], "processing");

    let context = stack.jetstream().await;
    for (stream, subjects) in [(STREAM.to_owned(), 2), (bucket_stream(STATE_BUCKET), 1)] {
        let info = context.get_stream(stream).await.unwrap().cached_info().clone();
        assert_eq!(info.state.subjects_count, subjects, "{}: only the unfinished job is left", info.config.name);
    }
    stack.verify();
}

/// An edge whose clock is years ahead: its jobs must neither stay for ever nor make others stay.
async fn submit_from_the_future(stack: &Stack) -> String {
    let url = stack.media.url("/missing.mp4").parse().unwrap();
    let body = EventBody::Submitted(Submission { url, quality: None });
    let id: JobId = "from-the-future".parse().unwrap();
    stack
        .log()
        .await
        .append(&Append::new(&id, 0, &Event { at: "2099-01-01T00:00:00Z".parse().unwrap(), body }))
        .await
        .unwrap();
    let mut watcher = stack.watch(id.as_str());
    stack.watch_to_end(&mut watcher).await;
    id.to_string()
}
