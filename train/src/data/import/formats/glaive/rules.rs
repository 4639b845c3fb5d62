//! The cleaning rules of the original project, by number, and those that drop or shorten dialogues (rules 5 to 11).

use crate::data::rows::Reason;
use crate::data::seen::{Seen, fingerprint};
use crate::random;
use callsmith::chat::{Message, Role};
use clap::ValueEnum;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Phrases of first requests of which there are too many.
const FREQUENT: [&str; 7] = [
    "stock price",
    "random number",
    "generate a qr code",
    "create a qr code",
    "i need to convert ",
    "distance between",
    "calculate the tip",
];

/// A cleaning rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// 1: a row whose functions cannot be read is flawed; without, it has none.
    Functions,
    /// 2: the phrase "but as an AI, " and pieces of one character are removed.
    Phrases,
    /// 3: a row with a result that is no JSON is flawed; without, the result is text.
    Results,
    /// 4: a row with a call that cannot be read is flawed; without, the call is text.
    Calls,
    /// 5: rows whose turns do not follow one another properly, or do not end with the assistant, are dropped.
    Turns,
    /// 6: rows without functions are dropped.
    WithoutFunctions,
    /// 7: most of the refusals and of the most frequent requests are dropped at random.
    Frequent,
    /// 8: a last exchange of thanks or refusal is cut.
    Endings,
    /// 9: half of the dialogues with a question before a call end with the question.
    Questions,
    /// 10: six in ten dialogues with a call end with it.
    CallEndings,
    /// 11: dialogues that were there already are dropped.
    Duplicates,
}

impl Rule {
    /// The rule by which a row with such a flaw is not used.
    pub(super) fn against(reason: Reason) -> Option<Self> {
        match reason {
            Reason::Tools => Some(Self::Functions),
            Reason::Result => Some(Self::Results),
            Reason::Call => Some(Self::Calls),
            _ => None,
        }
    }

    /// How the report calls it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Functions => "glaive: unreadable functions",
            Self::Phrases => "glaive: phrase removed",
            Self::Results => "glaive: unreadable result",
            Self::Calls => "glaive: unreadable call",
            Self::Turns => "glaive: improper turns, dropped",
            Self::WithoutFunctions => "glaive: without functions, dropped",
            Self::Frequent => "glaive: too frequent, dropped",
            Self::Endings => "glaive: last exchange cut",
            Self::Questions => "glaive: cut after a question",
            Self::CallEndings => "glaive: cut after a call",
            Self::Duplicates => "glaive: duplicate, dropped",
        }
    }
}

/// A dialogue after the rules.
pub(super) struct Cleaned {
    /// `None` where a rule drops it.
    pub(super) messages: Option<Vec<Message>>,
    pub(super) applied: Vec<Rule>,
}

/// Applies rules to one row after the other.
pub(super) struct Cleaner {
    rules: Vec<Rule>,
    seed: u64,
    rows: u64,
    seen: Seen,
}

impl Cleaner {
    pub(super) fn new(rules: &[Rule], seed: u64) -> Self {
        Self { rules: rules.to_vec(), seed, rows: 0, seen: Seen::default() }
    }

    pub(super) fn has(&self, rule: Rule) -> bool {
        self.rules.contains(&rule)
    }

    /// Drops or shortens a dialogue. What is drawn depends on the seed, the rule and the number of the row alone.
    pub(super) fn clean(&mut self, mut messages: Vec<Message>, has_functions: bool) -> Cleaned {
        self.rows += 1;
        // A system text of its own is no turn.
        let system = messages.iter().take_while(|message| message.role == Role::System).count();
        let mut turns = messages.split_off(system);
        let mut applied = Vec::new();
        for rule in [Rule::Turns, Rule::WithoutFunctions, Rule::Frequent] {
            if self.has(rule) && self.drops(rule, &turns, has_functions) {
                return Cleaned { messages: None, applied: vec![rule] };
            }
        }
        for rule in [Rule::Endings, Rule::Questions, Rule::CallEndings] {
            if let Some(end) = self.has(rule).then(|| cut(rule, &turns, &mut self.draw(rule))).flatten() {
                turns.truncate(end);
                applied.push(rule);
            }
        }
        messages.extend(turns);
        if self.has(Rule::Duplicates) && !self.seen.insert(fingerprint(&messages)) {
            return Cleaned { messages: None, applied: vec![Rule::Duplicates] };
        }
        Cleaned { messages: Some(messages), applied }
    }

    fn draw(&self, rule: Rule) -> ChaCha8Rng {
        random::stream(self.seed, rule.text(), self.rows)
    }

    fn drops(&self, rule: Rule, turns: &[Message], has_functions: bool) -> bool {
        match rule {
            Rule::Turns => !proper(turns),
            Rule::WithoutFunctions => !has_functions,
            _ => self.draw(rule).random::<f64>() < excess(turns),
        }
    }
}

/// Whether turns follow one another as they should and end with the assistant.
fn proper(turns: &[Message]) -> bool {
    let follows = |pair: &[Message]| {
        matches!(
            (pair[0].role, pair[1].role),
            (Role::User, Role::Assistant) | (Role::Assistant, Role::User | Role::Tool) | (Role::Tool, Role::Assistant)
        )
    };
    turns.len() >= 2 && turns.windows(2).all(follows) && turns.last().is_some_and(|last| last.role == Role::Assistant)
}

/// The share of dialogues like this one that is dropped.
fn excess(turns: &[Message]) -> f64 {
    let text = |at: usize| turns.get(at).map(|turn| turn.content.to_lowercase()).unwrap_or_default();
    let (asked, answered) = (text(0), text(1));
    let refused = turns.len() == 2 && asked.starts_with("can you ") && answered.starts_with("i'm sorry, ");
    let frequent = turns.len() > 2 && FREQUENT.iter().any(|phrase| asked.contains(phrase));
    let password = answered.contains("password") && answered.contains("length") && answered.contains('?');
    match (refused || password, frequent) {
        (true, _) => 0.9,
        (_, true) => 0.8,
        _ => 0.0,
    }
}

/// How many turns a rule leaves, where it cuts.
fn cut(rule: Rule, turns: &[Message], random: &mut ChaCha8Rng) -> Option<usize> {
    let (share, ends): (f64, Vec<usize>) = match rule {
        Rule::Endings => {
            return (turns.len() >= 4 && is_empty_ending(&turns[turns.len() - 1])).then(|| turns.len() - 2);
        }
        Rule::Questions => (0.5, questions(turns)),
        _ => (0.6, (1..=turns.len()).filter(|&end| !turns[end - 1].tool_calls.is_empty()).collect()),
    };
    if ends.is_empty() || random.random::<f64>() >= share {
        return None;
    }
    let end = ends[random.random_range(0..ends.len())];
    (end < turns.len()).then_some(end)
}

fn is_empty_ending(last: &Message) -> bool {
    let text = last.content.to_lowercase();
    let polite = text.starts_with("you're welcome") || text.starts_with("great choice");
    text.starts_with("i'm sorry, ") || (polite && text.contains("feel free to ask"))
}

/// Where questions of the assistant end: a user's answer and a call follow.
fn questions(turns: &[Message]) -> Vec<usize> {
    let asks = |at: usize| {
        let [user, question, answer, call] = &turns[at..at + 4] else { return false };
        user.role == Role::User
            && question.role == Role::Assistant
            && question.tool_calls.is_empty()
            && answer.role == Role::User
            && !call.tool_calls.is_empty()
    };
    (0..turns.len().saturating_sub(3)).filter(|&at| asks(at)).map(|at| at + 2).collect()
}
