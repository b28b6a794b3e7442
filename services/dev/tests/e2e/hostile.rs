//! Clients that are broken or mean harm: each has a bound, an answer and a counter.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use millrace_domain::limits::{HTTP_HEAD_MAX, REFUSALS_IN_FLIGHT_MAX};
use millrace_harness::wait::until;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

use crate::{
    stack::{Options, Stack},
    support::{SOON, connect, handshake, read_to_end, read_until},
};

/// The bound is 5 s from the accept to the end of the headers.
const HEADERS_MAX: Duration = Duration::from_secs(9);

async fn stack_with(env: &[(&str, &str)]) -> Stack {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Stack::start_with(Options { without_worker: true, env, ..Default::default() }).await
}

#[tokio::test]
async fn a_connection_whose_headers_do_not_come_is_closed() {
    let stack = stack_with(&[]).await;
    let silent = async {
        let mut stream = connect(&stack).await;
        read_to_end(&mut stream).await
    };
    let half = async {
        let mut stream = connect(&stack).await;
        stream.write_all(b"GET /ws/download/a HTTP/1.1\r\nHost:").await.unwrap();
        read_to_end(&mut stream).await
    };
    let drop_by_drop = async {
        let mut stream = connect(&stack).await;
        let head = handshake("/ws/download/a", "");
        for byte in head.bytes() {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(200)).await;
            if let Ok(Ok(0)) = timeout(Duration::from_millis(1), stream.read(&mut [0; 64])).await {
                break;
            }
        }
    };
    timeout(HEADERS_MAX, async { tokio::join!(silent, half, drop_by_drop) }).await.expect("all are closed in time");
    assert!(stack.metric("millrace_edge_heads_timed_out_total").await >= 2.0);
}

#[tokio::test]
async fn a_connection_may_pause_between_requests_and_then_be_slow_only_as_long_as_at_first() {
    let stack = stack_with(&[]).await;
    let mut stream = connect(&stack).await;
    let request = b"GET /api/status/unknown HTTP/1.1\r\nHost: a\r\n\r\n";
    for pause in [Duration::ZERO, HTTP_HEAD_MAX + Duration::from_secs(2)] {
        sleep(pause).await;
        stream.write_all(request).await.unwrap();
        let mut buffer = [0; 4096];
        let count = timeout(HEADERS_MAX, stream.read(&mut buffer)).await.expect("an answer").unwrap();
        let answer = String::from_utf8_lossy(&buffer[..count]);
        assert!(answer.starts_with("HTTP/1.1 404 "), "after {pause:?}: {answer:?}");
    }
    assert_eq!(stack.metric("millrace_edge_heads_timed_out_total").await, 0.0);
    stream.write_all(&request[..20]).await.unwrap();
    timeout(HEADERS_MAX, read_to_end(&mut stream)).await.expect("half a request is not waited for as long as a pause");
    assert_eq!(stack.metric("millrace_edge_heads_timed_out_total").await, 1.0);
}

#[tokio::test]
async fn compression_is_not_taken_and_a_bad_handshake_is_refused() {
    let stack = stack_with(&[]).await;
    let id = stack.submit("/video.mp4").await;
    let mut stream = connect(&stack).await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    stream.write_all(handshake(&format!("/ws/download/{id}"), offer).as_bytes()).await.unwrap();
    let answer = read_until(&mut stream, &["\"queued\""]).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(
        answer.contains("s3pplmbitxaq9kygzzhzrbk+xoo="),
        "the key is answered as RFC 6455's example says: {answer}"
    );
    assert!(!answer.contains("sec-websocket-extensions"), "{answer}");

    for (header, bad, status) in [
        ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", "400"),
        ("Sec-WebSocket-Key", "X-Key", "400"),
        ("Upgrade: websocket", "Upgrade: h2c", "426"),
    ] {
        let mut stream = connect(&stack).await;
        let request = handshake(&format!("/ws/download/{id}"), "")
            .replace(header, bad)
            .replace("keep-alive, Upgrade", "close, Upgrade");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = timeout(HEADERS_MAX, read_to_end(&mut stream)).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bad}: {answer}");
    }
}

