//! `callsmith bench masks`: how long the token masks of function calls take, and how much of a call needs none.
//!
//! Needs a tokenizer and no weights: a known call stands in for what a model would say.

use super::stats::{Summary, ratio};
use super::table::{aligned, number, percent};
use super::{BenchError, cases, publish};
use crate::api::turn_grammar;
use crate::bfcl::{gold_calls, without_exponents};
use crate::chat::tokenizer::ChatTokenizer;
use crate::cli::{MasksArgs, TurnArgs};
use crate::grammar::text::{self, TextGrammars};
use crate::grammar::{Constraint, GrammarCompiler, GrammarError};
use crate::inspect::{self, Model};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest random call, in bytes.
const LONGEST_CALL: usize = 600;
/// Tokens before a slow mask that are shown.
const CONTEXT: usize = 16;

/// A line of a file, and where it stands.
struct Row {
    place: String,
    json: Value,
    /// BFCL's answer to it.
    answer: Option<Value>,
}

/// Measures and reports; false when no row could be followed.
pub(super) fn run(args: &MasksArgs) -> Result<bool, BenchError> {
    let lab = Lab::new(args)?;
    let rows = rows(args)?;
    let mut found = Found::default();
    let bar = ProgressBar::new(rows.len() as u64);
    for row in &rows {
        match lab.measure(row, &mut found) {
            Ok(()) => found.followed += 1,
            Err(reason) => found.refused.push(format!("{}: {reason}", row.place)),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = found.report(args, lab.model.dialect.name());
    publish(args.json.as_deref(), &report, || report.text())?;
    Ok(report.followed > 0)
}

fn rows(args: &MasksArgs) -> Result<Vec<Row>, BenchError> {
    if args.tools.is_empty() {
        return parse("built-in tools", cases::BUILT_IN, &HashMap::new());
    }
    let mut rows = Vec::new();
    for path in &args.tools {
        let text = std::fs::read_to_string(path).map_err(BenchError::io(path))?;
        rows.extend(parse(&path.display().to_string(), &text, &answers(path))?);
    }
    Ok(rows)
}

fn parse(name: &str, text: &str, answers: &HashMap<String, Value>) -> Result<Vec<Row>, BenchError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(index, line): (usize, &str)| {
        let place = format!("{name}:{}", index + 1);
        let json: Value = serde_json::from_str(line).map_err(|error| BenchError::Usage(format!("{place}: {error}")))?;
        let answer = json["id"].as_str().and_then(|id| answers.get(id)).cloned();
        Ok(Row { place, json, answer })
    };
    lines.map(row).collect()
}

/// The answers that BFCL keeps in a folder beside its questions, by their id; none elsewhere.
fn answers(questions: &Path) -> HashMap<String, Value> {
    let file = questions.file_name().map(|name| questions.with_file_name("possible_answer").join(name));
    let text = file.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let answers = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    answers.filter_map(|answer| Some((answer["id"].as_str()?.to_owned(), answer))).collect()
}

/// What all rows are measured with.
struct Lab {
    model: Model,
    tokenizer: ChatTokenizer,
    compiler: GrammarCompiler,
    /// For random calls.
    texts: TextGrammars,
    seed: u64,
}

impl Lab {
    fn new(args: &MasksArgs) -> Result<Self, BenchError> {
        let turn = TurnArgs { model: Some(args.model.clone()), dialect: args.dialect.clone(), ..TurnArgs::default() };
        let model = Model::of(&turn).map_err(|error| BenchError::Usage(format!("{error:#}")))?;
        let width = ChatTokenizer::vocabulary_size(&args.model)?;
        let tokenizer = ChatTokenizer::load(&args.model, width)?.for_dialect(model.dialect.as_ref());
        let compiler = GrammarCompiler::new(tokenizer.tok_env(), 1)?;
        Ok(Self { model, tokenizer, compiler, texts: TextGrammars::new()?, seed: args.seed })
    }

    /// Compiles the row's grammar and follows its call; the error says why that cannot be.
    fn measure(&self, row: &Row, found: &mut Found) -> Result<(), String> {
        let lark = self.grammar(&row.json)?;
        let started = Instant::now();
        let constraint = self.compiler.compile_blocking(&lark).map_err(|error| error.to_string())?;
        let compiled = started.elapsed();
        let gold = row.answer.as_ref().and_then(|answer| gold_calls(&row.json, answer));
        let call = match gold {
            Some(calls) => without_exponents(&self.model.dialect.render_calls(&calls)),
            None => self.random_call(&lark)?,
        };
        found.compiles.push(compiled.as_secs_f64() * 1e3);
        let again = constraint.fork();
        let chosen = self.write(constraint, call.as_bytes(), found);
        let timed = chosen.and_then(|chosen| self.time(again, &chosen, &row.place, found));
        timed.map_err(|error| error.to_string())
    }

    fn grammar(&self, row: &Value) -> Result<String, String> {
        let tools = ["tools", "function", "functions"].iter().find_map(|key| row.get(key)).unwrap_or(row);
        let asked = Map::from_iter([("tools".to_owned(), tools.clone()), ("choice".to_owned(), json!("required"))]);
        let body = inspect::request(&asked).map_err(|error| error.to_string())?;
        let lark = turn_grammar(&body, self.model.context(self.tokenizer.control_ids()));
        lark.map_err(|error| error.to_string())?.ok_or_else(|| "no tools".to_owned())
    }

    fn random_call(&self, lark: &str) -> Result<String, String> {
        let sample = self.texts.compile(lark).and_then(|grammar| text::sample(&grammar, self.seed, LONGEST_CALL));
        let sample = sample.map_err(|error| error.to_string())?.ok_or("no random call found")?;
        String::from_utf8(sample).map_err(|error| error.to_string())
    }

    /// Writes the call as the engine would: what is forced is taken, the rest is the tokenizer's next token. Returns the latter.
    /// The logits, and the tokenizer between the masks, leave as little of a mask in the processor's caches as a model does.
    fn write(&self, mut constraint: Constraint, call: &[u8], found: &mut Found) -> Result<Vec<u32>, GrammarError> {
        let env = self.compiler.tok_env();
        let mut logits = vec![0.0_f32; env.tok_trie().vocab_size()];
        let (mut at, mut pending, mut chosen) = (0, Vec::new(), Vec::new());
        loop {
            let forced = constraint.take_forced()?;
            at += self.length(&forced);
            let Some(rest) = call.get(at..).filter(|rest| !rest.is_empty()) else { return Ok(chosen) };
            if pending.is_empty() || !forced.is_empty() {
                pending = env.tokenize_bytes(rest);
                pending.reverse();
            }
            let next =
                pending.pop().ok_or_else(|| GrammarError::Internal("no token for the rest of the call".into()))?;
            found.applied.push(micros(timed(|| constraint.apply_mask(&mut logits))?.1));
            constraint.commit(next)?;
            at += self.length(&[next]);
            chosen.push(next);
        }
    }

    fn length(&self, tokens: &[u32]) -> usize {
        tokens.iter().map(|token| self.tokenizer.shown_bytes(*token).len()).sum()
    }

    /// The same again, with nothing between what is timed.
    fn time(
        &self,
        mut constraint: Constraint,
        chosen: &[u32],
        place: &str,
        found: &mut Found,
    ) -> Result<(), GrammarError> {
        let mut written = Vec::new();
        for token in chosen {
            let (forced, took) = timed(|| constraint.take_forced())?;
            found.forced.push(micros(took));
            found.forced_tokens += forced.len();
            written.extend(forced);
            let (fresh, took) = timed(|| constraint.prepare_mask())?;
            if fresh {
                let text = self.tokenizer.decode(&written[written.len().saturating_sub(CONTEXT)..]);
                found.masks.push(Mask { micros: micros(took), place: format!("{place}, after {text}") });
            }
            found.commits.push(micros(timed(|| constraint.commit(*token))?.1));
            written.push(*token);
        }
        found.forced_tokens += constraint.take_forced()?.len();
        found.chosen_tokens += chosen.len();
        Ok(())
    }
}

fn timed<T>(work: impl FnOnce() -> Result<T, GrammarError>) -> Result<(T, Duration), GrammarError> {
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed()))
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// A mask's time, and where it stands.
#[derive(Debug, Clone, Serialize)]
struct Mask {
    micros: f64,
    place: String,
}

