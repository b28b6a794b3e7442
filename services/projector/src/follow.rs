//! Reads the log in order, window by window, and acknowledges a window once its states are written.
//!
//! Killed at any point, nothing is left out. The server hands a message that it gave to a projector that is gone to
//! nobody else before `ack_wait` is over, goes on after it, and takes the next acknowledgement for all messages before.
//! So every window must follow on what was applied; where it does not, what lies between is read from the log itself.
//! Applying an entry twice changes nothing.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use millrace_domain::{
    Entry, JobId,
    limits::{PROJECTOR_WINDOW, PROJECTOR_WINDOW_MESSAGES_MAX},
    subjects::{self, PROJECTOR_CONSUMER, PROJECTOR_GROUP, STREAM},
};
use millrace_runtime::{admin::Check, direct::ReadError, log::Log};

use crate::{apply::Apply, metrics::Metrics};

/// Must stay well below the consumer's `priority_timeout`, or the pin is lost between two pulls.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// How often a replica that is behind is asked again.
const CATCH_UP_TRIES_MAX: u32 = 20;
const CATCH_UP_PAUSE: Duration = Duration::from_millis(100);

/// The loop and what it needs.
pub struct Follower {
    pub context: jetstream::Context,
    pub log: Log,
    pub apply: Apply,
    pub metrics: Metrics,
    pub check: Check,
    /// Up to here this process knows everything to be in the bucket; 0 at its start.
    pub applied: u64,
}

/// Entries that are applied together.
struct Window {
    entries: Vec<(JobId, Entry)>,
    /// Something lies between that somebody else was given.
    has_gap: bool,
    /// The newest of its messages, and its sequence.
    newest: jetstream::Message,
    end: u64,
}

impl Follower {
    /// Follows the log until `shutdown`. Whatever fails is tried again: the log keeps what was not acknowledged.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        loop {
            let followed = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                followed = self.follow() => followed,
            };
            if let Err(error) = followed {
                self.check.fail(format!("{error:#}"));
                tracing::warn!(error = format!("{error:#}"), "following the log was interrupted");
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = sleep(Duration::from_millis(500)) => {}
            }
        }
    }

    /// Returns when the consumer's stream of messages ends.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut consumer: PullConsumer = self
            .context
            .get_consumer_from_stream(PROJECTOR_CONSUMER, STREAM)
            .await
            .with_context(|| format!("cannot open the consumer {PROJECTOR_CONSUMER}"))?;
        let mut messages = consumer
            .stream()
            .group(PROJECTOR_GROUP)
            .max_messages_per_batch(2 * PROJECTOR_WINDOW_MESSAGES_MAX)
            .expires(PULL_EXPIRES)
            .heartbeat(PULL_EXPIRES / 4)
            .messages()
            .await
            .context("cannot pull from the log")?;
        self.check.pass();
        while let Some(window) = self.next_window(&mut messages).await? {
            if window.has_gap {
                self.catch_up(&mut consumer, window.end).await?;
            } else {
                self.apply.window(&window.entries).await;
            }
            self.applied = window.end;
            let pending = window.newest.info().map_err(|error| anyhow::anyhow!(error))?.pending;
            // With AckPolicy::All it stands for the whole window. A lost one repeats the window.
            window.newest.ack().await.map_err(|error| anyhow::anyhow!(error)).context("cannot acknowledge")?;
            self.metrics.lag.set(i64::try_from(pending).unwrap_or(i64::MAX));
            self.metrics.position.set(i64::try_from(self.applied).unwrap_or(i64::MAX));
            self.check.pass();
        }
        Ok(())
    }

    /// Waits for an entry, then takes what comes within the window's time.
    async fn next_window<E>(
        &self,
        messages: &mut (impl Stream<Item = Result<jetstream::Message, E>> + Unpin),
    ) -> anyhow::Result<Option<Window>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let Some(first) = messages.next().await.transpose()? else { return Ok(None) };
        let deadline = Instant::now() + PROJECTOR_WINDOW;
        let end = sequence(&first)?;
        let mut window = Window {
            entries: self.entry(&first, end).into_iter().collect(),
            has_gap: end > self.applied + 1,
            newest: first,
            end: end.max(self.applied),
        };
        while window.entries.len() < PROJECTOR_WINDOW_MESSAGES_MAX {
            let Ok(next) = timeout_at(deadline, messages.next()).await else { break };
            let Some(message) = next.transpose()? else { break };
            let seq = sequence(&message)?;
            window.entries.extend(self.entry(&message, seq));
            window.has_gap |= seq > window.end + 1;
            // A message that came before comes again: its lease was over.
            if seq > window.end {
                (window.newest, window.end) = (message, seq);
            }
        }
        Ok(Some(window))
    }

    /// Applies what the log holds up to `end` and nobody has acknowledged: whoever did had applied it.
    async fn catch_up(&mut self, consumer: &mut PullConsumer, end: u64) -> anyhow::Result<()> {
        let info = consumer.info().await.with_context(|| format!("cannot ask the consumer {PROJECTOR_CONSUMER}"))?;
        let mut after = self.applied.max(info.ack_floor.stream_sequence);
        if after + 1 < end {
            self.metrics.gaps.inc();
            tracing::info!(after, end, "entries that another projector was given are read from the log");
        }
        let mut tries = 0;
        while after < end {
            let page = self.log.page_of_all(after).await.unwrap_or_else(|ReadError(error)| {
                tracing::warn!(error, "the log cannot be read; trying again");
                Vec::new()
            });
            let Some(last) = page.last().map(|stored| stored.seq) else {
                tries += 1;
                anyhow::ensure!(tries < CATCH_UP_TRIES_MAX, "the log ends at {after} where {end} was delivered");
                sleep(CATCH_UP_PAUSE).await;
                continue;
            };
            let entries = page.iter().filter_map(|stored| {
                let (_, id) = subjects::parse(&stored.subject)?;
                Some((id, self.log.entry(stored)?))
            });
            self.apply.window(&entries.collect::<Vec<_>>()).await;
            after = last;
            tries = 0;
        }
        Ok(())
    }

    fn entry(&self, message: &jetstream::Message, seq: u64) -> Option<(JobId, Entry)> {
        let Some((kind, id)) = subjects::parse(&message.subject) else {
            tracing::error!(subject = %message.subject, seq, "a message of the log is on no job's subject; it is passed over");
            return None;
        };
        let entry = self.log.decode(&id, seq, kind, &message.payload);
        Some((id, entry))
    }
}

fn sequence(message: &jetstream::Message) -> anyhow::Result<u64> {
    Ok(message.info().map_err(|error| anyhow::anyhow!(error))?.stream_sequence)
}
