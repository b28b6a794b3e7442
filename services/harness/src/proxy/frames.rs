//! Splits a server's bytes into frames of the NATS protocol, so that the proxy can remove whole messages.

use std::mem;

/// One frame, with its line end and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    /// The subject, if the frame is a message.
    pub(super) subject: Option<String>,
}

/// The longest line of a server; bytes with a longer line are not NATS and pass unchanged.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Splits a stream of bytes. A stream whose first line is not NATS passes unchanged.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
    foreign: bool,
    greeted: bool,
}

impl Frames {
    /// Takes more bytes; returns the frames that are now complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.buffer.extend_from_slice(bytes);
        let mut frames = Vec::new();
        let mut at = 0;
        while !self.foreign {
            let rest = &self.buffer[at..];
            if !self.greeted && !is_greeting(rest) {
                self.foreign = true;
                break;
            }
            let Some(line_end) = rest.windows(2).position(|pair| pair == b"\r\n") else {
                self.foreign = rest.len() > LINE_BYTES_MAX;
                break;
            };
            self.greeted = true;
            let (subject, payload) = message(&rest[..line_end]);
            let length = line_end + 2 + payload.map_or(0, |payload| payload + 2);
            if rest.len() < length {
                break;
            }
            frames.push(Frame { bytes: rest[..length].to_vec(), subject });
            at += length;
        }
        self.buffer.drain(..at);
        if self.foreign && !self.buffer.is_empty() {
            frames.push(Frame { bytes: mem::take(&mut self.buffer), subject: None });
        }
        frames
    }
}

/// Whether these bytes can begin a nats-server's greeting.
fn is_greeting(bytes: &[u8]) -> bool {
    let length = bytes.len().min(5);
    bytes[..length] == b"INFO "[..length]
}

/// The subject and the payload's length, if the line begins a message: `MSG subject sid [reply] bytes` or
/// `HMSG subject sid [reply] header-bytes bytes`.
fn message(line: &[u8]) -> (Option<String>, Option<usize>) {
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    match words.next() {
        Some("MSG" | "HMSG") => (words.next().map(str::to_owned), words.last().and_then(|bytes| bytes.parse().ok())),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: &[u8] = b"INFO {\"a\":1}\r\nPING\r\nMSG live.1.events.a 1 4\r\n\r\nx\n\r\nHMSG _INBOX.b 2 reply 12 \
    14\r\nNATS/1.0\r\n\r\nhi\r\n+OK\r\n";

    #[test]
    fn frames_are_the_same_however_the_bytes_are_cut_and_none_is_lost() {
        let whole = Frames::default().push(TALK);
        let subjects: Vec<_> = whole.iter().map(|frame| frame.subject.as_deref()).collect();
        assert_eq!(subjects, [None, None, Some("live.1.events.a"), Some("_INBOX.b"), None]);
        for size in 1..TALK.len() {
            let mut frames = Frames::default();
            let cut: Vec<_> = TALK.chunks(size).flat_map(|chunk| frames.push(chunk)).collect();
            assert_eq!(cut, whole, "in pieces of {size}");
        }
        assert_eq!(whole.iter().flat_map(|frame| frame.bytes.clone()).collect::<Vec<_>>(), TALK);
    }

    #[test]
    fn what_is_not_nats_goes_through_at_once() {
        let mut frames = Frames::default();
        let parts: [&[u8]; 2] = [b"HTTP/1.1 200 OK", b"\r\nMSG a 1 100\r\n"];
        for part in parts {
            let out: Vec<u8> = frames.push(part).into_iter().flat_map(|frame| frame.bytes).collect();
            assert_eq!(out, part);
        }
    }
}
