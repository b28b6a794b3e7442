//! Faults, and what people do meanwhile.

use millrace_domain::{Command, JobState};

use super::{Packet, Process, World};
use crate::{log::JOBS, message::Publish, operation::Call};

impl World {
    /// A fault happens.
    pub(super) fn fail(&mut self) {
        let which = self.pick(100);
        match which {
            0..25 if !self.net.is_empty() => {
                let at = self.pick(self.net.len());
                self.trace.note("lose", at);
                self.net.remove(at);
            }
            25..40 if !self.net.is_empty() => {
                let at = self.pick(self.net.len());
                self.trace.note("repeat", at);
                self.net.push(self.net[at].clone());
            }
            40..60 => {
                let process = self.pick(self.processes.len());
                self.time_out(process);
            }
            60..62 => self.log.is_full ^= true,
            62..70 => {
                let kept = self.pick(self.log.in_flight.len() + 1);
                // Most servers have nearly everything; some were away for long.
                let behind_max = if self.chance(10.0) { self.log.stored.len() + 1 } else { 4 };
                let behind = self.pick(behind_max);
                self.trace.note("elect", (kept, behind));
                self.log.elect(kept, behind);
            }
            70..75 => self.log.forget(),
            75..85 if !self.queue.items.is_empty() => {
                let item = self.pick(self.queue.items.len());
                self.trace.note("lease over", item);
                self.queue.items[item].holder = None;
            }
            85..93 => {
                let process = self.pick(self.processes.len());
                self.trace.note("kill", process);
                self.processes[process] = Process::default();
            }
            93.. => {
                let process = self.pick(self.processes.len());
                self.trace.note("freeze or go on", process);
                self.processes[process].is_frozen ^= true;
            }
            _ => {}
        }
    }

    /// A job that ended long ago is removed: so long ago that every request of it in flight that expects no event of it
    /// has ended.
    fn remove(&mut self) {
        let job = self.pick(JOBS.len());
        let is_old = |process: &Process| {
            let claims = process.work.as_ref().is_some_and(|work| work.job == job && work.attempt.is_none());
            let asks = process.operation.as_ref().is_some_and(|it| it.job() == job && !it.is_report());
            claims || asks
        };
        if !self.log.can_remove(job) || self.processes.iter().any(is_old) {
            return;
        }
        self.trace.note("remove", job);
        let is_first = |publish: &Publish| publish.job == job && publish.expected == 0;
        self.net
            .retain(|packet| !matches!(packet, Packet::Ask { what: Call::Publish(publish), .. } if is_first(publish)));
        self.log.remove(job);
        self.count.removed += 1;
    }

    /// People cancel and retry, several of them at once, through edges with stale states of the job.
    pub(super) fn people(&mut self) {
        if self.removes && self.chance(40.0) {
            return self.remove();
        }
        let job = self.pick(JOBS.len());
        let can_retry = self.log.truth(job).is_some_and(|state| state.stage.is_retryable());
        let retries = self.chance(if can_retry { 90.0 } else { 40.0 });
        for edge in super::WORKERS..self.processes.len() {
            if self.processes[edge].operation.is_none() && !self.processes[edge].is_frozen && self.chance(60.0) {
                let known = self.stale(job);
                let command = if retries { Command::Retry } else { Command::Cancel };
                self.trace.note("a person", (edge, job, retries));
                self.begin(edge, job, known, command);
            }
        }
    }

    /// A job's state from a stale server, which lags for less time than a job is kept.
    pub(super) fn stale(&mut self, job: usize) -> Option<JobState> {
        let count = self.pick(self.log.stored.len() + 1);
        if self.log.is_removed(job) { None } else { self.log.state_at(job, count) }
    }
}
