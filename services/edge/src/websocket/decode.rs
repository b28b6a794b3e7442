//! Decodes the frames that a client sends. Pure; uses memory only while a message is incomplete.

use std::io::Cursor;

use millrace_domain::{
    close::{self, Close},
    limits::WS_FRAME_BYTES_MAX,
};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// Longest payload of a control frame, by RFC 6455.
const CONTROL_BYTES_MAX: u64 = 125;

/// A whole message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Received<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary,
    /// A part of a message that is not complete yet.
    Part,
    /// A ping, which is answered with the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong,
    /// A close frame, with its code if it has one.
    Close(Option<u16>),
}

/// A client's violation of the protocol; the edge closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A message longer than [`WS_FRAME_BYTES_MAX`].
    TooLarge,
    /// A frame that RFC 6455 does not allow.
    Protocol,
    /// A text that is not UTF-8.
    NotText,
}

impl Violation {
    /// The close that answers it.
    pub const fn close(self) -> Close {
        match self {
            Self::TooLarge => close::MESSAGE_TOO_LARGE,
            Self::Protocol => close::PROTOCOL,
            Self::NotText => close::NOT_TEXT,
        }
    }
}

/// The decoder of one socket. It allocates nothing between messages.
#[derive(Debug, Default)]
pub struct Decoder(Option<Box<Partial>>);

#[derive(Debug, Default)]
struct Partial {
    /// Bytes of an incomplete frame.
    bytes: Vec<u8>,
    /// Payloads of an incomplete message.
    message: Option<(Data, Vec<u8>)>,
}

impl Decoder {
    /// Decodes the bytes that arrived and calls `each` for every complete message or control frame. `bytes` is scratch
    /// space: its contents are undefined afterwards.
    ///
    /// # Errors
    /// The first violation; nothing after it is decoded.
    pub fn decode(&mut self, bytes: &mut [u8], mut each: impl FnMut(Received<'_>)) -> Result<(), Violation> {
        let mut partial = self.0.take().unwrap_or_default();
        if partial.bytes.is_empty() {
            let used = frames(bytes, &mut partial.message, &mut each)?;
            partial.bytes.extend_from_slice(&bytes[used..]);
        } else {
            let mut joined = std::mem::take(&mut partial.bytes);
            joined.extend_from_slice(bytes);
            let used = frames(&mut joined, &mut partial.message, &mut each)?;
            joined.drain(..used);
            partial.bytes = joined;
        }
        if !partial.bytes.is_empty() || partial.message.is_some() {
            self.0 = Some(partial);
        }
        Ok(())
    }
}

/// Decodes the whole frames in `bytes`; returns their length.
fn frames(
    bytes: &mut [u8],
    message: &mut Option<(Data, Vec<u8>)>,
    each: &mut impl FnMut(Received<'_>),
) -> Result<usize, Violation> {
    let mut at = 0;
    loop {
        let mut cursor = Cursor::new(&bytes[at..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol)? else {
            return Ok(at);
        };
        let begin = at + usize::try_from(cursor.position()).map_err(|_| Violation::Protocol)?;
        let Some(mask) = header.mask else { return Err(Violation::Protocol) };
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::Protocol);
        }
        let is_control = matches!(header.opcode, OpCode::Control(_));
        if is_control && (!header.is_final || length > CONTROL_BYTES_MAX) {
            return Err(Violation::Protocol);
        }
        if length > WS_FRAME_BYTES_MAX as u64 {
            return Err(Violation::TooLarge);
        }
        let end = begin + usize::try_from(length).map_err(|_| Violation::TooLarge)?;
        let Some(payload) = bytes.get_mut(begin..end) else { return Ok(at) };
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        frame(&header, payload, message, each)?;
        at = end;
    }
}

fn frame(
    header: &FrameHeader,
    payload: &[u8],
    message: &mut Option<(Data, Vec<u8>)>,
    each: &mut impl FnMut(Received<'_>),
) -> Result<(), Violation> {
    match header.opcode {
        OpCode::Control(Control::Ping) => each(Received::Ping(payload)),
        OpCode::Control(Control::Pong) => each(Received::Pong),
        OpCode::Control(Control::Close) => each(Received::Close(close_code(payload)?)),
        OpCode::Data(kind @ (Data::Text | Data::Binary)) => {
            if message.is_some() {
                return Err(Violation::Protocol);
            }
            if header.is_final {
                return whole(kind, payload, each);
            }
            *message = Some((kind, payload.to_vec()));
            each(Received::Part);
        }
        OpCode::Data(Data::Continue) => {
            let Some((kind, mut collected)) = message.take() else { return Err(Violation::Protocol) };
            if collected.len() + payload.len() > WS_FRAME_BYTES_MAX {
                return Err(Violation::TooLarge);
            }
            collected.extend_from_slice(payload);
            if header.is_final {
                return whole(kind, &collected, each);
            }
            *message = Some((kind, collected));
            each(Received::Part);
        }
        OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => return Err(Violation::Protocol),
    }
    Ok(())
}

fn whole(kind: Data, payload: &[u8], each: &mut impl FnMut(Received<'_>)) -> Result<(), Violation> {
    match kind {
        Data::Text => each(Received::Text(std::str::from_utf8(payload).map_err(|_| Violation::NotText)?)),
        _ => each(Received::Binary),
    }
    Ok(())
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(Violation::Protocol);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::NotText)?;
            Ok(Some(code))
        }
        [_] => Err(Violation::Protocol),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tungstenite::protocol::frame::Frame;

    use super::*;

    /// As a client sends it: masked.
    fn masked(opcode: OpCode, is_final: bool, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let header = FrameHeader { is_final, opcode, mask: Some(mask), ..FrameHeader::default() };
        let mut bytes = Vec::new();
        Frame::from_payload(header, payload.to_vec().into()).format(&mut bytes).unwrap();
        bytes
    }

    fn decode_in_pieces(bytes: &[u8], sizes: &[usize]) -> Result<Vec<String>, Violation> {
        let (mut decoder, mut seen, mut at, mut turn) = (Decoder::default(), Vec::new(), 0, 0);
        while at < bytes.len() {
            let end = (at + sizes[turn % sizes.len()]).min(bytes.len());
            decoder.decode(&mut bytes[at..end].to_vec(), |received| seen.push(format!("{received:?}")))?;
            (at, turn) = (end, turn + 1);
        }
        assert!(decoder.0.is_none() || !seen.is_empty() || bytes.is_empty() || at > 0);
        Ok(seen)
    }

    fn text() -> OpCode {
        OpCode::Data(Data::Text)
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_messages(
            messages in prop::collection::vec("[a-z]{0,300}", 1..8),
            mask in any::<[u8; 4]>(),
            sizes in prop::collection::vec(1usize..50, 1..5),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| {
                let (front, back) = message.as_bytes().split_at(message.len() / 2);
                let ping = masked(OpCode::Control(Control::Ping), true, b"x", mask);
                let rest = masked(OpCode::Data(Data::Continue), true, back, mask);
                [masked(text(), false, front, mask), ping, rest].concat()
            }).collect();
            let expected: Vec<_> = messages.iter().flat_map(|message| {
                [Received::Part, Received::Ping(b"x"), Received::Text(message)].map(|received| format!("{received:?}"))
            }).collect();
            prop_assert_eq!(decode_in_pieces(&bytes, &sizes).unwrap(), expected.clone());
            prop_assert_eq!(decode_in_pieces(&bytes, &[bytes.len()]).unwrap(), expected);
        }

        #[test]
        fn garbage_never_panics_and_never_holds_more_than_a_message(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            sizes in prop::collection::vec(1usize..300, 1..5),
        ) {
            let _ = decode_in_pieces(&bytes, &sizes);
        }
    }

