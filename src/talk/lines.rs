//! What a person types, with line editing at a terminal; without one, the lines of the input.

use super::TalkError;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use std::io::{self, IsTerminal};

/// One reading.
pub(super) enum Typed {
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-D, or the end of the input.
    End,
}

pub(super) struct Lines {
    editor: DefaultEditor,
    /// A person sits at a terminal.
    pub(super) interactive: bool,
}

impl Lines {
    pub(super) fn new() -> Result<Self, TalkError> {
        let editor = DefaultEditor::new().map_err(io::Error::other)?;
        Ok(Self { editor, interactive: io::stdin().is_terminal() })
    }

    /// Reads a line after a prompt, which only a terminal shows.
    pub(super) fn read(&mut self, prompt: &str) -> Result<Typed, TalkError> {
        // A terminal that cannot edit would show it even beside a pipe.
        match self.editor.readline(if self.interactive { prompt } else { "" }) {
            Ok(line) => {
                // An editor that remembers nothing still edits.
                let _ = self.editor.add_history_entry(&line);
                Ok(Typed::Line(line))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Interrupt),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(io::Error::other(error).into()),
        }
    }
}
