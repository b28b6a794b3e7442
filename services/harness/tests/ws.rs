//! The foreign WebSocket client reports what a server does.

use std::time::Duration;

use axum::{
    Router,
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade},
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::get,
};
use millrace_harness::{
    checkout,
    tools::python_for_tests,
    ws::{Received, WatchOptions, Watcher, What, json_messages},
};

const LIMIT: Duration = Duration::from_secs(20);

/// Sends the received headers, echoes each message, and closes with 4001 on "leave".
async fn echo(mut socket: WebSocket, headers: HeaderMap) {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let hello = serde_json::json!({ "origin": text("origin"), "token": text("x-token") });
    socket.send(Message::text(hello.to_string())).await.unwrap();
    // Read past the close frame to the end: the read answers the close.
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(message) = message else { continue };
        if message.as_str() == "leave" {
            let frame = CloseFrame { code: 4001, reason: "as you wish".into() };
            socket.send(Message::Close(Some(frame))).await.unwrap();
        } else {
            socket.send(Message::Text(message)).await.unwrap();
        }
    }
}

async fn serve() -> String {
    let upgrade = async |headers: HeaderMap, upgrade: WebSocketUpgrade| {
        upgrade.on_upgrade(move |socket| echo(socket, headers)).into_response()
    };
    let router = Router::new().route("/echo", get(upgrade)).route("/no", get(StatusCode::FORBIDDEN));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("ws://{address}")
}

fn connect(url: &str, options: WatchOptions) -> Watcher {
    let python = python_for_tests(&checkout(), &mut |words| eprintln!("{words}")).unwrap();
    Watcher::connect(&python, url, options).unwrap()
}

fn whats(received: Vec<Received>) -> Vec<What> {
    received.into_iter().map(|received| received.what).collect()
}

#[tokio::test]
async fn messages_headers_and_the_servers_close_are_seen_in_order() {
    let url = serve().await;
    let options = WatchOptions {
        headers: vec![("X-Token".into(), "secret: 1".into())],
        origin: Some("http://example.com".into()),
    };
    let mut watcher = connect(&format!("{url}/echo"), options);
    assert_eq!(watcher.next(LIMIT).await.unwrap().what, What::Open);
    let hello = watcher.next_json(LIMIT).await.unwrap();
    assert_eq!(hello, serde_json::json!({ "origin": "http://example.com", "token": "secret: 1" }));
    watcher.send("{\"häll\": \"ö ✓\"}").unwrap();
    watcher.send("leave").unwrap();
    let received = watcher.until_close(LIMIT).await.unwrap();
    assert_eq!(json_messages(&received), [serde_json::json!({ "häll": "ö ✓" })]);
    assert!(received.is_sorted_by(|one, other| one.t <= other.t));
    assert_eq!(received.last().unwrap().what, What::Close { code: 4001, reason: "as you wish".into() });
    assert_eq!(watcher.next(LIMIT).await, None);
}

#[tokio::test]
async fn a_close_from_our_side_ends_with_code_1000() {
    let mut watcher = connect(&format!("{}/echo", serve().await), WatchOptions::default());
    watcher.next_json(LIMIT).await.unwrap();
    watcher.close().unwrap();
    let seen = whats(watcher.until_close(LIMIT).await.unwrap());
    assert_eq!(seen, [What::Close { code: 1000, reason: String::new() }]);
}

#[tokio::test]
async fn a_refusal_shows_the_status_and_a_dead_port_the_reason() {
    let url = serve().await;
    let seen = whats(connect(&format!("{url}/no"), WatchOptions::default()).until_close(LIMIT).await.unwrap());
    assert_eq!(seen, [What::Refused(403)]);
    let dead = format!("ws://127.0.0.1:{}/", millrace_harness::ports::free_port());
    let seen = whats(connect(&dead, WatchOptions::default()).until_close(LIMIT).await.unwrap());
    assert!(matches!(&seen[..], [What::Failed(reason)] if reason.contains("Connect")), "{seen:?}");
}

#[tokio::test]
async fn waiting_in_vain_for_the_end_says_what_was_seen() {
    let mut watcher = connect(&format!("{}/echo", serve().await), WatchOptions::default());
    watcher.next(LIMIT).await.unwrap();
    let error = watcher.until_close(Duration::from_millis(500)).await.unwrap_err().to_string();
    assert!(error.contains("token"), "{error}");
}
