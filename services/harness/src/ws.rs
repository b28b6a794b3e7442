//! A foreign WebSocket client, Python's `websockets`, so that tests do not share the edge's mistakes.

use std::{
    io::Write,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::Instant,
};

use crate::{
    child::{Child, Stdout},
    output::echo,
};

const SCRIPT: &str = include_str!("../clients/watch.py");

/// How to connect a [`Watcher`].
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// More request headers, as name and value.
    pub headers: Vec<(String, String)>,
    /// The `Origin` header.
    pub origin: Option<String>,
}

/// An observation of a watcher, with its time.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Seconds since 1970 by this machine's clock, taken in the client.
    pub t: f64,
    /// The observation.
    pub what: What,
}

/// What a watcher observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The connection is open.
    Open,
    /// A message.
    Text(String),
    /// The connection ended; code 1006 means that it ended without a close frame.
    Close {
        /// The close code.
        code: u16,
        /// The close reason; empty if there was none.
        reason: String,
    },
    /// The server answered the handshake with this HTTP status instead of 101.
    Refused(u16),
    /// The connection failed, for this reason.
    Failed(String),
}

impl Received {
    /// The message as text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.what {
            What::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The message as JSON, if it is one.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_str(self.text()?).ok()
    }

    /// Whether this is the last observation.
    pub fn is_end(&self) -> bool {
        !matches!(self.what, What::Open | What::Text(_))
    }
}

/// A WebSocket connection held by a separate process. Dropping it kills the process, and with it the connection.
#[derive(Debug)]
pub struct Watcher {
    child: Child,
    stdin: ChildStdin,
    received: UnboundedReceiver<Received>,
}

impl Watcher {
    /// Starts to connect to `url`. `python` is that of [`crate::tools::python_for_tests`].
    ///
    /// Returns before the handshake, whose outcome is the first observation.
    pub fn connect(python: &Path, url: &str, options: WatchOptions) -> anyhow::Result<Self> {
        let mut command = Command::new(python);
        // `-P` keeps the working folder off the import path, so that only the installed packages are found.
        command.args(["-P", "-u", "-c", SCRIPT, url]).stdin(Stdio::piped());
        if let Some(origin) = &options.origin {
            command.args(["--origin", origin]);
        }
        for (name, value) in &options.headers {
            command.arg("--header").arg(format!("{name}:{value}"));
        }
        let (sender, received) = unbounded_channel();
        let read = move |line: String| {
            serde_json::from_str::<Line>(&line)
                .ok()
                .and_then(Line::into_received)
                .is_none_or(|it| sender.send(it).is_ok())
        };
        let mut child = Child::spawn(command, "watcher", echo("watcher"), Stdout::Lines(Box::new(read)))?;
        let stdin = child.take_stdin().context("the watcher has no standard input")?;
        Ok(Self { child, stdin, received })
    }

    /// The next observation; `None` after `limit`, or if none can follow.
    pub async fn next(&mut self, limit: Duration) -> Option<Received> {
        tokio::time::timeout(limit, self.received.recv()).await.ok().flatten()
    }

    /// The next message as JSON. An error if none arrives in time, if it is not JSON, or if the connection ends first.
    pub async fn next_json(&mut self, limit: Duration) -> anyhow::Result<serde_json::Value> {
        loop {
            match self.next(limit).await {
                Some(Received { what: What::Open, .. }) => {}
                Some(received) => match received.json() {
                    Some(value) => return Ok(value),
                    None => bail!("the watcher received {:?} instead of a JSON message", received.what),
                },
                None => bail!("no message came within {limit:?}; the watcher's last lines:\n{}", self.child.log_tail()),
            }
        }
    }

    /// All observations up to and including the end of the connection. An error if it does not end in time.
    pub async fn until_close(&mut self, limit: Duration) -> anyhow::Result<Vec<Received>> {
        let deadline = Instant::now() + limit;
        let mut all = Vec::new();
        while let Ok(Some(received)) = tokio::time::timeout_at(deadline, self.received.recv()).await {
            all.push(received);
            if all.last().is_some_and(Received::is_end) {
                return Ok(all);
            }
        }
        let last = all.iter().rev().take(5).rev().map(|received| &received.what).collect::<Vec<_>>();
        bail!(
            "the connection did not end within {limit:?}; the last of {} observations are {last:?}; the client \
            said:\n{}",
            all.len(),
            self.child.log_tail()
        )
    }

    /// Sends a text message; it must be one line.
    pub fn send(&mut self, text: &str) -> anyhow::Result<()> {
        if text.contains('\n') {
            bail!("a watcher sends one line at a time; remove the line breaks");
        }
        self.command(&format!("send {text}\n"))
    }

    /// Closes the connection from this side, with code 1000.
    pub fn close(&mut self) -> anyhow::Result<()> {
        self.command("close\n")
    }

    /// Kills the client without a closing handshake.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    fn command(&mut self, line: &str) -> anyhow::Result<()> {
        self.stdin
            .write_all(line.as_bytes())
            .with_context(|| format!("the watcher has ended; its last lines:\n{}", self.child.log_tail()))
    }
}

/// The messages among `received` that are JSON.
pub fn json_messages(received: &[Received]) -> Vec<serde_json::Value> {
    received.iter().filter_map(Received::json).collect()
}

/// A line that the client prints.
#[derive(Deserialize)]
struct Line {
    t: f64,
    open: Option<bool>,
    text: Option<String>,
    close: Option<u16>,
    reason: Option<String>,
    refused: Option<u16>,
    failed: Option<String>,
}

impl Line {
    fn into_received(self) -> Option<Received> {
        let what = match self {
            Line { text: Some(text), .. } => What::Text(text),
            Line { close: Some(code), reason, .. } => What::Close { code, reason: reason.unwrap_or_default() },
            Line { refused: Some(status), .. } => What::Refused(status),
            Line { failed: Some(reason), .. } => What::Failed(reason),
            Line { open: Some(_), .. } => What::Open,
            _ => return None,
        };
        Some(Received { t: self.t, what })
    }
}
