//! `minProperties` and `maxProperties`: variants of an object that say which of its optional properties are there.

use super::super::GrammarError;
use super::contains::choices;
use super::object::{Field, Object};
use super::refuse;

/// Variants of one object.
const MAX_VARIANTS: usize = 64;
/// Free names that an object may be made to have.
const MAX_LEAST: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Presence {
    Required,
    Optional,
    Absent,
}

/// An object of which every property is settled. The compiler counts free properties itself where none is optional.
#[derive(Debug, Clone)]
pub(super) struct Variant {
    /// Of every field.
    pub(super) presence: Vec<Presence>,
    /// Whether there may be properties beside the fields.
    pub(super) open: bool,
    pub(super) minimum: Option<u64>,
    pub(super) maximum: Option<u64>,
    /// Optional fields.
    pub(super) optional: usize,
}

/// The variants that together are the object, or a refusal.
pub(super) fn variants(object: &Object, is_optional: impl Fn(&Field) -> bool) -> Result<Vec<Variant>, GrammarError> {
    let optional: Vec<usize> = (0..object.fields.len()).filter(|index| is_optional(&object.fields[*index])).collect();
    let counts = Counts::of(object, optional);
    let found = if counts.open { counts.of_open() } else { counts.of_closed() };
    found.filter(|variants| variants.len() <= MAX_VARIANTS).ok_or_else(|| {
        let message = "`minProperties`/`maxProperties` cannot be enforced exactly beside these optional properties; list the \
                       properties with `\"additionalProperties\": false`, or ask for fewer combinations";
        refuse(&object.pointer, message)
    })
}

struct Counts<'o> {
    object: &'o Object,
    optional: Vec<usize>,
    open: bool,
    /// How many of the optional and free properties there must be.
    least: usize,
    most: Option<usize>,
}

impl<'o> Counts<'o> {
    fn of(object: &'o Object, optional: Vec<usize>) -> Self {
        let required = object.fields.iter().filter(|field| field.required).count() as u64;
        let spare = |bound: u64| usize::try_from(bound.saturating_sub(required)).unwrap_or(usize::MAX);
        let open = object.additional.is_some() || !object.patterns.is_empty();
        let most = object.maximum.map(spare).filter(|most| open || *most < optional.len());
        Self { object, optional, open, least: spare(object.minimum), most }
    }

    /// No names but the fields'.
    fn of_closed(&self) -> Option<Vec<Variant>> {
        let all = self.optional.len();
        match (self.least, self.most) {
            (0, None) => Some(vec![self.variant(|_| Presence::Optional)]),
            (least, None) => self.at_least(least),
            (0, Some(most)) if combinations(all, all - most) < MAX_VARIANTS => self.at_most(most),
            (least, Some(most)) => self.exactly(least..=most),
        }
    }

    /// Free names too, which the compiler counts. It relies on names that do not repeat: there are always more where any will
    /// do, but a pattern's may run out.
    fn of_open(&self) -> Option<Vec<Variant>> {
        if self.least > 1 && (!self.object.patterns.is_empty() || self.least > MAX_LEAST) {
            return None;
        }
        match (self.least, self.most) {
            (0, None) => Some(vec![self.variant(|_| Presence::Optional)]),
            (1, None) => {
                let mut found = self.at_least(1)?;
                found.push(Self::counted(self.variant(|_| Presence::Absent), 1, None));
                Some(found)
            }
            (least, most) => {
                let all = self.optional.len();
                let present = self.exactly(0..=most.map_or(all, |most| most.min(all)))?;
                let count = |variant: Variant| {
                    let taken = self.taken(&variant);
                    Self::counted(variant, least.saturating_sub(taken), most.map(|most| most - taken))
                };
                Some(present.into_iter().map(count).collect())
            }
        }
    }

    /// The first `least` that are there, every one before them absent.
    fn at_least(&self, least: usize) -> Option<Vec<Variant>> {
        self.settled(least, Presence::Required, Presence::Absent)
    }

    /// The first that are not there, every one before them there.
    fn at_most(&self, most: usize) -> Option<Vec<Variant>> {
        self.settled(self.optional.len() - most, Presence::Absent, Presence::Required)
    }

    fn settled(&self, count: usize, chosen: Presence, before: Presence) -> Option<Vec<Variant>> {
        let settle = |picked: Vec<usize>| {
            let last = picked.last().copied().unwrap_or(0);
            self.variant(|index| match index {
                index if picked.contains(&index) => chosen,
                index if index < last => before,
                _ => Presence::Optional,
            })
        };
        let few = combinations(self.optional.len(), count) <= MAX_VARIANTS;
        few.then(|| choices(self.optional.len(), count).into_iter().map(settle).collect())
    }

    /// These many, the others absent.
    fn exactly(&self, counts: std::ops::RangeInclusive<usize>) -> Option<Vec<Variant>> {
        let all = self.optional.len();
        let total = counts.clone().fold(0, |sum: usize, count| sum.saturating_add(combinations(all, count)));
        let settle = |picked: Vec<usize>| {
            self.variant(|index| if picked.contains(&index) { Presence::Required } else { Presence::Absent })
        };
        (total <= MAX_VARIANTS).then(|| counts.flat_map(|count| choices(all, count)).map(settle).collect())
    }

    /// `settle` says what the optional fields are, by their order; dead fields are absent.
    fn variant(&self, settle: impl Fn(usize) -> Presence) -> Variant {
        let mut presence: Vec<Presence> = self
            .object
            .fields
            .iter()
            .map(|field| if field.required { Presence::Required } else { Presence::Absent })
            .collect();
        self.optional.iter().enumerate().for_each(|(order, field)| presence[*field] = settle(order));
        let optional = presence.iter().filter(|presence| **presence == Presence::Optional).count();
        Variant { presence, open: true, minimum: None, maximum: None, optional }
    }

    /// With bounds for the free names, beside the fields that are there.
    fn counted(variant: Variant, least: usize, most: Option<usize>) -> Variant {
        let fields = variant.presence.iter().filter(|presence| **presence == Presence::Required).count();
        let bound = |bound: usize| (bound + fields) as u64;
        Variant {
            open: most != Some(0),
            minimum: (least > 0).then(|| bound(least)),
            maximum: most.map(bound),
            ..variant
        }
    }

    fn taken(&self, variant: &Variant) -> usize {
        self.optional.iter().filter(|index| variant.presence[**index] == Presence::Required).count()
    }
}

/// Ways to choose `count` of `limit`, at most [`usize::MAX`].
fn combinations(limit: usize, count: usize) -> usize {
    if count > limit {
        return 0;
    }
    let count = count.min(limit - count);
    (0..count).fold(1_usize, |ways, index| ways.saturating_mul(limit - index) / (index + 1))
}
