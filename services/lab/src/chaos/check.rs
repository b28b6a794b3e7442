//! Finds the violations in a history. Pure: a test feeds it histories with each violation.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use millrace_domain::{Entry, EventBody, JobId, JobState, Stage, close, fold, wire::JobStatus};

use super::history::{Accepted, Expected, History, Logged, Session};

/// A final state reaches every client within this time of its event and of the end of the faults.
const FINAL_STATE_MAX_MS: u64 = 5_000;
/// A killed worker's job runs again within this time of its lease's end.
const RECOVERY_MAX_MS: u64 = 5_000;

/// A promise that was not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The broken promise.
    pub promise: Promise,
    /// The details.
    pub sentence: String,
}

macro_rules! promises {
    ($($name:ident, $words:literal;)*) => {
        /// The promises of the system.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Promise { $(#[doc = $words] $name,)* }

        impl Promise {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The promise's name in the table.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$name => $words,)* }
            }
        }
    };
}

promises! {
    AckedIsStored, "an acknowledged event is in the log";
    StoredOnce, "an event is in the log once";
    AcceptedIsStored, "an accepted submission is one job";
    Ends, "every job ends";
    EndsOnce, "a job has one end, and nothing after it";
    EndsRight, "a job ends as its source lets it";
    OneArtifact, "a completed job has one file with the right SHA-256";
    NoOrphans, "no file without a completed job";
    NoUploads, "no unfinished upload";
    SeqRises, "a client's seq rises";
    ProgressRises, "progress falls in no attempt";
    LastIsFold, "a client's last message is the fold";
    ClosesRight, "a socket is closed for a reason that holds";
    FinalInTime, "final states reach clients in time";
    StateIsFold, "each state is the fold of its log";
    RecoversInTime, "a killed worker's job runs again in time";
    NoProcesses, "no process is left";
    NoFiles, "no temporary file is left";
}

/// How long after its worker's death a job ran again or ended.
pub struct Recovery {
    /// After the kill.
    pub took: Duration,
    /// Whether no other fault was in the way.
    pub clear: bool,
}

/// The violations, in the order of the promises.
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker { history, jobs: Jobs::of(&history.log), found: Vec::new() };
    checker.log();
    checker.accepted();
    checker.ends();
    checker.store();
    checker.sessions();
    checker.states();
    checker.recoveries();
    checker.leftovers();
    checker.found.sort_by_key(|violation| violation.promise);
    checker.found
}

/// The times of recovery, for the table and the check.
pub fn recoveries(history: &History) -> Vec<(JobId, Recovery)> {
    let jobs = Jobs::of(&history.log);
    let mut found = Vec::new();
    for death in &history.worker_deaths {
        for (id, logged) in &jobs.0 {
            // In flight at the kill: this worker started the job, and no event that ends the attempt precedes the kill.
            let at = |it: &Logged| it.event.as_ref().map_or(0, |event| millis(event.at));
            let held = logged.iter().rposition(|it| match it.event.as_ref().map(|event| &event.body) {
                Ok(EventBody::Started { worker, .. }) => *worker == death.worker,
                _ => false,
            });
            let Some(held) = held else { continue };
            let next = logged[held + 1..].iter().find(|it| turns(it));
            let taken = match next {
                Some(next) if at(next) <= death.at => continue,
                Some(_) => {
                    logged[held + 1..].iter().find(|it| at(it) > death.at && begins_or_ends(it)).map(|it| at(it))
                }
                None => None,
            };
            let took = taken.map_or(Duration::MAX, |taken| Duration::from_millis(taken - death.at));
            found.push((id.clone(), Recovery { took, clear: death.clear }));
        }
    }
    found
}

fn millis(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// Whether the event ends an attempt or starts one.
fn turns(logged: &Logged) -> bool {
    begins_or_ends(logged) || matches!(logged.event.as_ref().map(|event| &event.body), Ok(EventBody::Retrying { .. }))
}

fn begins_or_ends(logged: &Logged) -> bool {
    is_end(logged) || matches!(logged.event.as_ref().map(|event| &event.body), Ok(EventBody::Started { .. }))
}

fn is_end(logged: &Logged) -> bool {
    let body = logged.event.as_ref().map(|event| &event.body);
    matches!(body, Ok(EventBody::Completed | EventBody::Failed(_) | EventBody::Canceled))
}

/// The log by job.
struct Jobs<'a>(BTreeMap<JobId, Vec<&'a Logged>>);

impl<'a> Jobs<'a> {
    fn of(log: &'a [Logged]) -> Self {
        let mut jobs: BTreeMap<JobId, Vec<&Logged>> = BTreeMap::new();
        for logged in log {
            jobs.entry(logged.id.clone()).or_default().push(logged);
        }
        Self(jobs)
    }

