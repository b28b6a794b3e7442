//! Explores every order of events at a small size with a model checker: one job, two workers, one lost reply or one
//! late request, one lease that ends too early, one leader that dies and whose successor responds to a few requests
//! before it has caught up. A smaller model has one worker that is killed once and whose attempt fails once, and a
//! person who retries once.

use std::time::Duration;

use millrace_domain::{
    EventBody, JobState, Submission,
    limits::{APPEND_RETRY_MAX, NATS_REQUEST_MAX},
};
use stateright::{Checker, Model, Property};

use crate::{
    log::Log,
    message::Publish,
    operation::{Call, Defect, Fresh, Operation},
    worker::Work,
};

mod steps;

const JOB: usize = 0;
const NAMES: [&str; 2] = ["one", "two"];
/// The search stops and fails beyond this number of states.
const STATES_MAX: usize = 4_000_000;
/// A planted defect must show within this number of states.
const STATES_FOR_DEFECTS_MAX: usize = 30_000;
/// Steps after which the job has ended once nothing fails any more.
const STEPS_TO_HEAL_MAX: usize = 300;

/// How many times each fault may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    losses: u8,
    leases: u8,
    elections: u8,
    /// Requests to which a leader responds that has not caught up, or has a message in flight: unlimited repeats would
    /// only multiply the states.
    early_answers: u8,
    kills: u8,
    failures: u8,
    retries: u8,
    /// How many times the log is full for a while.
    fills: u8,
    removals: u8,
}

const NOTHING: Left = Left {
    losses: 0,
    leases: 0,
    elections: 0,
    early_answers: 0,
    kills: 0,
    failures: 0,
    retries: 0,
    fills: 0,
    removals: 0,
};
/// No process is killed, and no person acts.
const TWO_WORKERS: Left = Left { losses: 1, leases: 1, elections: 1, early_answers: 1, ..NOTHING };
/// One worker and a person. With three servers the search would take too long, so either a reply is lost or the worker
/// is killed, not both.
const A_PERSON: Left = Left { losses: 1, elections: 1, early_answers: 1, kills: 1, failures: 1, retries: 1, ..NOTHING };
/// The job ends under a worker that has lost its lease, and is removed.
const A_REMOVAL: Left = Left { leases: 1, elections: 1, early_answers: 1, removals: 1, ..NOTHING };
/// An append is abandoned, and the leader at that time may have no entry of the job yet.
const AN_ABSENCE: Left = Left { losses: 1, elections: 1, early_answers: 1, ..NOTHING };
/// There is no room for a while.
const NO_ROOM: Left = Left { losses: 1, fills: 1, ..NOTHING };

#[derive(Clone, Debug, PartialEq, Hash)]
struct State {
    log: Log,
    /// The workers, and behind them people.
    actors: Vec<Actor>,
    /// Requests that have not arrived.
    net: Vec<(usize, Call)>,
    items: Vec<Item>,
    left: Left,
}

#[derive(Clone, Debug, PartialEq, Hash)]
struct Actor {
    operation: Option<Operation>,
    waits: Option<Call>,
    work: Option<Work>,
    fresh: Fresh,
    was_fenced: bool,
    was_superseded: bool,
    /// It has found that its job is gone.
    was_told: bool,
}

/// A work item in the queue.
#[derive(Clone, Debug, PartialEq, Hash)]
struct Item {
    seq: u64,
    holder: Option<usize>,
    is_acknowledged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The queue delivers a work item to an idle worker.
    Take(usize, usize),
    /// A worker without a request in flight continues.
    Act(usize),
    /// Its attempt fails, and may succeed later.
    Fail(usize),
    Kill(usize),
    /// A person retries.
    Retry(usize),
    /// A request arrives, and its response too.
    Arrive(usize),
    /// The request arrives, and its response is lost.
    LoseAnswer(usize),
    /// The request is still in flight when the caller stops waiting for it.
    Delay(usize),
    Commit,
    /// The message is committed, and the response is lost.
    CommitUnheard,
    LeaseOver(usize),
    Elect {
        kept: usize,
        behind: usize,
    },
    CatchUp,
    /// There is no room any more.
    Fill,
    MakeRoom,
    /// The job is removed.
    Remove,
    /// A process waits for a request that is no longer in flight.
    TimeOut(usize),
}

