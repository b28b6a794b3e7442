//! The unsent data of one socket. Empty, and without allocated memory, while the client reads.
//!
//! It holds at most the rest of one frame, a few control frames, and one state: a newer state replaces an older one, so
//! only a retry replaces the end of a job. The response to the handshake is held briefly for the first state, which
//! saves one system call and one wake-up of the client.

use std::{
    io::{self, ErrorKind, IoSlice, Write},
    sync::Arc,
    time::Instant,
};

use millrace_domain::limits::CLIENT_CONTROL_BYTES_MAX;

use crate::feed::Frame;

/// Buffers in one `writev`.
const SLICES_MAX: usize = 16;

/// The outbox of one socket.
#[derive(Debug, Default)]
pub struct Outbox(Option<Box<Waiting>>);

#[derive(Debug)]
struct Waiting {
    /// When the client last took bytes.
    since: Instant,
    /// The rest of a frame, then control frames.
    bytes: Vec<u8>,
    /// How many states `bytes` holds the rest of: one or none.
    begun: u64,
    /// The newest state.
    state: Option<Arc<Frame>>,
    /// `bytes` is the unwritten response to the handshake, held for the first state.
    is_held: bool,
}

impl Outbox {
    /// Sends states, oldest first, in one write if the client takes it; otherwise keeps the newest. Returns how many
    /// states were written completely.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn send(&mut self, stream: &mut impl Write, frames: &[Arc<Frame>], now: Instant) -> io::Result<u64> {
        let Some(newest) = frames.last() else { return Ok(0) };
        let mut held = match self.0.take() {
            Some(mut waiting) if !waiting.is_held => {
                waiting.state = Some(newest.clone());
                self.0 = Some(waiting);
                return Ok(0);
            }
            waiting => waiting.map_or_else(Vec::new, |waiting| waiting.bytes),
        };
        let mut sent = 0;
        for frames in frames.chunks(SLICES_MAX - 1) {
            let mut written = match frames {
                [frame] if held.is_empty() => write(stream, &frame.wire)?,
                _ => {
                    let mut slices = [IoSlice::new(&held); SLICES_MAX];
                    for (slice, frame) in slices[1..].iter_mut().zip(frames) {
                        *slice = IoSlice::new(&frame.wire);
                    }
                    write_vectored(stream, &slices[..=frames.len()])?
                }
            };
            if written < held.len() {
                held.drain(..written);
                let state = Some(newest.clone());
                self.0 = Some(Box::new(Waiting { since: now, bytes: held, begun: 0, state, is_held: false }));
                return Ok(sent);
            }
            written -= held.len();
            held.clear();
            for frame in frames {
                if written >= frame.wire.len() {
                    written -= frame.wire.len();
                    sent += 1;
                    continue;
                }
                // Keep the rest of a partly written frame, and only the newest of the frames after it.
                let begun = written > 0;
                let bytes = if begun { frame.wire[written..].to_vec() } else { Vec::new() };
                let state = (!begun || !Arc::ptr_eq(frame, newest)).then(|| newest.clone());
                self.0 = Some(Box::new(Waiting { since: now, bytes, begun: begun.into(), state, is_held: false }));
                return Ok(sent);
            }
        }
        Ok(sent)
    }

    /// An outbox that holds the response to the handshake until the first state or [`Outbox::release`].
    pub fn holding(answer: Vec<u8>, now: Instant) -> Self {
        Self(Some(Box::new(Waiting { since: now, bytes: answer, begun: 0, state: None, is_held: true })))
    }

    /// Sends a held response to the handshake. Returns the same as [`Outbox::send`].
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn release(&mut self, stream: &mut impl Write, now: Instant) -> io::Result<u64> {
        let held = self.0.as_mut().is_some_and(|waiting| std::mem::take(&mut waiting.is_held));
        if held { self.flush(stream, now) } else { Ok(0) }
    }

    /// Sends the bytes of a control frame or a `pong` message.
    ///
    /// # Errors
    /// The connection is broken, or more bytes are pending than a well-behaved client can cause.
    pub fn control(&mut self, stream: &mut impl Write, bytes: &[u8], now: Instant) -> io::Result<()> {
        if let Some(waiting) = &mut self.0 {
            if waiting.bytes.len() + bytes.len() > CLIENT_CONTROL_BYTES_MAX {
                return Err(io::Error::other("client reads too slowly"));
            }
            waiting.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        let written = write(stream, bytes)?;
        if written < bytes.len() {
            let bytes = bytes[written..].to_vec();
            self.0 = Some(Box::new(Waiting { since: now, bytes, begun: 0, state: None, is_held: false }));
        }
        Ok(())
    }

    /// Sends a close frame, after the rest of a partly written frame. Drops a pending state, since no frame may follow
    /// a close.
    ///
    /// # Errors
    /// See [`Outbox::control`].
    pub fn close(&mut self, stream: &mut impl Write, bytes: &[u8], now: Instant) -> io::Result<()> {
        if let Some(waiting) = &mut self.0 {
            waiting.state = None;
        }
        self.control(stream, bytes, now)?;
        self.release(stream, now).map(drop)
    }

    /// Sends pending bytes when the client reads again, unless they are held. Returns the same as [`Outbox::send`].
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, stream: &mut impl Write, now: Instant) -> io::Result<u64> {
        let Some(mut waiting) = self.0.take_if(|waiting| !waiting.is_held) else { return Ok(0) };
        let written = write(stream, &waiting.bytes)?;
        if written > 0 {
            waiting.since = now;
        }
        if written < waiting.bytes.len() {
            waiting.bytes.drain(..written);
            self.0 = Some(waiting);
            return Ok(0);
        }
        match waiting.state {
            Some(state) => Ok(waiting.begun + self.send(stream, &[state], now)?),
            None => Ok(waiting.begun),
        }
    }

    /// Since when the client has taken no bytes, if any are pending.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.0.as_ref().map(|waiting| waiting.since)
    }
}

