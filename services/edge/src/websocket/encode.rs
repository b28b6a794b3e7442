//! Encodes the frames that the edge sends.

use tungstenite::protocol::{
    CloseFrame,
    frame::{
        Frame as WsFrame, FrameHeader,
        coding::{CloseCode, Data, OpCode},
    },
};

use super::close::Closing;

/// A ping without payload.
pub const PING: [u8; 2] = [0x89, 0x00];

/// A text message, and the length of its header.
pub fn text_with_header(text: &str) -> (Vec<u8>, usize) {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let length = text.len() as u64;
    let mut bytes = Vec::with_capacity(header.len(length) + text.len());
    header.format(length, &mut bytes).expect("a vector takes every byte");
    let begin = bytes.len();
    bytes.extend_from_slice(text.as_bytes());
    (bytes, begin)
}

/// A text message.
pub fn text(text: &str) -> Vec<u8> {
    text_with_header(text).0
}

/// The answer to a ping frame.
pub fn pong(payload: &[u8]) -> Vec<u8> {
    bytes(WsFrame::pong(payload.to_vec()))
}

/// A close frame: ours, or the answer to the client's, with the same code and no reason.
pub fn close(closing: Closing) -> Vec<u8> {
    let (code, reason) = match closing {
        Closing::Ours(close) => (Some(close.code), close.reason),
        Closing::Theirs(code) => (code, ""),
    };
    bytes(WsFrame::close(code.map(|code| CloseFrame { code: CloseCode::from(code), reason: reason.into() })))
}

fn bytes(frame: WsFrame) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(frame.len());
    frame.format(&mut bytes).expect("a vector takes every byte");
    bytes
}
