//! [`Recent`] beside a reference model: the list of all events and what the projector has written of them. Messages are
//! lost, late or repeated; the connection is disturbed; reads of the projector's position and loads of states are in
//! flight meanwhile.
//!
//! The invariant: if a load reads nothing from the log, the state that it returns is the newest. "Newest" includes the
//! last message that arrived, the projector's reported position, and all events appended before a disturbance that are
//! not sent again. Messages in flight arrive later by themselves, and the sweep detects a lost last message.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;

const JOBS: usize = 3;
/// How many events are remembered: few, so that the bound is often exceeded.
const ROOM: usize = 3;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// An event of a job is appended, and its message sent.
    Append {
        job: usize,
    },
    /// One of the messages in flight arrives, most often the one that was sent first.
    Arrive {
        message: usize,
    },
    /// One of the messages in flight never arrives.
    Lose {
        message: usize,
    },
    /// One that has arrived arrives again.
    Repeat {
        message: usize,
    },
    /// The connection breaks and is restored, perhaps to another server: messages in flight are lost, and the last ones
    /// may be sent again.
    Disturb {
        again: usize,
    },
    /// The projector writes the next states.
    Project {
        events: usize,
    },
    /// A load begins, and perhaps a read of the projector's position, which may be answered at once.
    Load {
        answered: bool,
    },
    /// The server answers that read; the answer is in flight.
    Answer,
    /// The answer arrives.
    Answered,
    /// The bucket is read for a load that has begun.
    Read {
        load: usize,
    },
    /// A load, which reads the bucket if it has not yet, decides whether to read from the log.
    Decide {
        load: usize,
    },
    Wait {
        ms: u64,
    },
}

/// A load of the states of all jobs.
struct Load {
    basis: Option<Basis>,
    /// The last sequence of each job in the bucket, 0 for none; `None` before it was read.
    states: Option<[u64; JOBS]>,
}

struct World {
    recent: Recent,
    now: Instant,
    /// The job of each event; its sequence is its place, from 1.
    log: Vec<usize>,
    /// Sequences.
    under_way: Vec<u64>,
    /// Sequences that arrived since the last disturbance.
    arrived: Vec<u64>,
    /// The edge must know every event up to this sequence, even without further messages.
    known: u64,
    disturbed_at: Instant,
    /// The bucket includes every event up to this sequence.
    written: u64,
    asked: Option<Instant>,
    answer: Option<(Instant, Progress)>,
    loads: Vec<Load>,
    /// Jobs for which the log was not read.
    spared: usize,
}

impl World {
    fn new() -> Self {
        Self {
            recent: Recent::with_room(ROOM),
            now: Instant::now(),
            log: Vec::new(),
            under_way: Vec::new(),
            arrived: Vec::new(),
            known: 0,
            disturbed_at: Instant::now(),
            written: 0,
            asked: None,
            answer: None,
            loads: Vec::new(),
            spared: 0,
        }
    }

    fn end(&self) -> u64 {
        self.log.len() as u64
    }

    /// The last sequence of a job up to one of the log; 0: none.
    fn last_of(&self, job: usize, up_to: u64) -> u64 {
        (1..=up_to).rev().find(|seq| self.log[*seq as usize - 1] == job).unwrap_or(0)
    }

    fn arrive(&mut self, seq: u64) {
        self.recent.heard(seq, &name(self.log[seq as usize - 1]));
        self.arrived.push(seq);
    }

    fn answer(&mut self) {
        if let Some(asked) = self.asked.take() {
            let progress = Progress { up_to: self.written, is_all: self.written == self.end() };
            self.answer = Some((asked, progress));
        }
    }

    fn answered(&mut self) {
        if let Some((asked, progress)) = self.answer.take() {
            if asked > self.disturbed_at {
                self.known = self.known.max(progress.up_to);
            }
            self.recent.projected(progress, asked);
        }
    }

