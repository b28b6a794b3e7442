//! The possible steps in a state, and their results.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use millrace_domain::{Command, JobState, Refusal, Stage, subjects::Kind};

use super::{Actor, Item, JOB, NAMES, State, Step, System};
use crate::{
    log::Log,
    operation::{Answer, Call, Next, Operation, Order},
    worker::{After, Luck, Work},
};

/// Shorter than the pause before another attempt: the first claim after it comes too early.
const PAUSE: Duration = Duration::from_millis(1500);

fn is_busy(log: &Log) -> bool {
    log.caught_up < log.stored.len() || !log.in_flight.is_empty()
}

impl System {
    fn next(&self, state: &mut State, at: usize, next: Next) {
        match next {
            Next::Call(call) => {
                state.actors[at].waits = Some(call.clone());
                state.net.push((at, call));
            }
            Next::Done(result) => {
                let actor = &mut state.actors[at];
                actor.operation = None;
                let Some(mut work) = actor.work.take() else { return };
                actor.was_superseded |= matches!(result, Err(Some(Refusal::Superseded { .. })));
                actor.was_told |= work.attempt.is_some() && result == Err(Some(Refusal::Unknown));
                let item = state.items.iter_mut().find(|item| item.seq == work.item).expect("it was handed over");
                match work.done(result, self.defect) {
                    After::GoOn => actor.work = Some(work),
                    After::Acknowledge => (item.holder, item.is_acknowledged) = (None, true),
                    After::GiveBack => {
                        item.holder = None;
                        actor.fresh.skip(PAUSE);
                    }
                    After::LetGo => actor.was_fenced = true,
                }
            }
        }
    }

    fn act(&self, state: &mut State, at: usize, luck: Luck) {
        let Some(work) = state.actors[at].work.clone() else { return };
        let (known, command) = match &work.attempt {
            None => {
                // The state known from the delivery; for a retry, the state that its leader has.
                let count = if work.item == 1 { 1 } else { state.log.caught_up };
                let known = state.log.state_at(JOB, count);
                let command = work.claim(NAMES[at], known.as_ref(), self.defect);
                (known, command)
            }
            Some((_, known)) if known.stage == Stage::FetchingInfo => {
                (Some(known.clone()), work.report(luck, self.defect))
            }
            Some((_, known)) => (Some(known.clone()), work.report(Luck::Permanent, self.defect)),
        };
        self.begin(state, at, known, command, Some(work.item));
    }

    fn begin(&self, state: &mut State, at: usize, known: Option<JobState>, command: Command, item: Option<u64>) {
        let order = Order { job: JOB, known, command, writer: NAMES[at], item };
        let (operation, next) = Operation::begin(order, self.defect, &mut state.actors[at].fresh, &mut state.log);
        state.actors[at].operation = Some(operation);
        self.next(state, at, next);
    }

    fn answered(&self, state: &mut State, at: usize, answer: Answer) {
        let actor = &mut state.actors[at];
        actor.waits = None;
        let mut operation = actor.operation.take().expect("somebody asked");
        let next = operation.answered(answer, &mut actor.fresh, &mut state.log);
        state.actors[at].operation = Some(operation);
        self.next(state, at, next);
    }

    /// A request arrives; returns its response, unless the response waits for a majority.
    fn arrive(&self, state: &mut State, packet: usize) -> (usize, Call, Option<Answer>) {
        if is_busy(&state.log) {
            state.left.early_answers -= 1;
        }
        let (at, call) = state.net.remove(packet);
        let answer = call.clone().arrive(&mut state.log, at as u64);
        (at, call, answer)
    }

    fn commit(&self, state: &mut State, is_heard: bool) {
        let message = state.log.in_flight.first().map(|(message, _)| message.clone());
        let (Some(message), Some((call, outcome))) = (message, state.log.commit()) else { return };
        let at = usize::try_from(call).expect("a worker");
        if state.actors[at].waits == Some(Call::Publish(message)) {
            self.answered(state, at, if is_heard { Answer::Append(outcome) } else { Answer::Nothing(self.silence) });
        }
    }

