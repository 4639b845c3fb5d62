//! Puts a dialogue together: functions, user turns, calls, results and answers. Knows no words of its own.

use super::dice::Dice;
use super::function::{Function, Origin};
use super::offer::{missing, offer};
use super::request::{Manner, Request, punctuated, request};
use super::results::result_of;
use super::tables::tables;
use super::values::capitalise;
use super::{Kind, Naming, Sample, Split, SynthConfig, TurnInfo};
use callsmith::chat::{Conversation, Message, Role, ToolCall, ToolChoice};
use serde_json::{Map, Value as Json};

/// The sample number `index`: a pure function of its arguments.
pub(super) fn build(config: &SynthConfig, index: u64) -> Sample {
    let mut dice = Dice::new(config.seed, index);
    let functions = offer(&mut dice, config);
    let mut writer = Writer { dice, config, functions, messages: Vec::new(), turns: Vec::new() };
    if writer.dice.chance(config.system) {
        let text = writer.dice.pick(tables().phrases("system"));
        writer.messages.push(Message::text(Role::System, text));
    }
    let (low, high) = config.turns;
    for _ in 0..low + writer.dice.below(high - low + 1) {
        writer.turn();
    }
    let tools = writer.functions.into_iter().map(|f| f.tool).collect();
    let conversation =
        Conversation { messages: writer.messages, tools, tool_choice: ToolChoice::Auto, parallel_tool_calls: true };
    Sample { conversation, turns: writer.turns }
}

struct Writer<'a> {
    dice: Dice,
    config: &'a SynthConfig,
    functions: Vec<Function>,
    messages: Vec<Message>,
    turns: Vec<TurnInfo>,
}

/// One call to be made: which function, with what.
type Planned = (usize, Map<String, Json>);

