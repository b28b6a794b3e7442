//! The HTTP table of the contract: refused requests, and repeated ones.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use millrace_harness::wait::until;
use serde_json::json;

use crate::{stack::Stack, support::SOON};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_bad_submission_is_told_what_is_wrong_and_stores_nothing() {
    let stack = Stack::queue_only().await;
    let long = json!({"url": format!("http://a/{}", "x".repeat(5000))}).to_string();
    let huge = format!("{{\"url\": \"{}\"}}", "x".repeat(20_000));
    for (body, status, code) in [
        ("url=http://a/", 400, "malformed_body"),
        ("[]", 400, "malformed_body"),
        ("{", 400, "malformed_body"),
        ("{}", 422, "invalid_url"),
        (r#"{"url": 1}"#, 422, "invalid_url"),
        (r#"{"url": "file:///etc/passwd"}"#, 422, "invalid_url"),
        (r#"{"url": "not an address"}"#, 422, "invalid_url"),
        (r#"{"url": "http://me:secret@a/"}"#, 422, "invalid_url"),
        (r#"{"url": "http://a/", "quality": "huge"}"#, 422, "invalid_quality"),
        (&long, 422, "invalid_url"),
        (&huge, 413, "body_too_large"),
    ] {
        let answer = stack.api.post_with("/api/download", body, &[JSON]).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{body:.60}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(answer.json()["detail"].as_str().is_some_and(|detail| detail.ends_with('.')), "{}", answer.text());
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    let form = stack.api.post_with("/api/download", "{}", &[("content-type", "text/plain")]).await;
    assert_eq!((form.status, form.json()["code"].as_str()), (415, Some("unsupported_media_type")));
    let log = stack.jetstream().await.get_stream("JOBS").await.unwrap();
    assert_eq!(log.cached_info().state.messages, 0);
}

#[tokio::test]
async fn a_202_is_known_at_once_and_says_where() {
    let stack = Stack::queue_only().await;
    for _ in 0..20 {
        let answer = stack
            .api
            .post("/api/download", &json!({"url": "http://127.0.0.1/a.mp4", "quality": "720p", "more": 1}))
            .await;
        assert_eq!(answer.status, 202);
        let status = stack.api.get(answer.header("location")).await;
        assert_eq!((status.status, status.json()), (200, answer.json()));
        assert_eq!(answer.json()["status"], "queued");
        assert_eq!(answer.json()["progress"], 0);
        assert!(answer.json()["jobId"].as_str().unwrap().len() >= 20, "guessable");
    }
    stack.verify();
}

#[tokio::test]
async fn the_same_idempotency_key_returns_the_first_job() {
    let stack = Stack::queue_only().await;
    let body = json!({"url": "http://127.0.0.1/a.mp4"}).to_string();
    let submit = async |body: &str, key: &str| {
        stack.api.post_with("/api/download", body, &[JSON, ("idempotency-key", key)]).await
    };
    let first = submit(&body, "key-1").await;
    let (second, third) = tokio::join!(submit(&body, "key-1"), submit(&body, "key-1"));
    assert_eq!(first.status, 202);
    assert_eq!((second.status, &second.json()), (202, &first.json()));
    assert_eq!(third.json()["jobId"], first.json()["jobId"]);
    assert_ne!(submit(&body, "key-2").await.json()["jobId"], first.json()["jobId"]);

    let other = json!({"url": "http://127.0.0.1/b.mp4"}).to_string();
    let reused = submit(&other, "key-1").await;
    assert_eq!((reused.status, reused.json()["code"].as_str()), (422, Some("idempotency_key_reused")));
    assert_eq!(submit(&body, "").await.json()["code"], "invalid_idempotency_key");

    // At the same moment, too.
    let racing = futures::future::join_all((0..8).map(|_| submit(&body, "key-3"))).await;
    let ids: std::collections::HashSet<_> = racing.iter().map(|answer| answer.json()["jobId"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");

    // A job that was canceled is still the first job.
    let id = first.json()["jobId"].as_str().unwrap().to_owned();
    stack.api.delete(&format!("/api/download/{id}")).await;
    let repeat = submit(&body, "key-1").await;
    assert_eq!((repeat.status, repeat.json()["status"].as_str()), (202, Some("failed")));
    stack.verify();
}

#[tokio::test]
async fn unknown_jobs_bad_ids_and_foreign_pages_are_refused_on_every_route() {
    let stack = Stack::queue_only().await;
    for path in ["/api/status/{}", "/api/download/{}/file", "/api/download/{}/events"] {
        let unknown = stack.api.get(&path.replace("{}", "unknown")).await;
        assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("unknown_job")), "{path}");
        let bad = stack.api.get(&path.replace("{}", "a.b")).await;
        assert_eq!((bad.status, bad.json()["code"].as_str()), (400, Some("invalid_job_id")), "{path}");
        let foreign = stack.api.get_with(&path.replace("{}", "unknown"), &[("origin", "https://evil.example")]).await;
        assert_eq!((foreign.status, foreign.json()["code"].as_str()), (403, Some("origin_not_allowed")), "{path}");
    }
    assert_eq!(stack.api.delete("/api/download/unknown").await.status, 404);
    assert_eq!(stack.api.delete("/api/download/a.b").await.status, 400);
    let upgrade = stack.api.get("/ws/download/unknown").await;
    assert_eq!((upgrade.status, upgrade.json()["code"].as_str()), (426, Some("upgrade_required")));
    for admin in ["/metrics", "/livez", "/readyz", "/api"] {
        assert_eq!(stack.api.get(admin).await.status, 404, "{admin} is not for clients");
    }
    let preflight = stack
        .api
        .request(reqwest::Method::OPTIONS, "/api/download")
        .header("origin", "http://localhost:5173")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,idempotency-key")
        .send()
        .await
        .unwrap();
    assert_eq!(preflight.status(), 200);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "http://localhost:5173");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_read_what_an_answer_tells_in_headers() {
    let stack = Stack::queue_only().await;
    let answer = stack.api.get_with("/api/status/unknown", &[("origin", "http://localhost:5173")]).await;
    let exposed = answer.header("access-control-expose-headers").to_lowercase();
    for name in ["location", "retry-after", "content-disposition", "content-range", "accept-ranges", "etag"] {
        assert!(exposed.split(',').any(|header| header.trim() == name), "{name} is not in {exposed}");
    }
}

#[tokio::test]
async fn the_page_is_served_with_a_policy() {
    let stack = Stack::queue_only().await;
    let page = stack.api.get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert!(page.text().contains("● Disconnected"), "the page shows whether it is connected");
}

#[tokio::test]
async fn while_nats_is_dead_every_call_that_needs_it_is_soon_refused_and_sockets_and_the_page_stay() {
    let mut stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    let (mut socket, _) = tokio_tungstenite::connect_async(stack.ws_url(&id)).await.unwrap();
    stack.nats.one().kill();
    for _ in 0..2 {
        let began = Instant::now();
        let body = json!({"url": "http://127.0.0.1/a.mp4"}).to_string();
        let (status, job) = (format!("/api/status/{id}"), format!("/api/download/{id}"));
        let answers = tokio::join!(
            stack.api.post_with("/api/download", &body, &[JSON]),
            stack.api.post_with("/api/download", &body, &[JSON, ("idempotency-key", "key")]),
            stack.api.get(&status),
            stack.api.delete(&job),
        );
        for answer in [answers.0, answers.1, answers.2, answers.3] {
            assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("log_unavailable")), "{answer:?}");
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "refused after {:?}", began.elapsed());
    }
    assert_eq!(stack.api.get("/").await.status, 200);
    socket.send("ping".into()).await.unwrap();
    while socket.next().await.expect("it is open").unwrap().to_text().unwrap() != millrace_domain::wire::PONG {}
    stack.nats.one().restart().await.expect("nats-server again");
    let is_back = async || stack.api.get(&format!("/api/status/{id}")).await.status == 200;
    until("it comes back", 2 * SOON, is_back).await;
}