    pub(super) fn take(&self, before: &State, step: Step) -> State {
        let mut state = before.clone();
        match step {
            Step::Take(at, item) => {
                let Item { seq, holder, .. } = &mut state.items[item];
                *holder = Some(at);
                state.actors[at].work = Some(Work { job: JOB, item: *seq, delivery: 0, attempt: None });
            }
            Step::Act(at) => self.act(&mut state, at, Luck::Good),
            Step::Fail(at) => {
                state.left.failures -= 1;
                self.act(&mut state, at, Luck::Transient(1.0));
            }
            Step::Kill(at) => {
                state.left.kills -= 1;
                let actor = &mut state.actors[at];
                (actor.operation, actor.waits, actor.work) = (None, None, None);
                state.items.iter_mut().filter(|item| item.holder == Some(at)).for_each(|item| item.holder = None);
            }
            Step::Retry(at) => {
                state.left.retries -= 1;
                let known = state.log.state_at(JOB, state.log.caught_up);
                self.begin(&mut state, at, known, Command::Retry, None);
            }
            Step::Arrive(packet) | Step::LoseAnswer(packet) => {
                let (at, call, answer) = self.arrive(&mut state, packet);
                let is_lost = step == Step::LoseAnswer(packet);
                state.left.losses -= u8::from(is_lost);
                if state.actors[at].waits == Some(call) {
                    match answer {
                        _ if is_lost => self.answered(&mut state, at, Answer::Nothing(self.silence)),
                        Some(answer) => self.answered(&mut state, at, answer),
                        None => {}
                    }
                }
            }
            Step::Delay(packet) => {
                state.left.losses -= 1;
                let (at, _) = state.net[packet];
                self.answered(&mut state, at, Answer::Nothing(self.silence));
            }
            Step::Commit => self.commit(&mut state, true),
            Step::CommitUnheard => {
                state.left.losses -= 1;
                self.commit(&mut state, false);
            }
            Step::LeaseOver(item) => {
                state.left.leases -= 1;
                state.items[item].holder = None;
            }
            Step::Elect { kept, behind } => {
                state.left.elections -= 1;
                state.log.elect(kept, behind);
            }
            Step::CatchUp => state.log.catch_up(),
            Step::Fill => {
                state.left.fills -= 1;
                state.log.is_full = true;
            }
            Step::MakeRoom => state.log.is_full = false,
            Step::Remove => {
                state.left.removals -= 1;
                state.log.remove(JOB);
            }
            Step::TimeOut(at) => self.answered(&mut state, at, Answer::Nothing(self.silence)),
        }
        for (at, stored) in state.log.stored.iter().enumerate().skip(before.log.stored.len()) {
            if stored.is_on(JOB, Kind::Submitted) {
                state.items.push(Item { seq: at as u64 + 1, holder: None, is_acknowledged: false });
            }
        }
        // Requests in flight have no order: states that differ only in it are one.
        state.net.sort_by_cached_key(|packet| BuildHasherDefault::<DefaultHasher>::default().hash_one(packet));
        state
    }

    fn is_answerable(state: &State, at: usize) -> bool {
        let Some(waits) = &state.actors[at].waits else { return false };
        state.net.iter().any(|(of, call)| *of == at && call == waits)
            || state.log.in_flight.iter().any(|(message, _)| *waits == Call::Publish(message.clone()))
    }

    pub(super) fn steps(&self, state: &State, steps: &mut Vec<Step>) {
        for (at, actor) in state.actors.iter().enumerate() {
            match (&actor.waits, &actor.work) {
                (Some(_), _) if !Self::is_answerable(state, at) => steps.push(Step::TimeOut(at)),
                (Some(_), _) => {}
                (None, _) if at >= self.workers => {
                    let can_retry = |state: &JobState| state.stage.is_retryable();
                    if state.left.retries > 0 && state.log.truth(JOB).is_some_and(can_retry) {
                        steps.push(Step::Retry(at));
                    }
                }
                (None, Some(work)) => {
                    steps.push(Step::Act(at));
                    let known = work.attempt.as_ref().map(|(_, known)| known.stage);
                    if state.left.failures > 0 && known == Some(Stage::FetchingInfo) {
                        steps.push(Step::Fail(at));
                    }
                }
                (None, None) => {
                    let items = state.items.iter().enumerate();
                    // Without room, the job would be returned to the queue again and again, which only multiplies the
                    // states.
                    let is_there =
                        |item: &Item| !item.is_acknowledged && !state.log.is_removed(JOB) && !state.log.is_full;
                    let free = items.filter(|(_, item)| item.holder.is_none() && is_there(item));
                    steps.extend(free.map(|(item, _)| Step::Take(at, item)));
                }
            }
            if state.left.kills > 0 && actor.work.is_some() {
                steps.push(Step::Kill(at));
            }
        }
        for (packet, (at, call)) in state.net.iter().enumerate() {
            let is_waited_for = state.actors[*at].waits.as_ref() == Some(call);
            if !is_busy(&state.log) || state.left.early_answers > 0 {
                steps.push(Step::Arrive(packet));
                if state.left.losses > 0 && is_waited_for {
                    steps.push(Step::LoseAnswer(packet));
                }
            }
            if state.left.losses > 0 && is_waited_for {
                steps.push(Step::Delay(packet));
            }
        }
        if !state.log.in_flight.is_empty() {
            steps.push(Step::Commit);
            if state.left.losses > 0 {
                steps.push(Step::CommitUnheard);
            }
        }
        if state.left.leases > 0 {
            let held = state.items.iter().enumerate().filter(|(_, item)| item.holder.is_some());
            steps.extend(held.map(|(item, _)| Step::LeaseOver(item)));
        }
        if state.left.elections > 0 {
            for kept in 0..=state.log.in_flight.len() {
                steps.extend((0..=2).map(|behind| Step::Elect { kept, behind }));
            }
        }
        if state.log.caught_up < state.log.stored.len() {
            steps.push(Step::CatchUp);
        }
        if state.log.is_full {
            steps.push(Step::MakeRoom);
        } else if state.left.fills > 0 {
            steps.push(Step::Fill);
        }
        // So late that every request in flight that expects no event of the job has ended.
        let is_old = |actor: &Actor| actor.work.as_ref().is_some_and(|work| work.attempt.is_none());
        if state.left.removals > 0 && state.log.can_remove(JOB) && !state.actors.iter().any(is_old) {
            steps.push(Step::Remove);
        }
    }
}
