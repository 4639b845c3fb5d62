//! The vertical axis of a plot: which values it spans, and whether their logarithms are plotted.

use super::curves::Point;
use super::numbers::short;

/// Values that are this many times apart are shown on a logarithmic axis.
const DECADE: f64 = 10.0;

/// Whether an axis may be logarithmic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Logarithmic where values are positive and far apart.
    ByRange,
}

/// A vertical axis. Plots work with places on it, which are values or their logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    logarithmic: bool,
    /// The lowest and the highest place, never equal.
    pub(super) bounds: [f64; 2],
}

impl Axis {
    /// The axis for these curves.
    pub(super) fn over<'a>(curves: impl IntoIterator<Item = &'a [Point]>, scale: Scale) -> Self {
        let values = curves.into_iter().flatten().map(|&(_, value)| value).filter(|value| value.is_finite());
        let (low, high) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return Self { logarithmic: false, bounds: [0.0, 1.0] };
        }
        let logarithmic = scale == Scale::ByRange && low > 0.0 && high / low > DECADE;
        let bounds = if logarithmic { [low.log10(), high.log10()] } else { [low, high] };
        Self { logarithmic, bounds: apart(bounds) }
    }

    /// Where a point stands.
    pub(super) fn place(self, (x, value): Point) -> Point {
        (x, if self.logarithmic { value.log10() } else { value })
    }

    /// The value at a place, for people.
    pub(super) fn label(self, place: f64) -> String {
        short(if self.logarithmic { 10f64.powf(place) } else { place })
    }
}

/// A little room, also around a single value.
fn apart([low, high]: [f64; 2]) -> [f64; 2] {
    let room = if high > low { (high - low) * 0.04 } else { (high.abs() * 0.04).max(1e-9) };
    [low - room, high + room]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_far_apart_are_shown_by_their_logarithms() {
        let axis = Axis::over([&[(1.0, 8.0), (2.0, 0.08)][..], &[(1.0, 4.0)]], Scale::ByRange);
        assert_eq!(axis.place((1.0, 8.0)), (1.0, 8f64.log10()));
        assert_eq!(axis.label(8f64.log10()), "8.00");
        assert!(axis.bounds[0] < 0.08f64.log10() && axis.bounds[1] > 8f64.log10());
    }

    #[test]
    fn values_together_or_of_both_signs_are_shown_as_they_are() {
        for curve in [[(1.0, 1.0), (2.0, 3.0)], [(1.0, -5.0), (2.0, 100.0)]] {
            assert_eq!(Axis::over([&curve[..]], Scale::ByRange).place(curve[1]), curve[1]);
        }
        assert_eq!(Axis::over([&[(1.0, 8.0), (2.0, 0.08)][..]], Scale::Linear).place((1.0, 8.0)), (1.0, 8.0));
    }

    #[test]
    fn one_value_or_none_still_makes_an_axis() {
        for curve in [&[(1.0, 0.0)][..], &[(1.0, 7.0)], &[], &[(1.0, f64::NAN)]] {
            let [low, high] = Axis::over([curve], Scale::ByRange).bounds;
            assert!(low < high && low.is_finite() && high.is_finite(), "{curve:?}: {low} {high}");
        }
    }
}
