//! Tests the recovery of appends, the execution of commands and the protocol of claims against a model of the log.
//! Replies are lost, requests arrive late and twice, leaders die and their successors lag, there is no room, leases end
//! under running workers, processes are killed at any step, attempts fail and wait for the next, people cancel and
//! retry, and jobs that ended long ago are removed. No event may be stored twice, out of order or by a fenced writer;
//! no writer may receive a false result; and once faults stop, every job ends, and no worker waits for a job that is
//! gone.
//!
//! `MILLRACE_SIMULATION_SEEDS` sets the number of seeds. A failure names its seed and shows the events.

// Sizes matter little here.
#![allow(clippy::large_enum_variant)]

mod exhaustive;
mod log;
mod message;
mod operation;
mod rules;
mod worker;
mod world;

use operation::Defect;
use world::{Count, run};

/// The number of seeds for each kind of log.
const SEEDS: u64 = 10_000;
/// A planted defect must show within this number of seeds.
const SEEDS_FOR_DEFECTS: u64 = 1000;
const WORDS_SHOWN_MAX: usize = 80;

fn seeds() -> u64 {
    std::env::var("MILLRACE_SIMULATION_SEEDS").ok().map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"))
}

fn withstands(replicated: bool) {
    let began = std::time::Instant::now();
    let (mut stored, mut retried, mut count) = (0, 0, Count::default());
    for seed in 0..seeds() {
        let outcome = run(seed, replicated, Defect::None, false);
        if let Some(wrong) = outcome.wrong {
            let words = run(seed, replicated, Defect::None, true).words;
            let last = &words[words.len().saturating_sub(WORDS_SHOWN_MAX)..];
            panic!("seed {seed}: {wrong}\nwhat came before:\n{}", last.join("\n"));
        }
        stored += outcome.stored;
        retried += outcome.retried;
        count.add(outcome.count);
    }
    eprintln!("{} seeds, {stored} events, {retried} retries, {count:?} in {:?}", seeds(), began.elapsed());
    let seeds = usize::try_from(seeds()).expect("a number of seeds");
    assert!(stored > 10 * seeds, "too little happened: {stored} events");
    let rare = [retried, count.superseded, count.too_early, count.none_to_retry, count.gave_up];
    assert!(rare.iter().all(|times| *times > seeds / 10), "too little happened: {rare:?}");
    let rarer = [count.removed, count.gone, count.paused];
    assert!(rarer.iter().all(|times| *times > seeds / 200), "too little happened: {rarer:?}");
}

#[test]
fn on_one_server_every_job_ends_once_and_nobody_fenced_writes() {
    withstands(false);
}

#[test]
fn on_three_servers_every_job_ends_once_and_nobody_fenced_writes() {
    withstands(true);
}

#[test]
fn the_same_seed_makes_the_same_history_and_another_one_another() {
    for seed in 0..20 {
        for replicated in [false, true] {
            let [one, again] = [false, true].map(|words| run(seed, replicated, Defect::None, words).trace);
            assert_eq!(one, again, "seed {seed}");
            assert_ne!(one, run(seed + 1, replicated, Defect::None, false).trace);
        }
    }
}

/// The first seed that finds it, and the violation.
fn found(defect: Defect, replicated: bool) -> Option<(u64, String)> {
    (0..SEEDS_FOR_DEFECTS).find_map(|seed| Some((seed, run(seed, replicated, defect, false).wrong?)))
}

#[test]
fn every_defect_that_is_put_in_is_found() {
    for defect in [
        Defect::BelieveRefusals,
        Defect::AskForTheLast,
        Defect::RebaseBlindly,
        Defect::NewIdForEachTry,
        Defect::AcknowledgeFenced,
        Defect::ForgetTheWorkItem,
        Defect::IgnoreSupersession,
        Defect::GiveBackSuperseded,
        Defect::RetryBlindly,
        Defect::AcknowledgeTooEarly,
        Defect::IgnoreTheTime,
        Defect::CountAllAttempts,
        Defect::CountNoAttempts,
        Defect::StartAgain,
        Defect::BelieveOneAbsence,
        Defect::BelieveNoAbsence,
    ] {
        for replicated in [false, true] {
            let found = found(defect, replicated);
            eprintln!("{defect:?}, three servers: {replicated}: {found:.200?}");
            // A single server has no stale leader.
            let cannot_be = matches!(defect, Defect::ForgetTheWorkItem | Defect::BelieveOneAbsence) && !replicated;
            assert!(cannot_be || found.is_some(), "{defect:?} was not found, with three servers: {replicated}");
        }
    }
}
