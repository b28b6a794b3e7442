//! Every order of events at a small size, by a model checker: one job, two workers, one reply that is lost or one
//! request that comes late, one lease that ends too early, one leader that dies and whose successor answers a few
//! questions before it has caught up.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use millrace_domain::{Command, EventBody, JobState, Stage, Submission, append::Outcome, failure::FailureKind};
use stateright::{Checker, Model, Property};

use crate::{
    log::{Log, Publish},
    operation::{Answer, Call, Defect, Fresh, Next, Operation},
    worker::{After, Work, claim},
};

const JOB: usize = 0;
const WORKERS: usize = 2;
const NAMES: [&str; WORKERS] = ["one", "two"];
/// The search is stopped, and fails, beyond it.
const STATES_MAX: usize = 4_000_000;
/// Among so many states a defect must show.
const STATES_FOR_DEFECTS_MAX: usize = 30_000;
/// Steps after which the job has ended once nothing fails any more.
const STEPS_TO_HEAL_MAX: usize = 200;

#[derive(Clone, Debug, PartialEq, Hash)]
struct State {
    log: Log,
    workers: [Worker; WORKERS],
    /// What was asked and has not arrived.
    net: Vec<(usize, Call)>,
    holder: Option<usize>,
    is_acknowledged: bool,
    losses: u8,
    leases: u8,
    elections: u8,
    /// Questions that a leader answers who has not caught up, or has a message in flight: it may be asked again and
    /// again, which would only multiply the states.
    early_answers: u8,
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct Worker {
    operation: Option<Operation>,
    waits: Option<Call>,
    work: Option<Work>,
    fresh: Fresh,
    was_fenced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A worker that waits for nothing goes on.
    Act(usize),
    /// A question arrives, and its answer too.
    Arrive(usize),
    /// It arrives, and its answer is lost.
    LoseAnswer(usize),
    /// It is still under way when the worker stops waiting for it.
    Delay(usize),
    Commit,
    /// The message is committed, and the answer is lost.
    CommitUnheard,
    LeaseOver,
    Elect {
        kept: usize,
        behind: usize,
    },
    CatchUp,
    /// A worker waits for what is not under way any more.
    TimeOut(usize),
}

fn is_busy(log: &Log) -> bool {
    log.caught_up < log.stored.len() || !log.in_flight.is_empty()
}

struct System {
    replicated: bool,
    defect: Defect,
}

impl System {
    fn next(&self, state: &mut State, at: usize, next: Next) {
        match next {
            Next::Call(call) => {
                state.workers[at].waits = Some(call.clone());
                state.net.push((at, call));
            }
            Next::Done(result) => {
                state.workers[at].operation = None;
                let mut work = state.workers[at].work.take().expect("a worker works");
                match work.done(result, self.defect) {
                    After::GoOn => state.workers[at].work = Some(work),
                    After::Acknowledge => (state.holder, state.is_acknowledged) = (None, true),
                    After::GiveBack => state.holder = None,
                    After::LetGo => state.workers[at].was_fenced = true,
                }
            }
        }
    }

    fn act(&self, state: &mut State, at: usize) {
        let worker = &mut state.workers[at];
        let Some(work) = &worker.work else {
            if state.holder.is_none() && !state.is_acknowledged {
                state.holder = Some(at);
                worker.work = Some(Work { job: JOB, delivery: 0, attempt: None });
            }
            return;
        };
        let (known, command) = match &work.attempt {
            None => (state.log.state_at(JOB, 1), claim(NAMES[at])),
            Some((attempt, known)) => {
                let body = match known.stage {
                    Stage::FetchingInfo => EventBody::Info { video_info: Default::default() },
                    _ => EventBody::Failed(FailureKind::WorkerFailed.failure()),
                };
                (Some(known.clone()), Command::Report { attempt: *attempt, body })
            }
        };
        let (operation, next) =
            Operation::begin(JOB, known, command, NAMES[at], self.defect, &mut worker.fresh, &mut state.log);
        worker.operation = Some(operation);
        self.next(state, at, next);
    }

