//! Reads a stream from a position on, in the order of its sequences.

use async_nats::{
    Client,
    jetstream::stream::{RawMessageErrorKind, Stream},
};

use millrace_domain::limits::{HISTORY_BATCH_MAX, LEADER_BATCH_MAX};

use crate::direct::{self, ReadError, Stored};

/// A position in a stream, after which the messages that match a filter are read.
#[derive(Clone, Debug)]
pub struct Cursor {
    client: Client,
    stream: Stream<()>,
    name: String,
    filter: String,
    after: u64,
    page_max: usize,
    /// The last page was marked as the last.
    is_at_end: bool,
    /// The leader had no more after the last page.
    is_confirmed: bool,
}

impl Cursor {
    /// A cursor after sequence `after` of the stream `name`.
    #[must_use]
    pub fn new(client: &Client, stream: Stream<()>, name: &str, filter: impl Into<String>, after: u64) -> Self {
        let (client, name, filter) = (client.clone(), name.to_owned(), filter.into());
        Self { client, stream, name, filter, after, page_max: HISTORY_BATCH_MAX, is_at_end: false, is_confirmed: false }
    }

    /// Sets the greatest number of messages in a page.
    #[must_use]
    pub fn in_pages_of(self, page_max: usize) -> Self {
        Self { page_max, ..self }
    }

    /// The next messages that a replica has; none if it has no more, although the leader may. On a later call, the
    /// replica may have caught up.
    ///
    /// # Errors
    /// When the stream does not answer in time.
    pub async fn next_page(&mut self) -> Result<Vec<Stored>, ReadError> {
        self.is_confirmed = false;
        if std::mem::take(&mut self.is_at_end) {
            return Ok(Vec::new());
        }
        let (page, more) = direct::next(&self.client, &self.name, &self.filter, self.after + 1, self.page_max).await?;
        if let Some(last) = page.last() {
            self.after = last.seq;
            self.is_at_end = !more;
        }
        Ok(page)
    }

    /// The next messages that a replica has, or else those that only the leader has; none if the leader has no more.
    /// A stale replica is asked again only after [`LEADER_BATCH_MAX`] messages of the leader.
    ///
    /// # Errors
    /// When the stream does not answer in time.
    pub async fn next_page_or_leaders(&mut self) -> Result<Vec<Stored>, ReadError> {
        if std::mem::take(&mut self.is_confirmed) {
            return Ok(Vec::new());
        }
        let mut page = self.next_page().await?;
        if page.is_empty() {
            while page.len() < LEADER_BATCH_MAX && !self.is_confirmed {
                match self.next_of_leader().await? {
                    Some(stored) => page.push(stored),
                    None => self.is_confirmed = true,
                }
            }
            // An empty page says so itself.
            self.is_confirmed &= !page.is_empty();
        }
        Ok(page)
    }

    /// The next message, from the leader.
    ///
    /// # Errors
    /// When the leader does not answer in time.
    pub async fn next_of_leader(&mut self) -> Result<Option<Stored>, ReadError> {
        match self.stream.get_first_raw_message_by_subject(&self.filter, self.after + 1).await {
            Ok(message) => {
                let stored = Stored::from(message);
                (self.after, self.is_at_end) = (stored.seq, false);
                Ok(Some(stored))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(ReadError(error.to_string())),
        }
    }

    /// All further messages that a replica has. The newest ones may be missing.
    ///
    /// # Errors
    /// When the stream does not answer in time.
    pub async fn rest(mut self) -> Result<Vec<Stored>, ReadError> {
        let mut rest = Vec::new();
        loop {
            let page = self.next_page().await?;
            if page.is_empty() {
                return Ok(rest);
            }
            rest.extend(page);
        }
    }

    /// All further messages, read from the leader one by one: complete, but slower.
    ///
    /// # Errors
    /// When the leader does not answer in time.
    pub async fn to_the_end(mut self) -> Result<Vec<Stored>, ReadError> {
        let mut rest = Vec::new();
        while let Some(stored) = self.next_of_leader().await? {
            rest.push(stored);
        }
        Ok(rest)
    }
}
