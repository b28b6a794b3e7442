//! The work queue: submissions that are pending for a worker.

use std::time::Duration;

use anyhow::Context;
use async_nats::jetstream::{self, AckKind, consumer::PullConsumer};
use futures::StreamExt;
use tokio::time::timeout;

use millrace_domain::{
    Entry, JobId,
    subjects::{self, STREAM, WORKERS_CONSUMER},
};

use crate::{log::Log, nats::Nats};

/// How long one pull waits on the server before it is renewed, so that a pull lost by the server is noticed.
///
/// No idle heartbeats: a batch of async-nats 0.51 that has received one never wakes again (it returns `Pending` without
/// a waker).
const PULL_EXPIRES: Duration = Duration::from_secs(10);

/// How long the worker waits for a pull that was in flight during a disturbance.
const PULL_DOUBTED_MAX: Duration = Duration::from_secs(1);

/// The workers' end of the queue.
#[derive(Clone)]
pub struct Queue {
    consumer: PullConsumer,
    log: Log,
    nats: Nats,
    lease: Duration,
}

/// A job delivered to this worker. It is acknowledged at most once; if it is dropped instead, the queue delivers it
/// again, to this or another worker, when its lease has expired.
#[derive(Debug)]
pub struct Delivery {
    /// The job.
    pub id: JobId,
    /// Its submission, as stored in the log.
    pub entry: Entry,
    /// The number of deliveries so far, from 1.
    pub delivered: i64,
    message: jetstream::Message,
}

impl Queue {
    /// Opens the queue.
    ///
    /// # Errors
    /// When the consumer does not exist.
    pub async fn open(nats: &Nats, log: Log) -> anyhow::Result<Self> {
        let consumer: PullConsumer = jetstream::new(nats.client.clone())
            .get_consumer_from_stream(WORKERS_CONSUMER, STREAM)
            .await
            .with_context(|| format!("cannot open the consumer {WORKERS_CONSUMER}"))?;
        let lease = consumer.cached_info().config.ack_wait;
        Ok(Self { consumer, log, nats: nats.clone(), lease })
    }

    /// How long a delivery remains this worker's without a renewal.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        self.lease
    }

    /// Waits for a job. `None` if there was none for a while, so that the caller can do other checks.
    ///
    /// One delivery at a time, so that none waits in a buffer while its lease runs out.
    ///
    /// # Errors
    /// When the queue is unavailable; the caller tries again after a pause.
    pub async fn next(&self) -> anyhow::Result<Option<Delivery>> {
        let mut disturbances = self.nats.disturbances();
        let mut batch = self
            .consumer
            .batch()
            .max_messages(1)
            .expires(PULL_EXPIRES)
            .messages()
            .await
            .context("cannot pull from the queue")?;
        let message = tokio::select! {
            biased;
            message = batch.next() => message,
            // The server may have lost the pull, or be responding to it just now. A delivery lost with it comes again
            // after its lease.
            _ = disturbances.recv() => match timeout(PULL_DOUBTED_MAX, batch.next()).await {
                Ok(message) => message,
                Err(_) => return Ok(None),
            },
        };
        let Some(message) = message else { return Ok(None) };
        let message = message.map_err(|error| anyhow::anyhow!(error)).context("cannot pull from the queue")?;
        let (seq, delivered) = {
            let info = message.info().map_err(|error| anyhow::anyhow!(error))?;
            (info.stream_sequence, info.delivered)
        };
        let Some((kind, id)) = subjects::parse(&message.subject) else {
            // Impossible, given the consumer's filter and the ids' alphabet. The worker terminates the message so that
            // it does not come again.
            let _ = message.ack_with(AckKind::Term).await;
            anyhow::bail!("the subject {} does not belong to a job", message.subject);
        };
        let entry = self.log.decode(&id, seq, kind, &message.payload);
        Ok(Some(Delivery { id, entry, delivered, message }))
    }
}

impl Delivery {
    /// Renews the lease.
    ///
    /// # Errors
    /// When the connection is lost; the lease may still hold.
    pub async fn extend(&self) -> anyhow::Result<()> {
        self.message.ack_with(AckKind::Progress).await.map_err(|error| anyhow::anyhow!(error))
    }

    /// Acknowledges the job: it needs no worker any more. Only the holder of its current attempt, or a worker that has
    /// read its end, may acknowledge: the acknowledgement of a fenced worker would clear the new holder's delivery.
    ///
    /// Returns when the server has the acknowledgement; a lost one is harmless, since the next worker finds the job
    /// ended.
    pub async fn ack(self) {
        if let Err(error) = self.message.double_ack().await {
            tracing::warn!(job = %self.id, %error, "acknowledgement failed; the queue will deliver the job again");
        }
    }

    /// Returns the job to the queue, to be delivered again after `delay`.
    pub async fn give_back(self, delay: Duration) {
        if let Err(error) = self.message.ack_with(AckKind::Nak(Some(delay))).await {
            tracing::warn!(job = %self.id, %error, "cannot return job to the queue; its lease must expire first");
        }
    }
}
