//! Numbers: bounds made inclusive and finite, so that every number written under them reads back inside them.
//!
//! Reading decimal text as a float is monotone, so a bound that is itself a float's shortest text is exact.

use super::document::Node;
use super::{format, keywords};
use serde_json::{Map, Value, json};

/// Largest integer magnitude: every integer up to it is exact in any JSON reader.
const MAX_INTEGER: f64 = 9_007_199_254_740_991.0;
/// Largest magnitude of other numbers: 15 digits are exact.
const MAX_NUMBER: f64 = 1e15;
/// Smallest magnitude that a bound distinguishes from zero.
const MIN_NUMBER: f64 = 1e-15;
const MAX_DIVISOR: u64 = 10_000;
const MAX_DECIMALS: u32 = 6;
/// Ranges that excluded numbers may leave.
const MAX_RANGES: usize = 64;

/// Numbers between two bounds, both allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number {
    pub(super) integer: bool,
    pub(super) minimum: f64,
    pub(super) maximum: f64,
    divisor: Option<Divisor>,
}

/// `coefficient / 10^decimals`, in lowest decimal form.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Divisor {
    coefficient: u64,
    decimals: u32,
}

impl Divisor {
    fn parse(value: &Value) -> Option<Self> {
        let number = value.as_f64().filter(|number| *number > 0.0)?;
        let text = format!("{number}");
        let decimals = u32::try_from(text.split_once('.').map_or(0, |(_, fraction)| fraction.len())).ok()?;
        let coefficient = text.replace('.', "").parse().ok()?;
        Some(Self { coefficient, decimals })
    }

    fn value(self) -> f64 {
        self.coefficient as f64 / 10f64.powi(self.decimals.cast_signed())
    }

    /// The divisor of the integers among the multiples.
    fn of_integers(self) -> Self {
        let scale = 10u64.pow(self.decimals);
        Self { coefficient: self.coefficient / gcd(self.coefficient, scale), decimals: 0 }
    }

