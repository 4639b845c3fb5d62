//! What a person sees of a conversation: text as it comes, calls as `→ name{…}`, results as `← …`.
//!
//! What a server sends is shown and never obeyed: control characters stand there as their pictures.

use super::answer::Piece;
use crate::visible;
use std::io::{self, IsTerminal, Stdout, Write};

/// Characters of a result that are shown.
const SHOWN: usize = 2000;

pub(super) struct Screen<W = Stdout> {
    out: W,
    colours: bool,
    /// The last character was no line break.
    open: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { out: io::stdout(), colours: io::stdout().is_terminal(), open: false }
    }
}

/// Shows a remark that is no part of the conversation.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", visible::text(text));
}

impl<W: Write> Screen<W> {
    /// A piece of an answer, at once.
    pub(super) fn show(&mut self, piece: &Piece) -> io::Result<()> {
        match piece {
            Piece::Thought(text) => self.put(text, true),
            Piece::Text(text) => self.put(text, false),
            Piece::Arguments(text) => self.put(text, true),
            Piece::Call(name) => {
                self.end()?;
                self.put(&format!("→ {}", visible::name(name)), true)
            }
        }
    }

    /// What a command gave.
    pub(super) fn result(&mut self, name: &str, result: &str) -> io::Result<()> {
        self.end()?;
        let cut = result.char_indices().nth(SHOWN).map(|(at, _)| &result[..at]);
        let shown = cut.map_or_else(|| result.to_owned(), |cut| format!("{cut}…"));
        self.put(&format!("← {}: {shown}", visible::name(name)), true)?;
        self.end()
    }

    /// Ends the line that is open.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.open) {
            writeln!(self.out)?;
        }
        self.out.flush()
    }

    fn put(&mut self, text: &str, faint: bool) -> io::Result<()> {
        let text = visible::text(text);
        match faint && self.colours {
            true => write!(self.out, "\x1b[2m{text}\x1b[0m")?,
            false => write!(self.out, "{text}")?,
        }
        self.open = !text.ends_with('\n');
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[Piece], colours: bool) -> String {
        let mut screen = Screen { out: Vec::new(), colours, open: false };
        pieces.iter().for_each(|piece| screen.show(piece).unwrap());
        screen.end().unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn each_call_has_a_line_of_its_own() {
        let call =
            |name: &str| [Piece::Call(name.into()), Piece::Arguments("{\"x\":".into()), Piece::Arguments("1}".into())];
        let pieces: Vec<_> =
            [Piece::Text("Let me see.".into())].into_iter().chain(call("f")).chain(call("g")).collect();
        assert_eq!(shown(&pieces, false), "Let me see.\n→ f{\"x\":1}\n→ g{\"x\":1}\n");
        assert_eq!(shown(&[Piece::Text("a\n".into())], false), "a\n");
        assert_eq!(shown(&[], false), "");
    }

    #[test]
    fn a_server_cannot_steer_the_terminal() {
        let hostile = "a\x1b]0;title\x07b\u{9b}31m\r";
        assert_eq!(shown(&[Piece::Text(hostile.into())], false), "a␛]0;title␇b\u{FFFD}31m␍\n");
        assert_eq!(shown(&[Piece::Thought("\x1b".into())], true), "\x1b[2m␛\x1b[0m\n");
        assert_eq!(shown(&[Piece::Call("f\n← g: no".into())], false), "→ f␊← g: no\n");
    }

    #[test]
    fn a_long_result_is_cut_where_a_character_ends() {
        let mut screen = Screen { out: Vec::new(), colours: false, open: false };
        screen.result("f", &"é".repeat(SHOWN + 1)).unwrap();
        assert_eq!(String::from_utf8(screen.out).unwrap().chars().count(), "← f: ".chars().count() + SHOWN + 2);
    }
}
