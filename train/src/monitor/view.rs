//! The live view of a run: how far it is, its last numbers and its curves. Draws into a buffer; knows no terminal.

use super::axis::{Axis, Scale};
use super::curves::{Curves, Point, steps_done, thin};
use super::numbers::{clock, memory, percent, short};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis as ChartAxis, Chart, Dataset, GraphType, LineGauge, Widget};
use serde_json::Value;
use std::time::Instant;

/// Lines that the view fills where the terminal has them.
pub(super) const HEIGHT: u16 = 14;
/// Lines of numbers at most.
const NUMBER_LINES: usize = 2;
/// Fewer lines hold no readable curve.
const MIN_CURVE_HEIGHT: u16 = 5;
/// Points of a curve; more cannot be told apart.
const POINTS: usize = 400;
/// From this width on there is room for a second plot.
const WIDE: u16 = 100;

const TRAIN: Color = Color::Cyan;
const VALIDATION: Color = Color::Yellow;
const LABEL: Color = Color::DarkGray;

/// What is known of a run, ready to be drawn.
pub(super) struct View {
    total_steps: u64,
    done: u64,
    curves: Curves,
    /// The last `step` line.
    last: Value,
    begun: Instant,
    /// Seconds that were left, and when that was known.
    left: Option<(f64, Instant)>,
}

/// Curves that share a plot: what its title calls them, their names and colours.
type Plot = [(&'static str, &'static str, Color)];

const LOSS: &Plot = &[("loss", "Train/loss", TRAIN), ("validation loss", "Validation/loss", VALIDATION)];
const RATE: &Plot = &[("learning rate", "Train/lr", TRAIN)];

impl View {
    /// The view of a run of which `done` steps are done, with the curves that earlier processes have logged.
    pub(super) fn new(done: u64, total_steps: u64, earlier: &[Value]) -> Self {
        Self { total_steps, done, curves: Curves::of(earlier), last: Value::Null, begun: Instant::now(), left: None }
    }

    /// Takes up a line of the log.
    pub(super) fn add(&mut self, line: &Value) {
        self.curves.add(line);
        if line["event"] == "step" {
            self.advance(steps_done(line).unwrap_or(self.done));
            self.left = line["eta_seconds"].as_f64().map(|seconds| (seconds, Instant::now()));
            self.last = line.clone();
        }
    }

    /// So many steps are done.
    pub(super) fn advance(&mut self, done: u64) {
        self.done = done;
    }

