//! The regular expression of all strings but some, without look-ahead: a trie that is left at every step.

use std::collections::BTreeMap;

#[derive(Default)]
struct Trie {
    next: BTreeMap<char, Self>,
    is_word: bool,
}

/// Matches every string except `words`, in the compiler's syntax.
pub(super) fn of(words: &[&str]) -> String {
    let mut trie = Trie::default();
    for word in words {
        let mut node = &mut trie;
        for c in word.chars() {
            node = node.next.entry(c).or_default();
        }
        node.is_word = true;
    }
    format!("^{}$", outside(&trie))
}

/// What may follow a prefix. Recurses by the length of the words, which the caller bounds.
fn outside(node: &Trie) -> String {
    let code = |c: &char| format!("\\x{{{:x}}}", u32::from(*c));
    let known: String = node.next.keys().map(code).collect();
    let mut ways = vec![if known.is_empty() { "(?s:.)+".to_owned() } else { format!("[^{known}](?s:.)*") }];
    ways.extend(node.next.iter().map(|(c, rest)| format!("{}{}", code(c), outside(rest))));
    let optional = if node.is_word { "" } else { "?" };
    format!("(?:{}){optional}", ways.join("|"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_strings_but_the_words_match() {
        let words = ["a", "abc", "", "日本", "a.b"];
        let regex = regex::Regex::new(&super::of(&words)).unwrap();
        words.iter().for_each(|word| assert!(!regex.is_match(word), "{word}"));
        ["b", "ab", "abcd", "日", "日本x", "axb", "\n", "A"]
            .iter()
            .for_each(|other| assert!(regex.is_match(other), "{other}"));
    }
}
