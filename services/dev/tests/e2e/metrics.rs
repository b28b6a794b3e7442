//! README.md's table of metrics is generated here, from what the processes expose.
//!
//! `MILLRACE_UPDATE=1 cargo dev test metrics` writes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use millrace_harness::{
    checkout,
    ports::free_port,
    processes::{Service, ServiceOptions},
};

use crate::stack::{Options, Stack};

const BEGIN: &str = "<!-- metrics -->\n";
const END: &str = "<!-- /metrics -->";
/// Metrics of the metrics library, the same in every program.
const FOREIGN: &str = "process_";

/// A metric as a process exposes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    name: String,
    kind: String,
    help: String,
    /// Its labels, each with the values that are there.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Reads the text format, in which each labelled value must be zero.
fn read(text: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            metrics.push(Metric { name: name.into(), help: help.into(), ..Metric::default() });
            continue;
        }
        let metric = metrics.last_mut().expect("HELP comes first");
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            metric.kind = kind.rsplit(' ').next().unwrap().into();
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        let Some((_, labels)) = sample.split_once('{') else { continue };
        assert_eq!(value, "0", "{sample} has been counted already");
        for label in labels.trim_end_matches('}').split(',') {
            let (name, value) = label.split_once('=').expect("a label");
            metric.labels.entry(name.into()).or_default().insert(value.trim_matches('"').into());
        }
    }
    metrics.retain(|metric| !metric.name.starts_with(FOREIGN));
    metrics
}

/// A row for each metric; the metrics of all services come first.
fn table(exposed: &[(&str, Vec<Metric>)]) -> String {
    let mut services_of: BTreeMap<&Metric, Vec<&str>> = BTreeMap::new();
    for (service, metrics) in exposed {
        for metric in metrics {
            services_of.entry(metric).or_default().push(service);
        }
    }
    let mut rows: Vec<_> = services_of.into_iter().collect();
    let place = |services: &[&str]| exposed.iter().position(|(service, _)| services == [*service]);
    rows.sort_by_key(|(_, services)| place(services));
    let row = |(metric, services): &(&Metric, Vec<&str>)| {
        let Metric { name, kind, help, labels } = metric;
        let values = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(", ");
        let labels: Vec<_> = labels.iter().map(|(label, all)| format!("`{label}`: {}", values(all))).collect();
        let of = if services.len() == exposed.len() { "all".into() } else { services.join(", ") };
        format!("| `{name}` | {of} | {kind} | {} | {help} |\n", labels.join("; "))
    };
    let rows: String = rows.iter().map(row).collect();
    format!("| metric | of | type | label | meaning |\n|---|---|---|---|---|\n{rows}")
}

async fn exposed_at(admin: &str) -> Vec<Metric> {
    read(&reqwest::get(format!("{admin}/metrics")).await.unwrap().text().await.unwrap())
}

#[tokio::test]
async fn the_metrics_of_the_readme_are_those_that_the_services_expose_with_all_label_values_at_zero() {
    let stack = Stack::start_with(Options { without_worker: true, ..Default::default() }).await;
    let (mut worker, worker_admin) = stack.spawn_worker("work", &[]);
    let projector_address = format!("127.0.0.1:{}", free_port());
    let args = ["--nats-url", &stack.nats.url(), "--admin-listen", &projector_address].map(str::to_owned).to_vec();
    let options = ServiceOptions { args, ..ServiceOptions::default() };
    let mut projector = Service::spawn("millrace-projector", options).unwrap();
    let projector_admin = format!("http://{projector_address}");
    worker.wait_ready(&worker_admin, Duration::from_secs(30)).await.expect("the worker");
    projector.wait_ready(&projector_admin, Duration::from_secs(30)).await.expect("the projector");
    let exposed = [
        ("edge", exposed_at(&stack.edge_admin).await),
        ("worker", exposed_at(&worker_admin).await),
        ("projector", exposed_at(&projector_admin).await),
    ];
    let table = table(&exposed);

    let path = checkout().join("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let (before, rest) = readme.split_once(BEGIN).unwrap_or_else(|| panic!("README.md has no {BEGIN}"));
    let (there, after) = rest.split_once(END).unwrap_or_else(|| panic!("README.md has no {END}"));
    if std::env::var("MILLRACE_UPDATE").is_ok_and(|value| value == "1") {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).expect("README.md is written");
        return;
    }
    let only_in = |text: &str, other: &str| {
        text.lines().filter(|line| !other.lines().any(|found| found == *line)).collect::<Vec<_>>().join("\n")
    };
    let (readme_only, services_only) = (only_in(there, &table), only_in(&table, there));
    assert!(
        there == table,
        "README.md's table differs; `MILLRACE_UPDATE=1 cargo dev test metrics` writes it.\n\
         Only in README.md:\n{readme_only}\nOnly of the services:\n{services_only}"
    );
}

#[test]
fn a_changed_name_type_help_or_label_value_changes_the_table() {
    let text = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\"} 0\na_total{x=\"2\"} 0\n\
                # HELP b Other.\n# TYPE b gauge\nb 7\n# HELP process_fds F.\n# TYPE process_fds gauge\nprocess_fds 1\n";
    let of = |text: &str| table(&[("edge", read(text)), ("worker", read("# HELP b Other.\n# TYPE b gauge\nb 7\n"))]);
    assert_eq!(
        of(text),
        "| metric | of | type | label | meaning |\n|---|---|---|---|---|\n\
         | `b` | all | gauge |  | Other. |\n| `a_total` | edge | counter | `x`: 1, 2 | Help. |\n"
    );
    for (from, to) in [("a_total", "c_total"), ("counter", "gauge"), ("Help.", "New."), ("\"2\"", "\"3\"")] {
        assert_ne!(of(&text.replace(from, to)), of(text), "{from}");
    }
}
