//! The queue: one work item for each message on a submission subject.

use millrace_domain::{JobState, subjects::Kind};

use super::World;
use crate::{
    log::Log,
    worker::{After, Work},
};

pub struct Item {
    pub job: usize,
    /// The submission's sequence.
    pub seq: u64,
    pub delivered: u64,
    pub holder: Option<u64>,
    pub is_acknowledged: bool,
}

#[derive(Default)]
pub struct Queue {
    pub items: Vec<Item>,
    /// The part of the log that was already scanned.
    followed: usize,
}

impl Queue {
    pub fn follow(&mut self, log: &Log) {
        for (at, stored) in log.stored.iter().enumerate().skip(self.followed) {
            if stored.is_on(stored.job, Kind::Submitted) {
                let (job, seq) = (stored.job, at as u64 + 1);
                self.items.push(Item { job, seq, delivered: 0, holder: None, is_acknowledged: false });
            }
        }
        self.followed = log.stored.len();
    }

    fn item(&mut self, seq: u64) -> &mut Item {
        self.items.iter_mut().find(|item| item.seq == seq).expect("it was delivered")
    }

    /// A work item that was acknowledged wrongly: its job has neither ended since nor was it submitted again.
    pub fn lost(&self, log: &Log) -> Option<&Item> {
        self.items.iter().find(|item| {
            let is_over = |state: &JobState| state.submitted_seq > item.seq || state.is_end();
            item.is_acknowledged && !log.is_removed(item.job) && !log.truth(item.job).is_some_and(is_over)
        })
    }
}

impl World {
    /// The queue delivers a work item without a holder: its lease has expired, or its worker is gone. Its delay may
    /// have passed or not: a message that requests a delay may be lost.
    pub(super) fn take(&mut self, at: usize) {
        let held = |id: u64| self.processes.iter().any(|p| p.work.as_ref().is_some_and(|work| work.delivery == id));
        let is_free = |holder: Option<u64>| !holder.is_some_and(|holder| !self.heals || held(holder));
        let is_there = |item: &Item| !item.is_acknowledged && !self.log.is_removed(item.job);
        let items = self.queue.items.iter().enumerate();
        let free: Vec<usize> =
            items.filter(|(_, item)| is_there(item) && is_free(item.holder)).map(|(at, _)| at).collect();
        if free.is_empty() {
            return;
        }
        let chosen = free[self.pick(free.len())];
        let delivery = self.fresh.number();
        let item = &mut self.queue.items[chosen];
        (item.holder, item.delivered) = (Some(delivery), item.delivered + 1);
        let work = Work { job: item.job, item: item.seq, delivery, attempt: None };
        self.trace.note("take", (at, work.job, work.item));
        self.processes[at].work = Some(work);
    }

    /// A worker's known state of a delivered job.
    pub(super) fn known(&mut self, work: &Work) -> Option<JobState> {
        // The submission was delivered with the job, so it is known. A person's retry contains nothing about the job.
        let count = usize::try_from(work.item).expect("a place");
        let is_retry = self.log.stored[..count - 1].iter().any(|stored| stored.is_on(work.job, Kind::Submitted));
        let first = if is_retry { None } else { self.log.state_at(work.job, count) };
        let is_delivered_first = self.queue.item(work.item).delivered == 1;
        if is_delivered_first && first.is_some() {
            return first;
        }
        self.stale(work.job).or(first)
    }

    /// An acknowledgement or a returned job clears the current delivery, even that of another worker.
    pub(super) fn after(&mut self, at: usize, work: Work, after: After) {
        self.trace.note("after", (at, after));
        let item = self.queue.item(work.item);
        match after {
            After::GoOn => self.processes[at].work = Some(work),
            After::Acknowledge => (item.holder, item.is_acknowledged) = (None, true),
            After::GiveBack => item.holder = None,
            After::LetGo => {}
        }
    }
}
