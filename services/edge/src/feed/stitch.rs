//! An edge's view of one watched job: a snapshot and the live messages after it, stitched without a gap.
//!
//! Pure: events go in, actions come out. The live feed delivers at most once, and in no order relative to snapshots.
//! Therefore a stitch holds three things: the state that watchers have, the messages that do not connect to it (yet),
//! and the highest sequence known to exist. While that sequence is above the state's, one load is in flight.

use millrace_domain::{Entry, JobId, JobState, fold, limits::FEED_PENDING_MAX, subjects::Kind};

/// A live message: an entry, and the sequence of the entry before it on the same subject (0: none).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heard {
    /// The entry.
    pub entry: Entry,
    /// `Nats-Last-Sequence`.
    pub previous: u64,
}

/// The source of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Any replica: cheap, and may be stale.
    Any,
    /// The log's leader: complete.
    Leader,
}

/// The actions for the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// The state has advanced: send it to the watchers.
    pub publish: bool,
    /// Load the job, and report to [`Stitch::loaded`].
    pub load: Option<Source>,
    /// The log's leader has just returned the state, and nothing beyond it although more was announced.
    pub refuted: bool,
}

/// One watched job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stitch {
    state: Option<JobState>,
    /// Messages after the state that do not connect to it, by sequence.
    pending: Vec<Heard>,
    /// The highest sequence announced for the job.
    known: u64,
    loading: bool,
    /// A load has succeeded.
    answered: bool,
    /// Since the load began, a sequence was announced that may be too new for it.
    news: bool,
}

impl Stitch {
    /// The state that watchers have.
    #[must_use]
    pub const fn state(&self) -> Option<&JobState> {
        self.state.as_ref()
    }

    /// Whether no event can follow. A failed or canceled job may be retried.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_end() && !state.stage.is_retryable())
    }

    /// Whether a read of the job has succeeded.
    #[must_use]
    pub const fn was_answered(&self) -> bool {
        self.answered
    }

    /// The job is watched from now on.
    pub fn watched(&mut self) -> Todo {
        self.load(Source::Any)
    }

    /// A live message arrived, for the first time or again.
    pub fn heard(&mut self, id: &JobId, heard: Heard) -> Todo {
        self.known = self.known.max(heard.entry.seq);
        if heard.entry.seq <= self.seq() {
            return Todo::default();
        }
        if self.connects(&heard) {
            self.state = fold(self.state.take(), id, &heard.entry);
            self.apply_pending(id);
            return Todo { publish: true, ..Todo::default() };
        }
        self.hold(heard);
        self.load(Source::Any)
    }

    /// A load has succeeded with this state; `None` if the log has no such job.
    pub fn loaded(&mut self, id: &JobId, source: Source, loaded: Option<JobState>) -> Todo {
        (self.loading, self.answered) = (false, true);
        let before = self.seq();
        if let Some(loaded) = loaded
            && loaded.seq > before
        {
            self.state = Some(loaded);
        }
        self.apply_pending(id);
        let publish = self.seq() > before;
        let mut refuted = false;
        if source == Source::Leader && !self.news {
            // The leader has everything that existed when it was read: a higher sequence announced before does not
            // exist (any more).
            refuted = self.state.is_some() && self.known > self.seq();
            self.known = self.seq();
            self.pending.clear();
        }
        let load = (self.known > self.seq()).then_some(Source::Leader).and_then(|source| self.load(source).load);
        Todo { publish, load, refuted }
    }

    /// A load has failed; the caller retries after a pause.
    pub fn load_failed(&mut self) {
        self.loading = false;
    }

    /// A sequence of the job in the log, from a sweep or heard before the watch began; 0: none.
    pub fn swept(&mut self, last: u64) -> Todo {
        self.known = self.known.max(last);
        if self.known > self.seq() { self.load(Source::Any) } else { Todo::default() }
    }

    /// A client claims to have seen `seq` at another edge.
    pub fn announced(&mut self, seq: u64) -> Todo {
        self.known = self.known.max(seq);
        if self.known > self.seq() { self.load(Source::Leader) } else { Todo::default() }
    }

    fn seq(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.seq)
    }

    fn connects(&self, heard: &Heard) -> bool {
        match (&self.state, heard.entry.kind) {
            (None, kind) => kind == Kind::Submitted && heard.previous == 0,
            // An event after a failure follows a retry, which is on the other subject and may be lost.
            (Some(state), Kind::Events) => heard.previous == state.events_seq && !state.stage.is_retryable(),
            // The message does not show whether the failure before it was heard.
            (Some(_), Kind::Submitted) => false,
        }
    }

    fn hold(&mut self, heard: Heard) {
        if self.pending.len() >= FEED_PENDING_MAX {
            // The load that is due returns them all.
            self.pending.clear();
        }
        if let Err(at) = self.pending.binary_search_by_key(&heard.entry.seq, |held| held.entry.seq) {
            self.pending.insert(at, heard);
        }
    }

    fn apply_pending(&mut self, id: &JobId) {
        for heard in std::mem::take(&mut self.pending) {
            if heard.entry.seq <= self.seq() {
                continue;
            }
            if self.connects(&heard) {
                self.state = fold(self.state.take(), id, &heard.entry);
            } else {
                self.pending.push(heard);
            }
        }
    }

    fn load(&mut self, source: Source) -> Todo {
        if self.loading {
            self.news = true;
            return Todo::default();
        }
        (self.loading, self.news) = (true, false);
        Todo { load: Some(source), ..Todo::default() }
    }
}

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod tests;
