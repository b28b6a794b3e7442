//! Points, the lines through them, and the resources that a client, a job and an event take.

use millrace_cli::table;
use serde::Serialize;

use super::{
    super::{edge::report::digits, machine::Machine},
    line::Line,
};

/// Points of one kind.
#[derive(Debug, Serialize)]
pub struct Series {
    pub name: &'static str,
    pub columns: Vec<&'static str>,
    pub points: Vec<Vec<f64>>,
}

/// The resources that one more takes.
#[derive(Clone, Debug, Serialize)]
pub struct Slope {
    pub what: String,
    pub value: f64,
    pub unit: &'static str,
    /// The line of the slope; none if the slope is computed from two lines.
    pub line: Option<Line>,
}

/// All measurements.
#[derive(Debug, Serialize)]
pub struct Report {
    pub command: String,
    pub machine: Machine,
    /// Edges that share the clients.
    pub edges: usize,
    pub series: Vec<Series>,
    pub slopes: Vec<Slope>,
}

impl Series {
    /// A series without points.
    pub fn new(name: &'static str, columns: &[&'static str]) -> Self {
        Self { name, columns: columns.to_vec(), points: Vec::new() }
    }

    /// How `y` grows with `x`.
    fn line(&self, x: &str, y: &str) -> Option<Line> {
        let at = |name: &str| self.columns.iter().position(|column| *column == name);
        let (x, y) = (at(x)?, at(y)?);
        Line::through(&self.points.iter().map(|point| (point[x], point[y])).collect::<Vec<_>>())
    }

    fn text(&self) -> String {
        // Points are columns, since there are fewer points than numbers.
        let rows: Vec<Vec<String>> = self
            .columns
            .iter()
            .enumerate()
            .map(|(row, name)| {
                let cells = self.points.iter().map(|point| digits(point[row]));
                std::iter::once((*name).to_owned()).chain(cells).collect()
            })
            .collect();
        format!("{}\n{}", self.name, table::render(&rows))
    }
}

/// The slopes of clients: `ten` has ten clients on each job, `each` has one.
///
/// A client of `ten` brings a tenth of a watched job, one of `each` a whole one; so the difference is nine tenths of a
/// job.
pub fn of_clients(ten: &Series, each: &Series) -> Vec<Slope> {
    let columns = [
        ("edges_kib", "KiB of edges"),
        ("nats_kib", "KiB of nats-server"),
        ("idle_edges_us_per_s", "µs/s of edges, idle"),
        ("idle_nats_us_per_s", "µs/s of nats-server, idle"),
        ("idle_nats_msgs_per_s", "msgs/s to nats-server, idle"),
        ("connect_nats_msgs", "msgs to nats-server, connecting"),
    ];
    let mut slopes = Vec::new();
    for (column, unit) in columns {
        let (Some(of_ten), Some(of_each)) = (ten.line("clients", column), each.line("clients", column)) else {
            continue;
        };
        let job = (of_each.each - of_ten.each) / 0.9;
        let slope = |what: &str, value, line| Slope { what: what.to_owned(), value, unit, line };
        slopes.extend([
            slope("client, ten a job", of_ten.each, Some(of_ten)),
            slope("client, a job for each", of_each.each, Some(of_each)),
            slope("  client without its job", of_ten.each - job / 10.0, None),
            slope("  watched job without clients", job, None),
        ]);
    }
    slopes
}

/// The slopes of unwatched events: `rates` on one edge, `feeds` at one rate on several edges.
pub fn of_events(rates: &Series, feeds: &Series) -> Vec<Slope> {
    let slope = |series: &Series, x, y, what: &str, unit| {
        let line = series.line(x, y)?;
        Some(Slope { what: what.to_owned(), value: line.each, unit, line: Some(line) })
    };
    let (event, edge) = ("unwatched event", "edge");
    let slopes = [
        slope(rates, "heard_per_s", "edge_us_per_s", event, "µs of the edge"),
        slope(rates, "heard_per_s", "nats_us_per_s", event, "µs of nats-server with one edge"),
        slope(feeds, "edges", "nats_us_per_event", edge, "µs of nats-server for each event"),
        slope(feeds, "edges", "nats_connections", edge, "connections to nats-server"),
        slope(feeds, "edges", "nats_subscriptions", edge, "subscriptions at nats-server"),
    ];
    slopes.into_iter().flatten().collect()
}

impl Report {
    /// The report as text.
    pub fn text(&self) -> String {
        let mut rows = vec![["one more", "takes", "of", "r²", "at none"].map(str::to_owned).to_vec()];
        rows.extend(self.slopes.iter().map(|slope| {
            let of_line =
                |of: fn(&Line) -> f64| slope.line.as_ref().map_or_else(|| "-".to_owned(), |line| digits(of(line)));
            let (r2, at_zero) = (
                slope.line.map_or_else(|| "-".to_owned(), |line| format!("{:.3}", line.r2)),
                of_line(|line| line.at_zero),
            );
            vec![slope.what.clone(), digits(slope.value), slope.unit.to_owned(), r2, at_zero]
        }));
        let series: Vec<_> = self.series.iter().map(|series| series.text() + "\n").collect();
        format!(
            "{}{}\n{} edges share the clients; everything on one machine: {}.\n{}\n",
            series.concat(),
            table::render(&rows),
            self.edges,
            self.machine.line(),
            self.command,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_takes_is_told_apart_from_what_its_clients_take() {
        // A client takes 3, a job 2, and an edge without any 100.
        let series = |name, jobs_each: f64| Series {
            name,
            columns: vec!["clients", "edges_kib"],
            points: [10.0, 20.0].map(|clients| vec![clients, 100.0 + clients * (3.0 + 2.0 * jobs_each)]).to_vec(),
        };
        let slopes = of_clients(&series("ten", 0.1), &series("each", 1.0));
        let values: Vec<_> = slopes.iter().map(|slope| (slope.value * 1e6).round() / 1e6).collect();
        assert_eq!(values, [3.2, 5.0, 3.0, 2.0]);
    }
}
