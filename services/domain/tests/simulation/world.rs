//! Everything at once: a log, a queue, a network, workers and edges; and a seed that decides what happens next.

use std::hash::{DefaultHasher, Hash, Hasher};

use millrace_domain::{Command, JobState, Submission};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    log::{JOBS, Log},
    operation::{Answer, Call, Defect, Fresh, Next, Operation},
    worker::{After, Work, claim},
};

const WORKERS: usize = 3;
/// Steps in which everything may fail.
const STEPS: usize = 350;
/// Steps after which every job must have ended once nothing fails any more.
const STEPS_TO_HEAL_MAX: usize = 20_000;

/// A process: the first ones are workers, the others edges.
#[derive(Default)]
struct Process {
    name: String,
    operation: Option<Operation>,
    /// The call that it waits for. A worker without an operation waits for a look at its job.
    waits: Option<u64>,
    work: Option<Work>,
    is_frozen: bool,
}

/// Something between a process and the log.
#[derive(Clone)]
enum Packet {
    Ask { process: usize, call: u64, what: Call },
    Reply { process: usize, call: u64, answer: Answer },
}

/// The queue's side of one job.
#[derive(Clone, Default)]
struct Item {
    delivered: u64,
    holder: Option<u64>,
    is_acknowledged: bool,
}

pub struct World {
    random: SmallRng,
    defect: Defect,
    log: Log,
    processes: Vec<Process>,
    net: Vec<Packet>,
    queue: [Item; JOBS.len()],
    fresh: Fresh,
    /// Nothing fails any more.
    heals: bool,
    trace: Trace,
}

/// What has happened: as a number, and in words if those are wanted.
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

/// What came of a run.
pub struct Run {
    /// Of everything that has happened, in its order.
    pub trace: u64,
    pub words: Vec<String>,
    /// What must not be.
    pub wrong: Option<String>,
    pub stored: usize,
}

