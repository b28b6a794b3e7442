//! The WebSocket protocol: the handshake, and the frames of both sides.

pub mod head;
pub mod handshake;
pub mod decode;
pub mod encode;
pub mod close;
