//! `eval calls`: every assistant turn of some dialogues, asked for with the true dialogue before it, under their own `tool_choice`.
//!
//! The dialogues are generated ones of held-out function families, or those of a file.

mod decision;

use super::answerer::{Case, Reply};
use super::judged::{Judged, Verdict, named};
use super::score::{self, Call, Class, Detail, Score, Turn};
use super::{Task, calls_json};
use crate::data::synth::{self, Kind, Naming, Sample, Split, TurnInfo};
use crate::dataset::conversations::Conversations;
use crate::error::{Result, TrainError};
use callsmith::chat::{Conversation, Message};
use decision::Decision;
use std::path::Path;

/// Which dialogues are generated.
#[derive(Debug, Clone)]
pub struct Generated {
    pub split: Split,
    /// Only single calls whose function is named so.
    pub naming: Option<Naming>,
    /// Dialogues with single calls or none.
    pub count: usize,
    /// Further dialogues that need several calls.
    pub parallel: usize,
    pub seed: u64,
}

/// The turns of dialogues.
pub struct Calls {
    title: String,
    cases: Vec<Case>,
    turns: Vec<Turn>,
}

impl Calls {
    /// Generates dialogues; asks for at most `limit` turns.
    ///
    /// # Errors
    /// When a sample contradicts itself.
    pub fn generate(wanted: &Generated, limit: Option<usize>) -> Result<Self> {
        let mut samples = synth::eval_set(wanted.split, wanted.count, wanted.seed, wanted.naming);
        samples.extend(synth::eval_parallel(wanted.split, wanted.parallel, wanted.seed));
        let mut turns = Vec::new();
        for (number, sample) in (1..).zip(&samples) {
            for info in &sample.turns {
                let case = case(number, info.assistant_message, &sample.conversation);
                turns.push((case, Turn::of(sample, info)?));
            }
        }
        Ok(Self::of("generated dialogues", turns, limit))
    }

    /// Reads conversations, one JSON object a line; asks for at most `limit` turns.
    ///
    /// # Errors
    /// A file that cannot be read or has no assistant turn, and the first wrong line, by number and field.
    pub fn open(path: &Path, limit: Option<usize>) -> Result<Self> {
        let conversations = Conversations::open(path)?;
        let of = |index: usize| {
            let dialogue = conversations.get(index);
            let conversation = &dialogue.conversation;
            // What is not to be learnt is not wanted either.
            let turn =
                move |at| Turn { scenario: dialogue.class.clone(), ..turn(conversation, &conversation.messages[at]) };
            dialogue.trained().map(move |at| (case(index + 1, at, conversation), turn(at)))
        };
        let turns: Vec<_> = (0..conversations.len()).flat_map(of).collect();
        if turns.is_empty() {
            return Err(TrainError::input(path, "`messages`: no conversation has an assistant message to ask for"));
        }
        Ok(Self::of(&path.display().to_string(), turns, limit))
    }

    fn of(title: &str, turns: Vec<(Case, Turn)>, limit: Option<usize>) -> Self {
        let (cases, turns) = turns.into_iter().take(limit.unwrap_or(usize::MAX)).unzip();
        Self { title: format!("calls, {title}"), cases, turns }
    }
}

/// The turn that message `at` of conversation `number` answers.
fn case(number: usize, at: usize, conversation: &Conversation) -> Case {
    let mut head = conversation.clone();
    head.messages.truncate(at);
    Case { id: format!("{number}.{}", at + 1), conversation: head }
}

/// What an assistant message of a file shows to be wanted.
fn turn(conversation: &Conversation, message: &Message) -> Turn {
    let calls = score::calls_of(message);
    let class = match calls.as_slice() {
        [] if conversation.tools.is_empty() => Class::Chat,
        [] => Class::NoCall,
        [_] => Class::Single,
        [first, rest @ ..] if rest.iter().all(|call| call.0 == first.0) => Class::ParallelSame,
        _ => Class::ParallelDifferent,
    };
    Turn { class, detail: None, calls, scenario: None }
}

impl Turn {
    /// What the sample wants of the assistant in this turn.
    pub(crate) fn of(sample: &Sample, info: &TurnInfo) -> Result<Self> {
        let messages = &sample.conversation.messages;
        let message = messages.get(info.assistant_message).ok_or_else(|| {
            TrainError::Data(format!("the sample has no message {} although a turn names it", info.assistant_message))
        })?;
        let class = match info.kind {
            Kind::SingleCall => Class::Single,
            Kind::ParallelSame => Class::ParallelSame,
            Kind::ParallelDifferent => Class::ParallelDifferent,
            Kind::NoCall => Class::NoCall,
            Kind::Chat => Class::Chat,
        };
        let naming = format!("{:?}", info.naming).to_lowercase();
        let detail = Detail { naming, offered: info.offered, noun_last: info.noun_last };
        Ok(Self { class, detail: Some(detail), calls: score::calls_of(message), scenario: None })
    }
}

impl Task for Calls {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn judge(&self, replies: &[Reply]) -> Judged {
        let (mut score, mut decision, mut verdicts) = (Score::default(), Decision::default(), Vec::new());
        for ((case, turn), reply) in self.cases.iter().zip(&self.turns).zip(replies) {
            let right = score.add(turn, reply.made());
            decision.add(&case.conversation.tools, !turn.calls.is_empty(), reply.made());
            verdicts.push(verdict(turn, right, reply));
        }
        let mut metrics = score.to_json();
        metrics["rows"] = verdicts.len().into();
        if let (Some(metrics), Some(more)) = (metrics.as_object_mut(), decision.to_json().as_object()) {
            metrics.extend(more.clone());
        }
        let figures = score.figures().into_iter().chain(decision.figures()).collect();
        Judged { metrics, figures, verdicts }
    }
}

