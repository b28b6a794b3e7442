//! The side that closes a WebSocket, and the close code that is counted.

use std::collections::BTreeSet;

use millrace_domain::close::{self, Close};

/// Counted when a client disconnects without a close frame.
pub const ABNORMAL: u16 = 1006;
/// Counted when a client's close frame has no code.
const NO_CODE: u16 = 1005;
/// Sent by a browser that leaves the page.
const LEFT: u16 = 1001;

/// Which side closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The edge; the client must answer.
    Ours(Close),
    /// The client, with this code if it gave one; the edge answers with the same.
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

/// Codes that have a count of their own beside those of the edge.
const OTHERS: [u16; 3] = [LEFT, NO_CODE, ABNORMAL];

/// The codes that have a count of their own, each once.
pub fn counted() -> BTreeSet<u16> {
    close::ALL.iter().map(|close| close.code).chain(OTHERS).collect()
}

/// Whether a code is one of [`counted`].
pub fn is_counted(code: u16) -> bool {
    OTHERS.contains(&code) || close::ALL.iter().any(|close| close.code == code)
}