    /// What divides the common multiples; `None` when that is not simple.
    fn common(self, other: Self) -> Option<Self> {
        if self == other {
            return Some(self);
        }
        let whole = self.decimals == 0 && other.decimals == 0;
        let coefficient = self.coefficient / gcd(self.coefficient, other.coefficient) * other.coefficient;
        (whole && coefficient <= MAX_DIVISOR).then_some(Self { coefficient, decimals: 0 })
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Refuses divisors that are not enforced; the error completes the sentence "`multipleOf` …".
pub(super) fn check_divisor(value: &Value) -> Result<(), String> {
    let divisor = Divisor::parse(value).ok_or("must be a number greater than 0")?;
    // The compiler finds the decimals by multiplying by ten; what rounding makes of that must be the same.
    let scaled = (0..divisor.decimals).fold(value.as_f64().unwrap_or_default(), |number, _| number * 10.0);
    let exact = scaled == divisor.coefficient as f64;
    if divisor.coefficient > MAX_DIVISOR || divisor.decimals > MAX_DECIMALS || !exact {
        return Err(format!(
            "cannot be enforced exactly; use at most {MAX_DECIMALS} decimals and {MAX_DIVISOR} as digits"
        ));
    }
    Ok(())
}

/// What the number keywords of all parts leave, in ranges between the excluded numbers. The error names the culprit.
pub(super) fn merge<'a>(
    parts: &[Node<'a>],
    integer: bool,
    excluded: &[&Value],
) -> Result<Vec<Number>, (Node<'a>, String)> {
    let mut number = Number { integer, minimum: f64::NEG_INFINITY, maximum: f64::INFINITY, divisor: None };
    for part in parts {
        let Some(map) = part.as_object() else { continue };
        number.narrow(map);
        if let Some(divisor) = map.get("multipleOf").and_then(Divisor::parse) {
            let divisor = number.divisor.map_or(Some(divisor), |other| other.common(divisor));
            number.divisor =
                Some(divisor.ok_or((*part, "`multipleOf` cannot be combined with the others here".to_owned()))?);
        }
    }
    let mut ranges: Vec<Number> = number.settle().into_iter().collect();
    for point in excluded.iter().filter_map(|value| value.as_f64()) {
        ranges = ranges.into_iter().flat_map(|range| range.without(point)).collect();
    }
    if ranges.len() > MAX_RANGES {
        let culprit = parts.iter().find(|part| part.get("not").is_some()).copied().unwrap_or(parts[0]);
        return Err((culprit, format!("more than {MAX_RANGES} ranges of numbers remain between those excluded")));
    }
    Ok(ranges)
}

impl Number {
    /// The range without one of its numbers: what is below it and what is above.
    fn without(self, point: f64) -> impl Iterator<Item = Self> {
        let inside = (self.minimum..=self.maximum).contains(&point);
        let below = Self { maximum: -self.above(-point), ..self };
        let above = Self { minimum: self.above(point), ..self };
        let pieces = if inside { [Some(below), Some(above)] } else { [Some(self), None] };
        pieces.into_iter().flatten().filter_map(Self::settle)
    }

    fn narrow(&mut self, map: &Map<String, Value>) {
        let number = |keyword: &str| map.get(keyword).and_then(Value::as_f64);
        self.at_least(number("minimum").map(|bound| self.round_up(bound)));
        self.at_most(number("maximum").map(|bound| self.round_down(bound)));
        self.at_least(number("exclusiveMinimum").map(|bound| self.above(bound)));
        self.at_most(number("exclusiveMaximum").map(|bound| -self.above(-bound)));
        if let Some((minimum, maximum)) = map.get("format").and_then(Value::as_str).and_then(format::number_range) {
            self.at_least(Some(minimum));
            self.at_most(Some(maximum));
        }
    }

    fn at_least(&mut self, bound: Option<f64>) {
        self.minimum = bound.map_or(self.minimum, |bound| self.minimum.max(bound));
    }

    fn at_most(&mut self, bound: Option<f64>) {
        self.maximum = bound.map_or(self.maximum, |bound| self.maximum.min(bound));
    }

    fn round_up(&self, bound: f64) -> f64 {
        if self.integer {
            bound.ceil()
        } else if bound > 0.0 {
            bound.max(MIN_NUMBER)
        } else if bound > -MIN_NUMBER {
            0.0
        } else {
            bound
        }
    }

    fn round_down(&self, bound: f64) -> f64 {
        -self.round_up(-bound)
    }

    /// The smallest number above `bound` that is used as a bound.
    fn above(&self, bound: f64) -> f64 {
        if self.integer {
            bound.floor() + 1.0
        } else if bound == 0.0 {
            MIN_NUMBER
        } else {
            self.round_up(bound.next_up())
        }
    }

    fn settle(mut self) -> Option<Self> {
        if self.divisor.is_some_and(|divisor| divisor.decimals == 0) {
            self.minimum = self.minimum.ceil();
            self.maximum = self.maximum.floor();
            self.integer = true;
        }
        if self.integer {
            self.divisor = self.divisor.map(Divisor::of_integers);
        }
        // With a fractional divisor, as many digits before the point as the float keeps exactly.
        let decimals = self.divisor.map_or(0, |divisor| divisor.decimals);
        let limit = if self.integer { MAX_INTEGER } else { MAX_NUMBER / 10f64.powi(decimals.cast_signed()) };
        self.at_least(Some(-limit));
        self.at_most(Some(limit));
        // No negative zero: adding zero makes it positive.
        self.minimum += 0.0;
        self.maximum += 0.0;
        (self.minimum <= self.maximum && self.has_multiple()).then_some(self)
    }

    fn has_multiple(&self) -> bool {
        let step = self.divisor.map_or(0.0, Divisor::value);
        step == 0.0 || (self.maximum / step).floor() * step >= self.minimum
    }

    /// The integers of a short range; `None` when they are more than `limit`.
    pub(super) fn values(&self, limit: usize) -> Option<Vec<Value>> {
        let step = self.divisor.map_or(1, |divisor| divisor.coefficient.cast_signed());
        let few = self.integer && (self.maximum - self.minimum) / step as f64 <= limit as f64;
        let first = (self.minimum / step as f64).ceil() as i64;
        let last = (self.maximum / step as f64).floor() as i64;
        few.then(|| (first..=last).map(|factor| json!(factor * step)).collect())
    }

    /// Whether no number can be in both ranges.
    pub(super) fn misses(&self, map: &Map<String, Value>) -> bool {
        let number = |keyword: &str| map.get(keyword).and_then(Value::as_f64);
        number("minimum").is_some_and(|bound| self.maximum < bound)
            || number("exclusiveMinimum").is_some_and(|bound| self.maximum <= bound)
            || number("maximum").is_some_and(|bound| self.minimum > bound)
            || number("exclusiveMaximum").is_some_and(|bound| self.minimum >= bound)
    }

    /// The compiler's schema.
    pub(super) fn emit(&self) -> Value {
        let bound = |bound: f64| if self.integer { json!(bound as i64) } else { json!(bound) };
        let name = if self.integer { "integer" } else { "number" };
        let mut schema = json!({"type": name, "minimum": bound(self.minimum), "maximum": bound(self.maximum)});
        if let Some(divisor) = self.divisor {
            schema["multipleOf"] = bound_divisor(divisor);
            return schema;
        }
        let missed = self.missed();
        if missed.is_empty() { schema } else { json!({"anyOf": [schema, {"enum": missed}]}) }
    }

    /// Numbers that the compiler forgets: a bound's digits cut short, such as 1.2 under a maximum of 1.25.
    fn missed(&self) -> Vec<f64> {
        let mut found = Vec::new();
        for bound in [self.minimum.min(0.0), self.maximum.max(0.0)] {
            let text = format!("{bound}");
            let point = text.find('.').unwrap_or(text.len());
            let cut = (point + 2..text.len()).filter_map(|end| text[..end].parse::<f64>().ok());
            found.extend(cut.filter(|value| *value != 0.0 && (self.minimum..=self.maximum).contains(value)));
        }
        found.dedup();
        found
    }
}

fn bound_divisor(divisor: Divisor) -> Value {
    if divisor.decimals == 0 { json!(divisor.coefficient) } else { json!(divisor.value()) }
}

/// Whether a number constant survives writing and reading; used for `enum` and `const`.
pub(super) fn is_exact(number: &serde_json::Number) -> bool {
    let limit = if number.is_f64() { MAX_NUMBER } else { MAX_INTEGER };
    number.as_f64().is_some_and(|value| value.abs() <= limit && (value == 0.0 || value.abs() >= MIN_NUMBER))
}

/// The limit of counts as an enforceable maximum.
pub(super) fn clamp_count(value: &Value) -> Option<u64> {
    keywords::count(value).map(|count| count.min(keywords::MAX_COUNT))
}