    fn progress(&self) -> LineGauge<'_> {
        let ratio = self.done as f64 / self.total_steps.max(1) as f64;
        let left = self.left.map(|(seconds, known)| (seconds - known.elapsed().as_secs_f64()).max(0.0));
        let left = left.filter(|_| self.done < self.total_steps).map(|left| format!(", {} left", clock(left)));
        let elapsed = clock(self.begun.elapsed().as_secs_f64());
        let label = format!("step {}/{}  {elapsed}{}", self.done, self.total_steps, left.unwrap_or_default());
        let bar = LineGauge::default().ratio(ratio.clamp(0.0, 1.0)).label(label);
        let bar = bar.filled_symbol("━").unfilled_symbol("─");
        bar.filled_style(Style::new().fg(TRAIN)).unfilled_style(Style::new().fg(LABEL))
    }

    /// The last numbers, the most telling first.
    fn numbers(&self) -> Vec<(&'static str, String)> {
        let curve = |label, name, show: fn(f64) -> String| Some((label, show(self.curves.last(name)?)));
        let count =
            |label| self.last[label].as_u64().filter(|&count| count > 0).map(|count| (label, count.to_string()));
        let best = self.curves.lowest("Validation/loss").map(|(step, loss)| format!("{} at {step}", short(loss)));
        [
            curve("loss", "Train/loss", short),
            curve("validation", "Validation/loss", short),
            best.map(|best| ("best", best)),
            curve("calls", "Validation/call_accuracy", percent),
            curve("lr", "Train/lr", short),
            curve("tokens/s", "Throughput/tokens_per_second", short),
            curve("accuracy", "Train/accuracy", percent),
            curve("gradient", "Train/gradient_norm", short),
            curve("name", "Train/name_accuracy", percent),
            curve("value", "Train/value_accuracy", percent),
            curve("found", "Train/found_accuracy", percent),
            curve("samples/s", "Throughput/samples_per_second", short),
            curve("memory", "Memory/resident_MB", memory),
            curve("noise", "Train/gradient_noise", short),
            count("skipped"),
            count("dropped"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn draw_plot(&self, plot: &Plot, scale: Scale, area: Rect, buffer: &mut Buffer) {
        let curves = plot.iter().map(|&(title, name, colour)| (title, thin(self.curves.get(name), POINTS), colour));
        let curves: Vec<_> = curves.filter(|(_, points, _)| !points.is_empty()).collect();
        let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let titles = curves.iter().map(|(title, _, colour)| Span::styled(format!("─ {title}  "), *colour));
        Line::from_iter(titles).render(head, buffer);

        let axis = Axis::over(curves.iter().map(|(_, points, _)| points.as_slice()), scale);
        let places: Vec<Vec<Point>> =
            curves.iter().map(|(_, points, _)| points.iter().map(|&point| axis.place(point)).collect()).collect();
        let data = curves.iter().zip(&places).map(|((_, _, colour), places)| {
            Dataset::default().marker(Marker::Braille).graph_type(GraphType::Line).style(*colour).data(places)
        });
        let chart = Chart::new(data.collect()).legend_position(None);
        chart.x_axis(steps_axis(&places)).y_axis(values_axis(axis)).render(body, buffer);
    }
}

fn steps_axis(curves: &[Vec<Point>]) -> ChartAxis<'static> {
    let steps = || curves.iter().flatten().map(|point| point.0);
    let first = steps().fold(f64::INFINITY, f64::min).min(1.0);
    let last = steps().fold(first + 1.0, f64::max);
    chart_axis([first, last], [first, last].map(|step| format!("{step}")).to_vec())
}

fn values_axis(axis: Axis) -> ChartAxis<'static> {
    let [low, high] = axis.bounds;
    chart_axis(axis.bounds, [low, f64::midpoint(low, high), high].map(|place| axis.label(place)).to_vec())
}

fn chart_axis(bounds: [f64; 2], labels: Vec<String>) -> ChartAxis<'static> {
    ChartAxis::default().bounds(bounds).labels(labels).style(Style::new().fg(LABEL))
}