impl Writer<'_> {
    fn turn(&mut self) {
        let mix = &self.config.kinds;
        let weights = [mix.single, mix.parallel_same, mix.parallel_different, mix.no_call, mix.chat];
        match self.dice.weighted(&weights) {
            1 => self.parallel_same(),
            2 => self.parallel_different(),
            3 => self.no_call(),
            4 => self.chat(),
            _ => self.single(),
        }
    }

    fn manner(&mut self, bare: bool) -> Manner {
        Manner { lower: self.dice.chance(0.12), bare }
    }

    fn single(&mut self) {
        let at = self.dice.below(self.functions.len());
        let bare = self.config.draw_bare(&mut self.dice);
        let manner = self.manner(bare);
        if let Some(said) = request(&mut self.dice, &self.functions[at], 1, manner) {
            let calls: Vec<Planned> = said.calls.into_iter().map(|c| (at, c)).collect();
            self.call_turn(Kind::SingleCall, &said.text, &calls);
        }
    }

    fn parallel_same(&mut self) {
        if self.dice.chance(0.25) && self.twice() {
            return;
        }
        let count = if self.dice.chance(0.7) { 2 } else { 3 };
        let manner = self.manner(false);
        for _ in 0..6 {
            let at = self.dice.below(self.functions.len());
            if let Some(said) = request(&mut self.dice, &self.functions[at], count, manner) {
                let calls: Vec<Planned> = said.calls.into_iter().map(|c| (at, c)).collect();
                return self.call_turn(Kind::ParallelSame, &said.text, &calls);
            }
        }
        self.single();
    }

    /// One function in two sentences with different values.
    fn twice(&mut self) -> bool {
        let at = self.dice.below(self.functions.len());
        let manner = self.manner(true);
        let one = request(&mut self.dice, &self.functions[at], 1, manner);
        let two = request(&mut self.dice, &self.functions[at], 1, manner);
        let (Some(one), Some(two)) = (one, two) else { return false };
        if one.calls == two.calls {
            return false;
        }
        let text = self.join(&one, &two);
        let calls: Vec<Planned> = one.calls.into_iter().chain(two.calls).map(|c| (at, c)).collect();
        self.call_turn(Kind::ParallelSame, &text, &calls);
        true
    }

    fn parallel_different(&mut self) {
        if self.functions.len() < 2 {
            return self.single();
        }
        let first = self.dice.below(self.functions.len());
        let second = (first + 1 + self.dice.below(self.functions.len() - 1)) % self.functions.len();
        let manner = self.manner(true);
        let one = request(&mut self.dice, &self.functions[first], 1, manner);
        let two = request(&mut self.dice, &self.functions[second], 1, manner);
        let (Some(one), Some(two)) = (one, two) else { return self.single() };
        let text = self.join(&one, &two);
        let calls = one.calls.iter().map(|c| (first, c.clone())).chain(two.calls.iter().map(|c| (second, c.clone())));
        self.call_turn(Kind::ParallelDifferent, &text, &calls.collect::<Vec<_>>());
    }

    fn join(&mut self, one: &Request, two: &Request) -> String {
        let both = one.imperative && two.imperative && !one.text.contains(['?', '.']);
        let lower_first = |text: &str| {
            let mut chars = text.chars();
            chars.next().map_or_else(String::new, |c| c.to_lowercase().chain(chars).collect::<String>())
        };
        if both && self.dice.chance(0.6) {
            let glue = self.dice.pick(&[" and ", ", and ", " and then ", " and also ", ", then "]);
            let text = format!("{}{glue}{}", one.text, lower_first(&two.text));
            return punctuated(&mut self.dice, &text);
        }
        let mut first = punctuated(&mut self.dice, &one.text);
        if !first.ends_with(['.', '?', '!']) {
            first.push('.');
        }
        let also = self.dice.pick(&["", "", "Also, ", "And ", "Then ", "Besides, "]);
        let second = if also.is_empty() { capitalise(&two.text) } else { lower_first(&two.text) };
        punctuated(&mut self.dice, &format!("{first} {also}{second}"))
    }

    fn no_call(&mut self) {
        if self.dice.chance(0.15) {
            return self.other();
        }
        let manner = self.manner(false);
        let wanted = missing(&mut self.dice, self.config, &self.functions);
        let said = wanted.and_then(|f| request(&mut self.dice, &f, 1, manner));
        let Some(said) = said else { return self.chat() };
        self.decline(&said.text, &said.task);
    }

    /// Something that no function is made for.
    fn other(&mut self) {
        let section = if self.config.split == Split::Train { "other" } else { "other_held_out" };
        let entry = self.dice.pick(tables().phrases(section));
        let (said, task) = entry.split_once(" => ").unwrap_or((entry, "do that"));
        let said = if self.dice.chance(0.7) { capitalise(said) } else { said.to_owned() };
        let said = if self.dice.chance(0.3) { said.trim_end_matches('?').to_owned() } else { said };
        self.decline(&said, task);
    }

    fn decline(&mut self, said: &str, task: &str) {
        let answer = self.dice.pick(tables().phrases("decline")).replace("{}", task);
        self.user(said);
        self.push_turn(Kind::NoCall, Naming::Overlap, false);
        self.messages.push(Message::text(Role::Assistant, answer));
    }

    fn chat(&mut self) {
        let entry = self.dice.pick(tables().phrases("chat"));
        let (said, answer) = entry.split_once(" => ").unwrap_or((entry, entry));
        let said = if self.dice.chance(0.6) { capitalise(said) } else { said.to_owned() };
        let mark = if said.ends_with('?') { "" } else { self.dice.pick(&["", ".", "!"]) };
        self.messages.push(Message::text(Role::User, said + mark));
        self.push_turn(Kind::Chat, Naming::Overlap, false);
        self.messages.push(Message::text(Role::Assistant, answer));
    }

    /// The user's message, sometimes with a sentence before and after that means nothing.
    fn user(&mut self, request: &str) {
        let mut text = request.to_owned();
        if self.dice.chance(0.1) {
            text = format!("{} {}", self.dice.pick(tables().phrases("preamble")), capitalise(&text));
        }
        if self.dice.chance(0.06) {
            let end = if text.ends_with(['.', '?', '!']) { "" } else { "." };
            text = format!("{text}{end} {}", self.dice.pick(tables().phrases("after")));
        }
        self.messages.push(Message::text(Role::User, text));
    }

    fn push_turn(&mut self, kind: Kind, naming: Naming, noun_last: bool) {
        let offered = self.functions.len();
        self.turns.push(TurnInfo { kind, naming, offered, noun_last, assistant_message: self.messages.len() });
    }

    fn call_turn(&mut self, kind: Kind, text: &str, planned: &[Planned]) {
        self.user(text);
        let right = &self.functions[planned[0].0];
        let (naming, last) = (real_naming(right, text), noun_last(right, text));
        self.push_turn(kind, naming, last);
        let mut call_message = Message::text(Role::Assistant, "");
        for (at, arguments) in planned {
            let id = format!("call_{:08x}", self.dice.between(0, i64::from(u32::MAX)));
            let name = self.functions[*at].tool.name.clone();
            call_message.tool_calls.push(ToolCall { id, name, arguments: Json::Object(arguments.clone()) });
        }
        let calls = call_message.tool_calls.clone();
        self.messages.push(call_message);
        if self.dice.chance(self.config.results) {
            self.results(planned, &calls);
        }
    }

    fn results(&mut self, planned: &[Planned], calls: &[ToolCall]) {
        let mut answer = Vec::new();
        for ((at, arguments), call) in planned.iter().zip(calls) {
            let (result, sentence) = result_of(&mut self.dice, &self.functions[*at], arguments);
            let mut message = Message::text(Role::Tool, result.to_string());
            message.tool_call_id = Some(call.id.clone());
            message.name = Some(call.name.clone());
            self.messages.push(message);
            if !answer.contains(&sentence) {
                answer.push(sentence);
            }
        }
        self.messages.push(Message::text(Role::Assistant, answer.join(" ")));
    }
}

/// What the words of name and request really share.
fn real_naming(function: &Function, text: &str) -> Naming {
    match (function.name_overlaps(text), function.naming) {
        (true, _) => Naming::Overlap,
        (false, Naming::Unrelated) => Naming::Unrelated,
        (false, _) => Naming::Synonym,
    }
}

fn noun_last(function: &Function, text: &str) -> bool {
    let text = text.trim_end_matches(['.', '?', '!']);
    let text = text.trim_end_matches(" please").trim_end_matches(',').to_lowercase();
    match &function.origin {
        Origin::Verb { said, .. } => {
            text.ends_with(&said.one.to_lowercase()) || text.ends_with(&said.many.to_lowercase())
        }
        Origin::Everyday(everyday) => text.ends_with(everyday.topic),
    }
}
