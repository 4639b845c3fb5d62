//! Percentiles and means of what was measured. Knows no unit.

use serde::Serialize;

/// What is reported of many values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
    pub(super) mean: f64,
    pub(super) count: usize,
}

impl Summary {
    /// `None` for no values.
    pub(super) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let max = *values.last()?;
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| percentile(&values, share));
        Some(Self { p50, p90, p99, max, mean: values.iter().sum::<f64>() / values.len() as f64, count: values.len() })
    }
}

/// The value below which `share` of the sorted values lie, interpolated between neighbours.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    low + (high - low) * place.fract()
}

/// `part / whole`, unless there is no whole.
pub(super) fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_lie_between_their_neighbours() {
        let summary = Summary::of((0..=100).rev().map(f64::from).collect()).unwrap();
        let expected = Summary { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0, mean: 50.0, count: 101 };
        assert_eq!(summary, expected);
        let two = Summary::of(vec![1.0, 3.0]).unwrap();
        assert_eq!((two.p50, two.mean, two.max), (2.0, 2.0, 3.0));
        assert!((two.p90 - 2.8).abs() < 1e-12);
    }

    #[test]
    fn one_value_is_every_percentile_and_none_have_no_summary() {
        let one = Summary::of(vec![7.0]).unwrap();
        assert_eq!((one.p50, one.p90, one.p99, one.mean), (7.0, 7.0, 7.0, 7.0));
        assert_eq!(Summary::of(Vec::new()), None);
        assert_eq!((ratio(1.0, 4.0), ratio(1.0, 0.0)), (Some(0.25), None));
    }
}
