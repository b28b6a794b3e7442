//! What was heard of all jobs lately, watched or not, beside how far the projector had come: it tells that a state of
//! the bucket is the newest without a question to the log, which halves what a storm of reconnects asks of NATS.
//!
//! Pure; time is given. The stream numbers its messages without holes, so it shows whether everything was heard since
//! one of them. If the projector had written everything up to that one before the bucket was read, then a job of which
//! nothing newer was heard has nothing newer. Where any of it is not sure the log is asked. What nobody can see, a last
//! message lost on the way, is found as it is for all watched jobs: by the sweep.

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

/// Events heard lately, in tables of fixed size: an event costs no allocation.
pub struct Recent {
    /// The last events, by sequence modulo the length.
    events: Box<[Event]>,
    /// The newest of them of each job, by the hash of its id. One job taken for another costs a question.
    newest: HashMap<u64, u64>,
    hasher: RandomState,
    heard: Option<Heard>,
    projected: Option<(u64, Instant)>,
    asked_at: Option<Instant>,
    /// States that were wanted since.
    wanted: usize,
}

#[derive(Clone, Copy, Default)]
struct Event {
    seq: u64,
    /// The hash of its job's id.
    job: u64,
}

/// Every event after `after` and up to `last` was heard.
struct Heard {
    after: u64,
    last: u64,
}

/// Up to this sequence every state is in the bucket, for whoever reads it from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis(u64);

impl Default for Recent {
    fn default() -> Self {
        Self::with_room(RECENT_EVENTS)
    }
}

impl Recent {
    /// One that remembers so many events.
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

    /// An event of a job was heard, for the first time or again.
    pub fn heard(&mut self, seq: u64, id: &str) {
        match &mut self.heard {
            // Told twice, or older than what is known to be in the bucket.
            Some(heard) if seq <= heard.last => return,
            Some(heard) if seq == heard.last + 1 => heard.last = seq,
            // One in between was lost, or is to come.
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

    /// Messages may have been lost, and nothing may follow them.
    pub fn disturbed(&mut self) {
        (self.heard, self.projected, self.asked_at) = (None, None, None);
    }

    /// The log is another one.
    pub fn forget(&mut self) {
        self.disturbed();
        self.newest.clear();
    }

    /// The last sequence that was heard, of those without a hole behind them; 0: none.
    pub fn last(&self) -> u64 {
        self.heard.as_ref().map_or(0, |heard| heard.last)
    }

    /// Whether everything after one sequence and up to another was heard.
    pub fn has_heard(&self, after: u64, up_to: u64) -> bool {
        up_to <= after || self.heard.as_ref().is_some_and(|heard| heard.after <= after && up_to <= heard.last)
    }

    /// Whether to ask how far the projector is, now that so many more states are wanted; that is then noted as asked.
    /// For a few it is not worth it.
    pub fn ask(&mut self, states: usize, now: Instant) -> bool {
        self.wanted += states;
        let due = self.wanted >= RECENT_STATES_MIN
            && self.asked_at.is_none_or(|asked| now.duration_since(asked) >= PROJECTED_REFRESH);
        if due {
            (self.asked_at, self.wanted) = (Some(now), 0);
        }
        due
    }

    /// How far the projector is said to be by the answer to what was asked at `asked_at`.
    pub fn projected(&mut self, Progress { up_to, is_all }: Progress, asked_at: Instant) {
        if self.asked_at != Some(asked_at) {
            // Of before a disturbance: what it calls all may have been followed by what was lost.
            return;
        }
        match &mut self.heard {
            // Not heard (yet), and in the bucket.
            Some(heard) if heard.last < up_to => *heard = Heard { after: up_to, last: up_to },
            Some(_) => {}
            // There was nothing else to be heard.
            heard if is_all => *heard = Some(Heard { after: up_to, last: up_to }),
            None => {}
        }
        self.projected = Some((up_to, asked_at));
    }

    /// To be taken before the bucket is read; `None` where that would tell nothing.
    pub fn basis(&self, now: Instant) -> Option<Basis> {
        let (up_to, at) = self.projected?;
        (now.duration_since(at) <= PROJECTED_AGE_MAX && self.covers(up_to)).then_some(Basis(up_to))
    }

    /// The newest event heard lately of each job (0: none): a state that is not older is the job's newest, as far as
    /// the replica that gave it has what the projector wrote. `None` where too much was heard or something was lost
    /// since the basis was taken.
    pub fn newest(&self, Basis(up_to): Basis, ids: &[JobId]) -> Option<Newest> {
        self.covers(up_to).then(|| Newest {
            of_each: ids.iter().map(|id| self.newest_of(id)).collect(),
            of_all: up_to.max(self.last()),
        })
    }

    /// The newest event heard lately of a job; 0: none.
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
