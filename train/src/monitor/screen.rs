//! The last lines of the terminal: the live view, with sentences above it.
//!
//! All movement is relative to the cursor, which rests on the line below the view. The terminal is asked nothing and
//! changes no mode, so that nothing has to be restored, however the process ends, and a job in the background is not
//! stopped. (An inline viewport of ratatui's own asks for the cursor's place on standard output, in raw mode.)

use super::view::{HEIGHT, View};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::widgets::Widget;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The terminal is one, and every part of the process may say something: so the screen belongs to the process.
static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// How often the view is drawn though nothing was reported: its clock goes on, and a resize is seen.
const TICK: Duration = Duration::from_millis(500);
/// How long a drawn view stays at least.
const PACE: Duration = Duration::from_millis(100);

/// A sentence on stderr, above the view if there is one. A closed stderr must not stop a run.
pub fn note(sentence: &str) {
    match &mut *lock(&SCREEN) {
        Some(screen) => screen.note(sentence),
        None => {
            let _ = stderr().lock().write_all(format!("{sentence}\n").as_bytes());
        }
    }
}

/// The view on the screen of this process, until dropped; its last state stays visible.
pub(super) struct Live(&'static Mutex<Option<Screen>>);

impl Live {
    /// Shows the view if stderr is a terminal that can show it and no other run of this process is shown there.
    pub(super) fn open(view: View) -> Option<Self> {
        let mut screen = lock(&SCREEN);
        if screen.is_some() || size().is_none() || std::env::var_os("TERM").is_none_or(|term| term == "dumb") {
            return None;
        }
        thread::Builder::new().name("view".to_owned()).spawn(tick).ok()?;
        screen.insert(Screen::new(view, Box::new(stderr()), size)).draw();
        Some(Self(&SCREEN))
    }

    /// Changes the view and draws it, unless it was drawn just now.
    pub(super) fn update(&self, change: impl FnOnce(&mut View)) {
        if let Some(screen) = &mut *lock(self.0) {
            change(&mut screen.view);
            if screen.drawn_at.elapsed() >= PACE {
                screen.draw();
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(mut last) = lock(self.0).take() {
            last.draw();
        }
    }
}

/// A panic while drawing leaves nothing that the next drawing does not replace.
fn lock(screen: &Mutex<Option<Screen>>) -> MutexGuard<'_, Option<Screen>> {
    screen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tick() {
    loop {
        thread::sleep(TICK);
        match &mut *lock(&SCREEN) {
            Some(screen) => screen.draw(),
            None => return,
        }
    }
}

/// Columns and rows of the terminal; `None` where stderr is none.
fn size() -> Option<(u16, u16)> {
    let found = stderr().is_terminal().then(|| rustix::termios::tcgetwinsize(stderr()).ok())??;
    (found.ws_col > 1 && found.ws_row > 1).then_some((found.ws_col, found.ws_row))
}

/// A terminal with a view on it.
struct Screen {
    view: View,
    out: Box<dyn Write + Send>,
    size: fn() -> Option<(u16, u16)>,
    /// Width of each line that was drawn last.
    drawn: Vec<u16>,
    drawn_at: Instant,
}

impl Screen {
    fn new(view: View, out: Box<dyn Write + Send>, size: fn() -> Option<(u16, u16)>) -> Self {
        Self { view, out, size, drawn: Vec::new(), drawn_at: Instant::now() }
    }

    fn draw(&mut self) {
        self.replace("");
    }

    fn note(&mut self, sentence: &str) {
        self.replace(&format!("{}\r\n", sentence.replace('\n', "\r\n")));
    }

    /// Puts `text` in the place of the view and the view below it. A terminal that is gone stops nothing.
    fn replace(&mut self, text: &str) {
        let (columns, rows) = (self.size)().unwrap_or((80, HEIGHT));
        // One column less, because terminals differ in where the cursor is after the last one.
        let area = Rect::new(0, 0, columns - 1, HEIGHT.min(rows - 1));
        let mut buffer = Buffer::empty(area);
        self.view.render(area, &mut buffer);
        let lines: Vec<(String, u16)> = (0..area.height).map(|y| line(&buffer, y)).collect();
        let mut output = self.erase(columns) + text;
        lines.iter().for_each(|(line, _)| output.extend([line, "\r\n"]));
        let _ = self.out.write_all(output.as_bytes()).and_then(|()| self.out.flush());
        self.drawn = lines.into_iter().map(|(_, width)| width).collect();
        self.drawn_at = Instant::now();
    }

    /// Moves to the first line of the view and clears from there on. A terminal that has become narrower has broken
    /// the view's lines into several.
    fn erase(&self, columns: u16) -> String {
        let up: u16 = self.drawn.iter().map(|width| width.div_ceil(columns).max(1)).sum();
        let up = if up > 0 { format!("\x1b[{up}A") } else { String::new() };
        format!("\r{up}\x1b[J")
    }
}

/// A line of the buffer with its colours, without the blanks at its end, and its width.
fn line(buffer: &Buffer, y: u16) -> (String, u16) {
    let area = buffer.area;
    let width = (0..area.width).rev().find(|&x| buffer[(x, y)].symbol() != " ").map_or(0, |x| x + 1);
    let (mut text, mut colour) = (String::new(), Color::Reset);
    for x in 0..width {
        let cell = &buffer[(x, y)];
        if cell.fg != colour {
            colour = cell.fg;
            let _ = write!(text, "\x1b[{}m", code(colour));
        }
        text.push_str(cell.symbol());
    }
    if colour != Color::Reset {
        text.push_str("\x1b[0m");
    }
    (text, width)
}

/// The terminal's number for a colour of the view.
fn code(colour: Color) -> u8 {
    match colour {
        Color::Cyan => 36,
        Color::Yellow => 33,
        Color::DarkGray => 90,
        _ => 39,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io;
    use std::num::NonZeroU16;
    use std::sync::Arc;

    /// A terminal in memory.
    #[derive(Clone)]
    struct Emulator(Arc<Mutex<vt100::Parser>>);

    impl Write for Emulator {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().process(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Emulator {
        fn new() -> Self {
            let [rows, columns] = [24, 80].map(|size| NonZeroU16::new(size).unwrap());
            Self(Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 100))))
        }

        fn rows(&self) -> Vec<String> {
            self.0.lock().unwrap().screen().rows(0, 80).map(|row| row.trim_end().to_owned()).collect()
        }
    }

    fn shown(emulator: &Emulator) -> Screen {
        let mut view = View::new(0, 50, &[]);
        view.add(&json!({"event": "step", "step": 9, "loss": 2.0, "lr": 0.1}));
        let mut screen = Screen::new(view, Box::new(emulator.clone()), || Some((80, 24)));
        screen.draw();
        screen
    }

    fn at(rows: &[String], begin: &str) -> usize {
        let found: Vec<usize> = (0..rows.len()).filter(|&n| rows[n].starts_with(begin)).collect();
        assert_eq!(found.len(), 1, "{begin}: {rows:#?}");
        found[0]
    }

    #[test]
    fn sentences_stand_above_the_view_in_their_order() {
        let mut emulator = Emulator::new();
        emulator.write_all(b"$ callsmith-train lora a.toml\r\n").unwrap();
        let mut screen = shown(&emulator);
        assert_eq!(at(&emulator.rows(), "step 10/50"), 1);
        screen.note("saved checkpoint-10");
        screen.note(&"long ".repeat(20));
        screen.view.advance(11);
        screen.draw();
        let rows = emulator.rows();
        assert_eq!(at(&rows, "$ callsmith-train"), 0);
        assert_eq!(at(&rows, "saved checkpoint-10"), 1);
        assert_eq!(at(&rows, "step 11/50"), 4);
        assert_eq!(at(&rows, "loss 2.00"), 5);
    }

    #[test]
    fn a_full_screen_scrolls_and_shows_the_view_once() {
        let emulator = Emulator::new();
        let mut screen = shown(&emulator);
        (0..30).for_each(|n| screen.note(&format!("sentence {n}")));
        let rows = emulator.rows();
        assert_eq!(at(&rows, "step 10/50"), usize::from(24 - 1 - HEIGHT));
        assert_eq!(at(&rows, "sentence 29"), at(&rows, "step 10/50") - 1);
    }

    #[test]
    fn the_terminal_is_left_as_it_was_at_every_moment() {
        let emulator = Emulator::new();
        let mut screen = shown(&emulator);
        screen.note("a sentence");
        let parser = emulator.0.lock().unwrap();
        let now = parser.screen();
        assert!(!now.hide_cursor() && !now.alternate_screen() && now.fgcolor() == vt100::Color::Default);
        // What comes next, a shell's prompt or the text of a panic, begins below the view.
        assert_eq!(now.cursor_position(), (HEIGHT + 1, 0));
    }

    #[test]
    fn a_narrower_or_lower_terminal_gets_a_view_that_fits() {
        let emulator = Emulator::new();
        let mut screen = shown(&emulator);
        screen.size = || Some((40, 8));
        // Lines of more than 40 columns have been broken into two.
        screen.drawn = vec![79, 41, 40, 0];
        assert_eq!(screen.erase(40), "\r\x1b[6A\x1b[J");
        screen.draw();
        assert_eq!(screen.drawn.len(), 7);
        assert!(screen.drawn.iter().all(|&width| width < 40), "{:?}", screen.drawn);
    }

    #[test]
    fn a_terminal_that_is_gone_stops_nothing() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let mut screen = Screen::new(View::new(0, 5, &[]), Box::new(Gone), || None);
        screen.note("nobody reads this");
        screen.draw();
        assert_eq!(screen.drawn.len(), usize::from(HEIGHT - 1));
    }
}
