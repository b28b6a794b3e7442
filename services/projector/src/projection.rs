//! Processes messages of the log, from any source: writes states, and puts undecodable messages aside.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use millrace_domain::{Entry, JobId, limits::PROJECTOR_READ_TRIES_MAX, subjects};
use millrace_runtime::{
    cursor::Cursor,
    direct::{ReadError, Stored},
    log::Log,
};

use crate::{
    apply::Apply,
    quarantine::{Quarantine, Unreadable},
};

/// Pause before the log is read again from a leader that is behind.
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
    /// The number of its messages.
    pub const fn len(&self) -> usize {
        self.messages
    }

    /// Adds a message. An undecodable one is an entry too: it advances the sequence of its job's state.
    pub fn push(&mut self, log: &Log, subject: &str, seq: u64, payload: &Bytes) {
        self.messages += 1;
        let reason = match subjects::parse(subject) {
            None => Some("the subject does not belong to a job".to_owned()),
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
    /// Applies a batch. Returns once every state is written, however long that takes; then the batch may be dropped.
    pub async fn apply(&mut self, batch: &Batch) {
        tokio::join!(self.apply.window(&batch.entries), self.quarantine.take(&batch.unreadable));
    }

    /// Applies the first messages that the log holds after sequence `after`, `messages_max` or somewhat more, and
    /// returns the sequence up to which everything is applied. `end` is a sequence that the log has had.
    pub async fn apply_from_log(&mut self, after: u64, end: u64, messages_max: usize) -> anyhow::Result<u64> {
        let mut batch = Batch::default();
        let mut log = self.log.read(subjects::ALL, after);
        let mut last = after;
        while last < end && batch.len() < messages_max {
            last = self.read(&mut batch, &mut log, end).await?;
        }
        self.apply(&batch).await;
        Ok(last)
    }

    /// Adds a page of the log to `batch`; returns its last sequence, or `end` if the log has no more: the messages in
    /// between were purged.
    async fn read(&self, batch: &mut Batch, log: &mut Cursor, end: u64) -> anyhow::Result<u64> {
        for _ in 0..PROJECTOR_READ_TRIES_MAX {
            match next_page(log, &self.log, end).await {
                Ok(Some(page)) => {
                    for stored in &page {
                        batch.push(&self.log, &stored.subject, stored.seq, &stored.payload);
                    }
                    return Ok(page.last().map_or(end, |stored| stored.seq));
                }
                Ok(None) => {}
                Err(ReadError(error)) => tracing::warn!(error, "cannot read the log; retrying"),
            }
            sleep(READ_PAUSE).await;
        }
        anyhow::bail!("cannot read the log up to sequence {end}")
    }
}

/// The next page, empty at the log's end; `None` while the leader has not seen `end` yet.
async fn next_page(cursor: &mut Cursor, log: &Log, end: u64) -> Result<Option<Vec<Stored>>, ReadError> {
    let page = cursor.next_page().await?;
    if !page.is_empty() {
        return Ok(Some(page));
    }
    // In this order: a leader that has seen `end` has everything before it.
    if log.last_sequence().await? < end {
        return Ok(None);
    }
    Ok(Some(cursor.next_of_leader().await?.into_iter().collect()))
}
