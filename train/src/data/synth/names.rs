//! Names of functions and parameters as people write them, and the words inside them. Knows no meaning.

use super::dice::Dice;
use super::tables::tables;
use super::values::capitalise;

/// How words are joined into a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::data) enum Case {
    Snake,
    Camel,
    Pascal,
    Kebab,
}

impl Case {
    pub(in crate::data) fn draw(dice: &mut Dice) -> Self {
        [Self::Snake, Self::Camel, Self::Pascal, Self::Kebab][dice.weighted(&[0.62, 0.26, 0.06, 0.06])]
    }

    /// Parameters follow the function's case, mostly; kebab and Pascal are for functions only.
    pub(in crate::data) fn for_parameters(self, dice: &mut Dice) -> Self {
        if self == Self::Camel && dice.chance(0.85) { Self::Camel } else { Self::Snake }
    }

    /// Joins words that are separated by spaces or underscores.
    pub(in crate::data) fn join(self, words: &str) -> String {
        let words: Vec<String> =
            words.split(['_', ' ', '-', '/']).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
        match self {
            Self::Snake => words.join("_"),
            Self::Kebab => words.join("-"),
            Self::Pascal => words.iter().map(|w| capitalise(w)).collect(),
            Self::Camel => {
                words.iter().enumerate().map(|(i, w)| if i == 0 { w.clone() } else { capitalise(w) }).collect()
            }
        }
    }
}

/// A name that says nothing: `fn_17`, `xq_tool`, `run_task_b`, `falcon`.
pub(in crate::data) fn meaningless(dice: &mut Dice) -> String {
    const HEADS: &[&str] =
        &["fn", "func", "tool", "op", "action", "task", "api", "handler", "call", "proc", "cmd", "svc"];
    let head = dice.pick(HEADS);
    let code = dice.pick(&tables().pool("codename").1);
    let letter = char::from(b'a' + u8::try_from(dice.below(26)).unwrap_or(0));
    let syllables = 2 + dice.below(2);
    match dice.below(8) {
        0 | 1 => format!("{head}_{}", dice.between(1, 99)),
        2 => format!("{}{}_{head}", letter, dice.word(1)),
        3 => format!("run_{head}_{letter}"),
        4 => code.to_owned(),
        5 => format!("{code}_{}", dice.pick(&tables().pool("codename").1)),
        6 => format!("{head}_{letter}{}", dice.between(1, 9)),
        _ => dice.word(syllables),
    }
}

/// The content words of a name or a text, in lower case and without a plural `s`.
pub fn content_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut last_lower = false;
    for c in text.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && last_lower) {
            push_content(&mut words, &mut word);
        }
        if c.is_alphabetic() {
            word.extend(c.to_lowercase());
        }
        last_lower = c.is_lowercase();
    }
    push_content(&mut words, &mut word);
    words
}

fn push_content(words: &mut Vec<String>, word: &mut String) {
    const STOP: &[&str] = &[
        "a", "an", "the", "of", "to", "for", "in", "on", "at", "by", "with", "and", "or", "my", "me", "i", "is", "are",
        "it", "its", "from", "get", "show", "all", "new", "up", "out", "do", "be", "what", "which", "how", "that",
        "this", "please", "can", "you", "could", "would", "want", "need", "give", "some", "one", "as", "so", "am",
        "we", "not", "set", "put", "make", "take", "have", "has", "there", "any", "no", "now", "let", "see", "s", "m",
        "d",
    ];
    if word.len() > 1 && !STOP.contains(&word.as_str()) {
        let stem = if word.len() > 3 { word.strip_suffix('s').unwrap_or(word) } else { word.as_str() };
        words.push(stem.to_owned());
    }
    word.clear();
}
