//! The recovery of appends and the protocol of claims, against a model of the log: replies are lost, requests come late
//! and twice, leaders die and their successors lag, there is no room, leases end under workers that go on, processes are killed at any
//! step, people cancel. Nothing may be stored twice, out of order or by somebody who was fenced; nobody may be told
//! what is not so; and once nothing fails any more, every job ends.
//!
//! `MILLRACE_SIMULATION_SEEDS` asks for more seeds. A failure names its seed and shows what happened.

// Sizes matter little here.
#![allow(clippy::large_enum_variant)]

mod exhaustive;
mod log;
mod operation;
mod worker;
mod world;

use operation::Defect;
use world::run;

/// How many seeds of each kind of log.
const SEEDS: u64 = 10_000;
/// Within so many a defect must show.
const SEEDS_FOR_DEFECTS: u64 = 1000;
const WORDS_SHOWN_MAX: usize = 80;

fn seeds() -> u64 {
    std::env::var("MILLRACE_SIMULATION_SEEDS").ok().map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"))
}

fn withstands(replicated: bool) {
    let began = std::time::Instant::now();
    let mut stored = 0;
    for seed in 0..seeds() {
        let outcome = run(seed, replicated, Defect::None, false);
        if let Some(wrong) = outcome.wrong {
            let words = run(seed, replicated, Defect::None, true).words;
            let last = &words[words.len().saturating_sub(WORDS_SHOWN_MAX)..];
            panic!("seed {seed}: {wrong}\nwhat came before:\n{}", last.join("\n"));
        }
        stored += outcome.stored;
    }
    assert!(stored as u64 > 10 * seeds(), "too little happened: {stored} events");
    eprintln!("{} seeds and {stored} events in {:?}", seeds(), began.elapsed());
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

/// How many of the seeds find it, and what the first one says.
fn found(defect: Defect, replicated: bool) -> (usize, String) {
    let runs = (0..SEEDS_FOR_DEFECTS).filter_map(|seed| run(seed, replicated, defect, false).wrong);
    let found: Vec<_> = runs.collect();
    (found.len(), found.first().cloned().unwrap_or_default())
}

#[test]
fn every_defect_that_is_put_in_is_found() {
    for defect in [
        Defect::BelieveRefusals,
        Defect::AskForTheLast,
        Defect::RebaseBlindly,
        Defect::NewIdForEachTry,
        Defect::AcknowledgeFenced,
        Defect::ForgetTheSubmission,
    ] {
        for replicated in [false, true] {
            let (count, first) = found(defect, replicated);
            eprintln!("{defect:?}, three servers: {replicated}: {count} of {SEEDS_FOR_DEFECTS} seeds, as {first:.160}");
            // A server alone has no leader who lags behind.
            let cannot_be = defect == Defect::ForgetTheSubmission && !replicated;
            assert!(cannot_be || count > 0, "{defect:?} was not found, with three servers: {replicated}");
        }
    }
}