    fn state(&self, id: &JobId) -> Option<JobState> {
        let entry = |it: &&Logged| Entry { seq: it.seq, kind: it.kind, event: it.event.clone() };
        self.0.get(id)?.iter().map(entry).fold(None, |state, entry| fold(state, id, &entry))
    }
}

struct Checker<'a> {
    history: &'a History,
    jobs: Jobs<'a>,
    found: Vec<Violation>,
}

impl Checker<'_> {
    fn say(&mut self, promise: Promise, sentence: impl Into<String>) {
        self.found.push(Violation { promise, sentence: sentence.into() });
    }

    fn log(&mut self) {
        if self.history.acked.is_empty() {
            self.say(Promise::AckedIsStored, "no service has logged an acknowledged append: nothing was checked");
        }
        let by_seq: HashMap<u64, &str> = self.history.log.iter().map(|it| (it.seq, it.message_id.as_str())).collect();
        for acked in &self.history.acked {
            if by_seq.get(&acked.seq) != Some(&acked.message_id.as_str()) {
                let there = by_seq.get(&acked.seq).unwrap_or(&"nothing");
                let sentence = format!("{} was acknowledged at {}; the log has {there}", acked.message_id, acked.seq);
                self.say(Promise::AckedIsStored, sentence);
            }
        }
        let mut ids = HashSet::new();
        for logged in &self.history.log {
            if !ids.insert(&logged.message_id) {
                self.say(Promise::StoredOnce, format!("{} is in the log again at {}", logged.message_id, logged.seq));
            }
        }
    }

    fn accepted(&mut self) {
        if self.history.accepted.is_empty() {
            self.say(Promise::AcceptedIsStored, "no submission was accepted: nothing was checked");
        }
        let mut by_url: HashMap<&str, Vec<&JobId>> = HashMap::new();
        for logged in &self.history.log {
            if let Ok(EventBody::Submitted(submission)) = logged.event.as_ref().map(|event| &event.body) {
                by_url.entry(submission.url.as_str()).or_default().push(&logged.id);
            }
        }
        let mut wrong = Vec::new();
        for Accepted { url, id, .. } in &self.history.accepted {
            match by_url.get(url.as_str()).map_or(&[][..], Vec::as_slice) {
                [one] if *one == id => {}
                others => wrong.push(format!("{url} was accepted as {id}; the log has {others:?}")),
            }
        }
        wrong.into_iter().for_each(|sentence| self.say(Promise::AcceptedIsStored, sentence));
    }

    /// The expected end by job; a repeated submission is the same job.
    fn expected(&self) -> BTreeMap<&JobId, &Expected> {
        self.history.accepted.iter().map(|accepted| (&accepted.id, &accepted.expected)).collect()
    }

    fn ends(&mut self) {
        let mut wrong = Vec::new();
        for (id, logged) in &self.jobs.0 {
            match logged.iter().position(|it| is_end(it)) {
                None => wrong.push((Promise::Ends, format!("{id} has no end: {}", tail(logged)))),
                Some(end) if end + 1 < logged.len() => {
                    wrong.push((Promise::EndsOnce, format!("{id} goes on after its end: {}", tail(logged))));
                }
                Some(_) => {}
            }
        }
        for (id, expected) in self.expected() {
            let Some(state) = self.jobs.state(id).filter(JobState::is_end) else { continue };
            let code = state.failure.as_ref().map_or("", |failure| failure.code.as_str());
            let right = match expected {
                Expected::File { .. } => state.stage == Stage::Completed,
                Expected::Failure(wanted) => state.stage == Stage::Failed && code == *wanted,
                Expected::CanceledOrFile { .. } => matches!(state.stage, Stage::Completed | Stage::Canceled),
            };
            if !right {
                let sentence = format!("{id} ended as {:?} {code} in attempt {}", state.stage, state.attempt);
                wrong.push((Promise::EndsRight, sentence));
            }
        }
        wrong.into_iter().for_each(|(promise, sentence)| self.say(promise, sentence));
    }

    fn store(&mut self) {
        let mut orphans: HashSet<&str> = self.history.objects.keys().map(String::as_str).collect();
        let mut wrong = Vec::new();
        for (id, expected) in self.expected() {
            let state = self.jobs.state(id).filter(|state| state.stage == Stage::Completed);
            let Some(file) = state.and_then(|state| state.file) else { continue };
            orphans.remove(file.key.as_str());
            let source = match expected {
                Expected::File { sha256 } | Expected::CanceledOrFile { sha256 } => sha256.as_str(),
                Expected::Failure(_) => "none",
            };
            match self.history.objects.get(&file.key) {
                Some(object) if object.sha256 == source && file.sha256 == source && object.size == file.file_size => {}
                Some(object) => wrong.push(format!(
                    "{}: stored {} ({} bytes), the log says {} ({} bytes), the source has {source}",
                    file.key, object.sha256, object.size, file.sha256, file.file_size
                )),
                None => wrong.push(format!("{} is not in the store", file.key)),
            }
        }
        wrong.into_iter().for_each(|sentence| self.say(Promise::OneArtifact, sentence));
        let mut orphans: Vec<_> = orphans.into_iter().map(str::to_owned).collect();
        orphans.sort_unstable();
        orphans.into_iter().for_each(|key| self.say(Promise::NoOrphans, key));
        for upload in &self.history.uploads {
            self.say(Promise::NoUploads, upload);
        }
    }

    fn sessions(&mut self) {
        if self.history.sessions.is_empty() {
            self.say(Promise::LastIsFold, "no client has watched a job: nothing was checked");
        }
        for session in &self.history.sessions {
            let name = format!("client {} of {}", session.client, session.job);
            for pair in session.seen.windows(2) {
                let (before, after) = (pair[0], pair[1]);
                // A new connection begins with the current state, which the client may have.
                let rises = after.seq > before.seq || (after.connection > before.connection && after.seq == before.seq);
                if !rises {
                    self.say(Promise::SeqRises, format!("{name}: {before:?}, then {after:?}"));
                }
                if after.attempt < before.attempt
                    || (after.attempt == before.attempt && after.progress < before.progress)
                {
                    self.say(Promise::ProgressRises, format!("{name}: {before:?}, then {after:?}"));
                }
            }
            // While a job exists and has not ended, only an edge that drains or is overloaded may close its sockets.
            for code in session
                .closes
                .iter()
                .filter(|code| [close::FINISHED.code, close::POLICY, close::UNKNOWN_JOB.code].contains(*code))
            {
                self.say(Promise::ClosesRight, format!("{name}: closed with {code} before its end"));
            }
            self.last(session, &name);
        }
    }

    fn last(&mut self, session: &Session, name: &str) {
        let Some(state) = session.job.parse().ok().and_then(|id| self.jobs.state(&id)) else {
            return self.say(Promise::LastIsFold, format!("{name}: the log has no such job"));
        };
        let fold = serde_json::to_value(JobStatus::new(&state, &self.history.base_url)).unwrap_or_default();
        if session.last.as_ref() != Some(&fold) {
            let last = session.last.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string);
            return self.say(Promise::LastIsFold, format!("{name}: received {last}, the log says {fold}"));
        }
        let Some(seen) = session.seen.iter().find(|seen| seen.end) else { return };
        let due = millis(state.updated_at).max(self.history.calm_at).max(session.began_at) + FINAL_STATE_MAX_MS;
        if seen.at > due {
            self.say(Promise::FinalInTime, format!("{name}: {} ms too late", seen.at - due));
        }
    }

    fn states(&mut self) {
        let mut strays: HashSet<&str> = self.history.states.keys().map(String::as_str).collect();
        let mut wrong = Vec::new();
        for id in self.jobs.0.keys() {
            strays.remove(id.as_str());
            let state = self.jobs.state(id);
            let fold = state.and_then(|state| serde_json::to_value(state).ok());
            let stored = self.history.states.get(id.as_str());
            if fold.as_ref() != stored {
                wrong.push(format!("{id}: stored {stored:?}, the log says {fold:?}"));
            }
        }
        wrong.extend(strays.into_iter().map(|id| format!("{id}: has a state, but no job in the log")));
        wrong.into_iter().for_each(|sentence| self.say(Promise::StateIsFold, sentence));
    }

    fn recoveries(&mut self) {
        let due = Duration::from_millis(self.history.lease_ms + RECOVERY_MAX_MS);
        for (id, recovery) in recoveries(self.history) {
            if recovery.clear && recovery.took > due {
                self.say(
                    Promise::RecoversInTime,
                    format!("{id} ran again {:?} after its worker's death", recovery.took),
                );
            }
        }
    }

    fn leftovers(&mut self) {
        for process in &self.history.processes {
            self.say(Promise::NoProcesses, process);
        }
        for file in &self.history.files {
            self.say(Promise::NoFiles, file);
        }
    }
}

/// The job's last events, for the report.
fn tail(logged: &[&Logged]) -> String {
    let body =
        |it: &&&Logged| it.event.as_ref().map_or_else(|_| "undecodable".to_owned(), |it| format!("{:?}", it.body));
    let shown: Vec<_> = logged.iter().rev().take(4).map(|it| format!("{} {}", it.seq, body(&it))).collect();
    shown.into_iter().rev().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
