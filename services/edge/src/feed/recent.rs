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
        Self {
            events: vec![Event::default(); RECENT_EVENTS].into(),
            newest: HashMap::with_capacity(RECENT_EVENTS),
            hasher: RandomState::new(),
            heard: None,
            projected: None,
            asked_at: None,
            wanted: 0,
        }
    }
}

impl Recent {
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
        let oldest = std::mem::replace(&mut self.events[(seq % RECENT_EVENTS as u64) as usize], event);
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

    /// Whether to ask how far the projector is, now that so many more states are wanted; that is then noted as asked. For
    /// a few it is not worth it.
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

    /// The newest event heard lately of each job (0: none): a state that is not older is the job's newest, as far as the
    /// replica that gave it has what the projector wrote. `None` where too much was heard or something was lost since the
    /// basis was taken.
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
            .is_some_and(|heard| heard.after <= up_to && heard.last.saturating_sub(up_to) <= RECENT_EVENTS as u64)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ids(names: &[&str]) -> Vec<JobId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn newest(recent: &Recent, basis: Basis, names: &[&str]) -> Option<Vec<u64>> {
        recent.newest(basis, &ids(names)).map(|newest| newest.of_each)
    }

    fn projected(recent: &mut Recent, up_to: u64, is_all: bool, now: Instant) {
        recent.asked_at = None;
        assert!(recent.ask(RECENT_STATES_MIN, now));
        recent.projected(Progress { up_to, is_all }, now);
    }

    #[test]
    fn the_newest_event_of_each_job_is_told_also_of_one_that_is_asked_for_twice() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for (seq, job) in [(5, "a"), (6, "b"), (7, "a"), (8, "c")] {
            recent.heard(seq, job);
        }
        projected(&mut recent, 5, false, now);
        let basis = recent.basis(now).unwrap();
        assert_eq!(newest(&recent, basis, &["a", "b", "nobody", "a"]), Some(vec![7, 6, 0, 7]));
        recent.heard(9, "b");
        assert_eq!(newest(&recent, basis, &["b"]), Some(vec![9]), "also what came since");
    }

    #[test]
    fn nothing_is_told_of_what_the_projector_has_not_written_and_nobody_heard() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.heard(5, "a");
        assert_eq!(recent.basis(now), None, "nobody knows how far the projector is");
        projected(&mut recent, 3, false, now);
        assert_eq!(recent.basis(now), None, "4 was not heard");
        projected(&mut recent, 4, false, now);
        assert_eq!(recent.basis(now), Some(Basis(4)));
        assert_eq!(recent.basis(now + PROJECTED_AGE_MAX + Duration::from_millis(1)), None, "too long ago");
    }

    #[test]
    fn a_message_that_was_lost_is_noticed_until_the_projector_has_written_it() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.heard(5, "a");
        projected(&mut recent, 5, false, now);
        let basis = recent.basis(now).unwrap();
        recent.heard(7, "b");
        assert_eq!(newest(&recent, basis, &["a"]), None, "6 may be of this job");
        recent.heard(6, "a");
        assert_eq!(recent.basis(now), None, "a late one changes nothing");
        projected(&mut recent, 6, false, now);
        assert_eq!(newest(&recent, recent.basis(now).unwrap(), &["a", "b"]), Some(vec![5, 7]));
        // Nothing follows the one that was lost.
        projected(&mut recent, 8, false, now);
        recent.heard(9, "a");
        assert_eq!(newest(&recent, recent.basis(now).unwrap(), &["a", "b"]), Some(vec![9, 7]));
    }

    #[test]
    fn whether_everything_was_heard_is_known_of_what_has_no_hole() {
        let mut recent = Recent::default();
        assert!(recent.has_heard(4, 4) && !recent.has_heard(4, 5), "nothing happened, or nobody knows");
        for seq in [5, 6] {
            recent.heard(seq, "a");
        }
        assert!(recent.has_heard(4, 6) && recent.last() == 6);
        recent.heard(8, "a");
        assert!(recent.has_heard(7, 8) && !recent.has_heard(7, 9), "9 is in the log and was not heard");
        assert!(!recent.has_heard(6, 8), "7 was lost");
    }

    #[test]
    fn after_a_disturbance_it_begins_anew_where_a_message_comes_or_the_projector_has_everything() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.heard(5, "a");
        projected(&mut recent, 5, false, now);
        let basis = recent.basis(now).unwrap();
        recent.disturbed();
        assert_eq!((recent.basis(now), newest(&recent, basis, &["a"])), (None, None));
        projected(&mut recent, 6, false, now);
        assert_eq!(recent.basis(now), None, "there is more, and nobody has heard it");
        recent.ask(RECENT_STATES_MIN, now);
        recent.disturbed();
        recent.projected(Progress { up_to: 7, is_all: true }, now);
        assert_eq!(recent.basis(now), None, "it was asked before");
        projected(&mut recent, 7, true, now);
        assert_eq!(recent.basis(now), Some(Basis(7)));
        recent.heard(8, "a");
        assert_eq!(newest(&recent, Basis(7), &["a"]), Some(vec![8]));
    }

    #[test]
    fn more_events_than_it_has_room_for_are_not_taken_for_none() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        recent.heard(1, "a");
        projected(&mut recent, 1, false, now);
        let basis = recent.basis(now).unwrap();
        for seq in 2..=RECENT_EVENTS as u64 + 1 {
            recent.heard(seq, if seq == 2 { "b" } else { "c" });
        }
        assert_eq!(newest(&recent, basis, &["b"]), Some(vec![2]), "the oldest that there is room for");
        recent.heard(RECENT_EVENTS as u64 + 2, "c");
        assert_eq!((recent.basis(now), newest(&recent, basis, &["b"])), (None, None));
    }
}
