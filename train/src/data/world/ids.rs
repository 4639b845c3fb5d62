//! How ids of records are written: in one way all through a dialogue, in several over all dialogues. Knows no record.

use crate::data::synth::dice::Dice;

/// A way of writing ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Ids {
    /// `ORD-1566`.
    #[default]
    Dashed,
    /// `ORD1566`.
    Joined,
    /// `ord_1566`.
    Lower,
    /// `1566`.
    Digits,
    /// `3f09c2`.
    Hex,
}

impl Ids {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        const ALL: [Ids; 5] = [Ids::Dashed, Ids::Joined, Ids::Lower, Ids::Digits, Ids::Hex];
        ALL[dice.weighted(&[0.4, 0.15, 0.15, 0.15, 0.15])]
    }

    /// The id with a number, in a family with this prefix.
    pub(super) fn write(self, prefix: &str, number: i64) -> String {
        match self {
            Self::Dashed => format!("{prefix}-{number}"),
            Self::Joined => format!("{prefix}{number}"),
            Self::Lower => format!("{}_{number}", prefix.to_lowercase()),
            Self::Digits => number.to_string(),
            // An odd factor keeps different numbers different.
            Self::Hex => format!("{:06x}", (number * 0x9e_3779) & 0xff_ffff),
        }
    }

    /// The pattern of all ids of a family with this prefix.
    pub(super) fn pattern(self, prefix: &str) -> String {
        match self {
            Self::Dashed => format!("^{prefix}-[0-9]+$"),
            Self::Joined => format!("^{prefix}[0-9]+$"),
            Self::Lower => format!("^{}_[0-9]+$", prefix.to_lowercase()),
            Self::Digits => "^[0-9]+$".to_owned(),
            Self::Hex => "^[0-9a-f]{6}$".to_owned(),
        }
    }
}
