//! One client's socket, from upgrade to close.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use millrace_domain::{
    JobId,
    limits::{
        CLIENT_WRITE_MAX, FINISHED_JOB_LINGER, UNKNOWN_JOB_WAIT, WS_MESSAGES_PER_WINDOW_MAX, WS_PING_INTERVAL,
        WS_RATE_WINDOW, WS_SILENCE_MAX,
    },
    wire::{ClientMessage, PONG, close},
};

use crate::{App, feed::Frame};

/// How long a client may take to answer our close.
const CLOSE_ANSWER_MAX: Duration = Duration::from_secs(2);
/// What is counted when a client goes away without a close frame.
const CODE_ABNORMAL: u16 = 1006;

/// Why a session ends.
enum End {
    /// We close, with this code and reason.
    Close(u16, &'static str),
    /// The client has closed, or its connection broke.
    Gone(u16),
}

struct Session {
    socket: WebSocket,
    /// The newest sequence that the client has, from us or from another edge.
    seen: u64,
    /// The last sequence that we have sent.
    sent: Option<u64>,
    heard_at: Instant,
    rate: Rate,
}

/// Counts messages in a window.
struct Rate {
    began: Instant,
    count: u32,
}

impl Rate {
    /// Whether one more message is within the rate.
    fn admits(&mut self, now: Instant) -> bool {
        if now.duration_since(self.began) >= WS_RATE_WINDOW {
            *self = Self { began: now, count: 0 };
        }
        self.count += 1;
        self.count <= WS_MESSAGES_PER_WINDOW_MAX
    }
}

/// Serves one socket to its end.
pub async fn run(app: Arc<App>, id: JobId, since: u64, socket: WebSocket) {
    app.metrics.sockets.inc();
    app.metrics.sockets_opened.inc();
    let now = Instant::now();
    let mut session =
        Session { socket, seen: since, sent: None, heard_at: now, rate: Rate { began: now, count: 0 } };
    let end = session.serve(&app, &id, since).await;
    let code = match end {
        End::Gone(code) => code,
        End::Close(code, reason) => {
            session.close(code, reason).await;
            code
        }
    };
    app.metrics.sockets_closed.with_label_values(&[&code.to_string()]).inc();
    app.metrics.sockets.dec();
}

impl Session {
    async fn serve(&mut self, app: &App, id: &JobId, since: u64) -> End {
        let watch = app.feed.watch(id, since);
        let shutdown = app.tasks.shutdown();
        let drain = async {
            shutdown.cancelled().await;
            // Each at its own time, so that the other edges are not met by all of them at once.
            sleep(app.config.drain.mul_f64(rand::random_range(0.0..1.0))).await;
        };
        tokio::pin!(drain);
        let mut pings = tokio::time::interval_at(Instant::now() + WS_PING_INTERVAL, WS_PING_INTERVAL);
        // Until the job is known, and from its end on.
        let mut deadline = Some(Instant::now() + UNKNOWN_JOB_WAIT);
        let mut ended = false;
        loop {
            tokio::select! {
                frame = watch.next() => {
                    if frame.seq < self.seen {
                        // An older state than the client has: this edge is behind, so it asks the log's leader.
                        watch.refresh(self.seen);
                        continue;
                    }
                    if self.sent.is_some_and(|sent| sent >= frame.seq) {
                        continue;
                    }
                    if let Err(end) = self.send_frame(app, &frame).await {
                        return end;
                    }
                    ended = frame.is_end;
                    deadline = ended.then(|| Instant::now() + FINISHED_JOB_LINGER);
                }
                message = self.socket.recv() => {
                    if let Err(end) = self.received(message).await {
                        return end;
                    }
                }
                () = sleep_until(self.heard_at + WS_SILENCE_MAX) => return End::Gone(CODE_ABNORMAL),
                _ = pings.tick() => {
                    if let Err(end) = self.send(Message::Ping(Default::default())).await {
                        return end;
                    }
                }
                () = until(deadline) => {
                    let (code, reason) = if ended { close::FINISHED } else { close::UNKNOWN_JOB };
                    return End::Close(code, reason);
                }
                () = &mut drain => return End::Close(close::GOING_AWAY.0, close::GOING_AWAY.1),
            }
        }
    }

    async fn send_frame(&mut self, app: &App, frame: &Frame) -> Result<(), End> {
        self.send(Message::Text(frame.text.clone())).await?;
        self.seen = self.seen.max(frame.seq);
        self.sent = Some(frame.seq);
        app.metrics.frames_sent.inc();
        Ok(())
    }

    async fn received(&mut self, message: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard_at = Instant::now();
        let message = match message {
            None => return Err(End::Gone(CODE_ABNORMAL)),
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(message)) => message,
        };
        match message {
            Message::Close(frame) => {
                // tungstenite answers on the next read.
                let _ = timeout(CLOSE_ANSWER_MAX, self.socket.recv()).await;
                return Err(End::Gone(frame.map_or(1005, |frame| frame.code)));
            }
            // Pongs answer our own pings, and pings are answered by tungstenite; neither asks for work.
            Message::Pong(_) => return Ok(()),
            _ => {}
        }
        if !self.rate.admits(self.heard_at) {
            return Err(End::Close(close::POLICY, "too many messages"));
        }
        match message {
            Message::Text(text) if ClientMessage::parse(&text) == Some(ClientMessage::Ping) => {
                self.send(Message::Text(Utf8Bytes::from_static(PONG))).await
            }
            _ => Ok(()),
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(CLIENT_WRITE_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // Broken, or a reader that takes nothing: a close frame would wait behind the rest.
            Ok(Err(_)) | Err(_) => Err(End::Gone(CODE_ABNORMAL)),
        }
    }

    /// Closes and waits a little for the client's answer, so that it sees the code and not a reset.
    async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        let closing = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        let _ = timeout(CLOSE_ANSWER_MAX, closing).await;
    }
}

/// What an error of the socket means: too large a message is the client's fault, all else is the end of the connection.
fn broken(error: &axum::Error) -> End {
    use std::error::Error;
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(tungstenite::Error::Capacity(_)) = error.downcast_ref() {
            return End::Close(close::POLICY, "message too large");
        }
        cause = error.source();
    }
    End::Gone(CODE_ABNORMAL)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_admits_a_bounded_number_in_each_window() {
        let began = Instant::now();
        let mut rate = Rate { began, count: 0 };
        for _ in 0..WS_MESSAGES_PER_WINDOW_MAX {
            assert!(rate.admits(began));
        }
        assert!(!rate.admits(began + WS_RATE_WINDOW / 2));
        assert!(rate.admits(began + WS_RATE_WINDOW));
    }
}
