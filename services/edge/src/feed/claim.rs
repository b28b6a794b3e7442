//! A client's claim to have seen a sequence that this edge does not have. Pure; the caller passes the time.
//!
//! The claim is true if a replica is stale, and false if the log was restored. The log's leader decides, but a newly
//! elected leader may be stale itself. Therefore its answer counts only if it is read [`SINCE_DOUBT`] after the doubt
//! arose.

use std::time::Instant;

use millrace_domain::limits::SINCE_DOUBT;

/// The state of a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// No older state was seen.
    #[default]
    Believed,
    /// An older state was seen. The leader is due to be read at this time.
    Doubted { until: Instant },
    /// The leader was read late enough for its answer to count. Without an answer, the next read is due at this time.
    Asked { again: Instant },
}

/// What a state that is older than a claim means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the first one: the leader may have more, and must be read at once.
    Doubt,
    /// Nothing is decided yet.
    Wait,
    /// The leader has nothing newer: the claim is void.
    Refuted,
}

impl Claim {
    /// Judges a state older than the claim; `is_leaders`: the leader has nothing newer.
    pub fn older(&mut self, is_leaders: bool, now: Instant) -> Verdict {
        match self {
            Self::Believed => {
                *self = Self::Doubted { until: now + SINCE_DOUBT };
                Verdict::Doubt
            }
            Self::Asked { .. } if is_leaders => Verdict::Refuted,
            Self::Doubted { .. } | Self::Asked { .. } => Verdict::Wait,
        }
    }

    /// When the next read from the leader is due, if the claim is in doubt.
    pub const fn due(self) -> Option<Instant> {
        match self {
            Self::Believed => None,
            Self::Doubted { until: at } | Self::Asked { again: at } => Some(at),
        }
    }

    /// Records that the leader is read now.
    pub fn ask(&mut self, now: Instant) {
        *self = Self::Asked { again: now + SINCE_DOUBT };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_that_is_asked_late_enough_refutes_a_claim() {
        let now = Instant::now();
        let mut claim = Claim::default();
        assert_eq!(claim.due(), None);
        assert_eq!(claim.older(true, now), Verdict::Doubt, "the leader may be one that was just elected");
        assert_eq!(claim.older(true, now), Verdict::Wait);
        assert_eq!(claim.older(true, now + SINCE_DOUBT), Verdict::Wait, "it was asked too early");
        assert_eq!(claim.due(), Some(now + SINCE_DOUBT));
        claim.ask(now + SINCE_DOUBT);
        assert_eq!(claim.older(false, now + SINCE_DOUBT), Verdict::Wait, "a replica does not know");
        assert_eq!(claim.due(), Some(now + SINCE_DOUBT * 2), "again, while there is no answer");
        assert_eq!(claim.older(true, now + SINCE_DOUBT), Verdict::Refuted);
    }
}
