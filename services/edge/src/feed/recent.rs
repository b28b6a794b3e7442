//! The recently heard events of all jobs, watched or not, and the projector's position. Together they show that a state
//! in the bucket is the newest without a read from the log, which halves the reads of a reconnect storm.
//!
//! Pure; the caller passes the time. The stream numbers its messages without holes, so the edge can detect whether it
//! has heard every event since a given one. If the projector had written everything up to that one before the bucket
//! was read, then a job without a newer heard event has no newer event. If any of this is uncertain, the edge reads
//! from the log. A lost last message is invisible here; the sweep detects it, as for all watched jobs.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Instant,
};

use millrace_domain::{
    JobId,
    limits::{PROJECTED_AGE_MAX, PROJECTED_REFRESH, RECENT_EVENTS, RECENT_STATES_MIN},
};
use millrace_runtime::snapshots::{Newest, Progress};

/// Recently heard events, in tables of fixed size: an event costs no allocation.
pub struct Recent {
    /// The last events, by sequence modulo the length.
    events: Box<[Event]>,
    /// The newest event of each job, by the hash of the job's id. A collision only costs a read from the log.
    newest: HashMap<u64, u64>,
    hasher: RandomState,
    heard: Option<Heard>,
    projected: Option<(u64, Instant)>,
    asked_at: Option<Instant>,
    /// States requested since then.
    wanted: usize,
}

#[derive(Clone, Copy, Default)]
struct Event {
    seq: u64,
    /// The hash of its job's id.
    job: u64,
}

/// The edge heard every event after `after`, up to and including `last`.
struct Heard {
    after: u64,
    last: u64,
}

/// A read from the bucket that starts now returns states that include every event up to this sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis(u64);

impl Default for Recent {
    fn default() -> Self {
        Self::with_room(RECENT_EVENTS)
    }
}

impl Recent {
    /// Remembers the last `events` events.
    fn with_room(events: usize) -> Self {
        Self {
            events: vec![Event::default(); events].into(),
            newest: HashMap::with_capacity(events),
            hasher: RandomState::new(),
            heard: None,
            projected: None,
            asked_at: None,
            wanted: 0,
        }
    }

    /// Records an event of a job, heard for the first time or again.
    pub fn heard(&mut self, seq: u64, id: &str) {
        match &mut self.heard {
            // Heard twice, or older than what is known to be in the bucket.
            Some(heard) if seq <= heard.last => return,
            Some(heard) if seq == heard.last + 1 => heard.last = seq,
            // One in between was lost, or is delayed.
            heard => *heard = Some(Heard { after: seq - 1, last: seq }),
        }
        let event = Event { seq, job: self.hasher.hash_one(id) };
        let room = self.events.len() as u64;
        let oldest = std::mem::replace(&mut self.events[(seq % room) as usize], event);
        if self.newest.get(&oldest.job) == Some(&oldest.seq) {
            self.newest.remove(&oldest.job);
        }
        self.newest.insert(event.job, seq);
    }

    /// Records that messages may have been lost without a later message to reveal it.
    pub fn disturbed(&mut self) {
        (self.heard, self.projected, self.asked_at) = (None, None, None);
    }

    /// Forgets everything: the log was truncated or restored.
    pub fn forget(&mut self) {
        self.disturbed();
        self.newest.clear();
    }

    /// The last sequence heard; 0: none.
    pub fn last(&self) -> u64 {
        self.heard.as_ref().map_or(0, |heard| heard.last)
    }

    /// Whether the edge heard every event after `after`, up to and including `up_to`.
    pub fn has_heard(&self, after: u64, up_to: u64) -> bool {
        up_to <= after || self.heard.as_ref().is_some_and(|heard| heard.after <= after && up_to <= heard.last)
    }

    /// Whether to read the projector's position, now that `states` more states are requested; if so, records the read.
    /// For a few states the read is not worthwhile.
    pub fn ask(&mut self, states: usize, now: Instant) -> bool {
        self.wanted += states;
        let due = self.wanted >= RECENT_STATES_MIN
            && self.asked_at.is_none_or(|asked| now.duration_since(asked) >= PROJECTED_REFRESH);
        if due {
            (self.asked_at, self.wanted) = (Some(now), 0);
        }
        due
    }

    /// Records the projector's position, as returned by the read that began at `asked_at`.
    pub fn projected(&mut self, Progress { up_to, is_all }: Progress, asked_at: Instant) {
        if self.asked_at != Some(asked_at) {
            // The read began before a disturbance: events after its answer may have been lost.
            return;
        }
        match &mut self.heard {
            // In the bucket, but not heard (yet).
            Some(heard) if heard.last < up_to => *heard = Heard { after: up_to, last: up_to },
            Some(_) => {}
            // The log had no other event to hear.
            heard if is_all => *heard = Some(Heard { after: up_to, last: up_to }),
            None => {}
        }
        self.projected = Some((up_to, asked_at));
    }

    /// The basis for [`Recent::newest`], to be taken before the read from the bucket; `None` if it would prove nothing.
    pub fn basis(&self, now: Instant) -> Option<Basis> {
        let (up_to, at) = self.projected?;
        (now.duration_since(at) <= PROJECTED_AGE_MAX && self.covers(up_to)).then_some(Basis(up_to))
    }

    /// The newest recently heard event of each job (0: none). A state that is not older is the job's newest, provided
    /// that its replica has what the projector wrote. `None` if too many events were heard, or one was lost, since the
    /// basis was taken.
    pub fn newest(&self, Basis(up_to): Basis, ids: &[JobId]) -> Option<Newest> {
        self.covers(up_to).then(|| Newest {
            of_each: ids.iter().map(|id| self.newest_of(id)).collect(),
            of_all: up_to.max(self.last()),
        })
    }

    /// The newest recently heard event of a job; 0: none.
    pub fn newest_of(&self, id: &JobId) -> u64 {
        self.newest.get(&self.hasher.hash_one(id.as_str())).copied().unwrap_or(0)
    }

    fn covers(&self, up_to: u64) -> bool {
        self.heard
            .as_ref()
            .is_some_and(|heard| heard.after <= up_to && heard.last.saturating_sub(up_to) <= self.events.len() as u64)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
