//! The environment of one [`Stitch`]: the log, the network and the loader, with the invariants after every step.

use jiff::Timestamp;
use millrace_domain::{
    Command, Event, EventBody, decide, event::Progress, failure::FailureKind, fold_all, retry::Budget,
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};

use super::super::*;

/// Most loads that are needed, one after the other, once nothing fails any more.
const LOADS_TO_HEAL_MAX: usize = 4;

/// The next step. Numbers select among the existing items.
#[derive(Clone, Debug)]
pub enum Step {
    /// The log stores the next entry and sends this many copies of the live message; 0: it is lost.
    Store { copies: usize },
    /// One of the live messages in flight arrives.
    Deliver(usize),
    /// The leader answers the load, or a replica that is `lag` entries behind.
    Answer { lag: usize },
    /// The answer of the load arrives.
    Report,
    /// The load fails.
    Fail,
    /// The loader retries after a failure.
    Retry,
    /// A sweep reads from a replica that is `lag` entries behind.
    SweepAsk { lag: usize },
    /// Its answer arrives.
    SweepReport,
    /// A client arrives with a `since` that is in the log.
    Announce(usize),
    /// A client claims a sequence that does not exist.
    Lie,
}

pub fn steps() -> impl Strategy<Value = Step> {
    let lag = || prop_oneof![3 => Just(0_usize), 2 => 1_usize..4, 1 => Just(100)];
    prop_oneof![
        8 => prop_oneof![6 => Just(1_usize), 2 => Just(0), 1 => Just(2)].prop_map(|copies| Step::Store { copies }),
        8 => prop_oneof![2 => Just(0_usize), 1 => any::<usize>()].prop_map(Step::Deliver),
        5 => lag().prop_map(|lag| Step::Answer { lag }),
        5 => Just(Step::Report),
        2 => Just(Step::Fail),
        3 => Just(Step::Retry),
        1 => lag().prop_map(|lag| Step::SweepAsk { lag }),
        1 => Just(Step::SweepReport),
        1 => any::<usize>().prop_map(Step::Announce),
        1 => Just(Step::Lie),
    ]
}

pub fn id() -> JobId {
    "job".parse().unwrap()
}

pub fn submitted(seq: u64) -> Entry {
    let submission = millrace_domain::Submission { url: "https://a.example/".parse().unwrap(), quality: None };
    Entry { seq, kind: Kind::Submitted, event: Ok(at(seq, EventBody::Submitted(submission))) }
}

/// Distinct times, so that states of different sequences differ.
fn at(seq: u64, body: EventBody) -> Event {
    Event { at: Timestamp::from_second(i64::try_from(seq).unwrap()).unwrap(), body }
}

/// A job's true log: the events of commands in any order, with undecodable messages in between.
pub fn log() -> impl Strategy<Value = Vec<Entry>> {
    let command = prop_oneof![
        4 => Just(0_usize),
        10 => Just(1),
        1 => Just(2),
        1 => Just(3),
        3 => Just(4),
        2 => Just(5),
    ];
    let submitted_first = prop_oneof![20 => Just(true), 1 => Just(false)];
    (submitted_first, vec((command, 1_u64..4), 0..40)).prop_map(|(submitted_first, commands)| {
        let mut entries: Vec<Entry> = if submitted_first { vec![submitted(1)] } else { vec![] };
        let mut seq = 1;
        for (choice, gap) in commands {
            let state = fold_all(None, &id(), &entries);
            let attempt = state.as_ref().map_or(1, |state| state.attempt);
            let progress = Progress { downloaded_bytes: seq, total_bytes: Some(100), ..Progress::default() };
            let command = match choice {
                0 => Command::Claim { worker: "w".into(), submitted_seq: u64::MAX, budget: Budget::default() },
                1 if state.as_ref().is_some_and(|state| state.stage == millrace_domain::Stage::FetchingInfo) => {
                    Command::Report { attempt, body: EventBody::Info { video_info: Default::default() } }
                }
                1 => Command::Report { attempt, body: EventBody::Progress(progress) },
                2 => Command::Cancel,
                5 => Command::Retry,
                3 => Command::Fail {
                    attempt,
                    kind: FailureKind::Unsupported,
                    retry_after: None,
                    random: 0.0,
                    budget: Budget::default(),
                },
                _ => {
                    seq += gap;
                    entries.push(Entry {
                        seq,
                        kind: Kind::Events,
                        event: Err(millrace_domain::Undecodable("noise".into())),
                    });
                    continue;
                }
            };
            for body in decide(state.as_ref(), command, Timestamp::UNIX_EPOCH).unwrap_or_default() {
                seq += gap;
                entries.push(Entry { seq, kind: body.kind(), event: Ok(at(seq, body)) });
            }
        }
        if entries.is_empty() {
            vec![Entry { seq: 1, kind: Kind::Events, event: Err(millrace_domain::Undecodable("noise".into())) }]
        } else {
            entries
        }
    })
}

/// A load in the loader.
enum Load {
    Asked(Source),
    Answered(Source, Option<Box<JobState>>),
}

pub struct Model {
    pub stitch: Stitch,
    pub log: Vec<Entry>,
    /// How many entries of `log` are stored.
    pub stored: usize,
    /// Sequence of the state published last.
    pub shown: Option<u64>,
    /// How many loads were ordered.
    pub loads: usize,
    network: Vec<Heard>,
    loading: Vec<Load>,
    retry_due: bool,
    sweep: Option<u64>,
    /// The highest sequence of the log that was reported to the stitch.
    told: u64,
}

