//! Which side closes a WebSocket, and how that is counted.

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

/// The codes that are counted each by itself.
pub fn counted() -> impl Iterator<Item = u16> {
    close::ALL.iter().map(|close| close.code).chain([LEFT, NO_CODE, ABNORMAL])
}

/// The metrics' label of a close code. Clients choose theirs, so all that are not expected are one.
pub fn label(code: u16) -> String {
    if counted().any(|counted| counted == code) { code.to_string() } else { OTHER.to_owned() }
}

/// The label of every other code.
pub const OTHER: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_make_labels_by_codes_of_its_own() {
        assert_eq!(label(Closing::Ours(close::UNKNOWN_JOB).code()), "4404");
        assert_eq!(label(Closing::Theirs(Some(1001)).code()), "1001");
        assert_eq!(label(Closing::Theirs(None).code()), "1005");
        for code in [3000, 4999, 1011] {
            assert_eq!(label(Closing::Theirs(Some(code)).code()), OTHER);
        }
    }
}