#[tokio::test]
async fn connections_above_the_bounds_get_503_and_room_comes_back() {
    for (variable, room) in [("MILLRACE_CONNECTIONS_PER_ADDRESS", 3), ("MILLRACE_CONNECTIONS", 3)] {
        let stack = stack_with(&[(variable, "3")]).await;
        let mut open = Vec::new();
        for _ in 0..room {
            let (socket, _) = tokio_tungstenite::connect_async(stack.ws_url("unknown")).await.expect("room");
            open.push(socket);
        }
        let mut refused = connect(&stack).await;
        refused.write_all(handshake("/ws/download/unknown", "").as_bytes()).await.unwrap();
        let answer = timeout(HEADERS_MAX, read_to_end(&mut refused)).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{variable}: {answer}");
        assert!(answer.contains("\"code\":\"too_many_connections\""), "{answer}");

        // The metrics are on another port, and take none of these places.
        assert!(stack.metric("millrace_edge_connections_refused_total").await >= 1.0);
        open.pop().unwrap().close(None).await.unwrap();
        until("room comes back", SOON, async || {
            tokio_tungstenite::connect_async(stack.ws_url("unknown")).await.is_ok()
        })
        .await;
    }
}

#[tokio::test]
async fn those_who_are_refused_hold_a_bounded_number_of_file_descriptors() {
    let stack = stack_with(&[("MILLRACE_CONNECTIONS", "3")]).await;
    let files = || std::fs::read_dir(format!("/proc/{}/fd", stack.edge.pid())).unwrap().count();
    let before = files();
    let (socket, _) = tokio_tungstenite::connect_async(stack.ws_url("unknown")).await.expect("room");
    // Silent connections: the edge would wait for each.
    let mut crowd = Vec::new();
    for _ in 0..600 {
        crowd.push(connect(&stack).await);
    }
    let told = async || stack.metric("millrace_edge_connections_refused_total").await >= 597.0;
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut most = 0;
    while !told().await {
        most = most.max(files());
        assert!(Instant::now() < deadline, "not all were refused");
    }
    most = most.max(files());
    // Three served connections, those that are being refused, and the admin port's own meanwhile.
    let bound = before + 3 + REFUSALS_IN_FLIGHT_MAX + 20;
    assert!(most <= bound, "{most} files where {bound} do");
    drop(socket);
}

#[tokio::test]
async fn a_flood_of_frames_that_are_no_messages_does_not_keep_a_loop_from_the_others() {
    let stack = stack_with(&[("MILLRACE_SOCKET_LOOPS", "1")]).await;
    let id = stack.submit("/video.mp4").await;
    let (mut reader, _) = tokio_tungstenite::connect_async(stack.ws_url(&id)).await.unwrap();
    reader.next().await.expect("the state").unwrap();
    // Masked by zeros: empty pongs, and empty parts of a message that never ends.
    let frames: [&[u8]; 2] = [&[0x8a, 0x80, 0, 0, 0, 0], &[0x00, 0x80, 0, 0, 0, 0]];
    for frame in frames {
        let mut flood = connect(&stack).await;
        flood.write_all(handshake(&format!("/ws/download/{id}"), "").as_bytes()).await.unwrap();
        if frame[0] == 0 {
            flood.write_all(&[0x01, 0x80, 0, 0, 0, 0]).await.unwrap();
        }
        let burst = frame.repeat(10_000);
        let flooding = tokio::spawn(async move {
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until && flood.write_all(&burst).await.is_ok() {}
        });
        for _ in 0..3 {
            reader.send(tokio_tungstenite::tungstenite::Message::text("ping")).await.unwrap();
            timeout(Duration::from_secs(5), reader.next()).await.expect("the reader is served").unwrap().unwrap();
        }
        flooding.await.unwrap();
    }
    let closed = async || stack.metric("millrace_edge_sockets_closed_total{code=\"1008\"}").await >= 2.0;
    until("floods are closed with 1008", SOON, closed).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_408_and_does_not_hold_up_a_stop() {
    let mut stack = stack_with(&[]).await;
    let request =
        "POST /api/download HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let mut slow = connect(&stack).await;
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    let count = timeout(Duration::from_secs(20), slow.read(&mut buffer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&buffer[..count]);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");

    let mut slow = connect(&stack).await;
    slow.write_all(request.as_bytes()).await.unwrap();
    let status = stack.edge.terminate(Duration::from_secs(8)).await.expect("it stops in time");
    assert!(status.success(), "{status}");
}
