//! A model checker explores every order of events at a small size: two jobs, a few events, one lost message, one stale
//! read, one reconnect that loses all messages in flight. The property tests cover repeats, other orders, failed reads
//! and longer histories.

use millrace_domain::{Entry, Event, EventBody, JobId, JobState, fold_all, submission::Submission};
use stateright::{Checker, Model, Property};

use super::{Heard, Source, Stitch, Todo};

const JOBS: usize = 2;
/// Above this number of states the search stops and fails.
const STATES_MAX: usize = 6_000_000;

/// The state of the model: the log, the messages in flight, and the edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// How many entries of each job are in the log. Sequences count from 1 in each job: gaps mean nothing to a stitch,
    /// and a common count would only multiply the states.
    stored: [usize; JOBS],
    /// Messages between the log and the edge: the job and the place in its log.
    under_way: Vec<(usize, usize)>,
    edge: [Edge; JOBS],
    losses: u8,
    stale_reads: u8,
    reconnects: u8,
}

/// The edge's side of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Edge {
    stitch: Stitch,
    load: Option<Load>,
    /// The sequence that watchers have.
    told: u64,
    /// Watchers got an older or untrue state, or two loads were in flight at once.
    wrong: bool,
}

/// A load in flight; `read` is the number of entries in the answer, once the server has read them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Load {
    source: Source,
    read: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Append(usize),
    Arrive(usize),
    Lose(usize),
    /// The server reads for a job's load: the job, and the number of entries.
    Read(usize, usize),
    Loaded(usize),
    Sweep(usize),
    /// All messages in flight are lost; the edge sweeps all jobs.
    Reconnect,
}

struct Feed {
    /// The events of each job, in order.
    events: [Vec<EventBody>; JOBS],
}

fn id(job: usize) -> JobId {
    ["a", "b"][job].parse().expect("an id")
}

impl Feed {
    fn entry(&self, job: usize, place: usize) -> Entry {
        let event = Event { at: jiff::Timestamp::UNIX_EPOCH, body: self.events[job][place].clone() };
        Entry { seq: place as u64 + 1, kind: event.body.kind(), event: Ok(event) }
    }

    fn truth(&self, job: usize, count: usize) -> Option<JobState> {
        let entries: Vec<_> = (0..count).map(|place| self.entry(job, place)).collect();
        fold_all(None, &id(job), &entries)
    }

    fn carry_out(&self, world: &mut World, job: usize, todo: Todo) {
        let count = world.stored[job];
        if todo.publish {
            let told = world.edge[job].stitch.state().cloned();
            let seq = told.as_ref().map_or(0, |state| state.seq);
            let is_true = (1..=count).any(|count| self.truth(job, count) == told);
            let edge = &mut world.edge[job];
            edge.wrong |= !is_true || seq <= edge.told;
            edge.told = seq;
        }
        if let Some(source) = todo.load {
            let edge = &mut world.edge[job];
            edge.wrong |= edge.load.is_some();
            edge.load = Some(Load { source, read: None });
        }
    }

    fn arrive(&self, world: &mut World, job: usize, place: usize) {
        let entry = self.entry(job, place);
        let before = self.events[job][..place].iter().rposition(|body| body.kind() == entry.kind);
        let previous = before.map_or(0, |place| place as u64 + 1);
        let todo = world.edge[job].stitch.heard(&id(job), Heard { entry, previous });
        self.carry_out(world, job, todo);
    }

    fn loaded(&self, world: &mut World, job: usize) {
        let Some(Load { source, read: Some(count) }) = world.edge[job].load.take() else { return };
        let state = self.truth(job, count);
        let todo = world.edge[job].stitch.loaded(&id(job), source, state);
        self.carry_out(world, job, todo);
    }

    fn sweep(&self, world: &mut World, job: usize) {
        if !world.edge[job].stitch.is_final() {
            let last = world.stored[job] as u64;
            let todo = world.edge[job].stitch.swept(last);
            self.carry_out(world, job, todo);
        }
    }

    /// Whether watchers get the last state once faults stop: messages in flight are lost, reads are true.
    fn converges(&self, world: &World) -> bool {
        let mut world = world.clone();
        world.under_way.clear();
        (0..JOBS).all(|job| {
            for _ in 0..4 {
                let count = world.stored[job];
                if let Some(load) = &mut world.edge[job].load {
                    load.read = load.read.or(Some(count));
                    self.loaded(&mut world, job);
                } else {
                    self.sweep(&mut world, job);
                }
            }
            world.edge[job].load.is_none() && world.edge[job].told == world.stored[job] as u64
        })
    }
}

