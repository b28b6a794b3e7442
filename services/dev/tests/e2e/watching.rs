//! WebSocket and SSE, beyond a single client of a completed job.

use std::time::Duration;

use futures::StreamExt;
use millrace_harness::ws::{WatchOptions, Watcher, What};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    stack::{JOB_MAX, Stack},
    support::SOON,
};

const PONG: &str = r#"{"type":"pong"}"#;

/// The next message, byte for byte.
async fn next_text(watcher: &mut Watcher) -> String {
    loop {
        let received = watcher.next(SOON).await.expect("a message");
        assert!(!received.is_end(), "{received:?}");
        if let Some(text) = received.text() {
            return text.to_owned();
        }
    }
}

#[tokio::test]
async fn whoever_connects_late_or_after_the_end_gets_the_state_at_once() {
    let stack = Stack::start().await;
    let id = stack.submit("/video.mp4?rate=4000000").await;
    let mut first = stack.watch(&id);
    while first.next_json(JOB_MAX).await.unwrap()["data"]["progress"].as_u64() < Some(15) {}

    let mut late = stack.watch(&id);
    let status = late.next_json(SOON).await.unwrap();
    assert!(status["data"]["progress"].as_u64() >= Some(15), "{status}");
    assert!(status["data"].get("videoInfo").is_some(), "{status}");
    let end = stack.watch_to_end(&mut late).await.pop().unwrap();
    assert_eq!(stack.watch_to_end(&mut first).await.pop().unwrap(), end);

    let mut after = stack.watch(&id);
    assert_eq!(after.next_json(SOON).await.unwrap(), json!({"type": "status", "data": end}));
    after.send("ping").unwrap();
    assert_eq!(next_text(&mut after).await, PONG);
    let rest = after.until_close(Duration::from_secs(40)).await.unwrap();
    assert_eq!(rest.last().unwrap().what, What::Close { code: 1000, reason: "job finished".into() });

    // A client that has seen the end on another edge receives it again, and nothing older.
    let seq = end["seq"].as_u64().unwrap();
    let mut again = stack.watch_with(&format!("{id}?since={seq}"), WatchOptions::default());
    assert_eq!(again.next_json(SOON).await.unwrap()["data"]["seq"], seq);
}

#[tokio::test]
async fn a_client_that_claims_to_have_seen_what_the_log_does_not_have_gets_the_state_soon_and_then_what_follows() {
    let stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    // The first watcher of a job, whose state is loaded, and the second, for which it is already loaded.
    let claims: Vec<_> =
        (0..2).map(|_| stack.watch_with(&format!("{id}?since=999999"), WatchOptions::default())).collect();
    let seq = stack.status(&id).await["seq"].clone();
    let (path, claim) = (format!("/api/download/{id}/events"), Some(999_999));
    let streaming = sse(&stack, &path, claim);
    let canceling = async {
        let mut claims = claims;
        for claim in &mut claims {
            let status = claim.next_json(SOON).await.expect("the state, well before a job counts as unknown");
            assert_eq!(status["data"]["seq"], seq, "{status}");
        }
        stack.api.delete(&format!("/api/download/{id}")).await;
        for claim in &mut claims {
            let end = claim.next_json(SOON).await.unwrap();
            assert_eq!(end["data"]["errorCode"], "canceled", "{end}");
        }
        claims
    };
    let (events, _claims) = tokio::join!(streaming, canceling);
    assert_eq!(events.first().map(|(first, _)| json!(first)), Some(seq), "{events:?}");
    assert_eq!(events.last().unwrap().1["data"]["errorCode"], "canceled", "{events:?}");
    // The end as well, when it is there already.
    let after = sse(&stack, &path, claim).await;
    assert_eq!((after.len(), &after[0]), (1, events.last().unwrap()));
}

#[tokio::test]
async fn both_pings_are_answered_byte_for_byte_whatever_the_job() {
    let stack = Stack::queue_only().await;
    let known = stack.submit("/video.mp4").await;
    for id in [known.as_str(), "nobody-has-submitted-this"] {
        let mut watcher = stack.watch(id);
        if id == known {
            assert_eq!(watcher.next_json(SOON).await.unwrap()["data"]["status"], "queued");
        }
        for ping in ["ping", r#"{"type":"ping"}"#, "what?", r#"{"type":"hello"}"#, "ping"] {
            watcher.send(ping).unwrap();
        }
        for _ in 0..3 {
            assert_eq!(next_text(&mut watcher).await, PONG);
        }
    }
}

