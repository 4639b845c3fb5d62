//! Samples as bytes and back, exactly: a mark, the key they are known by, each sample's parts, and a checksum of it all.
//!
//! All numbers are little-endian. Knows no files and not what the key stands for.

use super::{Example, Tag};
use std::ops::Range;

const MARK: &[u8; 8] = b"samples1";
const KEY: usize = 32;

/// The bytes of samples that are known by `key`.
pub(super) fn write(examples: &[Example], key: &[u8; KEY]) -> Vec<u8> {
    let mut bytes = [MARK.as_slice(), key, &(examples.len() as u64).to_le_bytes()].concat();
    for Example { tokens, weights, tags, answers } in examples {
        bytes.extend((tokens.len() as u32).to_le_bytes());
        bytes.extend((answers.len() as u32).to_le_bytes());
        bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        bytes.extend(weights.iter().flat_map(|weight| weight.to_le_bytes()));
        bytes.extend(tags.iter().map(|&tag| tag as u8));
        let ends = answers.iter().flat_map(|answer| [answer.start as u32, answer.end as u32]);
        bytes.extend(ends.flat_map(u32::to_le_bytes));
    }
    let sum = crc32c::crc32c(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// The samples, if the bytes are whole and known by `key`.
pub(super) fn read(bytes: &[u8], key: &[u8; KEY]) -> Option<Vec<Example>> {
    let (content, sum) = bytes.split_last_chunk()?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut rest = Rest(content.strip_prefix(MARK)?.strip_prefix(key.as_slice())?);
    let count = u64::from_le_bytes(*rest.0.split_off(..8)?.first_chunk()?);
    let examples = (0..count).map(|_| rest.example()).collect::<Option<_>>()?;
    rest.0.is_empty().then_some(examples)
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn example(&mut self) -> Option<Example> {
        let [tokens, answers] = [self.number()? as usize, self.number()? as usize];
        Some(Example {
            tokens: self.words(tokens)?.map(u32::from_le_bytes).collect(),
            weights: self.words(tokens)?.map(f32::from_le_bytes).collect(),
            tags: self.0.split_off(..tokens)?.iter().map(|&byte| tag(byte)).collect::<Option<_>>()?,
            answers: (0..answers).map(|_| self.range(tokens)).collect::<Option<_>>()?,
        })
    }

    fn range(&mut self, tokens: usize) -> Option<Range<usize>> {
        let range = self.number()? as usize..self.number()? as usize;
        (range.start <= range.end && range.end <= tokens).then_some(range)
    }

    fn number(&mut self) -> Option<u32> {
        self.words(1)?.next().map(u32::from_le_bytes)
    }

    fn words(&mut self, count: usize) -> Option<impl Iterator<Item = [u8; 4]> + use<'a>> {
        let (words, _) = self.0.split_off(..count.checked_mul(4)?)?.as_chunks();
        Some(words.iter().copied())
    }
}

fn tag(byte: u8) -> Option<Tag> {
    [Tag::Name, Tag::Value, Tag::Found, Tag::Other].into_iter().find(|&tag| tag as u8 == byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Example> {
        let mut first = Example::new(vec![7, 1, u32::MAX, 0]);
        first.answer(1..3);
        first.answer(3..4);
        (first.weights[0], first.tags[1], first.tags[2], first.tags[3]) = (0.1, Tag::Name, Tag::Value, Tag::Found);
        vec![first, Example::new(Vec::new()), Example::new(vec![5])]
    }

    #[test]
    fn samples_survive_the_round_trip() {
        assert_eq!(read(&write(&examples(), &[3; KEY]), &[3; KEY]), Some(examples()));
        assert_eq!(read(&write(&[], &[3; KEY]), &[3; KEY]), Some(Vec::new()));
    }

    #[test]
    fn bytes_that_are_damaged_cut_or_of_another_key_are_no_samples() {
        let whole = write(&examples(), &[3; KEY]);
        assert_eq!(read(&whole, &[4; KEY]), None);
        for at in 0..whole.len() {
            assert_eq!(read(&whole[..at], &[3; KEY]), None, "cut at {at}");
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert_eq!(read(&damaged, &[3; KEY]), None, "damaged at {at}");
        }
    }

    #[test]
    fn lengths_that_lie_are_no_samples_even_under_a_right_checksum() {
        let mut lying = write(&examples(), &[3; KEY]);
        lying.truncate(lying.len() - 4);
        lying[MARK.len() + KEY + 8..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
        lying.extend(crc32c::crc32c(&lying).to_le_bytes());
        assert_eq!(read(&lying, &[3; KEY]), None);
    }
}
