//! The whole system: a log, a queue, a network, workers and edges; and a seed that decides what happens next.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use millrace_domain::{JobState, Refusal};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use self::queue::Queue;
use crate::{
    log::{JOBS, Log},
    operation::{Answer, Call, Defect, Fresh, Operation},
    worker::Work,
};

mod faults;
mod processes;
mod queue;

const WORKERS: usize = 3;
/// Steps in which any fault may happen.
const STEPS: usize = 350;
/// In some seeds attempts never fail; in others, up to this percentage of reports say that the attempt has failed.
const BAD_LUCK_MAX: f64 = 40.0;
/// The share of seeds in which ended jobs are removed.
const REMOVING_SEEDS: f64 = 0.5;
/// The longest time that may pass at once.
const TICK_MAX: Duration = Duration::from_secs(5);
/// Steps after which every job must have ended once nothing fails any more.
const STEPS_TO_HEAL_MAX: usize = 20_000;

/// A process: the first ones are workers, the others edges.
#[derive(Default)]
struct Process {
    name: String,
    operation: Option<Operation>,
    /// The call that it waits for. A worker without an operation waits for a check of its job.
    waits: Option<u64>,
    work: Option<Work>,
    is_frozen: bool,
}

/// A packet between a process and the log.
#[derive(Clone)]
enum Packet {
    Ask { process: usize, call: u64, what: Call },
    Reply { process: usize, call: u64, answer: Answer },
}

pub struct World {
    random: SmallRng,
    defect: Defect,
    log: Log,
    processes: Vec<Process>,
    net: Vec<Packet>,
    queue: Queue,
    fresh: Fresh,
    /// Faults have stopped.
    heals: bool,
    /// Ended jobs are removed.
    removes: bool,
    /// The percentage of reports that say that the attempt has failed.
    bad_luck: f64,
    count: Count,
    trace: Trace,
}

/// The history: as a hash, and in words if they are wanted.
struct Trace {
    hash: DefaultHasher,
    words: Option<Vec<String>>,
}

impl Trace {
    fn note(&mut self, what: &str, detail: impl Hash + std::fmt::Debug) {
        (what, &detail).hash(&mut self.hash);
        if let Some(words) = &mut self.words {
            words.push(format!("{what} {detail:?}"));
        }
    }
}

/// Counts of rare events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub superseded: usize,
    pub too_early: usize,
    pub none_to_retry: usize,
    pub gave_up: usize,
    /// Jobs that were removed, and workers that found their job gone.
    pub removed: usize,
    pub gone: usize,
    /// Events that the log had no room for.
    pub paused: usize,
}

impl Count {
    pub const fn add(&mut self, other: Self) {
        self.superseded += other.superseded;
        self.too_early += other.too_early;
        self.none_to_retry += other.none_to_retry;
        self.gave_up += other.gave_up;
        self.removed += other.removed;
        self.gone += other.gone;
        self.paused += other.paused;
    }

    const fn note(&mut self, result: &Result<JobState, Option<Refusal>>) {
        let count = match result {
            Err(Some(Refusal::Superseded { .. })) => &mut self.superseded,
            Err(Some(Refusal::TooEarly { .. })) => &mut self.too_early,
            Err(Some(Refusal::NotEnded(_))) => &mut self.none_to_retry,
            Err(None) => &mut self.gave_up,
            _ => return,
        };
        *count += 1;
    }
}

/// The result of a run.
pub struct Run {
    /// The hash of the history, in its order.
    pub trace: u64,
    pub words: Vec<String>,
    /// The violation, if any.
    pub wrong: Option<String>,
    pub stored: usize,
    pub retried: usize,
    pub count: Count,
}

pub fn run(seed: u64, replicated: bool, defect: Defect, in_words: bool) -> Run {
    let trace = Trace { hash: DefaultHasher::new(), words: in_words.then(Vec::new) };
    let mut random = SmallRng::seed_from_u64(seed);
    let bad_luck = random.random_range(0.0..BAD_LUCK_MAX);
    let removes = random.random_bool(REMOVING_SEEDS);
    let mut world = World {
        random,
        defect,
        log: Log::new(replicated),
        processes: (0..WORKERS + JOBS.len()).map(|_| Process::default()).collect(),
        net: Vec::new(),
        queue: Default::default(),
        fresh: Fresh::default(),
        heals: false,
        removes,
        bad_luck,
        count: Count::default(),
        trace,
    };
    let wrong = world.live().err();
    Run {
        trace: world.trace.hash.finish(),
        words: world.trace.words.unwrap_or_default(),
        wrong,
        stored: world.log.stored.len(),
        retried: world.queue.items.len().saturating_sub(JOBS.len()),
        count: world.count,
    }
}

impl World {
    fn live(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step();
            self.check()?;
        }
        (self.heals, self.log.is_full) = (true, false);
        for process in &mut self.processes {
            process.is_frozen = false;
        }
        for _ in 0..STEPS_TO_HEAL_MAX {
            if self.is_over() {
                return Ok(());
            }
            self.step();
            self.check()?;
        }
        Err("nothing fails any more, and a job does not end".to_owned())
    }

    /// Every job was submitted, and no process wants more. Every work item is acknowledged, which is allowed only once
    /// its job has ended, was submitted again, or was removed.
    fn is_over(&self) -> bool {
        (0..JOBS.len()).all(|job| self.log.truth(job).is_some() || self.log.is_removed(job))
            && self.queue.items.iter().all(|item| item.is_acknowledged || self.log.is_removed(item.job))
            && self.processes.iter().all(|process| process.operation.is_none())
    }

    fn check(&mut self) -> Result<(), String> {
        self.queue.follow(&self.log);
        if let Some(item) = self.queue.lost(&self.log) {
            return Err(format!(
                "job {} is acknowledged, submitted at {}, and has not ended",
                JOBS[item.job], item.seq
            ));
        }
        self.log.wrong.take().map_or(Ok(()), Err)
    }

    fn pick(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    fn chance(&mut self, percent: f64) -> bool {
        self.random.random_bool(percent / 100.0)
    }

    fn step(&mut self) {
        if !self.heals {
            match self.pick(100) {
                0..8 => return self.fail(),
                8..11 => return self.people(),
                _ => {}
            }
        }
        match self.pick(21) {
            0..8 => self.act(),
            8..16 => self.deliver(),
            16..18 => {
                if let Some((call, outcome)) = self.log.commit() {
                    self.trace.note("commit", call);
                    self.reply(call, Answer::Append(outcome));
                }
            }
            18..20 => self.log.catch_up(),
            _ => {
                let time = self.random.random_range(Duration::ZERO..TICK_MAX);
                self.fresh.skip(time);
            }
        }
    }
}