    fn read(&mut self, load: usize) {
        let states = std::array::from_fn(|job| self.last_of(job, self.written));
        self.loads[load].states.get_or_insert(states);
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        // No two steps happen at the same time.
        self.now += Duration::from_nanos(1);
        let pick = |of: usize, among: usize| (among > 0).then(|| of % among);
        match *step {
            Step::Append { job } => {
                self.log.push(job);
                self.under_way.push(self.end());
            }
            Step::Arrive { message } => {
                if let Some(message) = pick(message, self.under_way.len()) {
                    let seq = self.under_way.remove(message);
                    self.arrive(seq);
                }
            }
            Step::Lose { message } => drop(pick(message, self.under_way.len()).map(|at| self.under_way.remove(at))),
            Step::Repeat { message } => {
                if let Some(message) = pick(message, self.arrived.len()) {
                    self.arrive(self.arrived[message]);
                }
            }
            Step::Disturb { again } => {
                self.known = self.end().saturating_sub(again as u64);
                self.under_way = (self.known + 1..=self.end()).collect();
                self.arrived.clear();
                self.disturbed_at = self.now;
                self.recent.disturbed();
            }
            Step::Project { events } => self.written = self.end().min(self.written.saturating_add(events as u64)),
            Step::Load { answered } => {
                self.loads.push(Load { basis: self.recent.basis(self.now), states: None });
                if self.recent.ask(RECENT_STATES_MIN, self.now) {
                    (self.asked, self.answer) = (Some(self.now), None);
                    if answered {
                        self.answer();
                        self.answered();
                    }
                }
            }
            Step::Answer => self.answer(),
            Step::Answered => self.answered(),
            Step::Read { load } => {
                if let Some(load) = pick(load, self.loads.len()) {
                    self.read(load);
                }
            }
            Step::Decide { load } => {
                if let Some(load) = pick(load, self.loads.len()) {
                    self.read(load);
                    let load = self.loads.remove(load);
                    self.decide(&load)?;
                }
            }
            Step::Wait { ms } => self.now += Duration::from_millis(ms),
        }
        Ok(())
    }

    /// As `Snapshots::complete` does it.
    fn decide(&mut self, load: &Load) -> Result<(), TestCaseError> {
        let (Some(basis), Some(states)) = (load.basis, load.states) else { return Ok(()) };
        let ids: Vec<_> = (0..JOBS).map(|job| name(job).parse().expect("an id")).collect();
        let Some(Newest { of_each, of_all }) = self.recent.newest(basis, &ids) else { return Ok(()) };
        let come = self.arrived.iter().copied().fold(self.known, u64::max);
        for (job, (state, newest)) in states.into_iter().zip(of_each).enumerate() {
            if state > 0 && (newest..=of_all).contains(&state) {
                self.spared += 1;
                let truth = self.last_of(job, come);
                prop_assert!(state >= truth, "job {job} is shown as of {state}, and {truth} has come");
            }
        }
        Ok(())
    }
}

fn name(job: usize) -> String {
    format!("job-{job}")
}

/// Two small numbers for each step: cheap to make, and the rare steps that belong together are frequent enough to meet.
fn step() -> impl Strategy<Value = Step> {
    (0..60u8, any::<u8>()).prop_map(|(kind, pick)| {
        let pick = usize::from(pick);
        match kind {
            0..13 => Step::Append { job: pick % JOBS },
            13..24 => Step::Arrive { message: 0 },
            24..26 => Step::Arrive { message: pick },
            26..29 => Step::Lose { message: pick },
            29 => Step::Repeat { message: pick },
            30..33 => Step::Disturb { again: pick % 3 },
            33..36 => Step::Project { events: 1 + pick % 2 },
            36..40 => Step::Project { events: usize::MAX },
            40..45 => Step::Load { answered: pick % 2 == 0 },
            45..48 => Step::Answer,
            48..51 => Step::Answered,
            51..53 => Step::Read { load: pick },
            53..57 => Step::Decide { load: pick },
            _ => Step::Wait { ms: if pick % 4 > 0 { PROJECTED_REFRESH } else { PROJECTED_AGE_MAX }.as_millis() as u64 },
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_state_is_taken_for_the_newest_that_is_not(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step)?;
        }
    }

    #[test]
    fn whatever_has_happened_the_log_is_spared_again_once_messages_and_the_projector_have_caught_up(
        steps in vec(step(), 0..80),
        jobs in vec(0..JOBS, 1..=ROOM),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step)?;
        }
        let projected = Step::Project { events: usize::MAX };
        for job in jobs {
            world.step(&Step::Append { job })?;
            let newest = world.under_way.len() - 1;
            world.step(&Step::Arrive { message: newest })?;
        }
        let wait = Step::Wait { ms: PROJECTED_REFRESH.as_millis() as u64 };
        for step in [projected, wait, Step::Load { answered: true }] {
            world.step(&step)?;
        }
        let known = (0..JOBS).filter(|job| world.last_of(*job, world.end()) > 0).count();
        (world.loads, world.spared) = (Vec::new(), 0);
        for step in [Step::Load { answered: false }, Step::Decide { load: 0 }] {
            world.step(&step)?;
        }
        prop_assert_eq!(world.spared, known);
    }
}
