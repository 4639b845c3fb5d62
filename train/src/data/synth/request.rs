//! What the user says to have a function called, and the arguments that it gives. Knows one function at a time.

use super::Naming;
use super::dice::Dice;
use super::function::{Function, Origin, Param, with_article};
use super::names::content_words;
use super::tables::{Class, Noun, Verb, tables};
use super::values::{Kind, capitalise, join};
use serde_json::{Map, Value as Json, json};

/// A request in words.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) text: String,
    /// Arguments of each call, in the order of the schema.
    pub(super) calls: Vec<Map<String, Json>>,
    /// The task alone, in the base form ("create an invoice"), for a decline.
    pub(super) task: String,
    /// Whether the text is an imperative that "and" can join with another.
    pub(super) imperative: bool,
}

/// How the user writes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) lower: bool,
    /// Leaves out greetings, wrappers and the final full stop, so that requests can be joined.
    pub(super) bare: bool,
}

/// A parameter that the request gives.
struct Given<'a> {
    param: &'a Param,
    /// One value for all calls, or one for each.
    values: Vec<Json>,
    said: String,
    free: bool,
}

/// Says what is needed for `copies` calls of `function`. `None` when it cannot be called several times in one sentence.
pub(super) fn request(dice: &mut Dice, function: &Function, copies: usize, manner: Manner) -> Option<Request> {
    match &function.origin {
        Origin::Everyday(everyday) => {
            let template = everyday_template(dice, function, &everyday.ask)?;
            let wanted: Vec<&Param> = function.params.iter().filter(|p| template.contains(&slot(p))).collect();
            let given = draw_all(dice, &wanted, copies, manner)?;
            Some(everyday_request(dice, function, &template, (given, manner), everyday.can))
        }
        Origin::Verb { verb, said } => {
            let wanted: Vec<&Param> = function.params.iter().filter(|p| p.required || dice.chance(0.45)).collect();
            let given = draw_all(dice, &wanted, copies, manner)?;
            Some(verb_request(dice, function, (verb, said), &given, manner))
        }
    }
}

fn slot(param: &Param) -> String {
    format!("{{{}}}", param.slot)
}

/// Values of the wanted parameters; with several copies one parameter takes as many values.
fn draw_all<'a>(dice: &mut Dice, wanted: &[&'a Param], copies: usize, manner: Manner) -> Option<Vec<Given<'a>>> {
    let repeatable: Vec<usize> = (0..wanted.len()).filter(|i| wanted[*i].kind.can_repeat()).collect();
    let varied = if copies > 1 { Some(*repeatable.get(dice.below(repeatable.len().max(1)))?) } else { None };
    let mut given: Vec<Given<'a>> = Vec::new();
    for (at, param) in wanted.iter().enumerate() {
        let values = if varied == Some(at) { copies } else { 1 };
        let next = draw(dice, param, values, manner);
        if values > next.values.len() {
            return None;
        }
        given.push(next);
    }
    Some(given)
}

fn draw<'a>(dice: &mut Dice, param: &'a Param, count: usize, manner: Manner) -> Given<'a> {
    if param.kind == Kind::Bool {
        let cue = dice.pick(&param.phrases);
        return Given { param, values: vec![json!(cue.starts_with('+'))], said: cue[1..].to_owned(), free: false };
    }
    let mut values: Vec<Json> = Vec::new();
    let mut said = Vec::new();
    let mut free = false;
    for _ in 0..count * 4 {
        let value = param.kind.draw(dice, manner.lower);
        if values.len() < count && !values.contains(&value.json) {
            free |= value.free;
            values.push(value.json);
            said.push(value.said);
        }
    }
    if free && count > 1 {
        said = said.iter().map(|s| format!("\"{s}\"")).collect();
        free = false;
    }
    Given { param, values, said: join(&said), free }
}

