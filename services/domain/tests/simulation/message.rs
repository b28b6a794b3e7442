//! Messages that writers send to the log.

use millrace_domain::{Event, subjects::Kind};

/// A message in flight to the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Publish {
    /// The message id.
    pub id: u64,
    /// The append that it belongs to; several ids for one append would be a defect.
    pub append: u64,
    pub job: usize,
    pub expected: u64,
    pub event: Event,
    pub writer: String,
    /// The attempt whose holder reports; none for claims and for people.
    pub reports: Option<u32>,
    /// The work item that its writer received; none for people.
    pub item: Option<u64>,
}

impl Publish {
    pub fn is_on(&self, job: usize, kind: Kind) -> bool {
        self.job == job && self.event.body.kind() == kind
    }
}
