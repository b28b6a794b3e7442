//! Which faults come when. A function of the seed: the same seed gives the same schedule.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};

/// Workers in the cluster.
pub const WORKERS: usize = 4;
/// Edges in the cluster.
pub const EDGES: usize = 3;
/// Projectors in the cluster.
pub const PROJECTORS: usize = 2;

/// The longest failure of a nats-server or of the whole log; then another server may be hit. With two down at once
/// there would be no majority.
const NATS_PAUSE: Duration = Duration::from_secs(20);
/// The weight of a failure of all nats-servers, beside a weight of ten for the other faults of NATS.
const LOG_AWAY_WEIGHT: u32 = 1;

const MINUTE: Duration = Duration::from_secs(60);
/// From this second on, a minute has no fault but its trial.
const QUIET_FROM: Duration = Duration::from_secs(44);
/// More than a lease after `QUIET_FROM`.
const TRIAL_AT: Duration = Duration::from_secs(50);
/// From the end of a fault of NATS until all replicas have caught up, as a rule.
const NATS_WHOLE: Duration = Duration::from_secs(8);

/// A service process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// From 0.
    Worker(usize),
    /// From 0.
    Edge(usize),
    /// From 0.
    Projector(usize),
}

/// One of the nats-servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The log's leader at that time.
    Leader,
    /// The server of this index, modulo their number.
    At(usize),
}

/// A fault, with its duration unless it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// kill -9; a supervisor starts it again.
    Kill(Target),
    /// SIGSTOP and SIGCONT.
    Freeze(Target, Duration),
    /// All its connections to NATS are closed at once.
    Cut(Target),
    /// All its connections to NATS are closed, and new ones are refused.
    Refuse(Target, Duration),
    /// Its connections to NATS stay open and transfer nothing.
    Stall(Target, Duration),
    /// Traffic between it and NATS is delayed.
    Slow(Target, Duration),
    /// This share of the republished messages to an edge is lost.
    LoseLive(usize, f64, Duration),
    /// This share of the republished messages to an edge is delayed.
    LateLive(usize, f64, Duration),
    /// kill -9 on a nats-server, which restarts after this time.
    KillNats(Node, Duration),
    /// SIGSTOP and SIGCONT on a nats-server.
    FreezeNats(Node, Duration),
    /// All nats-servers are frozen.
    LogAway(Duration),
    /// The object store answers 503.
    StoreUnavailable(Duration),
    /// The object store takes requests and does not answer.
    StoreHangs(Duration),
    /// Connections of a worker to the object store are closed at once.
    StoreCut(usize),
    /// The disk on which workers keep downloads in flight is full.
    DiskFull(Duration),
}

/// A fault and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planned {
    /// Time since the beginning of the run.
    pub at: Duration,
    /// The fault.
    pub fault: Fault,
}

/// The faults of a run of this length, in the order of their times.
///
/// Each minute ends with a trial: two workers are killed, and no other fault is in the way of the workers that take
/// over.
pub fn schedule(seed: u64, length: Duration) -> Vec<Planned> {
    let mut plan = Vec::new();
    // Each kind has its own generator, so that a longer run begins like a shorter one.
    let luck = |kind: u64| StdRng::seed_from_u64(seed ^ kind.rotate_right(8));
    let mut rng = luck(1);
    let mut at = Duration::from_secs(3);
    while at < length {
        plan.push(Planned { at, fault: Fault::Kill(target(&mut rng)) });
        at += millis(&mut rng, 1_000, 3_000);
    }
    let mut rng = luck(2);
    let mut at = Duration::from_secs(1);
    while at < length {
        plan.push(Planned { at, fault: other(&mut rng) });
        at += millis(&mut rng, 1_500, 4_500);
    }
    let mut rng = luck(3);
    let mut at = Duration::from_secs(5);
    while at < length {
        plan.push(Planned { at, fault: of_nats(&mut rng) });
        at += NATS_PAUSE + millis(&mut rng, 0, 5_000);
    }
    plan.retain(Planned::fits);
    let mut rng = luck(4);
    for minute in 0..length.as_secs() / MINUTE.as_secs() {
        let at = MINUTE * u32::try_from(minute).unwrap_or(u32::MAX) + TRIAL_AT;
        let first = rng.random_range(0..WORKERS);
        for worker in [first, (first + 1) % WORKERS] {
            plan.push(Planned { at, fault: Fault::Kill(Target::Worker(worker)) });
        }
    }
    plan.sort_by_key(|planned| planned.at);
    plan
}

