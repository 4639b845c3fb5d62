//! Stop strings: text up to the first of them, never showing a beginning that may still become one.

/// Finds stop strings in text that arrives piece by piece.
#[derive(Debug, Clone)]
pub(super) struct StopFinder {
    stops: Vec<String>,
    held: String,
    found: bool,
}

impl StopFinder {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new(), found: false }
    }

    /// A stop string has come; nothing after it counts.
    pub(super) fn found(&self) -> bool {
        self.found
    }

    /// Takes the next text and returns what is certain not to belong to a stop string.
    pub(super) fn push(&mut self, text: &str) -> String {
        if self.found {
            return String::new();
        }
        if self.stops.is_empty() {
            return text.to_owned();
        }
        self.held.push_str(text);
        let end = match self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            Some(start) => {
                self.found = true;
                start
            }
            None => self.held.len() - self.partial(),
        };
        let rest = self.held.split_off(end);
        let certain = std::mem::replace(&mut self.held, rest);
        if self.found {
            self.held.clear();
        }
        certain
    }

    /// The text ended or is interrupted: what was held back is text after all.
    pub(super) fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Length of the longest end of the held text that begins some stop string.
    fn partial(&self) -> usize {
        let longest = |stop: &String| {
            let most = (stop.len() - 1).min(self.held.len());
            (1..=most).rev().find(|&n| stop.is_char_boundary(n) && self.held.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut finder = StopFinder::new(stops.iter().map(|&s| s.to_owned()).collect());
        let mut text: String = pieces.iter().map(|piece| finder.push(piece)).collect();
        text.push_str(&finder.flush());
        (text, finder.found())
    }

    #[test]
    fn a_stop_string_split_over_pieces_is_never_shown() {
        assert_eq!(run(&["STOP"], &["abS", "TO", "P tail", "more"]), ("ab".to_owned(), true));
    }

    #[test]
    fn a_beginning_that_does_not_become_a_stop_is_shown_after_all() {
        assert_eq!(run(&["STOP"], &["abST", "xy"]), ("abSTxy".to_owned(), false));
        assert_eq!(run(&["STOP"], &["abST"]), ("abST".to_owned(), false));
    }

    #[test]
    fn the_earliest_of_several_stops_counts() {
        assert_eq!(run(&["later", "now"], &["a now b later"]), ("a ".to_owned(), true));
    }

    #[test]
    fn a_stop_of_wide_characters_is_held_back_whole() {
        assert_eq!(run(&["日本"], &["x日", "本y"]), ("x".to_owned(), true));
        assert_eq!(run(&["日本"], &["x日", "月"]), ("x日月".to_owned(), false));
    }

    proptest! {
        #[test]
        fn the_split_into_pieces_does_not_matter(pieces in prop::collection::vec("[ab日]{0,4}", 0..8), stop in "[ab日]{1,4}") {
            let whole = pieces.concat();
            let refs: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let (text, found) = run(&[&stop], &refs);
            match whole.find(&stop) {
                Some(start) => prop_assert_eq!((text.as_str(), found), (&whole[..start], true)),
                None => prop_assert_eq!((text.as_str(), found), (whole.as_str(), false)),
            }
        }
    }
}
