//! Processes, and the packets in flight between them and the log.

use millrace_domain::{
    Command, JobState, Refusal, Submission,
    limits::{APPEND_RETRY_MAX, NATS_REQUEST_MAX},
};
use rand::RngExt;

use super::{Packet, WORKERS, World};
use crate::{
    operation::{Answer, Call, Next, Operation, Order},
    worker::Luck,
};

impl World {
    /// A process that waits for nothing continues by itself; in the end, one that waits in vain stops waiting.
    pub(super) fn act(&mut self) {
        let at = self.pick(self.processes.len());
        if self.processes[at].is_frozen {
            return;
        }
        if let Some(call) = self.processes[at].waits {
            let is_under_way = self.net.iter().any(|packet| match packet {
                Packet::Ask { call: of, .. } | Packet::Reply { call: of, .. } => *of == call,
            }) || self.log.in_flight.iter().any(|(_, of)| *of == call);
            if self.heals && !is_under_way {
                self.time_out(at);
            }
            return;
        }
        if at >= WORKERS {
            let job = at - WORKERS;
            if self.log.truth(job).is_none() && !self.log.is_removed(job) {
                let url = "http://a/".parse().expect("an address");
                self.begin(at, job, None, Command::Submit(Submission { url, quality: None }));
            }
            return;
        }
        match self.processes[at].work.clone() {
            None => self.take(at),
            Some(work) if work.attempt.is_none() => {
                let known = self.known(&work);
                let command = work.claim(&self.name(at), known.as_ref(), self.defect);
                self.begin(at, work.job, known, command);
            }
            Some(work) => {
                if self.chance(20.0) {
                    self.call(at, Call::State { job: work.job });
                } else {
                    let luck = self.luck();
                    let (_, known) = work.attempt.clone().expect("it is claimed");
                    self.begin(at, work.job, Some(known), work.report(luck, self.defect));
                }
            }
        }
    }

    fn luck(&mut self) -> Luck {
        match self.random.random_range(0.0..100.0) {
            drawn if drawn < self.bad_luck / 2.0 => Luck::Permanent,
            drawn if drawn < self.bad_luck => Luck::Transient(self.random.random_range(0.0..1.0)),
            _ => Luck::Good,
        }
    }

    /// A killed process comes back under another name.
    fn name(&mut self, at: usize) -> String {
        if self.processes[at].name.is_empty() {
            self.processes[at].name = format!("{at}.{}", self.fresh.number());
        }
        self.processes[at].name.clone()
    }

    pub(super) fn begin(&mut self, at: usize, job: usize, known: Option<JobState>, command: Command) {
        let name = self.name(at);
        let item = self.processes[at].work.as_ref().map(|work| work.item);
        let order = Order { job, known, command, writer: &name, item };
        let (operation, next) = Operation::begin(order, self.defect, &mut self.fresh, &mut self.log);
        self.processes[at].operation = Some(operation);
        self.next(at, next);
    }

    fn next(&mut self, at: usize, next: Next) {
        match next {
            Next::Call(call) => self.call(at, call),
            Next::Done(result) => {
                let operation = self.processes[at].operation.take();
                self.count.note(&result);
                self.count.paused += usize::from(operation.as_ref().is_some_and(|operation| operation.has_paused));
                let is_gone = |operation: &Operation| operation.is_report() && result == Err(Some(Refusal::Unknown));
                self.count.gone += usize::from(operation.is_some_and(|operation| is_gone(&operation)));
                self.trace.note("done", (at, result.as_ref().map(|state| state.seq).map_err(|why| format!("{why:?}"))));
                if let Some(mut work) = self.processes[at].work.take() {
                    let after = work.done(result, self.defect);
                    self.after(at, work, after);
                }
            }
        }
    }

    fn call(&mut self, at: usize, what: Call) {
        let call = self.fresh.number();
        self.processes[at].waits = Some(call);
        self.trace.note("ask", (at, call, &what));
        self.net.push(Packet::Ask { process: at, call, what });
    }

    pub(super) fn reply(&mut self, call: u64, answer: Answer) {
        // A process that has stopped waiting gets no response.
        if let Some(process) = self.processes.iter().position(|process| process.waits == Some(call)) {
            self.net.push(Packet::Reply { process, call, answer });
        }
    }

    /// Any packet arrives, however long it was in flight.
    pub(super) fn deliver(&mut self) {
        if self.net.is_empty() {
            return;
        }
        let at = self.pick(self.net.len());
        match self.net[at].clone() {
            Packet::Ask { process, call, what } => {
                self.net.remove(at);
                self.trace.note("arrive", (process, call));
                if let Some(answer) = what.arrive(&mut self.log, call) {
                    self.reply(call, answer);
                }
            }
            Packet::Reply { process, .. } if self.processes[process].is_frozen => {}
            Packet::Reply { process, call, answer } => {
                self.net.remove(at);
                if self.processes[process].waits == Some(call) {
                    self.answered(process, answer);
                }
            }
        }
    }

    pub(super) fn time_out(&mut self, at: usize) {
        if self.processes[at].waits.is_some() && !self.processes[at].is_frozen {
            // A process may have been stopped meanwhile.
            let time = if self.chance(25.0) { APPEND_RETRY_MAX } else { NATS_REQUEST_MAX };
            self.trace.note("time out", (at, time));
            self.answered(at, Answer::Nothing(time));
        }
    }

    fn answered(&mut self, at: usize, answer: Answer) {
        self.trace.note("answer", (at, &answer));
        self.processes[at].waits = None;
        if let Some(mut operation) = self.processes[at].operation.take() {
            let next = operation.answered(answer, &mut self.fresh, &mut self.log);
            self.processes[at].operation = Some(operation);
            self.next(at, next);
        } else if let (Some(mut work), Answer::State { state, .. }) = (self.processes[at].work.clone(), answer) {
            self.processes[at].work = None;
            let after = work.looked(state, self.defect);
            self.after(at, work, after);
        }
    }
}
