//! The report of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use millrace_cli::table;

use super::{
    check::{Promise, Recovery, Violation},
    history::{History, Session},
    recorder::{Injected, Kept},
};

/// Violations shown for each promise.
const SHOWN_MAX: usize = 5;
const SENTENCE_CHARS_MAX: usize = 600;

/// How long the system took to become idle.
pub struct Rest {
    /// From the end of the last fault until each job had ended.
    pub jobs: Option<Duration>,
    /// From the end of the last fault until each client had seen the end of its job.
    pub clients: Option<Duration>,
    pub disk: bool,
}

/// The tables.
pub fn text(history: &History, kept: &Kept, recoveries: &[Recovery], rest: &Rest, violations: &[Violation]) -> String {
    let mut text = faults(&kept.injected, rest.disk);
    text.push('\n');
    text.push_str(&table::render(&totals(history, kept, rest)));
    text.push('\n');
    text.push_str(&table::render(&times(history, kept, recoveries)));
    text.push('\n');
    text.push_str(&broken(violations));
    text
}

/// Kills of processes.
pub fn kills(injected: &[Injected]) -> usize {
    injected.iter().filter(|it| it.fault.is_kill()).count()
}

fn faults(injected: &[Injected], disk: bool) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for it in injected {
        *counts.entry(it.fault.name()).or_default() += 1;
    }
    let mut rows = vec![row("faults injected", "times")];
    rows.extend(counts.iter().map(|(name, count)| row(name, count)));
    if !disk {
        rows.push(row("workers' disk full", "skipped: mounts are not permitted here"));
    }
    rows.push(row("processes killed, in all", kills(injected)));
    table::render(&rows)
}

fn totals(history: &History, kept: &Kept, rest: &Rest) -> Vec<Vec<String>> {
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let mut retries = 0;
    for logged in &history.log {
        use millrace_domain::EventBody::{Canceled, Completed, Failed, Retrying};
        let end = match logged.event.as_ref().map(|event| &event.body) {
            Ok(Completed) => "completed".to_owned(),
            Ok(Failed(failure)) => format!("failed: {}", failure.code),
            Ok(Canceled) => "canceled".to_owned(),
            Ok(Retrying { .. }) => {
                retries += 1;
                continue;
            }
            _ => continue,
        };
        *ends.entry(end).or_default() += 1;
    }
    let messages: usize = history.sessions.iter().map(|session| session.seen.len()).sum();
    let connections: usize = history.sessions.iter().map(connections).sum();
    let took = |span: Option<Duration>| span.map_or("never".to_owned(), |span| format!("{:.1} s", span.as_secs_f64()));
    let mut rows = vec![row("what ran", "count"), row("submissions accepted, with repeats", history.accepted.len())];
    let jobs: BTreeSet<_> = history.log.iter().map(|it| &it.id).collect();
    rows.push(row("jobs", jobs.len()));
    rows.extend(ends.into_iter().map(|(end, count)| row(&format!("jobs {end}"), count)));
    let mut answers: Vec<_> = kept.answers.iter().collect();
    answers.sort();
    for (status, count) in answers {
        let outcome = if *status == 0 { "without a response".to_owned() } else { format!("answered with {status}") };
        rows.push(row(&format!("submissions {outcome}"), count));
    }
    rows.extend([
        row("further attempts", retries),
        row("events in the log", history.log.len()),
        row("appends acknowledged and checked", history.acked.len()),
        row("files in the object store", history.objects.len()),
        row("parts received after their upload was aborted (kept by the test's store)", history.stray_parts),
        row("client sessions", history.sessions.len()),
        row("their connections", connections),
        row("their messages", messages),
        row("services that ended by themselves", kept.own_ends),
        row("from the last fault to the last job's end", took(rest.jobs)),
        row("from the last fault to the last client's final state", took(rest.clients)),
    ]);
    rows
}

fn connections(session: &Session) -> usize {
    session.seen.last().map_or(0, |seen| seen.connection as usize + 1)
}

fn times(history: &History, kept: &Kept, recoveries: &[Recovery]) -> Vec<Vec<String>> {
    let heading = ["times, in seconds", "count", "p50", "p99", "max"].map(str::to_owned).to_vec();
    let of = |clear: bool| recoveries.iter().filter(move |it| it.clear || !clear).map(|it| it.took.as_secs_f64());
    let nats = kept.injected.iter().filter(|it| it.fault.name().starts_with("nats-server"));
    // When each job's last event was appended.
    let ends: BTreeMap<&str, u64> = history
        .log
        .iter()
        .filter_map(|it| Some((it.id.as_str(), u64::try_from(it.event.as_ref().ok()?.at.as_millisecond()).ok()?)))
        .collect();
    let finals = history.sessions.iter().filter_map(|session| {
        let seen = session.seen.iter().find(|seen| seen.end)?;
        let ended = ends.get(session.job.as_str())?;
        Some(seen.at.saturating_sub(*ended.max(&session.began_at)) as f64 / 1e3)
    });
    vec![
        heading,
        quantiles("from a worker's death until its job runs again", of(false)),
        quantiles("the same, with no other fault in the way", of(true)),
        quantiles(
            "from a nats-server's failure until the cluster is whole",
            nats.map(|it| (it.to - it.from) as f64 / 1e3),
        ),
        quantiles("from a job's end until its client knows, faults included", finals),
    ]
}

fn quantiles(name: &str, values: impl Iterator<Item = f64>) -> Vec<String> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |quantile: f64| {
        let place = (quantile * values.len() as f64).ceil() as usize;
        values.get(place.saturating_sub(1)).map_or("-".to_owned(), |value| format!("{value:.2}"))
    };
    vec![name.to_owned(), values.len().to_string(), at(0.5), at(0.99), at(1.0)]
}

fn broken(violations: &[Violation]) -> String {
    let mut rows = vec![row("promise", "violations")];
    let mut sentences = String::new();
    for promise in Promise::ALL {
        let of: Vec<_> = violations.iter().filter(|violation| violation.promise == *promise).collect();
        rows.push(row(promise.words(), of.len()));
        for violation in of.iter().take(SHOWN_MAX) {
            let sentence = millrace_domain::limits::cut(&violation.sentence, SENTENCE_CHARS_MAX);
            sentences.push_str(&format!("{}: {sentence}\n", promise.words()));
        }
    }
    rows.push(row("violations, in all", violations.len()));
    let gap = if sentences.is_empty() { "" } else { "\n" };
    format!("{}{gap}{sentences}", table::render(&rows))
}

fn row(name: &str, value: impl ToString) -> Vec<String> {
    vec![name.to_owned(), value.to_string()]
}
