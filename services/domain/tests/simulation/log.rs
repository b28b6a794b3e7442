//! A model of the log in JetStream, on one server or on three: its responses, and which messages it may lose.
//!
//! Nothing here is random: the caller chooses when a message is committed, a leader dies, or a read is stale.

use millrace_domain::{
    Entry, JobId, JobState,
    append::{Outcome, Successor},
    fold, fold_all,
    subjects::Kind,
};

use crate::{
    message::Publish,
    rules::{Round, misfit},
};

/// Jobs in the log, by number.
pub const JOBS: [&str; 2] = ["a", "b"];

pub fn job_id(job: usize) -> JobId {
    JOBS[job].parse().expect("an id")
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    replicated: bool,
    /// The committed messages. A message's sequence is its position, from 1.
    pub stored: Vec<Publish>,
    /// Proposed by the leader and not committed yet, with the call that waits for it.
    pub in_flight: Vec<(Publish, u64)>,
    /// The number of committed messages that the leader has caught up with.
    pub caught_up: usize,
    /// How many leaders there were before this one.
    pub term: u64,
    /// There is no room for anything new.
    pub is_full: bool,
    /// The number of stored messages when a job was removed.
    removed: [Option<usize>; JOBS.len()],
    /// Message ids from this position on are remembered.
    remembered: usize,
    states: [Option<JobState>; JOBS.len()],
    rounds: [Round; JOBS.len()],
    /// The first violation.
    pub wrong: Option<String>,
}

impl Log {
    pub fn new(replicated: bool) -> Self {
        Self {
            replicated,
            stored: Vec::new(),
            in_flight: Vec::new(),
            caught_up: 0,
            term: 0,
            is_full: false,
            removed: [None; JOBS.len()],
            remembered: 0,
            states: Default::default(),
            rounds: Default::default(),
            wrong: None,
        }
    }

    /// The positions of a job's messages on a server that has the first `count` messages of the log. A server that has
    /// every message from before the job's removal has removed the job too.
    fn places(&self, job: usize, count: usize) -> impl DoubleEndedIterator<Item = usize> {
        let first = self.removed[job].filter(|removed| *removed <= count).unwrap_or(0);
        (first..count).filter(move |at| self.stored[*at].job == job)
    }

    fn places_on(&self, job: usize, kind: Kind) -> impl DoubleEndedIterator<Item = usize> {
        self.places(job, self.caught_up).filter(move |at| self.stored[*at].is_on(job, kind))
    }

    fn last(&self, job: usize, kind: Kind) -> u64 {
        self.places_on(job, kind).next_back().map_or(0, |at| at as u64 + 1)
    }

    /// The job has ended, and its removal would come after every request in flight.
    pub fn can_remove(&self, job: usize) -> bool {
        let is_under_way = self.in_flight.iter().any(|(message, _)| message.job == job);
        self.caught_up == self.stored.len() && !is_under_way && self.truth(job).is_some_and(JobState::is_end)
    }

    /// Removes all messages of the job, as retention does.
    pub fn remove(&mut self, job: usize) {
        self.removed[job] = Some(self.stored.len());
        self.states[job] = None;
    }

    pub const fn is_removed(&self, job: usize) -> bool {
        self.removed[job].is_some()
    }

    /// The leader receives a message; `None`: it responds when the message is committed.
    pub fn publish(&mut self, message: Publish, call: u64) -> Option<Outcome> {
        let kind = message.event.body.kind();
        let follows = self.last(message.job, kind) == message.expected;
        if !self.replicated {
            // The expected sequence is checked first: a repeat of a stored message is refused.
            if !follows {
                return Some(Outcome::WrongLast);
            }
            return Some(match self.remembers(message.id) {
                Some(seq) => Outcome::Stored(seq),
                None if self.is_full => Outcome::NoRoom("10047".to_owned()),
                None => Outcome::Stored(self.store(message)),
            });
        }
        if let Some(seq) = self.remembers(message.id) {
            return Some(Outcome::Stored(seq));
        }
        if self.in_flight.iter().any(|(other, _)| other.is_on(message.job, kind)) {
            return Some(Outcome::Unknown("10158 or 10164: in flight".to_owned()));
        }
        if !follows {
            return Some(Outcome::WrongLast);
        }
        if self.caught_up < self.stored.len() {
            return Some(Outcome::Unknown("10008: the leader catches up".to_owned()));
        }
        if self.is_full {
            return Some(Outcome::NoRoom("10047".to_owned()));
        }
        self.in_flight.push((message, call));
        None
    }