impl Model for Feed {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut edge = [Edge::default(), Edge::default()];
        for edge in &mut edge {
            let source = edge.stitch.watched().load.expect("a first watch loads");
            edge.load = Some(Load { source, read: None });
        }
        let world =
            World { stored: Default::default(), under_way: Vec::new(), edge, losses: 1, stale_reads: 1, reconnects: 1 };
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        for job in 0..JOBS {
            let count = world.stored[job];
            if count < self.events[job].len() {
                actions.push(Step::Append(job));
            }
            match &world.edge[job].load {
                Some(Load { source, read: None }) => {
                    let oldest = if *source == Source::Any && world.stale_reads > 0 { 0 } else { count };
                    actions.extend((oldest..=count).map(|read| Step::Read(job, read)));
                }
                Some(_) => actions.push(Step::Loaded(job)),
                None => {}
            }
            actions.push(Step::Sweep(job));
        }
        for message in 0..world.under_way.len() {
            // The feed keeps the order of one subject.
            let (job, _) = world.under_way[message];
            if world.under_way[..message].iter().all(|(other, _)| *other != job) {
                actions.push(Step::Arrive(message));
            }
            if world.losses > 0 {
                actions.push(Step::Lose(message));
            }
        }
        if world.reconnects > 0 {
            actions.push(Step::Reconnect);
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        match step {
            Step::Append(job) => {
                world.under_way.push((job, before.stored[job]));
                world.stored[job] += 1;
            }
            Step::Arrive(message) => {
                let (job, place) = world.under_way.remove(message);
                self.arrive(&mut world, job, place);
            }
            Step::Lose(message) => {
                world.under_way.remove(message);
                world.losses -= 1;
            }
            Step::Read(job, count) => {
                if count < world.stored[job] {
                    world.stale_reads -= 1;
                }
                world.edge[job].load.as_mut()?.read = Some(count);
            }
            Step::Loaded(job) => self.loaded(&mut world, job),
            Step::Sweep(job) => self.sweep(&mut world, job),
            Step::Reconnect => {
                world.reconnects -= 1;
                world.under_way.clear();
                (0..JOBS).for_each(|job| self.sweep(&mut world, job));
            }
        }
        // Messages in flight have no order: states that differ only in their order are equal.
        world.under_way.sort_unstable();
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "nothing older, repeated or untrue is told, and one load at a time",
                |_, world: &World| world.edge.iter().all(|edge| !edge.wrong),
            ),
            Property::always("the last state is told once faults stop", |feed: &Self, world| feed.converges(world)),
            Property::sometimes("a job's end is told", |_, world: &World| {
                world.edge.iter().any(|edge| edge.stitch.state().is_some_and(JobState::is_end) && edge.told > 0)
            }),
            Property::sometimes("a loss stays unnoticed until the sweep", |_, world: &World| {
                world.under_way.is_empty()
                    && world
                        .edge
                        .iter()
                        .zip(&world.stored)
                        .any(|(edge, stored)| edge.load.is_none() && edge.told > 0 && edge.told < *stored as u64)
            }),
        ]
    }
}

fn submitted() -> EventBody {
    EventBody::Submitted(Submission { url: "http://a/".parse().expect("an address"), quality: None })
}

fn search(events: [Vec<EventBody>; JOBS]) {
    let checker = Feed { events }.checker().threads(2).target_state_count(STATES_MAX).spawn_bfs().join();
    eprintln!("{} states, {} of them unique", checker.state_count(), checker.unique_state_count());
    assert!(checker.state_count() < STATES_MAX, "the whole space was searched");
    checker.assert_properties();
}

#[test]
fn no_order_of_events_and_faults_shows_the_past_or_hides_the_end_of_two_jobs() {
    search([vec![submitted(), EventBody::Canceled], vec![submitted(), EventBody::Canceled]]);
}

#[test]
fn no_order_of_events_and_faults_shows_the_past_or_hides_the_end_of_a_longer_job() {
    let started = EventBody::Started { worker: "w".into(), attempt: 1 };
    search([vec![submitted(), started, EventBody::Canceled], vec![]]);
}

#[test]
fn no_order_of_events_and_faults_hides_that_a_canceled_job_is_tried_again() {
    let started = EventBody::Started { worker: "w".into(), attempt: 2 };
    search([vec![submitted(), EventBody::Canceled, EventBody::Resubmitted, started], vec![]]);
}