struct System {
    replicated: bool,
    workers: usize,
    left: Left,
    defect: Defect,
    /// How long a call without a response takes.
    silence: Duration,
}

impl System {
    /// Whether the job ends, and is acknowledged, once nothing fails any more.
    fn converges(&self, state: &State) -> bool {
        let mut state = state.clone();
        state.left = Left { early_answers: state.left.early_answers, ..NOTHING };
        state.log.catch_up();
        state.log.is_full = false;
        for _ in 0..STEPS_TO_HEAL_MAX {
            // The lease of a delivery without a worker ends.
            for item in &mut state.items {
                let works = |at: usize| state.actors[at].work.as_ref().is_some_and(|work| work.item == item.seq);
                item.holder = item.holder.filter(|holder| works(*holder));
            }
            let mut steps = Vec::new();
            self.steps(&state, &mut steps);
            // Requests in flight come before new ones.
            let is_new = |step: &Step| matches!(step, Step::Act(_) | Step::Take(..));
            let first = steps.iter().find(|step| !is_new(step)).or(steps.first());
            let Some(step) = first else { break };
            state = self.take(&state, *step);
        }
        let has_ended = state.log.is_removed(JOB) || state.log.truth(JOB).is_some_and(JobState::is_end);
        let is_idle = |actor: &Actor| actor.operation.is_none() && actor.work.is_none();
        state.is_over() && has_ended && state.actors.iter().all(is_idle) && state.log.wrong.is_none()
    }
}

