//! How a WebSocket ends.

/// What is counted when a client goes away without a close frame.
pub const ABNORMAL: u16 = 1006;
/// What is counted when a client's close frame has no code.
pub const NO_CODE: u16 = 1005;

/// The metrics' label of a close code. Clients choose theirs, so all that are not expected are one.
pub const fn label(code: u16) -> &'static str {
    match code {
        1000 => "1000",
        1001 => "1001",
        1002 => "1002",
        1005 => "1005",
        1006 => "1006",
        1007 => "1007",
        1008 => "1008",
        1012 => "1012",
        1013 => "1013",
        4404 => "4404",
        _ => "other",
    }
}

/// Who answers a close frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CloseAnswer {
    /// The client is to answer our close.
    Await,
    /// Ours is the answer.
    Is,
}