    fn answered(&self, state: &mut State, at: usize, answer: Answer) {
        let worker = &mut state.workers[at];
        worker.waits = None;
        let mut operation = worker.operation.take().expect("somebody asked");
        let next = operation.answered(answer, &mut worker.fresh, &mut state.log);
        state.workers[at].operation = Some(operation);
        self.next(state, at, next);
    }

    /// A question arrives; its answer, unless it has to wait for a majority.
    fn arrive(&self, state: &mut State, packet: usize) -> (usize, Call, Option<Answer>) {
        if is_busy(&state.log) {
            state.early_answers -= 1;
        }
        let (at, call) = state.net.remove(packet);
        let answer = match call.clone() {
            Call::Publish(publish) => state.log.publish(publish, at as u64).map(Answer::Append),
            Call::Successor { job, kind, after } => {
                Some(Answer::Append(Outcome::Successor(state.log.successor(job, kind, after))))
            }
            Call::State { job } => Some(Answer::State(state.log.state_at(job, state.log.caught_up))),
        };
        (at, call, answer)
    }

    fn commit(&self, state: &mut State, is_heard: bool) {
        let message = state.log.in_flight.first().map(|(message, _)| message.clone());
        let (Some(message), Some((call, outcome))) = (message, state.log.commit()) else { return };
        let at = usize::try_from(call).expect("a worker");
        if state.workers[at].waits == Some(Call::Publish(message)) {
            self.answered(state, at, if is_heard { Answer::Append(outcome) } else { Answer::Nothing });
        }
    }

    fn take(&self, before: &State, step: Step) -> State {
        let mut state = before.clone();
        match step {
            Step::Act(at) => self.act(&mut state, at),
            Step::Arrive(packet) | Step::LoseAnswer(packet) => {
                let (at, call, answer) = self.arrive(&mut state, packet);
                let is_lost = step == Step::LoseAnswer(packet);
                state.losses -= u8::from(is_lost);
                if state.workers[at].waits == Some(call) {
                    match answer {
                        _ if is_lost => self.answered(&mut state, at, Answer::Nothing),
                        Some(answer) => self.answered(&mut state, at, answer),
                        None => {}
                    }
                }
            }
            Step::Delay(packet) => {
                state.losses -= 1;
                let (at, _) = state.net[packet];
                self.answered(&mut state, at, Answer::Nothing);
            }
            Step::Commit => self.commit(&mut state, true),
            Step::CommitUnheard => {
                state.losses -= 1;
                self.commit(&mut state, false);
            }
            Step::LeaseOver => {
                state.leases -= 1;
                state.holder = None;
            }
            Step::Elect { kept, behind } => {
                state.elections -= 1;
                state.log.elect(kept, behind);
            }
            Step::CatchUp => state.log.catch_up(),
            Step::TimeOut(at) => self.answered(&mut state, at, Answer::Nothing),
        }
        // What is under way has no order: states that differ only in it are one.
        state.net.sort_by_cached_key(|packet| BuildHasherDefault::<DefaultHasher>::default().hash_one(packet));
        state
    }

    fn is_answerable(state: &State, at: usize) -> bool {
        let Some(waits) = &state.workers[at].waits else { return false };
        state.net.iter().any(|(of, call)| *of == at && call == waits)
            || state.log.in_flight.iter().any(|(message, _)| *waits == Call::Publish(message.clone()))
    }

    fn steps(state: &State, steps: &mut Vec<Step>) {
        for (at, worker) in state.workers.iter().enumerate() {
            let is_idle = worker.work.is_none() && (state.holder.is_some() || state.is_acknowledged);
            match &worker.waits {
                None if !is_idle => steps.push(Step::Act(at)),
                Some(_) if !Self::is_answerable(state, at) => steps.push(Step::TimeOut(at)),
                _ => {}
            }
        }
        for (packet, (at, call)) in state.net.iter().enumerate() {
            let is_waited_for = state.workers[*at].waits.as_ref() == Some(call);
            if !is_busy(&state.log) || state.early_answers > 0 {
                steps.push(Step::Arrive(packet));
                if state.losses > 0 && is_waited_for {
                    steps.push(Step::LoseAnswer(packet));
                }
            }
            if state.losses > 0 && is_waited_for {
                steps.push(Step::Delay(packet));
            }
        }
        if !state.log.in_flight.is_empty() {
            steps.push(Step::Commit);
            if state.losses > 0 {
                steps.push(Step::CommitUnheard);
            }
        }
        if state.leases > 0 && state.holder.is_some() {
            steps.push(Step::LeaseOver);
        }
        if state.elections > 0 {
            for kept in 0..=state.log.in_flight.len() {
                steps.extend((0..=2).map(|behind| Step::Elect { kept, behind }));
            }
        }
        if state.log.caught_up < state.log.stored.len() {
            steps.push(Step::CatchUp);
        }
    }

