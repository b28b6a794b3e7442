//! The subset of WebSocket frames that the bench needs.

/// Kinds of frames.
pub mod opcode {
    pub const CONTINUATION: u8 = 0x0;
    pub const TEXT: u8 = 0x1;
    pub const BINARY: u8 = 0x2;
    pub const CLOSE: u8 = 0x8;
    pub const PING: u8 = 0x9;
    pub const PONG: u8 = 0xA;
}

/// A frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
}

/// The first frame in `bytes` and its length with the head; `None` when it is incomplete.
pub fn first(bytes: &[u8]) -> Option<(Frame<'_>, usize)> {
    let (&head, &length) = (bytes.first()?, bytes.get(1)?);
    let (begin, length) = match length & 0x7F {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    let end = begin + length;
    Some((Frame { opcode: head & 0x0F, payload: bytes.get(begin..end)? }, end))
}

/// Encodes a whole frame of a server.
pub fn of_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    build(opcode, payload, 0)
}

/// Appends a whole frame of a client. Its mask is zero, which is allowed and keeps the payload unchanged.
pub fn of_client(opcode: u8, payload: &[u8], into: &mut Vec<u8>) {
    into.extend(build(opcode, payload, 0x80));
}

fn build(opcode: u8, payload: &[u8], mask_bit: u8) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(mask_bit | length as u8),
        length @ 126..65_536 => {
            frame.push(mask_bit | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(mask_bit | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if mask_bit != 0 {
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_any_length_reads_back_and_a_cut_one_waits() {
        for length in [0, 1, 125, 126, 400, 65_535, 65_536] {
            let payload = vec![7; length];
            let bytes = of_server(opcode::TEXT, &payload);
            let (frame, end) = first(&bytes).unwrap();
            assert_eq!((frame.opcode, frame.payload, end), (opcode::TEXT, &payload[..], bytes.len()));
            assert_eq!(first(&bytes[..bytes.len() - 1]), None);
        }
    }
}
