//! A state as clients receive it.

use millrace_domain::{JobId, JobState, wire};

use crate::websocket::encode::text_with_header;

/// A `status` message, serialized once and shared by all watchers of the job.
#[derive(Debug)]
pub struct Frame {
    /// The job.
    pub job: JobId,
    /// The state's sequence.
    pub seq: u64,
    /// Whether the job has ended. Only a retry can follow.
    pub is_end: bool,
    /// The log's leader has nothing newer, even if a client claims to have seen more.
    pub is_last_word: bool,
    /// The message as one WebSocket frame.
    pub wire: Box<[u8]>,
    /// The offset of the text in it.
    text_at: usize,
}

impl Frame {
    /// The frame of a state.
    pub fn new(state: &JobState, public_base_url: &str) -> Self {
        Self::of(state.job_id.clone(), state.seq, state.is_end(), &wire::status_frame(state, public_base_url))
    }

    fn of(job: JobId, seq: u64, is_end: bool, text: &str) -> Self {
        let (wire, text_at) = text_with_header(text);
        Self { job, seq, is_end, is_last_word: false, wire: wire.into(), text_at }
    }

    /// The same state as the leader's last word.
    pub fn last_word(state: &JobState, public_base_url: &str) -> Self {
        Self { is_last_word: true, ..Self::new(state, public_base_url) }
    }

    /// The message as JSON text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.wire[self.text_at..]).expect("it was made of text")
    }

    /// A frame whose wire bytes are the given text, without a header.
    #[cfg(test)]
    pub fn test(seq: u64, is_end: bool, text: String) -> Self {
        let job = "test".parse().expect("an id");
        Self { job, seq, is_end, is_last_word: false, wire: text.into_bytes().into(), text_at: 0 }
    }
}
