//! What is done with messages of the log, however they came: states are written, what cannot be read is put aside.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use millrace_domain::{Entry, JobId, limits::PROJECTOR_READ_TRIES_MAX, subjects};
use millrace_runtime::{direct::ReadError, log::Log};

use crate::{
    apply::Apply,
    quarantine::{Quarantine, Unreadable},
};

/// Before a replica that is behind is asked again.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// The bucket and the quarantine.
pub struct Projection {
    pub log: Log,
    pub apply: Apply,
    pub quarantine: Quarantine,
}

/// Messages that are applied together, in their order.
#[derive(Default)]
pub struct Batch {
    messages: usize,
    entries: Vec<(JobId, Entry)>,
    unreadable: Vec<Unreadable>,
}

impl Batch {
    /// How many messages it has.
    pub const fn len(&self) -> usize {
        self.messages
    }

    /// Adds a message. One that cannot be decoded is unreadable and an entry too: its job's state takes on its sequence.
    pub fn push(&mut self, log: &Log, subject: &str, seq: u64, payload: &Bytes) {
        self.messages += 1;
        let reason = match subjects::parse(subject) {
            None => Some("the subject is none of a job's".to_owned()),
            Some((kind, id)) => {
                let entry = log.decode(&id, seq, kind, payload);
                let reason = entry.event.as_ref().err().map(ToString::to_string);
                self.entries.push((id, entry));
                reason
            }
        };
        if let Some(reason) = reason {
            self.unreadable.push(Unreadable { subject: subject.to_owned(), seq, payload: payload.clone(), reason });
        }
    }
}

impl Projection {
    /// Applies a batch. Returns when it may be forgotten: every state is written, however long that takes.
    pub async fn apply(&mut self, batch: &Batch) {
        tokio::join!(self.apply.window(&batch.entries), self.quarantine.take(&batch.unreadable));
    }

    /// Applies the first messages that the log holds after sequence `after`, so many or some more, and returns the
    /// sequence up to which everything is applied. `end` is a sequence that the log has had.
    pub async fn apply_from_log(&mut self, after: u64, end: u64, messages_max: usize) -> anyhow::Result<u64> {
        let mut batch = Batch::default();
        let mut last = after;
        while last < end && batch.len() < messages_max {
            let Some(seq) = self.read(&mut batch, last, end).await? else {
                // What lay between was purged.
                last = end;
                break;
            };
            last = seq;
        }
        self.apply(&batch).await;
        Ok(last)
    }

    /// Adds a page of the log to `batch`; its last sequence, or `None` if the log has nothing more.
    async fn read(&self, batch: &mut Batch, after: u64, end: u64) -> anyhow::Result<Option<u64>> {
        for _ in 0..PROJECTOR_READ_TRIES_MAX {
            match self.log.page_of_all(after).await {
                Ok(page) if !page.is_empty() => {
                    for stored in &page {
                        batch.push(&self.log, &stored.subject, stored.seq, &stored.payload);
                    }
                    return Ok(page.last().map(|stored| stored.seq));
                }
                // A replica that has no more may be behind.
                Ok(_) => match self.log.ends(after, end).await {
                    Ok(true) => return Ok(None),
                    Ok(false) => {}
                    Err(ReadError(error)) => tracing::warn!(error, "the log cannot be read; trying again"),
                },
                Err(ReadError(error)) => tracing::warn!(error, "the log cannot be read; trying again"),
            }
            sleep(READ_PAUSE).await;
        }
        anyhow::bail!("the log cannot be read after sequence {after}")
    }
}