pub fn run(seed: u64, replicated: bool, defect: Defect, in_words: bool) -> Run {
    let trace = Trace { hash: DefaultHasher::new(), words: in_words.then(Vec::new) };
    let mut world = World {
        random: SmallRng::seed_from_u64(seed),
        defect,
        log: Log::new(replicated),
        processes: (0..WORKERS + JOBS.len()).map(|_| Process::default()).collect(),
        net: Vec::new(),
        queue: Default::default(),
        fresh: Fresh::default(),
        heals: false,
        trace,
    };
    let wrong = world.live().err();
    Run {
        trace: world.trace.hash.finish(),
        words: world.trace.words.unwrap_or_default(),
        wrong,
        stored: world.log.stored.len(),
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

    /// Every job is acknowledged, which it may be only once it has ended.
    fn is_over(&self) -> bool {
        self.queue.iter().all(|item| item.is_acknowledged)
    }

    fn check(&mut self) -> Result<(), String> {
        for (job, item) in self.queue.iter().enumerate() {
            if item.is_acknowledged && !self.log.truth(job).is_some_and(JobState::is_end) {
                return Err(format!("job {} is acknowledged and has not ended", JOBS[job]));
            }
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
        if !self.heals && self.chance(8.0) {
            return self.fail();
        }
        match self.pick(10) {
            0..4 => self.act(),
            4..8 => self.deliver(),
            8 => {
                if let Some((call, outcome)) = self.log.commit() {
                    self.trace.note("commit", call);
                    self.reply(call, Answer::Append(outcome));
                }
            }
            _ => self.log.catch_up(),
        }
    }

    /// Something goes wrong.
    fn fail(&mut self) {
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
                let behind = self.pick(4);
                self.trace.note("elect", (kept, behind));
                self.log.elect(kept, behind);
            }
            70..75 => self.log.forget(),
            75..85 => {
                let job = self.pick(JOBS.len());
                self.trace.note("lease over", job);
                self.queue[job].holder = None;
            }
            85..91 => {
                let process = self.pick(self.processes.len());
                self.trace.note("kill", process);
                self.processes[process] = Process::default();
            }
            91..96 => {
                let process = self.pick(self.processes.len());
                self.trace.note("freeze or go on", process);
                self.processes[process].is_frozen ^= true;
            }
            96.. => {
                // A person cancels, by an edge that knows the job as it was some time ago.
                let job = self.pick(JOBS.len());
                let edge = WORKERS + self.pick(JOBS.len());
                if self.processes[edge].operation.is_none() {
                    let known = self.stale(job);
                    self.begin(edge, job, known, Command::Cancel);
                }
            }
            _ => {}
        }
    }

    fn stale(&mut self, job: usize) -> Option<JobState> {
        let count = self.pick(self.log.stored.len() + 1);
        self.log.state_at(job, count)
    }

    /// A process that waits for nothing goes on by itself; in the end, one that waits in vain stops waiting.
    fn act(&mut self) {
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
            if self.log.truth(job).is_none() {
                let url = "http://a/".parse().expect("an address");
                self.begin(at, job, None, Command::Submit(Submission { url, quality: None }));
            }
            return;
        }
        match self.processes[at].work.clone() {
            None => self.take_job(at),
            Some(work) if work.attempt.is_none() => {
                let known = if self.queue[work.job].delivered == 1 { None } else { self.stale(work.job) };
                // The submission was delivered with the job: it is known in any case.
                let submitted = self.log.stored.iter().position(|stored| stored.job == work.job).expect("submitted");
                let is_first = self.queue[work.job].delivered == 1;
                let known = match known {
                    None if self.defect != Defect::ForgetTheSubmission || is_first => {
                        self.log.state_at(work.job, submitted + 1)
                    }
                    known => known,
                };
                let command = claim(&self.name(at));
                self.begin(at, work.job, known, command);
            }
            Some(work) => {
                if self.chance(20.0) {
                    self.call(at, Call::State { job: work.job });
                } else {
                    let bad_luck = self.chance(2.0);
                    let (_, known) = work.attempt.clone().expect("it is claimed");
                    self.begin(at, work.job, Some(known), work.report(bad_luck));
                }
            }
        }
    }

    /// A killed process comes back under another name.
    fn name(&mut self, at: usize) -> String {
        if self.processes[at].name.is_empty() {
            self.processes[at].name = format!("{at}.{}", self.fresh.number());
        }
        self.processes[at].name.clone()
    }

    /// The queue hands a job over that nobody has: whose lease is over, or whose worker is gone.
    fn take_job(&mut self, at: usize) {
        let job = self.pick(JOBS.len());
        let held = |id: u64| self.processes.iter().any(|p| p.work.as_ref().is_some_and(|work| work.delivery == id));
        let item = &self.queue[job];
        let is_held = item.holder.is_some_and(|holder| !self.heals || held(holder));
        if item.is_acknowledged || is_held || self.log.truth(job).is_none() {
            return;
        }
        let delivery = self.fresh.number();
        let item = &mut self.queue[job];
        (item.holder, item.delivered) = (Some(delivery), item.delivered + 1);
        self.trace.note("take", (at, job));
        self.processes[at].work = Some(Work { job, delivery, attempt: None });
    }

    fn begin(&mut self, at: usize, job: usize, known: Option<JobState>, command: Command) {
        let name = self.name(at);
        let (operation, next) =
            Operation::begin(job, known, command, &name, self.defect, &mut self.fresh, &mut self.log);
        self.processes[at].operation = Some(operation);
        self.next(at, next);
    }

    fn next(&mut self, at: usize, next: Next) {
        match next {
            Next::Call(call) => self.call(at, call),
            Next::Done(result) => {
                self.processes[at].operation = None;
                self.trace.note("done", (at, result.as_ref().map(|state| state.seq).map_err(|why| format!("{why:?}"))));
                if let Some(mut work) = self.processes[at].work.take() {
                    let after = work.done(result, self.defect);
                    self.after(at, work, after);
                }
            }
        }
    }

    /// An acknowledgement or a job given back clears whatever delivery there is, also that of somebody else.
    fn after(&mut self, at: usize, work: Work, after: After) {
        let item = &mut self.queue[work.job];
        match after {
            After::GoOn => self.processes[at].work = Some(work),
            After::Acknowledge => (item.holder, item.is_acknowledged) = (None, true),
            After::GiveBack => item.holder = None,
            After::LetGo => {}
        }
        self.trace.note("after", (at, after));
    }

    fn call(&mut self, at: usize, what: Call) {
        let call = self.fresh.number();
        self.processes[at].waits = Some(call);
        self.trace.note("ask", (at, call, &what));
        self.net.push(Packet::Ask { process: at, call, what });
    }

    fn reply(&mut self, call: u64, answer: Answer) {
        // Whoever has stopped waiting is not told.
        if let Some(process) = self.processes.iter().position(|process| process.waits == Some(call)) {
            self.net.push(Packet::Reply { process, call, answer });
        }
    }

    /// Any packet arrives, however long it was under way.
    fn deliver(&mut self) {
        if self.net.is_empty() {
            return;
        }
        let at = self.pick(self.net.len());
        match self.net[at].clone() {
            Packet::Ask { process, call, what } => {
                self.net.remove(at);
                self.trace.note("arrive", (process, call));
                let answer = match what {
                    Call::Publish(publish) => self.log.publish(publish, call).map(Answer::Append),
                    Call::Successor { job, kind, after } => Some(Answer::Append(
                        millrace_domain::append::Outcome::Successor(self.log.successor(job, kind, after)),
                    )),
                    Call::State { job } => Some(Answer::State(self.log.state_at(job, self.log.caught_up))),
                };
                if let Some(answer) = answer {
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

    fn time_out(&mut self, at: usize) {
        if self.processes[at].waits.is_some() && !self.processes[at].is_frozen {
            self.trace.note("time out", at);
            self.answered(at, Answer::Nothing);
        }
    }

    fn answered(&mut self, at: usize, answer: Answer) {
        self.trace.note("answer", (at, &answer));
        self.processes[at].waits = None;
        if let Some(mut operation) = self.processes[at].operation.take() {
            let next = operation.answered(answer, &mut self.fresh, &mut self.log);
            self.processes[at].operation = Some(operation);
            self.next(at, next);
        } else if let (Some(mut work), Answer::State(newest)) = (self.processes[at].work.clone(), answer) {
            self.processes[at].work = None;
            let after = work.looked(newest, self.defect);
            self.after(at, work, after);
        }
    }
}