impl Model {
    pub fn new(log: Vec<Entry>) -> Self {
        let mut model = Self {
            stitch: Stitch::default(),
            log,
            stored: 0,
            shown: None,
            loads: 0,
            network: Vec::new(),
            loading: Vec::new(),
            retry_due: false,
            sweep: None,
            told: 0,
        };
        model.watched_anew();
        model
    }

    /// All watchers leave, and new ones come.
    pub fn watched_anew(&mut self) {
        self.stitch = Stitch::default();
        (self.shown, self.told, self.retry_due) = (None, 0, false);
        // The feed drops loads of an ended watch.
        self.loading.clear();
        let todo = self.stitch.watched();
        self.carry_out(todo).expect("a first load");
    }

    /// The fold of all stored entries.
    pub fn truth(&self) -> Option<JobState> {
        self.state(0)
    }

    fn state(&self, lag: usize) -> Option<JobState> {
        fold_all(None, &id(), &self.log[..self.stored.saturating_sub(lag)])
    }

    fn last(&self, lag: usize) -> u64 {
        self.log[..self.stored.saturating_sub(lag)].last().map_or(0, |entry| entry.seq)
    }

    pub fn take(&mut self, step: &Step) -> TestCaseResult {
        let todo = match step {
            Step::Store { copies } => return self.store(*copies),
            Step::Deliver(which) if !self.network.is_empty() => {
                let message = self.network.remove(which % self.network.len());
                self.told = self.told.max(message.entry.seq);
                self.stitch.heard(&id(), message)
            }
            Step::Answer { lag } => {
                let asked = self.loading.iter().position(|load| matches!(load, Load::Asked(_)));
                let Some(Load::Asked(source)) = asked.map(|at| self.loading.remove(at)) else { return Ok(()) };
                let lag = if source == Source::Leader { 0 } else { *lag };
                self.loading.push(Load::Answered(source, self.state(lag).map(Box::new)));
                return Ok(());
            }
            Step::Report => {
                let answered = self.loading.iter().position(|load| matches!(load, Load::Answered(..)));
                let Some(Load::Answered(source, state)) = answered.map(|at| self.loading.remove(at)) else {
                    return Ok(());
                };
                self.stitch.loaded(&id(), source, state.map(|state| *state))
            }
            Step::Fail if !self.loading.is_empty() => {
                self.loading.remove(0);
                self.stitch.load_failed();
                self.retry_due = true;
                Todo::default()
            }
            Step::Retry if self.retry_due => {
                self.retry_due = false;
                self.stitch.watched()
            }
            Step::SweepAsk { lag } if !self.stitch.is_final() => {
                self.sweep = Some(self.last(*lag));
                return Ok(());
            }
            Step::SweepReport => match self.sweep.take() {
                Some(last) => {
                    self.told = self.told.max(last);
                    self.stitch.swept(last)
                }
                None => return Ok(()),
            },
            Step::Announce(which) if self.stored > 0 => {
                let seq = self.log[which % self.stored].seq;
                self.told = self.told.max(seq);
                self.stitch.announced(seq)
            }
            Step::Lie => self.stitch.announced(u64::MAX),
            _ => return Ok(()),
        };
        self.carry_out(todo)
    }

    fn store(&mut self, copies: usize) -> TestCaseResult {
        if let Some(entry) = self.log.get(self.stored) {
            let before = self.log[..self.stored].iter().rev().find(|before| before.kind == entry.kind);
            let message = Heard { entry: entry.clone(), previous: before.map_or(0, |before| before.seq) };
            self.network.extend(std::iter::repeat_n(message, copies));
            self.stored += 1;
        }
        Ok(())
    }

    fn carry_out(&mut self, todo: Todo) -> TestCaseResult {
        if let Some(source) = todo.load {
            prop_assert!(self.loading.is_empty(), "a second load at the same time");
            self.loading.push(Load::Asked(source));
            self.loads += 1;
        }
        let seq = self.stitch.state().map(|state| state.seq);
        if todo.publish {
            prop_assert!(seq > self.shown, "{:?} was shown after {:?}", seq, self.shown);
            self.shown = seq;
        }
        prop_assert_eq!(seq, self.shown, "a state that is not published");
        if let Some(state) = self.stitch.state() {
            let until = self.log.iter().position(|entry| entry.seq == state.seq);
            prop_assert!(until.is_some(), "{} is no sequence of the job", state.seq);
            let truth = fold_all(None, &id(), &self.log[..=until.unwrap()]);
            prop_assert_eq!(Some(state), truth.as_ref(), "not what the log says");
        }
        prop_assert!(self.stitch.pending.len() <= FEED_PENDING_MAX);
        // A job that was never submitted has no state, even if it has events.
        let unsubmitted = self.truth().is_none();
        let behind = self.stitch.known.max(self.told) > self.stitch.seq() && !unsubmitted;
        prop_assert!(
            !behind || !self.loading.is_empty() || self.retry_due,
            "{} is known to exist, {:?} is shown, and no load is in flight",
            self.stitch.known.max(self.told),
            self.shown
        );
        Ok(())
    }

    /// Faults stop, and a sweep runs.
    pub fn heal(&mut self) -> TestCaseResult {
        for _ in 0..self.network.len() {
            self.take(&Step::Deliver(0))?;
        }
        for _ in 0..2 {
            self.take(&Step::Retry)?;
            let first = self.loading.len();
            for _ in 0..LOADS_TO_HEAL_MAX + first {
                self.take(&Step::Answer { lag: 0 })?;
                self.take(&Step::Report)?;
            }
            prop_assert!(self.loading.is_empty(), "one load follows another without end");
            self.take(&Step::SweepAsk { lag: 0 })?;
            self.take(&Step::SweepReport)?;
        }
        Ok(())
    }
}
