//! How often each whole number occurred: exact quantiles in memory bounded by the different numbers.

use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Counts by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram(BTreeMap<u64, u64>);

impl Histogram {
    /// Counts a number.
    pub fn add(&mut self, value: usize) {
        *self.0.entry(value as u64).or_default() += 1;
    }

    /// Counts all that another one has.
    pub fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|(value, count)| *self.0.entry(value).or_default() += count);
    }

    /// How many numbers were counted.
    pub fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// Their sum.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(value, count)| value * count).sum()
    }

    /// The smallest number that a `share` of all does not exceed (nearest rank); 0 of none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.0.iter().find(|&(_, count)| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, |(&value, _)| value)
    }

    /// The largest number; 0 of none.
    pub fn largest(&self) -> u64 {
        self.0.last_key_value().map_or(0, |(&value, _)| value)
    }

    /// Counts in at most `most` ranges of equal width from 0 to `end`, each with the number it begins at; what is larger counts
    /// in the last.
    pub fn bins(&self, end: u64, most: u64) -> Vec<(u64, u64)> {
        let width = (end + 1).div_ceil(most).max(1);
        let mut bins: Vec<_> = (0..(end + 1).div_ceil(width)).map(|bin| (bin * width, 0)).collect();
        let last = bins.len() - 1;
        self.0.iter().for_each(|(value, count)| bins[((value / width) as usize).min(last)].1 += count);
        bins
    }

    /// The 50th, 80th, 90th and 99th of a hundred, and the largest.
    pub fn quantiles(&self) -> [u64; 5] {
        let [p50, p80, p90, p99] = [0.5, 0.8, 0.9, 0.99].map(|share| self.quantile(share));
        [p50, p80, p90, p99, self.largest()]
    }

    /// The same with count and mean, as one object.
    pub fn to_json(&self) -> Value {
        let ([p50, p80, p90, p99, max], count) = (self.quantiles(), self.count());
        let mean = self.total() as f64 / count.max(1) as f64;
        json!({"count": count, "mean": mean, "p50": p50, "p80": p80, "p90": p90, "p99": p99, "max": max})
    }
}

impl FromIterator<usize> for Histogram {
    fn from_iter<T: IntoIterator<Item = usize>>(values: T) -> Self {
        let mut histogram = Self::default();
        values.into_iter().for_each(|value| histogram.add(value));
        histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_numbers_that_occurred() {
        let histogram: Histogram = (1..=100).collect();
        assert_eq!(histogram.quantiles(), [50, 80, 90, 99, 100]);
        let few: Histogram = [7, 1, 1000].into_iter().collect();
        assert_eq!(few.quantiles(), [7, 1000, 1000, 1000, 1000]);
        assert_eq!(Histogram::default().quantiles(), [0; 5]);
    }

    #[test]
    fn parts_merge_to_the_whole() {
        let (mut left, right): (Histogram, Histogram) = ((0..10).collect(), (5..20).collect());
        left.merge(right);
        assert_eq!(left, (0..10).chain(5..20).collect());
        assert_eq!((left.count(), left.total()), (25, 45 + (5..20).sum::<u64>()));
    }

    #[test]
    fn bins_are_of_equal_width_and_hold_all() {
        let histogram: Histogram = [0, 1, 2, 9, 10, 11, 50].into_iter().collect();
        assert_eq!(histogram.bins(11, 4), [(0, 3), (3, 0), (6, 0), (9, 4)]);
        assert_eq!(histogram.bins(0, 4), [(0, 7)]);
        assert_eq!(histogram.bins(3, 40), [(0, 1), (1, 1), (2, 1), (3, 4)]);
    }
}