/// As many numbers as fit into the lines, in order.
fn fill_lines(numbers: &[(&'static str, String)], width: u16) -> Vec<Line<'static>> {
    let mut lines = vec![Line::default()];
    for (label, value) in numbers {
        let item = [Span::styled(format!("{label} "), LABEL), Span::raw(format!("{value}  "))];
        // The gap after the last item of a line may be cut off.
        let taken = item.iter().map(Span::width).sum::<usize>() - 2;
        match lines.last_mut() {
            Some(line) if line.width() + taken <= usize::from(width) => line.spans.extend(item),
            _ => lines.push(Line::from_iter(item)),
        }
    }
    lines.truncate(NUMBER_LINES);
    lines
}

impl Widget for &View {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let lines = fill_lines(&self.numbers(), area.width);
        let rows = [Constraint::Length(1), Constraint::Length(lines.len() as u16), Constraint::Fill(1)];
        let [head, numbers, plots] = Layout::vertical(rows).areas(area);
        self.progress().render(head, buffer);
        lines.into_iter().zip(numbers.rows()).for_each(|(line, row)| line.render(row, buffer));
        if plots.height < MIN_CURVE_HEIGHT || self.curves.get("Train/loss").is_empty() {
            return;
        }
        let share = if area.width < WIDE {
            [Constraint::Fill(1), Constraint::Length(0)]
        } else {
            [Constraint::Fill(2), Constraint::Fill(1)]
        };
        let [loss, rate] = Layout::horizontal(share).areas(plots);
        self.draw_plot(LOSS, Scale::ByRange, loss, buffer);
        if !rate.is_empty() {
            self.draw_plot(RATE, Scale::Linear, rate, buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    fn view(steps: u64) -> View {
        let mut view = View::new(0, 600, &[]);
        for step in (0..steps).filter(|step| step % 10 == 9) {
            view.add(&json!({"event": "step", "step": step, "loss": 8.0 / (step + 1) as f64, "lr": 2e-4, "token_accuracy": 0.875,
                "tokens_per_second": 12345, "gradient_norm": 0.5, "resident_MB": 1234.5, "skipped": 2, "eta_seconds": 3725.0}));
        }
        view.add(&json!({"event": "eval", "step": 50, "held_out": {"loss": 0.4}}));
        view.add(&json!({"event": "eval", "step": 100, "held_out": {"loss": 0.5}}));
        view.advance(steps);
        view
    }

    fn drawn(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| frame.render_widget(view, frame.area())).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(row).collect()
    }

    fn dots(rows: &[String]) -> usize {
        rows.iter().flat_map(|row| row.chars()).filter(|c| ('\u{2801}'..='\u{28ff}').contains(c)).count()
    }

    #[test]
    fn progress_numbers_and_curves_are_shown() {
        let rows = drawn(&view(120), 80, HEIGHT);
        assert!(rows[0].starts_with("step 120/600  0:00:00, 1:02:05 left ━"), "{rows:#?}");
        assert!(
            rows[1].starts_with("loss 0.067  validation 0.500  best 0.400 at 50  lr 2.0e-4  tokens/s 12.3k"),
            "{rows:#?}"
        );
        assert!(rows[2].contains("memory 1.23 GB") && rows[2].ends_with("skipped 2"), "{rows:#?}");
        assert!(rows[3].contains("─ loss  ─ validation loss"), "{rows:#?}");
        assert!(rows[13].trim_start().starts_with("1 ") && rows[13].ends_with(" 120"), "{rows:#?}");
        assert!(dots(&rows) > 60, "{rows:#?}");
    }

    #[test]
    fn a_wide_terminal_shows_the_learning_rate_too() {
        assert!(!drawn(&view(120), 99, HEIGHT)[3].contains("learning rate"));
        assert!(drawn(&view(120), 100, HEIGHT)[3].contains("─ learning rate"));
    }

    #[test]
    fn a_narrow_or_low_terminal_shows_what_matters_most() {
        let rows = drawn(&view(120), 30, HEIGHT);
        assert_eq!(rows[1], "loss 0.067  validation 0.500");
        assert_eq!(rows[2], "best 0.400 at 50  lr 2.0e-4");
        let rows = drawn(&view(120), 80, 4);
        assert!(rows[1].starts_with("loss 0.067") && dots(&rows) == 0, "{rows:#?}");
        for (width, height) in [(1, 1), (2, 20), (9, 9), (300, 3)] {
            drawn(&view(120), width, height);
        }
    }

    #[test]
    fn a_resumed_run_shows_its_earlier_curves() {
        let earlier: Vec<_> =
            (0..4).map(|n| json!({"event": "step", "step": n, "loss": 2.0, "eta_seconds": 9.0})).collect();
        let rows = drawn(&View::new(5, 600, &earlier), 60, HEIGHT);
        assert!(rows[0].starts_with("step 5/600  0:00:00 ") && rows[1].starts_with("loss 2.00"), "{rows:#?}");
        assert!(dots(&rows) > 10, "{rows:#?}");
    }

    #[test]
    fn before_the_first_numbers_only_the_progress_is_shown() {
        let rows = drawn(&View::new(40, 600, &[]), 60, HEIGHT);
        assert!(rows[0].starts_with("step 40/600  0:00:00 ━"), "{rows:#?}");
        assert!(rows[1..].iter().all(String::is_empty), "{rows:#?}");
    }
}
