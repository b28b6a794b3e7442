//! One client's side of the protocol: bytes in, bytes and counts out. Cheap enough for tens of thousands of clients in
//! one process.

use millrace_domain::JobId;

use super::{
    super::{
        frame::{self, opcode},
        job,
    },
    control::Protocol,
    tally::Tally,
};

/// Longest accepted head of a handshake's response.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// The snapshot's subscription.
const SNAPSHOT_SID: &[u8] = b"2";

/// One client.
pub struct Client {
    protocol: Protocol,
    id: JobId,
    /// Unique among the clients.
    number: usize,
    is_upgraded: bool,
    /// Bytes of an incomplete frame or handshake response.
    carry: Vec<u8>,
    /// NATS: bytes of an incomplete message.
    stream: Vec<u8>,
    /// The number of the last event seen; `None` before the first state.
    last: Option<u64>,
}

/// Why a client cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended(pub String);

impl Client {
    /// Client `number`, which watches the job.
    pub fn new(protocol: Protocol, id: JobId, number: usize) -> Self {
        Self { protocol, id, number, is_upgraded: false, carry: Vec::new(), stream: Vec::new(), last: None }
    }

    /// The request of the handshake.
    pub fn request(&self, path: &str) -> Vec<u8> {
        let path = path.replace("{id}", self.id.as_str());
        format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        .into_bytes()
    }

    /// Whether it has the state of its job.
    pub fn has_state(&self) -> bool {
        self.last.is_some()
    }

    /// Takes bytes that were read, and appends the bytes to write to `reply`.
    pub fn take(&mut self, bytes: &[u8], reply: &mut Vec<u8>, tally: &mut Tally) -> Result<(), Ended> {
        if self.carry.is_empty() {
            let used = self.consume(bytes, reply, tally)?;
            self.carry.extend_from_slice(&bytes[used..]);
        } else {
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(bytes);
            let used = self.consume(&carry, reply, tally)?;
            if used < carry.len() {
                carry.drain(..used);
                self.carry = carry;
            }
        }
        Ok(())
    }

