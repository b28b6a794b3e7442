//! The line nearest to a set of points.

use serde::Serialize;

/// `y = at_zero + each * x`, by least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Line {
    pub each: f64,
    pub at_zero: f64,
    /// The share of the variance that the line explains: 1 when all points are on it.
    pub r2: f64,
}

impl Line {
    /// `None` with fewer than two different `x`.
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| points.iter().map(|point| of(point.0 - x, point.1 - y)).sum::<f64>();
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        let each = xy / xx;
        // Points with equal `y` are all on the line.
        let r2 = if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 };
        (xx > 0.0).then_some(Self { each, at_zero: y - each * x, r2 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_under_noise_and_none_through_one_point() {
        let exact = Line::through(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]).unwrap();
        assert!((exact.each - 2.0).abs() < 1e-9 && (exact.at_zero - 3.0).abs() < 1e-9 && exact.r2 > 0.999_999);
        let noisy = Line::through(&[(1.0, 5.5), (2.0, 6.5), (3.0, 9.5), (4.0, 10.5)]).unwrap();
        assert!((noisy.each - 1.8).abs() < 1e-9 && noisy.r2 < 0.99, "{noisy:?}");
        assert_eq!(Line::through(&[(1.0, 5.0), (1.0, 7.0)]), None);
        assert_eq!(Line::through(&[]), None);
    }
}
