//! Job ids.

use std::{fmt, str::FromStr, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::JOB_ID_CHARS_MAX;

/// A job's id: 1 to 64 characters of `A-Z a-z 0-9 _ -`, so that it is one NATS subject token, one KV key and one
/// URL path segment without escaping.
///
/// Without authentication, knowing the id grants the right to watch the job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^[A-Za-z0-9_-]{1,64}$"))]
pub struct JobId(Arc<str>);

/// The text is not a job id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job id has 1 to {JOB_ID_CHARS_MAX} characters out of A-Z a-z 0-9 _ and -")]
pub struct InvalidJobId;

impl JobId {
    /// Makes an id from 128 random bits; 26 lower-case letters and digits.
    #[must_use]
    pub fn from_entropy(entropy: [u8; 16]) -> Self {
        let text = data_encoding::BASE32_NOPAD.encode(&entropy).to_ascii_lowercase();
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=JOB_ID_CHARS_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits { Ok(Self(text.into())) } else { Err(InvalidJobId) }
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.as_str().into()
    }
}

/// A map keyed by job id can be looked up with the text of a subject, without allocating.
impl std::borrow::Borrow<str> for JobId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_refused_when_it_is_not_one_subject_token() {
        for bad in ["", "a.b", "a*", ">", "a b", "ä", "a/b", "%2e", &"x".repeat(65)] {
            assert_eq!(bad.parse::<JobId>(), Err(InvalidJobId), "{bad:?}");
        }
        for good in ["a", "A-Z_09", &"x".repeat(64)] {
            assert_eq!(good.parse::<JobId>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn an_id_made_from_entropy_is_a_valid_id_and_keeps_every_bit() {
        let a = JobId::from_entropy([0xff; 16]);
        let mut other = [0xff; 16];
        other[15] = 0xfe;
        assert_eq!(a.as_str().parse::<JobId>().unwrap(), a);
        assert_ne!(a, JobId::from_entropy(other));
    }
}