/// The time since the beginning of its minute.
fn minute(at: Duration) -> Duration {
    Duration::from_millis(u64::try_from(at.as_millis() % MINUTE.as_millis()).unwrap_or(0))
}

impl Planned {
    /// Whether it ends before its minute's quiet part, including the time that NATS needs to recover.
    fn fits(&self) -> bool {
        let after = if self.fault.is_of_nats() { NATS_WHOLE } else { Duration::ZERO };
        minute(self.at) + self.fault.span() + after < QUIET_FROM
    }
}

impl Fault {
    /// The fault's name in the table.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kill(Target::Worker(_)) => "worker killed",
            Self::Kill(Target::Edge(_)) => "edge killed",
            Self::Kill(Target::Projector(_)) => "projector killed",
            Self::Freeze(..) => "process frozen",
            Self::Cut(_) => "connections to NATS cut",
            Self::Refuse(..) => "connections to NATS refused",
            Self::Stall(..) => "connections to NATS stalled",
            Self::Slow(..) => "connections to NATS slow",
            Self::LoseLive(..) => "republished messages lost",
            Self::LateLive(..) => "republished messages delayed",
            Self::KillNats(Node::Leader, _) => "nats-server killed, the leader",
            Self::KillNats(Node::At(_), _) => "nats-server killed, any",
            Self::FreezeNats(..) => "nats-server frozen",
            Self::LogAway(_) => "all nats-servers frozen",
            Self::StoreUnavailable(_) => "object store answers 503",
            Self::StoreHangs(_) => "object store hangs",
            Self::StoreCut(_) => "connections to the object store cut",
            Self::DiskFull(_) => "workers' disk full",
        }
    }

    /// How long it lasts.
    pub const fn span(&self) -> Duration {
        match *self {
            Self::Kill(_) | Self::Cut(_) | Self::StoreCut(_) => Duration::ZERO,
            Self::Freeze(_, span)
            | Self::Refuse(_, span)
            | Self::Stall(_, span)
            | Self::Slow(_, span)
            | Self::LoseLive(_, _, span)
            | Self::LateLive(_, _, span)
            | Self::KillNats(_, span)
            | Self::FreezeNats(_, span)
            | Self::LogAway(span)
            | Self::StoreUnavailable(span)
            | Self::StoreHangs(span)
            | Self::DiskFull(span) => span,
        }
    }

    /// Whether it hits a nats-server.
    pub const fn is_of_nats(&self) -> bool {
        matches!(self, Self::KillNats(..) | Self::FreezeNats(..) | Self::LogAway(_))
    }

    /// Whether it kills a process.
    pub const fn is_kill(&self) -> bool {
        matches!(self, Self::Kill(_) | Self::KillNats(..))
    }

    /// Whether it keeps workers other than its target from taking a job.
    pub const fn hinders_recovery(&self) -> bool {
        !matches!(
            self,
            Self::Kill(Target::Edge(_) | Target::Projector(_))
                | Self::Freeze(Target::Edge(_) | Target::Projector(_), _)
                | Self::Cut(Target::Edge(_) | Target::Projector(_))
                | Self::Refuse(Target::Edge(_) | Target::Projector(_), _)
                | Self::Stall(Target::Edge(_) | Target::Projector(_), _)
                | Self::Slow(Target::Edge(_) | Target::Projector(_), _)
                | Self::LoseLive(..)
                | Self::LateLive(..)
        )
    }
}

/// A random process; workers most often, since they have the most to lose.
fn target(rng: &mut StdRng) -> Target {
    match rng.random_range(0..10) {
        0..5 => Target::Worker(rng.random_range(0..WORKERS)),
        5..8 => Target::Edge(rng.random_range(0..EDGES)),
        _ => Target::Projector(rng.random_range(0..PROJECTORS)),
    }
}