    #[test]
    fn nothing_is_kept_between_messages() {
        let mut decoder = Decoder::default();
        let mut bytes = masked(text(), true, b"ping", [1, 2, 3, 4]);
        decoder.decode(&mut bytes, |_| {}).unwrap();
        assert!(decoder.0.is_none());
    }

    #[test]
    fn each_violation_has_its_close_code() {
        let one = |bytes: Vec<u8>| decode_in_pieces(&bytes, &[bytes.len()]).unwrap_err().close().code;
        let mask = [9, 8, 7, 6];
        assert_eq!(one(masked(text(), true, &vec![b'x'; 5000], mask)), 1008);
        let fragments = [
            masked(text(), false, &vec![b'x'; 4000], mask),
            masked(OpCode::Data(Data::Continue), true, &[b'x'; 200], mask),
        ];
        assert_eq!(one(fragments.concat()), 1008);
        assert_eq!(one(masked(text(), true, &[0xff], mask)), 1007);
        assert_eq!(one(masked(OpCode::Data(Data::Continue), true, b"x", mask)), 1002);
        assert_eq!(one(masked(OpCode::Control(Control::Ping), false, b"x", mask)), 1002);
        assert_eq!(one(masked(OpCode::Control(Control::Ping), true, &[0; 126], mask)), 1002);
        assert_eq!(one(masked(OpCode::Control(Control::Close), true, &[1], mask)), 1002);
        assert_eq!(one(masked(OpCode::Control(Control::Close), true, &1005u16.to_be_bytes(), mask)), 1002);
        assert_eq!(one(vec![0x81, 4, b'p', b'i', b'n', b'g']), 1002, "a client masks its frames");
        assert_eq!(one(vec![0xc1, 0x80, 0, 0, 0, 0]), 1002, "no extension was agreed on");
    }
}