#[tokio::test]
async fn whoever_connects_before_the_submission_gets_the_job_as_it_comes_and_a_stranger_is_closed() {
    let stack = Stack::start().await;
    let mut stranger = stack.watch("nobody-has-submitted-this");
    let mut idle = TcpStream::connect(("127.0.0.1", stack.port())).await.unwrap();
    idle.write_all(b"GET /api/status/unknown HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();

    // An id that exists a moment later: submitted to the log by another producer.
    let mut early = stack.watch("made-by-another-producer");
    early.send("ping").unwrap();
    assert_eq!(next_text(&mut early).await, PONG);
    let event = json!({"type": "submitted", "at": "2026-11-23T07:00:00Z", "url": stack.media.url("/missing.mp4")});
    let context = stack.jetstream().await;
    let subject = "jobs.submitted.made-by-another-producer";
    context.publish(subject, event.to_string().into()).await.unwrap().await.unwrap();
    let statuses = stack.watch_to_end(&mut early).await;
    assert_eq!((&statuses[0]["status"], &statuses[0]["progress"]), (&"queued".into(), &0.into()), "{statuses:?}");

    let closing = stranger.until_close(Duration::from_secs(75));
    let (seen, unheard) = tokio::join!(closing, close_of_a_stranger_while_nats_is_dead());
    assert_eq!(unheard, What::Close { code: 1013, reason: "overloaded, try later".into() });
    let seen = seen.unwrap();
    assert_eq!(seen.last().unwrap().what, What::Close { code: 4404, reason: "unknown job".into() });
    // So is a connection that was kept for a next request; its head is not missed.
    timeout(SOON, idle.read_to_end(&mut Vec::new())).await.expect("it is closed").unwrap();
    assert_eq!(stack.metric("millrace_edge_heads_timed_out_total").await, 0.0);
    // The worker was idle for a minute, and is still connected.
    assert_eq!(stack.end_of("/video.mp4").await["status"], "completed");
    stack.verify();
}

/// Without a log that could show whether the job exists.
async fn close_of_a_stranger_while_nats_is_dead() -> What {
    let mut stack = Stack::queue_only().await;
    stack.nats.one().kill();
    let seen = stack.watch("perhaps-somebody-has-submitted-this").until_close(Duration::from_secs(75)).await.unwrap();
    seen.last().unwrap().what.clone()
}

#[tokio::test]
async fn bad_ids_strangers_and_floods_are_turned_away() {
    let stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    let refused = async |id: &str, options: WatchOptions| stack.watch_with(id, options).next(SOON).await.unwrap().what;
    let long = "x".repeat(65);
    for bad in ["a.b", "a%20b", "%C3%A4", &long, "a?since=soon"] {
        assert_eq!(refused(bad, WatchOptions::default()).await, What::Refused(400), "{bad}");
    }
    let from = |origin: &str| WatchOptions { origin: Some(origin.into()), ..Default::default() };
    assert_eq!(refused(&id, from("https://evil.example")).await, What::Refused(403));
    assert_eq!(refused(&id, from("null")).await, What::Refused(403));
    assert_eq!(refused(&id, from("http://localhost:5173")).await, What::Open);

    let mut flood = stack.watch(&id);
    for _ in 0..25 {
        flood.send("ping").unwrap();
    }
    let seen = flood.until_close(SOON).await.unwrap();
    assert!(matches!(seen.last().unwrap().what, What::Close { code: 1008, .. }), "{seen:?}");
    let mut large = stack.watch(&id);
    large.send(&"x".repeat(64 * 1024)).unwrap();
    let seen = large.until_close(SOON).await.unwrap();
    assert!(matches!(seen.last().unwrap().what, What::Close { code: 1008, .. }), "{seen:?}");
}

#[tokio::test]
async fn an_edge_that_stops_closes_its_sockets_with_1012() {
    let mut stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    let mut watcher = stack.watch(&id);
    watcher.next_json(SOON).await.unwrap();
    let status = stack.edge.terminate(SOON).await.expect("in time");
    assert!(status.success(), "{status}");
    let seen = watcher.until_close(SOON).await.unwrap();
    assert!(matches!(seen.last().unwrap().what, What::Close { code: 1012, .. }), "{seen:?}");
}

#[tokio::test]
async fn sse_tells_the_same_as_the_socket_and_resumes() {
    let stack = Stack::start().await;
    let id = stack.submit("/video.mp4?rate=8000000").await;
    let mut watcher = stack.watch(&id);
    let path = format!("/api/download/{id}/events");
    let events = sse(&stack, &path, None).await;
    let statuses = stack.watch_to_end(&mut watcher).await;
    let last = events.last().expect("an event");
    assert_eq!(last.1, json!({"type": "status", "data": statuses.last().unwrap()}));
    assert!(events.windows(2).all(|pair| pair[0].0 < pair[1].0), "ids rise");

    let middle = events[events.len() / 2].0;
    let resumed = sse(&stack, &path, Some(middle)).await;
    assert!(resumed.iter().all(|(seq, _)| *seq > middle), "{resumed:?}");
    assert_eq!(resumed.last(), Some(last));
    let done =
        stack.api.get_with(&path, &[("accept", "text/event-stream"), ("last-event-id", &last.0.to_string())]).await;
    assert_eq!(done.status, 204);
}

/// All events of a stream to its end, with their ids.
async fn sse(stack: &Stack, path: &str, last: Option<u64>) -> Vec<(u64, Value)> {
    let mut request = stack.api.request(reqwest::Method::GET, path).header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.bytes_stream();
    let mut text = String::new();
    while let Some(chunk) = tokio::time::timeout(JOB_MAX, body.next()).await.expect("the stream ends") {
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    let field =
        |block: &str, name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(|v| v.trim().to_owned()));
    text.split("\n\n")
        .filter_map(|block| Some((field(block, "id:")?.parse().unwrap(), field(block, "data:")?)))
        .map(|(seq, data)| (seq, serde_json::from_str(&data).unwrap()))
        .collect()
}
