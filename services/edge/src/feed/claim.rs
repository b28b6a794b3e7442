//! What a client claims to have seen of a job, where this edge has less of it. Pure; time is given.
//!
//! The claim is true where a replica is behind, and false where the log was restored. The log's leader knows, unless it
//! was elected just now and is behind itself. So its word counts only if it is asked [`SINCE_DOUBT`] after the doubt
//! arose.

use std::time::Instant;

use millrace_domain::limits::SINCE_DOUBT;

/// How far a claim is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Claim {
    /// Nothing speaks against it.
    #[default]
    Believed,
    /// There was a state that is older. The leader is to be asked at this time.
    Doubted { until: Instant },
    /// The leader was asked late enough for its word to count. Without an answer it is to be asked again at this time.
    Asked { again: Instant },
}

/// What a state says that is older than a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first of its kind: the leader may have more, and is asked at once.
    Doubt,
    /// Nothing yet.
    Wait,
    /// The leader has no more: the claim counts for nothing.
    Refuted,
}

impl Claim {
    /// There is a state older than what is claimed; `is_leaders`: the leader has nothing newer.
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

    /// When the leader is to be asked next, if there is doubt.
    pub const fn due(self) -> Option<Instant> {
        match self {
            Self::Believed => None,
            Self::Doubted { until: at } | Self::Asked { again: at } => Some(at),
        }
    }

    /// The leader is asked now, as it was due.
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