/// The arguments of each call, in the order of the parameters.
fn arguments(function: &Function, given: &[Given<'_>]) -> Vec<Map<String, Json>> {
    let count = given.iter().map(|g| g.values.len()).max().unwrap_or(1);
    let one = |call: usize| {
        let mut arguments = Map::new();
        for param in &function.params {
            let found = given.iter().find(|g| g.param.name == param.name && g.param.group == param.group);
            let Some(value) = found.and_then(|g| g.values.get(call).or_else(|| g.values.first())) else { continue };
            match param.group {
                None => arguments.insert(param.name.clone(), value.clone()),
                Some(group) => {
                    let inner = arguments.entry(group.to_owned()).or_insert_with(|| json!({}));
                    inner.as_object_mut().and_then(|object| object.insert(param.name.clone(), value.clone()))
                }
            };
        }
        arguments
    };
    (0..count).map(one).collect()
}

/// Chooses a template that the function's parameters can fill, with its optional parts decided.
fn everyday_template(dice: &mut Dice, function: &Function, ask: &[&'static str]) -> Option<String> {
    let fits = |text: &str| placeholders(text).all(|slot| function.params.iter().any(|p| p.slot == slot));
    for _ in 0..40 {
        let mut text = String::new();
        for (at, part) in dice.pick(ask).split(['[', ']']).enumerate() {
            if at % 2 == 0 || (fits(part) && dice.chance(0.55)) {
                text.push_str(part);
            }
        }
        let near = function.naming != Naming::Overlap && function.name_overlaps(&text);
        if fits(&text) && !(near && dice.chance(0.95)) {
            return Some(text);
        }
    }
    ask.iter().map(|text| mandatory(text)).find(|text| fits(text))
}

/// A template without its optional parts.
pub(super) fn mandatory(template: &str) -> String {
    template.split(['[', ']']).step_by(2).collect()
}

/// Names between braces.
pub(super) fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|part| part.split_once('}').map(|(name, _)| name))
}