fn verdict(turn: &Turn, right: bool, reply: &Reply) -> Verdict {
    let names = |calls: &[Call]| named(calls.iter().map(|(name, _)| name.as_str()));
    let wanted = if turn.calls.is_empty() { "(no call)".to_owned() } else { calls_json(&turn.calls).to_string() };
    Verdict { right, wanted, fault: None, functions: (names(&turn.calls), names(&reply.calls)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn line(answer: &Value, tools: bool) -> String {
        let parameters = json!({"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]});
        let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
        let offered = if tools { vec![tool("f"), tool("g")] } else { Vec::new() };
        format!("{}\n", json!({"messages": [{"role": "user", "content": "q"}, answer], "tools": offered}))
    }

    fn calling(calls: &[(&str, i64)]) -> Value {
        let call = |(name, x): &(&str, i64)| json!({"id": "c", "type": "function", "function": {"name": name, "arguments": json!({"x": x}).to_string()}});
        json!({"role": "assistant", "content": null, "tool_calls": calls.iter().map(call).collect::<Vec<_>>()})
    }

    fn opened(lines: &[String]) -> Result<Calls> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.concat()).unwrap();
        Calls::open(file.path(), None)
    }

    fn reply(calls: &[(&str, Value)]) -> Reply {
        let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), arguments.clone())).collect();
        Reply { calls, ..Reply::default() }
    }

    #[test]
    fn each_assistant_turn_of_a_file_is_asked_for_and_classed_by_what_it_does() {
        let words = json!({"role": "assistant", "content": "no"});
        let calls = opened(&[
            line(&calling(&[("f", 1)]), true),
            line(&calling(&[("f", 1), ("f", 2)]), true),
            line(&calling(&[("f", 1), ("g", 2)]), true),
            line(&words, true),
            line(&words, false),
        ])
        .unwrap();
        let classes: Vec<Class> = calls.turns.iter().map(|turn| turn.class).collect();
        use Class::{Chat, NoCall, ParallelDifferent, ParallelSame, Single};
        assert_eq!(classes, [Single, ParallelSame, ParallelDifferent, NoCall, Chat]);
        assert_eq!(calls.cases()[1].id, "2.2");
        assert!(calls.cases().iter().all(|case| case.conversation.messages.len() == 1));
    }

    #[test]
    fn classes_decisions_and_schemas_are_counted() {
        let words = json!({"role": "assistant", "content": "no"});
        let calls = opened(&[
            line(&calling(&[("f", 1)]), true),
            line(&calling(&[("f", 1)]), true),
            line(&calling(&[("f", 1)]), true),
            line(&words, true),
            line(&words, true),
        ])
        .unwrap();
        let judged = calls.judge(&[
            reply(&[("f", json!({"x": 1.0}))]),
            reply(&[("f", json!({"x": "1"}))]),
            reply(&[]),
            reply(&[("h", json!({"x": 1}))]),
            reply(&[]),
        ]);
        let metrics = judged.metrics;
        assert_eq!(metrics["rows"], 5);
        assert_eq!(metrics["groups"]["single call"], json!({"turns": 3, "function": 2.0 / 3.0, "exact": 1.0 / 3.0}));
        let two_thirds = json!({"right": 2, "total": 3, "share": 2.0 / 3.0});
        assert_eq!((&metrics["call_precision"], &metrics["call_recall"]), (&two_thirds, &two_thirds));
        assert_eq!(metrics["no_call_precision"], json!({"right": 1, "total": 2, "share": 0.5}));
        assert_eq!(metrics["schema_valid"], json!({"right": 1, "total": 3, "share": 1.0 / 3.0}));
        let right: Vec<bool> = judged.verdicts.iter().map(|verdict| verdict.right).collect();
        assert_eq!(right, [true, false, false, false, true]);
        assert_eq!(judged.verdicts[3].functions, ("(no call)".to_owned(), "h".to_owned()));
    }

    #[test]
    fn a_refused_turn_counts_as_wrong_and_not_as_a_decision() {
        let words = json!({"role": "assistant", "content": "no"});
        let calls = opened(&[line(&words, true), line(&words, true), line(&calling(&[("f", 1)]), true)]).unwrap();
        let refused = || Reply::refusal("too long");
        let judged = calls.judge(&[reply(&[]), refused(), refused()]);
        let metrics = judged.metrics;
        let of = |right: u64, total: u64| json!({"right": right, "total": total, "share": right as f64 / total as f64});
        assert_eq!((&metrics["no_call_recognised"], &metrics["no_call_recall"]), (&of(1, 2), &of(1, 2)));
        assert_eq!((&metrics["no_call_precision"], &metrics["call_recall"]), (&of(1, 1), &of(0, 1)));
        assert_eq!(metrics["call_precision"]["total"], 0);
        assert_eq!(judged.verdicts.iter().map(|verdict| verdict.right).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn a_file_without_assistant_turns_is_refused() {
        let user = json!({"role": "user", "content": "more"});
        let refused = opened(&[line(&user, true)]).err().unwrap().to_string();
        assert!(refused.contains("`messages`: no conversation has an assistant message"), "{refused}");
    }
}