impl State {
    /// Every work item is acknowledged, or removed with its job.
    fn is_over(&self) -> bool {
        self.log.is_removed(JOB) || self.items.iter().all(|item| item.is_acknowledged)
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
        log.publish(Publish { id: 0, append: 0, job: JOB, expected: 0, event, writer, reports: None, item: None }, 0);
        log.commit();
        let people = usize::from(self.left.retries);
        let actor = |at: usize| Actor {
            operation: None,
            waits: None,
            work: None,
            fresh: Fresh::after(1000 * (at as u64 + 1)),
            was_fenced: false,
            was_superseded: false,
            was_told: false,
        };
        let actors = (0..self.workers + people).map(actor).collect();
        let items = vec![Item { seq: 1, holder: None, is_acknowledged: false }];
        vec![State { log, actors, net: Vec::new(), items, left: self.left }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        self.steps(state, actions);
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let state = self.take(before, step);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties: Vec<Property<Self>> = vec![
            Property::always("nothing is stored or told that must not be", |_, state: &State| {
                state.log.wrong.is_none()
            }),
            Property::always("what is acknowledged has ended, or was submitted again", |_, state: &State| {
                let truth = state.log.truth(JOB);
                let is_over = |item: &Item| truth.is_none_or(|job| job.is_end() || job.submitted_seq > item.seq);
                state.items.iter().all(|item| !item.is_acknowledged || is_over(item))
            }),
            Property::always("the job ends once nothing fails", |system: &Self, state| system.converges(state)),
            Property::sometimes("the job ends after everything that may happen", |_, state: &State| {
                state.is_over() && Left { early_answers: 0, ..state.left } == NOTHING
            }),
        ];
        if self.left.removals > 0 {
            properties.push(Property::sometimes("a worker learns that its job is gone", |_, state: &State| {
                state.actors.iter().any(|actor| actor.was_told)
            }));
        }
        if self.left.fills > 0 {
            properties.push(Property::sometimes("an event waits for room", |_, state: &State| {
                let waits = |actor: &Actor| actor.operation.as_ref().is_some_and(|operation| operation.has_paused);
                state.log.is_full && state.actors.iter().any(waits)
            }));
        }
        if self.left.leases > 0 {
            properties.push(Property::sometimes("a worker is fenced", |_, state: &State| {
                state.actors.iter().any(|actor| actor.was_fenced)
            }));
        }
        if self.left.retries > 0 && self.left.kills > 0 {
            properties.push(Property::sometimes("a work item is superseded", |_, state: &State| {
                state.actors.iter().any(|actor| actor.was_superseded)
            }));
        }
        properties
    }
}

fn search(replicated: bool, left: Left, defect: Defect, states_max: usize) -> impl Checker<System> {
    let workers = if left.retries > 0 { 1 } else { 2 };
    // An append that ends after one failed call is as good as one that takes many calls, and makes fewer states.
    let silence = if left == AN_ABSENCE { APPEND_RETRY_MAX } else { NATS_REQUEST_MAX };
    let system = System { replicated, workers, left, defect, silence };
    let checker = system.checker().threads(2).target_state_count(states_max).spawn_bfs().join();
    eprintln!("{} states, {} of them unique", checker.state_count(), checker.unique_state_count());
    checker
}

fn withstands(replicated: bool, left: Left) {
    let checker = search(replicated, left, Defect::None, STATES_MAX);
    assert!(checker.state_count() < STATES_MAX, "the whole space was searched");
    checker.assert_properties();
}

#[test]
fn no_order_of_events_on_one_server_stores_or_tells_what_must_not_be() {
    withstands(false, TWO_WORKERS);
}

#[test]
fn no_order_of_events_on_three_servers_stores_or_tells_what_must_not_be() {
    withstands(true, TWO_WORKERS);
}

#[test]
fn no_order_of_events_around_a_retry_on_one_server_loses_the_job_or_works_on_it_twice() {
    withstands(false, A_PERSON);
}

#[test]
fn no_order_of_events_around_a_retry_on_three_servers_loses_the_job_or_works_on_it_twice() {
    withstands(true, Left { kills: 0, ..A_PERSON });
    withstands(true, Left { losses: 0, ..A_PERSON });
}

#[test]
fn no_order_of_events_around_a_removal_leaves_a_worker_with_a_job_that_is_gone() {
    for replicated in [false, true] {
        withstands(replicated, A_REMOVAL);
    }
}

#[test]
fn no_single_leader_that_lags_behind_takes_a_job_from_its_worker() {
    withstands(true, AN_ABSENCE);
}

#[test]
fn no_order_of_events_while_there_is_no_room_loses_one_or_stores_it_twice() {
    for replicated in [false, true] {
        withstands(replicated, NO_ROOM);
    }
}

#[test]
fn the_search_finds_a_worker_that_believes_the_first_leader_that_has_nothing_of_its_job() {
    let found = search(true, AN_ABSENCE, Defect::BelieveOneAbsence, STATES_FOR_DEFECTS_MAX).discoveries();
    assert!(found.contains_key("nothing is stored or told that must not be"), "{:?}", found.keys());
}

#[test]
fn the_search_finds_a_worker_that_never_believes_that_its_job_is_gone() {
    let found = search(false, A_REMOVAL, Defect::BelieveNoAbsence, STATES_FOR_DEFECTS_MAX).discoveries();
    assert!(found.contains_key("the job ends once nothing fails"), "{:?}", found.keys());
}

#[test]
fn the_search_finds_a_recovery_that_believes_refusals() {
    for replicated in [false, true] {
        let found = search(replicated, TWO_WORKERS, Defect::BelieveRefusals, STATES_FOR_DEFECTS_MAX).discoveries();
        assert!(found.contains_key("nothing is stored or told that must not be"), "{:?}", found.keys());
    }
}

#[test]
fn the_search_finds_a_worker_that_believes_a_leader_who_has_not_seen_the_work_item() {
    let found =
        search(true, Left { losses: 0, ..A_PERSON }, Defect::ForgetTheWorkItem, STATES_FOR_DEFECTS_MAX).discoveries();
    assert!(found.contains_key("what is acknowledged has ended, or was submitted again"), "{:?}", found.keys());
}