/// Returns the bytes written; 0 if the client takes none now.
fn write(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    accepted(bytes.is_empty(), || stream.write(bytes))
}

fn write_vectored(stream: &mut impl Write, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    accepted(slices.is_empty(), || stream.write_vectored(slices))
}

fn accepted(nothing: bool, mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    if nothing {
        return Ok(0);
    }
    loop {
        match write() {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client that takes the given number of bytes at each turn.
    struct Reader {
        taken: Vec<u8>,
        window: usize,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.window);
            if fits == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.window -= fits;
            self.taken.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn frame(seq: u64, is_end: bool) -> Arc<Frame> {
        // Its length and content reveal torn frames.
        Arc::new(Frame::test(seq, is_end, format!("<{seq}:{}>", "x".repeat(usize::try_from(seq % 40).unwrap()))))
    }

    proptest! {
        #[test]
        fn whatever_the_client_takes_it_sees_whole_frames_rising_to_the_end_and_those_are_counted(
            held in any::<bool>(),
            turns in prop::collection::vec((0u64..5, 0usize..60, any::<bool>(), any::<bool>()), 1..60),
        ) {
            let now = Instant::now();
            let (mut outbox, mut reader, mut seq) = (Outbox::default(), Reader { taken: Vec::new(), window: 0 }, 0);
            let mut sent = 0;
            if held {
                outbox = Outbox::holding(b"<answer>".to_vec(), now);
            }
            for (events, window, pong, release) in turns {
                reader.window += window;
                if release {
                    sent += outbox.release(&mut reader, now).unwrap();
                }
                let frames: Vec<_> = (0..events).map(|_| { seq += 1; frame(seq, false) }).collect();
                sent += outbox.send(&mut reader, &frames, now).unwrap();
                if pong && outbox.control(&mut reader, b"<p>", now).is_err() {
                    break;
                }
                sent += outbox.flush(&mut reader, now).unwrap();
                if let Some(waiting) = &outbox.0 {
                    prop_assert!(waiting.bytes.len() <= CLIENT_CONTROL_BYTES_MAX + 50);
                }
            }
            sent += outbox.send(&mut reader, &[frame(seq + 1, true)], now).unwrap();
            reader.window = usize::MAX;
            sent += outbox.flush(&mut reader, now).unwrap();
            prop_assert!(outbox.blocked_since().is_none());
            let text = String::from_utf8(reader.taken).unwrap();
            prop_assert_eq!(text.starts_with("<answer>"), held);
            let text = text.trim_start_matches("<answer>");
            let (mut last, mut seen) = (0, 0);
            for part in text.split_terminator('>') {
                let part = part.strip_prefix('<').expect("a whole frame");
                if part == "p" {
                    continue;
                }
                let (number, filling) = part.split_once(':').expect("a whole frame");
                let number: u64 = number.parse().unwrap();
                prop_assert!(number > last);
                prop_assert_eq!(filling.len() as u64, number % 40);
                (last, seen) = (number, seen + 1);
            }
            prop_assert_eq!(last, seq + 1);
            prop_assert_eq!(sent, seen);
        }
    }
}
