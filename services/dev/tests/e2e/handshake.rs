//! The WebSocket handshake over a bare connection: whole, in pieces, with frames right behind it, and what is refused.

use tokio::io::AsyncWriteExt;

use crate::{
    stack::Stack,
    support::{answer_to, connect, handshake, read_until},
};

#[tokio::test]
async fn a_handshake_byte_by_byte_with_frames_behind_it_is_answered_like_a_whole_one() {
    let stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    // "ping" as text, and a ping frame with the payload "x"; masked by zeros.
    let frames = [&[0x81, 0x84, 0, 0, 0, 0][..], b"ping", &[0x89, 0x81, 0, 0, 0, 0], b"x"].concat();
    let bytes = [handshake(&format!("/ws/download/{id}"), "").as_bytes(), &frames].concat();
    for size in [1, 7, bytes.len()] {
        let mut stream = connect(&stack).await;
        for piece in bytes.chunks(size) {
            stream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        let words = ["HTTP/1.1 101 ", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "\"queued\"", r#"{"type":"pong"}"#, "\u{1}x"];
        read_until(&mut stream, &words).await;
    }
    assert_eq!(stack.metric("millrace_edge_requests_total{status=\"101\"}").await, 3.0);
}

#[tokio::test]
async fn a_connection_that_was_kept_alive_can_still_become_a_socket() {
    let stack = Stack::queue_only().await;
    let id = stack.submit("/video.mp4").await;
    let mut stream = connect(&stack).await;
    stream.write_all(format!("GET /api/status/{id} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
    read_until(&mut stream, &["HTTP/1.1 200 ", "\"queued\""]).await;
    stream.write_all(handshake(&format!("/ws/download/{id}"), "").as_bytes()).await.unwrap();
    read_until(&mut stream, &["HTTP/1.1 101 ", "\"queued\""]).await;

    // Both requests in one write, of which hyper gets all.
    let mut stream = connect(&stack).await;
    let both =
        format!("GET /api/status/{id} HTTP/1.1\r\nHost: a\r\n\r\n{}", handshake(&format!("/ws/download/{id}"), ""));
    stream.write_all(both.as_bytes()).await.unwrap();
    read_until(&mut stream, &["HTTP/1.1 200 ", "HTTP/1.1 101 ", "{\"type\":\"status\""]).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_handshake_is_told_as_a_problem() {
    let stack = Stack::queue_only().await;
    let close = |request: String| request.replace("keep-alive, Upgrade", "close, Upgrade");
    for (path, more, status, code) in [
        ("/ws/download/a.b", "", 400, "invalid_job_id"),
        ("/ws/download/", "", 404, "no_such_path"),
        ("/ws/download/a?since=soon", "", 400, "invalid_since"),
        ("/ws/download/a?since=1&since=2", "", 400, "invalid_since"),
        ("/ws/download/a", "Origin: https://evil.example\r\n", 403, "origin_not_allowed"),
    ] {
        let answer = answer_to(&stack, &close(handshake(path, more))).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{path}: {answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{path}: {answer}");
    }
    // An id that is escaped is the same id.
    let mut stream = connect(&stack).await;
    stream.write_all(handshake("/ws/download/%61", "").as_bytes()).await.unwrap();
    read_until(&mut stream, &["HTTP/1.1 101 "]).await;

    let large = handshake("/ws/download/a", &format!("X: {}\r\n", "x".repeat(20_000)));
    for (request, status, code) in
        [(large.as_str(), 431, "head_too_large"), ("no request at all\r\n\r\n", 400, "malformed_request")]
    {
        let answer = answer_to(&stack, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
    let head = close(handshake("/ws/download/a", "")).replace("GET ", "HEAD ");
    let answer = answer_to(&stack, &head).await;
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET"), "{answer}");
}