/// Times in microseconds, compiles in milliseconds.
#[derive(Default)]
struct Found {
    followed: usize,
    refused: Vec<String>,
    compiles: Vec<f64>,
    masks: Vec<Mask>,
    applied: Vec<f64>,
    forced: Vec<f64>,
    commits: Vec<f64>,
    forced_tokens: usize,
    /// Those that needed a mask.
    chosen_tokens: usize,
}

impl Found {
    fn report(mut self, args: &MasksArgs, dialect: &str) -> Report {
        let masks = Summary::of(self.masks.iter().map(|mask| mask.micros).collect());
        let tokens = self.forced_tokens + self.chosen_tokens;
        self.masks.sort_by(|a, b| b.micros.total_cmp(&a.micros));
        self.masks.truncate(args.slowest);
        Report {
            model: args.model.display().to_string(),
            dialect: dialect.to_owned(),
            followed: self.followed,
            refused: self.refused,
            tokens,
            forced_share: ratio(self.forced_tokens as f64, tokens as f64),
            masks_per_second: masks.map(|masks| 1e6 / masks.mean),
            compile_ms: Summary::of(self.compiles),
            mask_us: masks,
            cold_mask_and_logits_us: Summary::of(self.applied),
            forced_us: Summary::of(self.forced),
            commit_us: Summary::of(self.commits),
            slowest: self.masks,
        }
    }
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    dialect: String,
    /// Rows whose call was written to its end, and why the others were not.
    followed: usize,
    refused: Vec<String>,
    tokens: usize,
    forced_share: Option<f64>,
    masks_per_second: Option<f64>,
    /// A grammar with its first mask.
    compile_ms: Option<Summary>,
    mask_us: Option<Summary>,
    /// The same with writing −∞ into the logits, and with other work between the masks.
    cold_mask_and_logits_us: Option<Summary>,
    /// Asking for forced tokens.
    forced_us: Option<Summary>,
    commit_us: Option<Summary>,
    slowest: Vec<Mask>,
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!(
            "{}, dialect {}: {} calls followed, {} refused, {} tokens, {} forced, {} masks/s\n\n",
            self.model,
            self.dialect,
            self.followed,
            self.refused.len(),
            self.tokens,
            percent(self.forced_share),
            number(self.masks_per_second),
        );
        let rows: Vec<Vec<String>> = [
            ("compile + first mask, ms", self.compile_ms),
            ("mask, us", self.mask_us),
            ("the same, cold, into logits", self.cold_mask_and_logits_us),
            ("forced tokens, us", self.forced_us),
            ("commit, us", self.commit_us),
        ]
        .into_iter()
        .map(|(name, summary)| {
            let values = summary.map(|s| [s.p50, s.p90, s.p99, s.max, s.mean]);
            let cells = (0..5).map(|index| number(values.map(|values| values[index])));
            std::iter::once(name.to_owned()).chain(cells).collect()
        })
        .collect();
        text += &aligned(&["", "p50", "p90", "p99", "max", "mean"], &rows);
        for mask in &self.slowest {
            let _ = write!(text, "\n{} us: {}", number(Some(mask.micros)), mask.place);
        }
        for reason in self.refused.iter().take(5) {
            let _ = write!(text, "\nrefused: {reason}");
        }
        text + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_find_their_answers_beside_them() {
        let dir = tempfile::tempdir().unwrap();
        let (questions, folder) = (dir.path().join("q.json"), dir.path().join("possible_answer"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("q.json"), "{\"id\": \"a\", \"ground_truth\": []}\n").unwrap();
        let rows = parse("q", "{\"id\": \"a\"}\n\n{\"id\": \"b\"}\n", &answers(&questions)).unwrap();
        let found: Vec<_> = rows.iter().map(|row| (row.place.as_str(), row.answer.is_some())).collect();
        assert_eq!(found, [("q:1", true), ("q:3", false)]);
        assert!(parse("q", "{", &HashMap::new()).is_err_and(|error| error.to_string().contains("q:1")));
    }
}
