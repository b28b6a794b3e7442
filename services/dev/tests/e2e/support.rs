//! Support of the tests beside the stack: time limits, events that a test writes itself, and bare connections.

use std::time::Duration;

use millrace_domain::{Event, EventBody};
use millrace_runtime::log::{Append, Log};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::stack::Stack;

/// How long an answer may take on a busy machine if no timeout has to pass first.
pub const SOON: Duration = Duration::from_secs(10);

/// Every event of a completed job, except `progress`.
pub const STEPS: [&str; 7] = ["submitted", "started", "info", "downloaded", "uploading", "uploaded", "completed"];

/// The types of events, in their order, except `progress`.
pub fn steps(history: &[Value]) -> Vec<&str> {
    let types = history.iter().map(|event| event["type"].as_str().expect("a type"));
    types.filter(|name| *name != "progress").collect()
}

/// Appends an event of a job whose last event has sequence `after`; returns the new sequence.
pub async fn append(log: &Log, id: &str, after: u64, body: EventBody) -> u64 {
    let event = Event { at: millrace_runtime::now(), body };
    log.append(&Append::new(&id.parse().expect("an id"), after, &event)).await.expect("appended")
}

/// Appends to a job that has no events yet.
pub async fn append_all(log: &Log, id: &str, bodies: Vec<EventBody>) {
    let mut last = 0;
    for body in bodies {
        last = append(log, id, last, body).await;
    }
}

pub fn started() -> EventBody {
    EventBody::Started { worker: "test".into(), attempt: 1 }
}

pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

/// A bare connection to the edge.
pub async fn connect(stack: &Stack) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", stack.port())).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    stream
}

/// A WebSocket handshake with the key of RFC 6455's example; `more` are header lines.
pub fn handshake(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// Reads until all the words have arrived, in any order; fails when the connection ends first.
pub async fn read_until(stream: &mut TcpStream, words: &[&str]) -> String {
    let mut seen = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if words.iter().all(|word| text.contains(word)) {
            return text;
        }
        let mut buffer = vec![0; 64 * 1024];
        let count = timeout(SOON, stream.read(&mut buffer)).await.unwrap_or_else(|_| panic!("only {text}")).unwrap();
        assert!(count > 0, "closed after {text}");
        seen.extend_from_slice(&buffer[..count]);
    }
}

/// Reads until the server ends the connection, also by a reset.
pub async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a request and reads the answer to the end of the connection.
pub async fn answer_to(stack: &Stack, request: &str) -> String {
    let mut stream = connect(stack).await;
    stream.write_all(request.as_bytes()).await.expect("written");
    timeout(SOON, read_to_end(&mut stream)).await.expect("the connection is closed")
}
