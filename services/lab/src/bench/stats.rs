//! Latencies as percentiles, and the median of several runs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies, counted in nanoseconds with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// Percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Summary {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }

    /// Counts one.
    pub fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.record(nanos).expect("it grows by itself");
    }

    /// Counts all of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both grow by themselves");
    }

    /// The percentiles.
    pub fn summary(&self) -> Summary {
        let ms = |nanos: u64| nanos as f64 / 1e6;
        let at = |quantile| ms(self.0.value_at_quantile(quantile));
        Summary {
            count: self.0.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: ms(if self.0.is_empty() { 0 } else { self.0.max() }),
        }
    }
}

impl Summary {
    /// The median run for each percentile by itself; the counts are added.
    pub fn median(runs: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(&runs.iter().map(field).collect::<Vec<_>>());
        Self {
            count: runs.iter().map(|run| run.count).sum(),
            p50_ms: of(|run| run.p50_ms),
            p99_ms: of(|run| run.p99_ms),
            p999_ms: of(|run| run.p999_ms),
            max_ms: of(|run| run.max_ms),
        }
    }
}

/// By how much the second of each pair grows with the first: the line of least squares. NaN for fewer than two places.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|point| of(point.0 - x, point.1 - y)).sum::<f64>();
    sum(&|dx, dy| dx * dy) / sum(&|dx, _| dx * dx)
}

/// The middle value; of an even number, the lower of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_found_among_points_that_are_off_and_none_at_a_single_place() {
        let points = [(0.0, 1.0), (1.0, 2.5), (2.0, 5.5), (3.0, 7.0)];
        assert!((slope(&points) - 2.1).abs() < 1e-9, "{}", slope(&points));
        assert!(slope(&points[..1]).is_nan());
    }

    #[test]
    fn percentiles_are_in_milliseconds_and_medians_over_runs() {
        let run = |ms: u64| {
            let mut latencies = Latencies::new();
            (0..100).for_each(|_| latencies.record(Duration::from_millis(ms)));
            latencies.summary()
        };
        let summary = Summary::median(&[run(9), run(1), run(2)]);
        assert_eq!(summary.count, 300);
        assert!((1.99..2.01).contains(&summary.p50_ms), "{summary:?}");
        assert!(Latencies::new().summary().max_ms.abs() < f64::EPSILON);
    }
}