fn everyday_request(
    dice: &mut Dice,
    function: &Function,
    template: &str,
    (given, manner): (Vec<Given<'_>>, Manner),
    can: &str,
) -> Request {
    let calls = arguments(function, &given);
    let whole = template.starts_with('=');
    let mut text = template.trim_start_matches('=').to_owned();
    for value in &given {
        // A list of quoted values brings its own quotes.
        if value.said.starts_with('"') {
            text = text.replace(&format!("\"{}\"", slot(value.param)), &value.said);
        }
        text = text.replace(&slot(value.param), &value.said);
    }
    finish(dice, Spoken { text, whole, open_end: false, front: None, tail: None }, (calls, can.to_owned()), manner)
}

/// A request before greetings, wrappers and punctuation.
struct Spoken {
    text: String,
    whole: bool,
    /// Ends in free text without quotes: nothing may follow in the sentence.
    open_end: bool,
    front: Option<String>,
    tail: Option<String>,
}

fn verb_request(
    dice: &mut Dice,
    function: &Function,
    (verb, said): (&'static Verb, &Noun),
    given: &[Given<'_>],
    manner: Manner,
) -> Request {
    let calls = arguments(function, given);
    let repeated = calls.len() > 1;
    let unquoted = last_free(dice, given);
    let mut parts: Vec<(bool, String)> = Vec::new();
    let addressed = given.iter().find(|value| value.param.is_key);
    let (key, mut front) = addressed.map_or_else(Default::default, |value| key_phrase(dice, value, repeated));
    let mut tail = None;
    for (at, value) in given.iter().enumerate().filter(|(_, value)| !value.param.is_key) {
        let plain = !value.free && value.param.kind != Kind::Bool;
        if tail.is_none() && !manner.bare && plain && dice.chance(0.07) {
            tail = Some(sentence_about(dice, value));
            continue;
        }
        let quote = value.free && unquoted != Some(at);
        let phrase = argument_phrase(dice, value, verb.class, quote, sounds_like_another(value, given));
        if front.is_none() && !value.free && dice.chance(0.14) && opens_sentence(&phrase) {
            front = Some(phrase);
        } else {
            parts.push((unquoted == Some(at), phrase));
        }
    }
    dice.shuffle(&mut parts);
    parts.sort_by_key(|(last, _)| *last);
    let ask = ask_for(dice, function, verb);
    let the = definite(dice, said, repeated, &key) + &key;
    let mut rest = if ask.contains("{the}") { String::new() } else { key };
    for (_, phrase) in &parts {
        rest.push_str(if phrase.starts_with(',') { "" } else { " " });
        rest.push_str(phrase);
    }
    let text = say(ask.trim_start_matches('='), said, &the, &rest);
    let spoken = Spoken { text, whole: ask.starts_with('='), open_end: unquoted.is_some(), front, tail };
    finish(dice, spoken, (calls, task_of(verb, said)), manner)
}

/// The free text that may stand without quotes, because it comes last.
fn last_free(dice: &mut Dice, given: &[Given<'_>]) -> Option<usize> {
    let last = given.iter().rposition(|value| value.free && !value.param.is_key)?;
    dice.chance(0.4).then_some(last)
}

/// A way to ask for the verb; unless the name shall overlap, one that has no word of it.
fn ask_for(dice: &mut Dice, function: &Function, verb: &'static Verb) -> &'static str {
    let name = if function.naming == Naming::Overlap { Vec::new() } else { content_words(&function.tool.name) };
    let distinct = |ask: &&str| !content_words(ask).iter().any(|w| name.contains(w));
    let asks: Vec<&'static str> = verb.ask.iter().copied().filter(distinct).collect();
    if asks.is_empty() { dice.pick(&verb.ask) } else { dice.pick(&asks) }
}

fn say(ask: &str, said: &Noun, the: &str, rest: &str) -> String {
    let text = ask
        .replace("{a}", &with_article(said))
        .replace("{the}", the)
        .replace("{s}", &said.many)
        .replace("{n}", &said.one);
    if text.contains("{args}") { text.replace("{args}", rest) } else { format!("{text}{rest}") }
}

fn definite(dice: &mut Dice, said: &Noun, repeated: bool, key: &str) -> String {
    let noun = if repeated && dice.chance(0.7) { &said.many } else { &said.one };
    match dice.below(10) {
        0 | 1 if !key.is_empty() => noun.to_string(),
        2 => format!("my {noun}"),
        3 => format!("our {noun}"),
        _ => format!("the {noun}"),
    }
}

fn task_of(verb: &'static Verb, said: &Noun) -> String {
    let first = verb.ask.iter().find(|a| !a.starts_with('=')).copied().unwrap_or("handle {a}");
    first
        .replace("{a}", &with_article(said))
        .replace("{the}", &with_article(said))
        .replace("{s}", &said.many)
        .replace("{n}", &said.one)
}

/// What follows the noun to say which one it is, or what goes to the front instead ("As for INV-4821, …").
fn key_phrase(dice: &mut Dice, value: &Given<'_>, repeated: bool) -> (String, Option<String>) {
    let titled = value.param.kind == Kind::Title;
    let quote = value.free || (titled && !repeated && dice.chance(0.3));
    let said = if quote { quoted(dice, &value.said) } else { value.said.clone() };
    if dice.chance(0.07) {
        return (String::new(), Some(format!("{} {said}", dice.pick(&["as for", "about", "regarding"]))));
    }
    let phrase = match (dice.below(8), titled) {
        (0, true) => format!(" called {said}"),
        (1, true) => format!(" named {said}"),
        (2, true) => format!(" with the name {said}"),
        (0, false) if !repeated => format!(" with id {said}"),
        (1, false) if !repeated => format!(" with the id {said}"),
        (2, false) if !repeated => format!(" number {said}"),
        (3, false) if !repeated => format!(" no. {said}"),
        (4, _) if !repeated => format!(" ({said})"),
        _ => format!(" {said}"),
    };
    (phrase, None)
}

fn quoted(dice: &mut Dice, text: &str) -> String {
    if dice.chance(0.75) { format!("\"{text}\"") } else { format!("'{text}'") }
}

/// Whether another value might be said with the same words: "for Anna, for Ben" would not tell who is who.
fn sounds_like_another(value: &Given<'_>, given: &[Given<'_>]) -> bool {
    let others = given.iter().filter(|other| !std::ptr::eq(*other, value));
    let kinds = |a: &Kind, b: &Kind| std::mem::discriminant(a) == std::mem::discriminant(b);
    others.into_iter().any(|other| {
        kinds(&other.param.kind, &value.param.kind)
            && other.param.phrases.iter().any(|p| value.param.phrases.contains(p))
    })
}

/// "for Acme Ltd", "with customer Acme Ltd", ", customer: Acme Ltd".
fn argument_phrase(dice: &mut Dice, value: &Given<'_>, class: Class, quote: bool, by_name: bool) -> String {
    if value.param.kind == Kind::Bool {
        return value.said.clone();
    }
    let spoken = spoken_name(&value.param.name);
    let said = if quote { quoted(dice, &value.said) } else { value.said.clone() };
    let generic = if class == Class::Edit { 0.6 } else { 0.2 };
    if value.param.phrases.is_empty() || by_name || dice.chance(generic) {
        return match dice.below(if class == Class::Edit { 7 } else { 4 }) {
            0 => format!("with {spoken} {said}"),
            1 => format!(", {spoken}: {said}"),
            2 => format!("with the {spoken} {said}"),
            3 => format!(", {spoken} {said}"),
            4 => format!("and set the {spoken} to {said}"),
            5 => format!(", the new {spoken} is {said}"),
            _ => format!("to {spoken} {said}"),
        };
    }
    let phrase = dice.pick(&value.param.phrases);
    if phrase.contains("\"{}\"") { phrase.replace("{}", &value.said) } else { phrase.replace("{}", &said) }
}

/// `dueDate` → `due date`.
fn spoken_name(name: &str) -> String {
    let mut spoken = String::new();
    for c in name.chars() {
        match c {
            '_' => spoken.push(' '),
            c if c.is_uppercase() => spoken.extend([' '].into_iter().chain(c.to_lowercase())),
            c => spoken.push(c),
        }
    }
    spoken
}

fn sentence_about(dice: &mut Dice, value: &Given<'_>) -> String {
    let spoken = spoken_name(&value.param.name);
    match dice.below(3) {
        0 => format!("The {spoken} is {}.", value.said),
        1 => format!("{}: {}", capitalise(&spoken), value.said),
        _ => format!("The {spoken} should be {}.", value.said),
    }
}

fn opens_sentence(phrase: &str) -> bool {
    ["for ", "in ", "on ", "at ", "from ", "with ", "under ", "until "].iter().any(|p| phrase.starts_with(p))
}

fn finish(dice: &mut Dice, spoken: Spoken, (calls, task): (Vec<Map<String, Json>>, String), manner: Manner) -> Request {
    let Spoken { mut text, whole, open_end, front, tail } = spoken;
    if !whole && !manner.bare {
        // "I want to show me …" is not said.
        let own = dice.chance(0.22) && !text.split(' ').any(|word| word == "me");
        let wrap = dice.pick(tables().phrases(if own { "wrap_self" } else { "wrap" }));
        let wrap = if open_end && !wrap.ends_with("{}") { "{}" } else { wrap };
        text = wrap.replace("{}", &text);
    }
    if let Some(front) = front {
        text = if dice.chance(0.8) { format!("{front}, {text}") } else { format!("{front} {text}") };
    }
    let imperative = !whole;
    if !manner.lower && dice.chance(0.75) {
        text = capitalise(&text);
    }
    if !manner.bare || tail.is_some() {
        text = punctuated(dice, &text);
    }
    if let Some(tail) = tail {
        if !text.ends_with(['.', '?', '!']) {
            text.push('.');
        }
        text = format!("{text} {tail}");
    }
    Request { text, calls, task, imperative }
}

/// Adds the final `?`, `.` or nothing.
pub(super) fn punctuated(dice: &mut Dice, text: &str) -> String {
    const ASKING: &[&str] = &[
        "what", "how", "is", "are", "do", "does", "can", "which", "who", "where", "when", "will", "any", "could",
        "would", "has", "did", "may", "got",
    ];
    if text.ends_with(['?', '.', '!']) {
        return text.to_owned();
    }
    let first = text.split([' ', '\'']).next().unwrap_or("").to_lowercase();
    let mark = match (ASKING.contains(&first.as_str()), dice.chance(0.5)) {
        (true, _) if dice.chance(0.75) => "?",
        (false, true) => ".",
        _ => "",
    };
    format!("{text}{mark}")
}
