//! What goes wrong at the source, and what people are told.

use crate::stack::Stack;

#[tokio::test]
async fn each_failing_source_ends_its_job_with_a_reason() {
    let stack = Stack::start().await;
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