    fn remembers(&self, id: u64) -> Option<u64> {
        let seen = self.stored[..self.caught_up].iter().enumerate().skip(self.remembered);
        seen.filter(|(_, stored)| stored.id == id).map(|(at, _)| at as u64 + 1).next()
    }

    /// A majority has the oldest message in flight; returns the call that waits for it, and its response.
    pub fn commit(&mut self) -> Option<(u64, Outcome)> {
        if self.in_flight.is_empty() {
            return None;
        }
        let (message, call) = self.in_flight.remove(0);
        let seq = self.store(message);
        Some((call, Outcome::Stored(seq)))
    }

    /// The leader dies, or the only server restarts. The next leader has received `kept` of the messages in flight, and
    /// is `behind` messages behind. No caller gets a response.
    pub fn elect(&mut self, kept: usize, behind: usize) {
        self.term += 1;
        for (message, _) in std::mem::take(&mut self.in_flight).into_iter().take(kept) {
            self.store(message);
        }
        if self.replicated {
            // No server lags for as long as a job is kept after its end.
            let removed = self.removed.iter().flatten().max().copied().unwrap_or(0);
            self.caught_up = self.stored.len().saturating_sub(behind).max(removed);
        }
    }

    pub fn catch_up(&mut self) {
        self.caught_up = self.stored.len();
    }

    /// The duplicate window of all stored messages ends.
    pub fn forget(&mut self) {
        self.remembered = self.stored.len();
    }

    /// The leader's response to a read of the first message after a sequence.
    pub fn successor(&self, job: usize, kind: Kind, after: u64) -> Option<Successor> {
        let after = usize::try_from(after).expect("a place");
        let at = self.places_on(job, kind).find(|at| *at >= after)?;
        Some(Successor { seq: at as u64 + 1, message_id: Some(self.stored[at].id.to_string()) })
    }

    /// A job's state as returned by a server that has the first `count` messages of the log.
    pub fn state_at(&self, job: usize, count: usize) -> Option<JobState> {
        let entries: Vec<_> = self.places(job, count).map(|at| self.entry(at)).collect();
        fold_all(None, &job_id(job), &entries)
    }

    /// A job's state by all committed messages.
    pub fn truth(&self, job: usize) -> Option<&JobState> {
        self.states[job].as_ref()
    }

    pub fn entry(&self, at: usize) -> Entry {
        let event = self.stored[at].event.clone();
        Entry { seq: at as u64 + 1, kind: event.body.kind(), event: Ok(event) }
    }

    /// Stores a message, and checks that it is allowed.
    fn store(&mut self, message: Publish) -> u64 {
        let job = message.job;
        let before = self.states[job].clone();
        let again = self.stored.iter().any(|stored| stored.append == message.append);
        let was_caught_up = self.caught_up == self.stored.len();
        self.stored.push(message);
        if was_caught_up {
            self.caught_up = self.stored.len();
        }
        let at = self.stored.len() - 1;
        let after = fold(before.clone(), &job_id(job), &self.entry(at));
        let message = &self.stored[at];
        let wrong = again.then_some("it is stored twice");
        let wrong = wrong.or_else(|| self.rounds[job].count(at as u64 + 1, message));
        let wrong = wrong.or_else(|| misfit(message, before.as_ref(), after.as_ref()));
        if let (Some(why), None) = (wrong, &self.wrong) {
            self.wrong = Some(format!("{why}: {:?}, on {before:?}", self.stored[at]));
        }
        self.states[job] = after;
        self.stored.len() as u64
    }
}
