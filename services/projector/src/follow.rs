//! Reads the log in order, window by window, and acknowledges a window once its states are written.
//!
//! Killed at any point, the next projector is given every entry that was not acknowledged; applying one twice changes
//! nothing.

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
use millrace_runtime::{admin::Check, log::Log};

use crate::{apply::Apply, metrics::Metrics};

/// Must stay well below the consumer's `priority_timeout`, or the pin is lost between two pulls.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// The loop and what it needs.
pub struct Follower {
    pub context: jetstream::Context,
    pub log: Log,
    pub apply: Apply,
    pub metrics: Metrics,
    pub check: Check,
}

/// Entries that are applied together.
struct Window {
    entries: Vec<(JobId, Entry)>,
    last: jetstream::Message,
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
        let consumer: PullConsumer = self
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
            self.apply.window(&window.entries).await;
            let (pending, position) = {
                let info = window.last.info().map_err(|error| anyhow::anyhow!(error))?;
                (info.pending, info.stream_sequence)
            };
            // Of the last: with AckPolicy::All it stands for the whole window. A lost one repeats the window.
            window.last.ack().await.map_err(|error| anyhow::anyhow!(error)).context("cannot acknowledge")?;
            self.metrics.lag.set(i64::try_from(pending).unwrap_or(i64::MAX));
            self.metrics.position.set(i64::try_from(position).unwrap_or(i64::MAX));
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
        let mut window = Window { entries: self.entry(&first)?.into_iter().collect(), last: first };
        while window.entries.len() < PROJECTOR_WINDOW_MESSAGES_MAX {
            let Ok(next) = timeout_at(deadline, messages.next()).await else { break };
            let Some(message) = next.transpose()? else { break };
            window.entries.extend(self.entry(&message)?);
            window.last = message;
        }
        Ok(Some(window))
    }

    fn entry(&self, message: &jetstream::Message) -> anyhow::Result<Option<(JobId, Entry)>> {
        let seq = message.info().map_err(|error| anyhow::anyhow!(error))?.stream_sequence;
        let Some((kind, id)) = subjects::parse(&message.subject) else {
            tracing::error!(subject = %message.subject, seq, "a message of the log is on no job's subject; it is passed over");
            return Ok(None);
        };
        let entry = self.log.decode(&id, seq, kind, &message.payload);
        Ok(Some((id, entry)))
    }
}
