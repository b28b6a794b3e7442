//! Which side closes a WebSocket, and how that is counted.

use std::collections::BTreeSet;

use millrace_domain::close::{self, Close};

/// What is counted when a client goes away without a close frame.
pub const ABNORMAL: u16 = 1006;
/// What is counted when a client's close frame has no code.
const NO_CODE: u16 = 1005;
/// What a client sends whose page is left.
const LEFT: u16 = 1001;

/// Which side closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The edge; the client is to answer.
    Ours(Close),
    /// The client, by this code if it gave one; it is answered by the same.
    Theirs(Option<u16>),
}

impl Closing {
    /// The code that is counted.
    pub const fn code(self) -> u16 {
        match self {
            Self::Ours(close) => close.code,
            Self::Theirs(Some(code)) => code,
            Self::Theirs(None) => NO_CODE,
        }
    }
}

/// The codes that are counted each by itself, each once.
pub fn counted() -> BTreeSet<u16> {
    close::ALL.iter().map(|close| close.code).chain([LEFT, NO_CODE, ABNORMAL]).collect()
}
