//! The state bucket is deleted: the services continue from the log.

use std::process::Command;

use millrace_domain::subjects::{self, STATE_BUCKET};

use crate::stack::Stack;

#[tokio::test]
async fn without_the_bucket_jobs_are_shown_and_done_from_the_log_alone_and_it_comes_back_by_a_rebuild() {
    let stack = Stack::start().await;
    let old = stack.end_of("/video.mp4").await;
    let old_id = old["jobId"].as_str().unwrap();
    let context = stack.jetstream().await;
    context.delete_stream(subjects::bucket_stream(STATE_BUCKET)).await.unwrap();

    let status = stack.api.get(&format!("/api/status/{old_id}")).await;
    assert_eq!(status.status, 200, "{status:?}");
    assert_eq!(status.json(), old);
    let mut watcher = stack.watch(old_id);
    assert_eq!(stack.watch_to_end(&mut watcher).await, std::slice::from_ref(&old));
    let file = reqwest::get(old["downloadUrl"].as_str().unwrap()).await.unwrap();
    assert_eq!(file.status(), 200);
    assert_eq!(Some(file.bytes().await.unwrap().len() as u64), old["fileSize"].as_u64());
    let new = stack.end_of("/video.mp4").await;
    assert_eq!(new["status"], "completed", "{new}");
    assert!(stack.metric("millrace_log_bucket_away_total").await > 0.0);

    millrace_runtime::provision::apply(&context, None).await.unwrap();
    let rebuilt = Command::new(millrace_harness::processes::binary("millrace").expect("built"))
        .args(["rebuild", "--adopt", "--wait-seconds", "30", "--nats-url", &stack.nats.url()])
        .output()
        .unwrap();
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    stack.verify();
}