fn other(rng: &mut StdRng) -> Fault {
    let edge = rng.random_range(0..EDGES);
    match rng.random_range(0..20) {
        // Longer than the lease, or shorter: a worker that wakes up may be fenced by then.
        0..4 => Fault::Freeze(target(rng), millis(rng, 500, 12_000)),
        4..6 => Fault::Cut(target(rng)),
        6..8 => Fault::Refuse(target(rng), millis(rng, 500, 8_000)),
        8..10 => Fault::Stall(target(rng), millis(rng, 500, 10_000)),
        10 => Fault::Slow(target(rng), millis(rng, 2_000, 10_000)),
        11..13 => Fault::LoseLive(edge, rng.random_range(0.1..0.9), millis(rng, 2_000, 10_000)),
        13..15 => Fault::LateLive(edge, rng.random_range(0.1..0.9), millis(rng, 2_000, 10_000)),
        15 => Fault::StoreUnavailable(millis(rng, 500, 8_000)),
        16 => Fault::StoreHangs(millis(rng, 500, 8_000)),
        17..19 => Fault::StoreCut(rng.random_range(0..WORKERS)),
        _ => Fault::DiskFull(millis(rng, 1_000, 6_000)),
    }
}

fn of_nats(rng: &mut StdRng) -> Fault {
    let node = Node::At(rng.random_range(0..3));
    let away = millis(rng, 200, 8_000);
    match rng.random_range(0..10 + LOG_AWAY_WEIGHT) {
        0..4 => Fault::KillNats(Node::Leader, away),
        4..7 => Fault::KillNats(node, away),
        7 => Fault::FreezeNats(Node::Leader, away),
        8..10 => Fault::FreezeNats(node, away),
        _ => Fault::LogAway(millis(rng, 4_000, 8_000)),
    }
}

fn millis(rng: &mut StdRng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.random_range(from..to))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_secs(1800);

    #[test]
    fn a_seed_gives_the_same_schedule_each_time_and_another_seed_another_one() {
        assert_eq!(schedule(1, HALF_AN_HOUR), schedule(1, HALF_AN_HOUR));
        assert_ne!(schedule(1, HALF_AN_HOUR), schedule(2, HALF_AN_HOUR));
    }

    #[test]
    fn a_longer_run_begins_like_a_shorter_one() {
        let (short, long) = (schedule(5, MINUTE), schedule(5, MINUTE * 3));
        assert!(short.len() > 20 && long.starts_with(&short));
    }

    #[test]
    fn half_an_hour_kills_hundreds_of_processes_and_has_every_fault() {
        let plan = schedule(7, HALF_AN_HOUR);
        let kills = plan.iter().filter(|planned| planned.fault.is_kill()).count();
        assert!((600..900).contains(&kills), "{kills}");
        let mut names: Vec<_> = plan.iter().map(|planned| planned.fault.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 18, "{names:?}");
    }

    #[test]
    fn in_the_quiet_of_each_minute_two_workers_are_killed_and_nothing_else_goes_wrong() {
        let plan = schedule(9, HALF_AN_HOUR);
        let quiet: Vec<_> = plan.iter().filter(|it| minute(it.at + it.fault.span()) >= QUIET_FROM).collect();
        assert_eq!(quiet.len(), 2 * 30);
        assert!(quiet.iter().all(|it| matches!(it.fault, Fault::Kill(Target::Worker(_))) && minute(it.at) == TRIAL_AT));
        for pair in quiet.chunks(2) {
            assert_ne!(pair[0].fault, pair[1].fault);
        }
    }

    #[test]
    fn never_are_two_nats_servers_hit_at_once() {
        let plan = schedule(3, HALF_AN_HOUR);
        let hits: Vec<_> = plan.iter().filter(|it| it.fault.is_of_nats()).collect();
        assert!(hits.len() > 30, "{}", hits.len());
        for pair in hits.windows(2) {
            assert!(pair[1].at - pair[0].at >= NATS_PAUSE, "{pair:?}");
        }
    }
}
