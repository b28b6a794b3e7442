//! Failures at the source, and the messages that users get.

use millrace_harness::wait::until;

use crate::stack::{JOB_MAX, Options, Stack};

/// Claims of two jobs that the log refuses while they wait: several of each.
const REFUSALS: f64 = 6.0;

#[tokio::test]
async fn each_failing_source_ends_its_job_with_a_reason() {
    let env = vec![("MILLRACE_ATTEMPTS_MAX".into(), "1".into())];
    let stack = Stack::start_with(Options { env, ..Default::default() }).await;
    for (path, code) in [
        ("/missing.mp4", "source_not_found"),
        ("/forbidden.mp4", "source_forbidden"),
        ("/unavailable.mp4", "source_unavailable"),
        ("/article.html", "unsupported"),
        ("/dies.mp4", "source_broken"),
    ] {
        let end = stack.end_of(path).await;
        assert_eq!(end["status"], "failed", "{path}: {end}");
        assert_eq!(end["errorCode"], code, "{path}: {end}");
        let error = end["error"].as_str().expect("a sentence");
        assert!(error.ends_with('.') && error.len() > 20, "{path}: {error}");
        assert!(end.get("downloadUrl").is_none());
        let id = end["jobId"].as_str().unwrap();
        assert_eq!(stack.api.get(&format!("/api/download/{id}/file")).await.json()["code"], "not_completed");
        assert_eq!(stack.api.delete(&format!("/api/download/{id}")).await.json()["code"], "already_ended");
    }
    stack.assert_no_leftovers();
    stack.verify();
}

#[tokio::test]
async fn jobs_wait_for_a_log_that_refuses_writes_and_are_done_when_it_takes_them_again() {
    let stack = Stack::start().await;
    let worker = stack.worker.as_ref().expect("a worker");
    worker.pause();
    let ids = [stack.submit("/video.mp4").await, stack.submit("/page.html").await];
    stack.limit_log(2).await;
    worker.resume();
    until("the log refuses claims", JOB_MAX, async || {
        for id in &ids {
            assert_eq!(stack.status(id).await["status"], "queued");
        }
        Stack::metric_at(&stack.worker_admin, "millrace_log_no_room_total").await >= REFUSALS
    })
    .await;
    stack.limit_log(-1).await;
    for id in ids {
        let mut watcher = stack.watch(&id);
        let end = stack.watch_to_end(&mut watcher).await.pop().unwrap();
        assert_eq!((&end["status"], &end["attempt"]), (&"completed".into(), &1.into()), "{end}");
    }
    stack.verify();
}
