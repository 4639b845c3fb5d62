//! `eval bfcl`: single turns of the Berkeley Function-Calling Leaderboard, judged by its rules.

pub mod check;
mod rows;
pub mod value;

use super::Task;
use super::answerer::{Case, Reply};
use super::judged::{Figure, Judged, Verdict, named};
use super::score::Call;
use crate::error::Result;
use crate::loss::Ratio;
use check::{Fault, Form, Gold};
use rows::Row;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The questions of a file.
pub struct Bfcl {
    title: String,
    cases: Vec<Case>,
    wanted: Vec<Wanted>,
}

/// What answers a question.
struct Wanted {
    category: String,
    form: Form,
    functions: Vec<Value>,
    gold: Vec<Gold>,
    /// The name that a model sees of each function, and the file's.
    names: Vec<(String, String)>,
}

impl Bfcl {
    /// Reads the first `limit` questions of a file and, unless they want no call, the answers to them.
    ///
    /// # Errors
    /// A file that cannot be read, and the first wrong line, by number and field.
    pub fn open(questions: &Path, answers: Option<&Path>, limit: Option<usize>) -> Result<Self> {
        let rows = rows::read(questions, answers, limit.unwrap_or(usize::MAX))?;
        let (cases, wanted) = rows.into_iter().map(split).unzip();
        Ok(Self { title: format!("BFCL, {}", questions.display()), cases, wanted })
    }
}

fn split(row: Row) -> (Case, Wanted) {
    let Row { id, category, form, conversation, functions, gold } = row;
    let given = functions.iter().map(|function| function["name"].as_str().unwrap_or_default().to_owned());
    let names = conversation.tools.iter().map(|tool| tool.name.clone()).zip(given).collect();
    (Case { id, conversation }, Wanted { category, form, functions, gold, names })
}

impl Wanted {
    /// The calls by the file's names.
    fn calls(&self, reply: &Reply) -> Vec<Call> {
        let call = |(name, arguments): &Call| {
            let known = self.names.iter().find(|(seen, _)| seen == name);
            (known.map_or_else(|| name.clone(), |(_, given)| given.clone()), arguments.clone())
        };
        reply.calls.iter().map(call).collect()
    }

    fn verdict(&self, reply: &Reply) -> (Verdict, Option<Fault>) {
        let calls = self.calls(reply);
        let fault = match &reply.refused {
            Some(why) => Some(Fault::Refused(why.clone())),
            None => check::check(self.form, &self.functions, &self.gold, &calls).err(),
        };
        let functions = match self.form {
            Form::Any => "(any call)".to_owned(),
            _ => named(self.gold.iter().map(|gold| gold.function.as_str())),
        };
        let verdict = Verdict {
            right: fault.is_none(),
            wanted: self.shown(),
            fault: fault.as_ref().map(ToString::to_string),
            functions: (functions, named(calls.iter().map(|(name, _)| name.as_str()))),
        };
        (verdict, fault)
    }

    fn shown(&self) -> String {
        let call = |gold: &Gold| json!({&gold.function: gold.arguments});
        match self.form {
            Form::Silence => "(no call)".to_owned(),
            Form::Any => "(any call)".to_owned(),
            _ => self.gold.iter().map(call).collect::<Value>().to_string(),
        }
    }
}

impl Task for Bfcl {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn judge(&self, replies: &[Reply]) -> Judged {
        let (mut all, mut categories) = (Ratio::default(), BTreeMap::<&str, Ratio>::new());
        let (mut faults, mut verdicts) = (BTreeMap::<&str, u64>::new(), Vec::new());
        for (wanted, reply) in self.wanted.iter().zip(replies) {
            let (verdict, fault) = wanted.verdict(reply);
            all.add(verdict.right);
            categories.entry(&wanted.category).or_default().add(verdict.right);
            if let Some(fault) = fault {
                *faults.entry(fault.kind()).or_default() += 1;
            }
            verdicts.push(verdict);
        }
        let share = |(name, ratio): (&&str, &Ratio)| ((*name).to_owned(), json!(ratio.share()));
        let per_category: serde_json::Map<String, Value> = categories.iter().map(share).collect();
        let figures = categories.iter().map(|(name, ratio)| Figure::of(*name, *ratio));
        let total = Figure::of("accuracy", all);
        Judged {
            metrics: json!({
                "accuracy": all.share(), "right": all.right, "rows": all.total, "categories": per_category, "faults": faults,
            }),
            figures: [total].into_iter().chain(figures.filter(|_| categories.len() > 1)).collect(),
            verdicts,
        }
    }
}

#[cfg(test)]
mod tests;