    /// Whether the job ends, and is acknowledged, once nothing fails any more.
    fn converges(&self, state: &State) -> bool {
        let mut state = state.clone();
        (state.losses, state.elections, state.leases) = (0, 0, 0);
        state.log.catch_up();
        for _ in 0..STEPS_TO_HEAL_MAX {
            // The lease of a delivery that nobody works on ends.
            if state.holder.is_some_and(|holder| state.workers[holder].work.is_none()) {
                state.holder = None;
            }
            let mut steps = Vec::new();
            Self::steps(&state, &mut steps);
            // What is under way comes before what is new.
            let first = steps.iter().find(|step| !matches!(step, Step::Act(_))).or(steps.first());
            let Some(step) = first else { break };
            state = self.take(&state, *step);
        }
        state.is_acknowledged && state.log.truth(JOB).is_some_and(JobState::is_end) && state.log.wrong.is_none()
    }
}

impl Model for System {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut log = Log::new(self.replicated);
        let submission = Submission { url: "http://a/".parse().expect("an address"), quality: None };
        let event = millrace_domain::Event { at: jiff::Timestamp::UNIX_EPOCH, body: EventBody::Submitted(submission) };
        let writer = "edge".to_owned();
        log.publish(Publish { id: 0, append: 0, job: JOB, expected: 0, event, writer, reports: None }, 0);
        log.commit();
        let worker = |at: u64| Worker {
            operation: None,
            waits: None,
            work: None,
            fresh: Fresh::after(1000 * (at + 1)),
            was_fenced: false,
        };
        let state = State {
            log,
            workers: [worker(0), worker(1)],
            net: Vec::new(),
            holder: None,
            is_acknowledged: false,
            losses: 1,
            leases: 1,
            elections: 1,
            early_answers: 1,
        };
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        Self::steps(state, actions);
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let state = self.take(before, step);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is stored or told that must not be", |_, state: &State| {
                state.log.wrong.is_none()
            }),
            Property::always("what is acknowledged has ended", |_, state: &State| {
                !state.is_acknowledged || state.log.truth(JOB).is_some_and(JobState::is_end)
            }),
            Property::always("the job ends once nothing fails", |system: &Self, state| system.converges(state)),
            Property::sometimes("a worker is fenced", |_, state: &State| {
                state.workers.iter().any(|worker| worker.was_fenced)
            }),
            Property::sometimes(
                "the job ends after a lost reply, an early end of a lease and an election",
                |_, state: &State| state.is_acknowledged && state.losses + state.leases + state.elections == 0,
            ),
        ]
    }
}

fn search(replicated: bool, defect: Defect, states_max: usize) -> impl Checker<System> {
    let checker = System { replicated, defect }.checker().threads(2).target_state_count(states_max).spawn_bfs().join();
    eprintln!("{} states, {} of them unique", checker.state_count(), checker.unique_state_count());
    checker
}

#[test]
fn no_order_of_events_on_one_server_stores_or_tells_what_must_not_be() {
    let checker = search(false, Defect::None, STATES_MAX);
    assert!(checker.state_count() < STATES_MAX, "the whole space was searched");
    checker.assert_properties();
}

#[test]
fn no_order_of_events_on_three_servers_stores_or_tells_what_must_not_be() {
    let checker = search(true, Defect::None, STATES_MAX);
    assert!(checker.state_count() < STATES_MAX, "the whole space was searched");
    checker.assert_properties();
}

#[test]
fn the_search_finds_a_recovery_that_believes_refusals() {
    for replicated in [false, true] {
        let found = search(replicated, Defect::BelieveRefusals, STATES_FOR_DEFECTS_MAX).discoveries();
        assert!(found.contains_key("nothing is stored or told that must not be"), "{:?}", found.keys());
    }
}
