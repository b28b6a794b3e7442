//! The results as a table, against the targets.

use std::collections::BTreeMap;

use millrace_cli::table;
use serde::Serialize;

use super::{
    super::{machine::Machine, stats::median},
    measure::{Metrics, Scale},
    subject::Name,
};

/// All measurements.
#[derive(Debug, Serialize)]
pub struct Report {
    pub command: String,
    pub machine: Machine,
    pub scale: Scale,
    pub runs: usize,
    /// Medians over the runs, by subject.
    pub medians: BTreeMap<&'static str, Metrics>,
    /// Each run, by subject.
    pub all: BTreeMap<&'static str, Vec<Metrics>>,
    /// Failures, by subject.
    pub notes: BTreeMap<&'static str, Vec<String>>,
    pub targets: Vec<Verdict>,
}

/// A target and its result.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub target: String,
    /// Ours, or its ratio to another subject's.
    pub value: f64,
    pub is_met: bool,
}

/// The reference of a target.
enum Against {
    /// None: the limit is absolute.
    Nothing,
    /// The same number of another subject.
    Subject(Name),
    /// Another number of ours.
    Own(&'static str),
}

struct Target {
    metric: &'static str,
    against: Against,
    is_at_most: bool,
    limit: f64,
}

const fn at_most(metric: &'static str, against: Against, limit: f64) -> Target {
    Target { metric, against, is_at_most: true, limit }
}

const fn at_least(metric: &'static str, against: Against, limit: f64) -> Target {
    Target { metric, against, is_at_most: false, limit }
}

/// The project's targets for live delivery.
const TARGETS: &[Target] = &[
    at_most("memory.each_kib", Against::Nothing, 4.0),
    at_most("memory.each_kib", Against::Subject(Name::NatsWs), 0.1),
    at_most("storm.memory_after_kib", Against::Own("memory.each_kib"), 1.5),
    at_least("connects.each_per_s", Against::Subject(Name::Floor), 0.8),
    at_least("connects.each_per_s", Against::Subject(Name::NatsWs), 4.0),
    at_most("storm.seconds", Against::Subject(Name::Floor), 1.5),
    at_most("storm.failures", Against::Nothing, 0.0),
    at_most("storm.nats_requests", Against::Nothing, 999.0),
    at_least("hot.deliveries_per_cpu_s", Against::Subject(Name::NatsWs), 2.0),
    at_least("spread.deliveries_per_cpu_s", Against::Subject(Name::NatsWs), 2.0),
    at_least("hot.deliveries_per_cpu_s", Against::Subject(Name::Floor), 0.9),
    at_least("spread.deliveries_per_cpu_s", Against::Subject(Name::Floor), 0.9),
    at_most("hot.cpu_us", Against::Subject(Name::Floor), 1.15),
    at_most("spread.cpu_us", Against::Subject(Name::Floor), 1.15),
    at_most("hot.user_us", Against::Nothing, 1.5),
    at_most("spread.user_us", Against::Nothing, 1.5),
    at_most("latency.spread.p50_ms", Against::Subject(Name::NatsWs), 1.2),
    at_most("latency.spread.p99_ms", Against::Subject(Name::NatsWs), 1.0),
    at_most("unwatched.cpu_us", Against::Nothing, 8.0),
];

impl Report {
    /// Summarises all runs of all subjects.
    pub fn new(
        command: String,
        machine: Machine,
        scale: Scale,
        all: BTreeMap<&'static str, Vec<Metrics>>,
        notes: BTreeMap<&'static str, Vec<String>>,
    ) -> Self {
        let medians: BTreeMap<_, _> = all.iter().map(|(name, runs)| (*name, medians(runs))).collect();
        let targets = TARGETS.iter().filter_map(|target| target.judge(&medians)).collect();
        let runs = all.values().map(Vec::len).max().unwrap_or(0);
        Self { command, machine, scale, runs, medians, all, notes, targets }
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let subjects: Vec<_> =
            Name::ALL.iter().map(|name| name.text()).filter(|name| self.medians.contains_key(name)).collect();
        let mut metrics: Vec<&String> = self.medians.values().flat_map(BTreeMap::keys).collect();
        metrics.sort();
        metrics.dedup();
        let heading = [&["median"][..], &subjects].concat().into_iter().map(str::to_owned).collect();
        let row = |metric: &&String| {
            let cell =
                |subject: &&str| self.medians[subject].get(*metric).map_or_else(|| "-".into(), |value| digits(*value));
            [vec![(*metric).clone()], subjects.iter().map(cell).collect()].concat()
        };
        let rows: Vec<Vec<String>> = std::iter::once(heading).chain(metrics.iter().map(row)).collect();
        let mut verdicts = vec![["target", "value", ""].map(str::to_owned).to_vec()];
        verdicts.extend(self.targets.iter().map(|verdict| {
            let word = if verdict.is_met { "met" } else { "MISSED" };
            vec![verdict.target.clone(), digits(verdict.value), word.to_owned()]
        }));
        let notes: Vec<_> = self
            .notes
            .iter()
            .flat_map(|(subject, notes)| notes.iter().map(move |note| format!("{subject}: {note}\n")))
            .collect();
        format!(
            "{}\n{}\n{}{} clients, {} jobs where there are many, {} s a load, {} run(s); everything on one machine: \
            {}.\n{}\n",
            table::render(&rows),
            table::render(&verdicts),
            notes.concat(),
            self.scale.clients,
            self.scale.jobs,
            self.scale.seconds,
            self.runs,
            self.machine.line(),
            self.command,
        )
    }
}

fn medians(runs: &[Metrics]) -> Metrics {
    let names: std::collections::BTreeSet<_> = runs.iter().flat_map(BTreeMap::keys).collect();
    let of = |name: &String| median(&runs.iter().filter_map(|run| run.get(name).copied()).collect::<Vec<_>>());
    names.into_iter().map(|name| (name.clone(), of(name))).collect()
}

impl Target {
    /// `None` when something was not measured.
    fn judge(&self, medians: &BTreeMap<&'static str, Metrics>) -> Option<Verdict> {
        let ours = medians.get(Name::Edge.text())?;
        let value = *ours.get(self.metric)?;
        let (value, what) = match self.against {
            Against::Nothing => (value, String::new()),
            Against::Subject(name) => {
                (value / medians.get(name.text())?.get(self.metric)?, format!(" × {}", name.text()))
            }
            Against::Own(other) => (value / ours.get(other)?, format!(" × {other}")),
        };
        let (sign, is_met) = if self.is_at_most { ("≤", value <= self.limit) } else { ("≥", value >= self.limit) };
        Some(Verdict { target: format!("{} {sign} {}{what}", self.metric, self.limit), value, is_met })
    }
}

/// The value with three significant digits.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_judged_only_when_both_sides_were_measured() {
        let run = |rate: f64| Metrics::from([("connects.each_per_s".to_owned(), rate)]);
        let mut medians = BTreeMap::from([("edge", run(5000.0))]);
        let judged = |medians: &BTreeMap<_, _>| TARGETS.iter().filter_map(|target| target.judge(medians)).count();
        assert_eq!(judged(&medians), 0);
        medians.insert("floor", run(6000.0));
        let verdicts: Vec<_> = TARGETS.iter().filter_map(|target| target.judge(&medians)).collect();
        assert!(verdicts.len() == 1 && verdicts[0].is_met, "{verdicts:?}");
    }
}