    fn consume(&mut self, bytes: &[u8], reply: &mut Vec<u8>, tally: &mut Tally) -> Result<usize, Ended> {
        let mut used = 0;
        if !self.is_upgraded {
            let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
                return if bytes.len() > HEAD_BYTES_MAX { Err(Ended("endless head".into())) } else { Ok(0) };
            };
            let status = String::from_utf8_lossy(bytes.get(9..12).unwrap_or_default());
            if status != "101" {
                return Err(Ended(format!("http {status}")));
            }
            self.is_upgraded = true;
            used = end + 4;
        }
        while let Some((frame, length)) = frame::first(&bytes[used..]) {
            used += length;
            match frame.opcode {
                opcode::TEXT | opcode::BINARY | opcode::CONTINUATION => self.message(frame.payload, reply, tally)?,
                opcode::PING => frame::of_client(opcode::PONG, frame.payload, reply),
                opcode::CLOSE => {
                    let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    return Err(Ended(format!("close {code}")));
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn message(&mut self, message: &[u8], reply: &mut Vec<u8>, tally: &mut Tally) -> Result<(), Ended> {
        match self.protocol {
            Protocol::Status if message.starts_with(b"{\"type\":\"status\"") => tally.frame(message, &mut self.last),
            Protocol::Status => {}
            Protocol::SocketIo => match message {
                [b'4', b'2', ..] => tally.frame(message, &mut self.last),
                [b'4', b'0', ..] => {
                    let watch = format!("42[\"watch\",\"{}\"]", self.id);
                    frame::of_client(opcode::TEXT, watch.as_bytes(), reply);
                }
                [b'4', b'4', ..] => return Err(Ended("connect error".into())),
                [b'0', ..] => frame::of_client(opcode::TEXT, b"40", reply),
                [b'2', ..] => frame::of_client(opcode::TEXT, b"3", reply),
                _ => {}
            },
            Protocol::Nats if self.stream.is_empty() => {
                let used = self.nats(message, reply, tally)?;
                self.stream.extend_from_slice(&message[used..]);
            }
            Protocol::Nats => {
                let mut stream = std::mem::take(&mut self.stream);
                stream.extend_from_slice(message);
                let used = self.nats(&stream, reply, tally)?;
                stream.drain(..used);
                self.stream = stream;
            }
        }
        Ok(())
    }

    /// Reads whole operations of the NATS protocol; returns how many bytes they took.
    fn nats(&mut self, bytes: &[u8], reply: &mut Vec<u8>, tally: &mut Tally) -> Result<usize, Ended> {
        let mut used = 0;
        while let Some(length) = memchr::memmem::find(&bytes[used..], b"\r\n") {
            let line = &bytes[used..used + length];
            let after = used + length + 2;
            if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
                let mut words = line.split(|byte| *byte == b' ').skip(2);
                let sid = words.next().unwrap_or_default();
                let size = words.last().and_then(|word| std::str::from_utf8(word).ok()?.parse::<usize>().ok());
                let end = after + size.ok_or_else(|| Ended("odd MSG".into()))?;
                let Some(message) = bytes.get(after..end + 2) else { return Ok(used) };
                // A live message may arrive before the snapshot. Only the snapshot makes the state known.
                if self.has_state() || sid == SNAPSHOT_SID {
                    tally.frame(message, &mut self.last);
                }
                used = end + 2;
                continue;
            }
            if line.starts_with(b"INFO ") {
                frame::of_client(opcode::BINARY, &self.nats_opening(), reply);
            } else if line == b"PING" {
                frame::of_client(opcode::BINARY, b"PONG\r\n", reply);
            } else if line.starts_with(b"-ERR") {
                return Err(Ended(String::from_utf8_lossy(line).into_owned()));
            }
            used = after;
        }
        Ok(used)
    }

    fn nats_opening(&self) -> Vec<u8> {
        // Each client has its own inbox: otherwise all clients of the job would receive its snapshot.
        let (id, live, number) = (&self.id, job::live_subject(&self.id), self.number);
        format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1,\
             \"lang\":\"bench\",\"version\":\"1\"}}\r\nSUB {live} 1\r\nSUB _INBOX.{number}.1 2\r\n\
             PUB $JS.API.DIRECT.GET.JOBS.jobs.events.{id} _INBOX.{number}.1 0\r\n\r\n"
        )
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

    /// Feeds `bytes` in pieces of every size; returns the replies and the number of frames after the first.
    fn feed(protocol: Protocol, bytes: &[u8]) -> Vec<(Vec<u8>, u64, bool)> {
        [1, 2, 7, bytes.len()]
            .map(|size| {
                let (mut client, mut tally) = (Client::new(protocol, job::id(0), 0), Tally::new(0));
                let mut reply = Vec::new();
                bytes.chunks(size).for_each(|piece| client.take(piece, &mut reply, &mut tally).unwrap());
                (reply, tally.progress.frames, client.has_state())
            })
            .to_vec()
    }

    #[test]
    fn frames_are_counted_however_they_are_cut() {
        let text = job::status_text(&job::id(0), 3, None);
        let frame = frame::of_server(opcode::TEXT, text.as_bytes());
        let pong = frame::of_server(opcode::TEXT, b"{\"type\":\"pong\"}");
        let bytes = [HEAD, &frame, &pong, &frame, &frame].concat();
        for (_, frames, has_state) in feed(Protocol::Status, &bytes) {
            assert_eq!((frames, has_state), (2, true));
        }
    }

    #[test]
    fn a_nats_client_counts_live_messages_after_its_snapshot() {
        let operations = b"INFO {}\r\nMSG live.1.events.x 1 2\r\n{}\r\nHMSG _INBOX.x.1 2 4 6\r\nAAAA{}\r\n\
                           PING\r\nMSG live.1.events.x 1 2\r\n{}\r\n";
        let bytes = [HEAD, &frame::of_server(opcode::BINARY, operations)].concat();
        for (reply, frames, has_state) in feed(Protocol::Nats, &bytes) {
            assert_eq!((frames, has_state), (1, true));
            assert!(reply.windows(4).any(|window| window == b"PONG"));
        }
    }

    #[test]
    fn no_two_nats_clients_of_a_job_share_an_inbox() {
        let opening = |number| {
            let (mut client, mut tally) = (Client::new(Protocol::Nats, job::id(0), number), Tally::new(0));
            let bytes = [HEAD, &frame::of_server(opcode::BINARY, b"INFO {}\r\n")].concat();
            let mut reply = Vec::new();
            client.take(&bytes, &mut reply, &mut tally).unwrap();
            String::from_utf8_lossy(&reply).into_owned()
        };
        let (one, other) = (opening(1), opening(2));
        assert!(one.contains("SUB _INBOX.1.1 2\r\n") && one.contains(" _INBOX.1.1 0\r\n"), "{one}");
        assert!(!other.contains("_INBOX.1.1"), "{other}");
    }

    #[test]
    fn a_refusal_is_told_by_its_status() {
        let (mut client, mut tally) = (Client::new(Protocol::Status, job::id(0), 0), Tally::new(0));
        let ended = client.take(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", &mut Vec::new(), &mut tally);
        assert_eq!(ended, Err(Ended("http 503".into())));
    }
}
