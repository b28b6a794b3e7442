//! How a WebSocket ends: every code that an edge closes with, its reason, and what a client does next. Frozen once
//! released. The labels of the edge's metric, the AsyncAPI document and clients are made from this table.

/// Why an edge closes a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// The close code.
    pub code: u16,
    /// The reason, as it is sent.
    pub reason: &'static str,
    /// Whether and when a client connects again.
    pub reconnect: Reconnect,
}

/// Whether and when a client connects again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// It does not: the next connection would end the same way.
    Never,
    /// After a random pause within the time that an edge takes to drain, so that the clients of one edge do not all
    /// reconnect to the others at once.
    Spread,
    /// After a random pause; its bound doubles with each try.
    Backoff,
}

/// The code for every exceeded bound; the reason names the bound.
pub const POLICY: u16 = 1008;

macro_rules! closes {
    ($($(#[$doc:meta])* $name:ident = $code:expr, $reason:literal, $reconnect:ident;)*) => {
        $($(#[$doc])* pub const $name: Close =
            Close { code: $code, reason: $reason, reconnect: Reconnect::$reconnect };)*

        /// All of them, by code.
        pub const ALL: &[Close] = &[$($name,)*];
    };
}

closes! {
    /// The job has ended and the client has its final state.
    FINISHED = 1000, "job finished", Never;
    /// The client violated RFC 6455.
    PROTOCOL = 1002, "protocol error", Backoff;
    /// The client sent a text that is not UTF-8.
    NOT_TEXT = 1007, "not UTF-8", Backoff;
    /// The client sends too fast.
    TOO_MANY_MESSAGES = POLICY, "too many messages", Never;
    /// The client sent a message longer than [`crate::limits::WS_FRAME_BYTES_MAX`].
    MESSAGE_TOO_LARGE = POLICY, "message too large", Never;
    /// The edge is going away.
    GOING_AWAY = 1012, "the server restarts, reconnect", Spread;
    /// The edge is overloaded, or the log does not respond.
    OVERLOADED = 1013, "overloaded, try later", Backoff;
    /// Reserved: the client has not signed in.
    NOT_AUTHENTICATED = 4401, "not authenticated", Never;
    /// Reserved: the job is another client's.
    NOT_YOURS = 4403, "not yours", Never;
    /// There is no submission of this job.
    UNKNOWN_JOB = 4404, "unknown job", Never;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_does_the_same_on_each_code_whatever_the_reason_and_never_comes_back_after_a_final_one() {
        assert!(ALL.is_sorted_by_key(|close| close.code));
        for close in ALL {
            let same = ALL.iter().filter(|other| other.code == close.code);
            assert!(same.clone().all(|other| other.reconnect == close.reconnect), "{close:?}");
            assert_eq!(same.filter(|other| other.reason == close.reason).count(), 1, "{close:?}");
            let is_final = matches!(close.code, 1000 | 1008 | 4400..=4499);
            assert_eq!(close.reconnect == Reconnect::Never, is_final, "{close:?}");
            // A control frame has 125 bytes, of which the code takes two.
            assert!(close.reason.len() <= 123, "{close:?}");
        }
    }
}
