//! Reads the log in order, window by window, and acknowledges a window once its states are written.
//!
//! Killed at any point, nothing is left out. The server hands a message that it gave to a projector that is gone to
//! nobody else before `ack_wait` is over, goes on after it, and takes the next acknowledgement for all messages before.
//! So every window must follow on what was applied; where it does not, what lies between is read from the log itself.
//! Sequences alone do not tell, since jobs that are over are purged from the log: the consumer counts its deliveries,
//! and what was handed to somebody else is missing in that count. Applying an entry twice changes nothing.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::{self, consumer::PullConsumer};
use futures::{Stream, StreamExt};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use millrace_domain::{
    limits::{PROJECTOR_WINDOW, PROJECTOR_WINDOW_MESSAGES_MAX},
    subjects::{PROJECTOR_CONSUMER, PROJECTOR_GROUP, STREAM},
};
use millrace_runtime::{admin::Check, log::Log};

use crate::{
    metrics::Metrics,
    projection::{Batch, Projection},
};

/// Must stay well below the consumer's `priority_timeout`, or the pin is lost between two pulls.
const PULL_EXPIRES: Duration = Duration::from_millis(500);

/// The loop and what it needs.
pub struct Follower {
    pub context: jetstream::Context,
    pub projection: Projection,
    pub metrics: Metrics,
    pub check: Check,
    /// Up to here this process knows everything to be in the bucket; 0 at its start.
    pub applied: u64,
}

/// Messages that are applied together.
struct Window {
    batch: Batch,
    /// Something lies between that somebody else was given.
    has_gap: bool,
    /// The newest of its messages, and its sequence.
    newest: jetstream::Message,
    end: u64,
    /// The consumer's count at the last message that came.
    delivery: u64,
}

impl Window {
    /// A window that begins with `first`, after everything up to `applied` and the consumer's delivery `delivery`.
    fn new(log: &Log, first: jetstream::Message, applied: u64, delivery: Option<u64>) -> anyhow::Result<Self> {
        let (seq, this) = numbers(&first)?;
        let follows = seq <= applied + 1 || delivery.is_some_and(|last| this == last + 1);
        let mut batch = Batch::default();
        batch.push(log, &first.subject, seq, &first.payload);
        Ok(Self { batch, has_gap: !follows, newest: first, end: seq.max(applied), delivery: this })
    }

    fn push(&mut self, log: &Log, message: jetstream::Message) -> anyhow::Result<()> {
        let (seq, delivery) = numbers(&message)?;
        self.batch.push(log, &message.subject, seq, &message.payload);
        self.has_gap |= seq > self.end + 1 && delivery != self.delivery + 1;
        self.delivery = delivery;
        // A message that came before comes again: its lease was over.
        if seq > self.end {
            (self.newest, self.end) = (message, seq);
        }
        Ok(())
    }
}

/// A message's sequence in the log, and the consumer's count of deliveries.
fn numbers(message: &jetstream::Message) -> anyhow::Result<(u64, u64)> {
    let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
    Ok((info.stream_sequence, info.consumer_sequence))
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
                tracing::warn!(error = format!("{error:#}"), "following the log was interrupted; retrying");
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
        // Unknown at first: what was given out before is not known to be applied.
        let mut delivery = None;
        while let Some(window) = self.next_window(&mut messages, delivery).await? {
            if window.has_gap {
                self.catch_up(&mut consumer, window.end).await?;
            } else {
                self.projection.apply(&window.batch).await;
            }
            self.applied = window.end;
            delivery = Some(window.delivery);
            // With AckPolicy::All it stands for the whole window. A lost one repeats the window.
            window.newest.ack().await.map_err(|error| anyhow::anyhow!(error)).context("cannot acknowledge")?;
            self.metrics.position.set(i64::try_from(self.applied).unwrap_or(i64::MAX));
            self.check.pass();
        }
        Ok(())
    }

    /// Waits for a message, then takes what comes within the window's time.
    async fn next_window<E>(
        &self,
        messages: &mut (impl Stream<Item = Result<jetstream::Message, E>> + Unpin),
        delivery: Option<u64>,
    ) -> anyhow::Result<Option<Window>>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let Some(first) = messages.next().await.transpose()? else { return Ok(None) };
        let deadline = Instant::now() + PROJECTOR_WINDOW;
        let mut window = Window::new(&self.projection.log, first, self.applied, delivery)?;
        while window.batch.len() < PROJECTOR_WINDOW_MESSAGES_MAX {
            let Ok(next) = timeout_at(deadline, messages.next()).await else { break };
            let Some(message) = next.transpose()? else { break };
            window.push(&self.projection.log, message)?;
        }
        Ok(Some(window))
    }

    /// Applies what the log holds up to `end` and nobody has acknowledged: whoever did had applied it.
    async fn catch_up(&mut self, consumer: &mut PullConsumer, end: u64) -> anyhow::Result<()> {
        let info = consumer.info().await.with_context(|| format!("cannot ask the consumer {PROJECTOR_CONSUMER}"))?;
        let mut after = self.applied.max(info.ack_floor.stream_sequence);
        if after + 1 < end {
            self.metrics.gaps.inc();
            tracing::info!(after, end, "reading entries from the log that another projector was given");
        }
        while after < end {
            after = self.projection.apply_from_log(after, end, PROJECTOR_WINDOW_MESSAGES_MAX).await?;
        }
        Ok(())
    }
}
