//! The word tables under `text/`, parsed once. Knows their syntax, not how sentences are made of them.

use super::values::Kind;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

pub(in crate::data) type Words = Vec<&'static str>;

/// A noun with its plural; `mass` nouns take no article.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Noun {
    pub(super) one: Cow<'static, str>,
    pub(super) many: Cow<'static, str>,
    pub(super) mass: bool,
}

/// A parameter that families share.
#[derive(Debug)]
pub(super) struct Attribute {
    pub(super) kind: Kind,
    pub(super) names: Words,
    pub(super) phrases: Words,
    pub(super) descriptions: Words,
}

/// Which parameters a verb takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Makes a new thing from its attributes.
    Make,
    /// Acts on one thing, found by its key.
    Key,
    /// Changes attributes of one thing.
    Edit,
    /// Filters things by attributes.
    Find,
    /// Takes nothing.
    All,
}

/// A group of verbs with one meaning.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) key: &'static str,
    pub(super) class: Class,
    pub(super) cluster: &'static str,
    pub(super) names: Words,
    pub(super) ask: Words,
    pub(super) desc: Words,
    pub(super) extra: Vec<(&'static str, bool)>,
    pub(super) done: Words,
}

/// How one thing of a family is addressed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Key {
    /// An id with this prefix, such as `INV-4821`.
    Id(Cow<'static, str>),
    /// Its name.
    Name,
}

/// A noun with what can be done to it.
#[derive(Debug, Clone)]
pub(super) struct Family {
    pub(super) domain: &'static str,
    pub(super) nouns: Vec<Noun>,
    pub(super) gloss: &'static str,
    pub(super) verbs: Words,
    pub(super) key: Key,
    pub(super) attributes: Vec<(&'static str, bool)>,
    pub(super) held_out: bool,
}

/// A parameter of an everyday function; `key` is its place in the `ask` templates.
#[derive(Debug)]
pub(super) struct EverydayParam {
    pub(super) key: &'static str,
    pub(super) required: bool,
    pub(super) kind: Kind,
    pub(super) cues: Words,
    pub(super) names: Words,
    pub(super) descriptions: Words,
}

/// A wholly hand-written function.
#[derive(Debug)]
pub(super) struct Everyday {
    pub(super) topic: &'static str,
    pub(super) domain: &'static str,
    pub(super) held_out: bool,
    pub(super) names: Words,
    pub(super) far_names: Words,
    pub(super) can: &'static str,
    pub(super) desc: Words,
    pub(super) params: Vec<EverydayParam>,
    pub(super) ask: Words,
    pub(super) result: Vec<(&'static str, Kind)>,
    pub(super) say: Words,
}

/// All tables.
pub(in crate::data) struct Tables {
    /// Word pools; the flag says whether made-up words may join.
    pub(super) pools: HashMap<&'static str, (bool, Words)>,
    /// Of no family.
    pub(super) open_nouns: Vec<Noun>,
    pub(super) attributes: HashMap<&'static str, Attribute>,
    /// Keys of the attributes that are not of held-out families alone, in the order of the file.
    pub(super) train_attributes: Words,
    pub(super) verbs: Vec<Verb>,
    pub(super) families: Vec<Family>,
    pub(super) everyday: Vec<Everyday>,
    pub(super) phrases: HashMap<&'static str, Words>,
}

static TABLES: LazyLock<Tables> = LazyLock::new(Tables::parse);

/// The tables, parsed at the first use.
pub(in crate::data) fn tables() -> &'static Tables {
    &TABLES
}

impl Tables {
    pub(super) fn verb(&self, key: &str) -> &Verb {
        self.verbs.iter().find(|v| v.key == key).unwrap_or_else(|| bad("verbs.txt", key))
    }

    pub(super) fn attribute(&self, key: &str) -> &Attribute {
        self.attributes.get(key).unwrap_or_else(|| bad("attributes.txt", key))
    }

    pub(in crate::data) fn pool(&self, key: &str) -> &(bool, Words) {
        self.pools.get(key).unwrap_or_else(|| bad("pools.txt", key))
    }

    pub(in crate::data) fn phrases(&self, section: &str) -> &Words {
        self.phrases.get(section).unwrap_or_else(|| bad("phrases.txt", section))
    }

    fn parse() -> Self {
        let families = parse_families();
        let (keys, attributes) = parse_attributes();
        let verbs = parse_verbs();
        let used = |key: &str, held_out: bool| {
            families.iter().any(|f| f.held_out == held_out && f.attributes.iter().any(|(a, _)| *a == key))
        };
        let train_attributes = keys.into_iter().filter(|key| used(key, false) || !used(key, true)).collect();
        Self {
            pools: parse_pools(),
            open_nouns: parse_nouns(),
            attributes,
            train_attributes,
            verbs,
            families,
            everyday: parse_everyday(),
            phrases: sections(include_str!("text/phrases.txt")),
        }
    }
}

/// The tables are part of the program and a unit test walks through all of them.
fn bad(file: &str, line: &str) -> ! {
    panic!("built-in table {file} is malformed at `{line}`")
}

pub(in crate::data) fn lines(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().map(str::trim_end).filter(|l| !l.is_empty() && !l.starts_with("# "))
}

pub(in crate::data) fn split(text: &'static str, separator: char) -> Words {
    text.split(separator).map(str::trim).filter(|s| !s.is_empty()).collect()
}

fn noun(text: &'static str) -> Noun {
    let (one, many) = text.trim().split_once('/').unwrap_or_else(|| bad("nouns", text));
    let many = if many == "=" { one } else { many };
    Noun { one: Cow::Borrowed(one), many: Cow::Borrowed(many), mass: one == many }
}

/// `name!` → (`name`, true).
pub(in crate::data) fn flagged(word: &'static str) -> (&'static str, bool) {
    word.strip_suffix('!').map_or((word, false), |w| (w, true))
}

fn parse_pools() -> HashMap<&'static str, (bool, Words)> {
    lines(include_str!("text/pools.txt"))
        .map(|line| {
            let (name, items) = line.split_once(':').unwrap_or_else(|| bad("pools.txt", line));
            let open = name.starts_with('+');
            (name.trim_start_matches('+'), (open, split(items, ',')))
        })
        .collect()
}

fn parse_nouns() -> Vec<Noun> {
    lines(include_str!("text/nouns.txt")).flat_map(|line| split(line, ',')).map(noun).collect()
}

fn parse_attributes() -> (Words, HashMap<&'static str, Attribute>) {
    let mut keys = Words::new();
    let mut map = HashMap::new();
    for line in lines(include_str!("text/attributes.txt")) {
        let [key, kind, names, phrases, descriptions] = split(line, '|')[..] else { bad("attributes.txt", line) };
        let kind = Kind::parse(kind).unwrap_or_else(|| bad("attributes.txt", line));
        let attribute = Attribute {
            kind,
            names: split(names, ','),
            phrases: split(phrases, ';'),
            descriptions: split(descriptions, ';'),
        };
        keys.push(key);
        map.insert(key, attribute);
    }
    (keys, map)
}

fn parse_verbs() -> Vec<Verb> {
    let mut verbs: Vec<Verb> = Vec::new();
    for line in lines(include_str!("text/verbs.txt")) {
        let (field, rest) = line.split_once(' ').unwrap_or_else(|| bad("verbs.txt", line));
        if field == "verb" {
            let [key, class, cluster] = split(rest, ' ')[..] else { bad("verbs.txt", line) };
            let class = class_named(class).unwrap_or_else(|| bad("verbs.txt", line));
            let empty = Words::new;
            verbs.push(Verb {
                key,
                class,
                cluster,
                names: empty(),
                ask: empty(),
                desc: empty(),
                extra: vec![],
                done: empty(),
            });
            continue;
        }
        let verb = verbs.last_mut().unwrap_or_else(|| bad("verbs.txt", line));
        match field {
            "names" => verb.names = split(rest, ' '),
            "ask" => verb.ask = split(rest, ';'),
            "desc" => verb.desc = split(rest, ';'),
            "done" => verb.done = split(rest, ';'),
            "extra" => verb.extra = split(rest, ' ').into_iter().map(flagged).collect(),
            _ => bad("verbs.txt", line),
        }
    }
    verbs
}

fn class_named(name: &str) -> Option<Class> {
    [("make", Class::Make), ("key", Class::Key), ("edit", Class::Edit), ("find", Class::Find), ("all", Class::All)]
        .into_iter()
        .find_map(|(n, class)| (n == name).then_some(class))
}

fn parse_families() -> Vec<Family> {
    let mut domain = "";
    let mut families = Vec::new();
    for line in lines(include_str!("text/families.txt")) {
        if let Some(name) = line.strip_prefix("## ") {
            domain = name;
            continue;
        }
        let [nouns, gloss, verbs, key, attributes] = split(line, '|')[..] else { bad("families.txt", line) };
        let held_out = nouns.starts_with('-');
        let nouns = nouns.trim_start_matches('-');
        let (first, others) = nouns.split_once('~').unwrap_or((nouns, ""));
        let nouns = std::iter::once(first).chain(split(others, ',')).map(noun).collect();
        let key = if key == "name" { Key::Name } else { Key::Id(Cow::Borrowed(key)) };
        let attributes = split(attributes, ' ').into_iter().map(flagged).collect();
        families.push(Family { domain, nouns, gloss, verbs: split(verbs, ' '), key, attributes, held_out });
    }
    families
}

fn parse_everyday() -> Vec<Everyday> {
    let mut functions: Vec<Everyday> = Vec::new();
    for line in lines(include_str!("text/everyday.txt")) {
        let (field, rest) = line.split_once(' ').unwrap_or_else(|| bad("everyday.txt", line));
        if field == "fn" {
            functions.push(everyday_header(rest).unwrap_or_else(|| bad("everyday.txt", line)));
            continue;
        }
        let function = functions.last_mut().unwrap_or_else(|| bad("everyday.txt", line));
        everyday_field(function, field, rest).unwrap_or_else(|| bad("everyday.txt", line));
    }
    functions
}

fn everyday_header(rest: &'static str) -> Option<Everyday> {
    let (topic, domain) = rest.split_once(' ')?;
    let held_out = topic.starts_with('-');
    let empty = Words::new;
    Some(Everyday {
        topic: topic.trim_start_matches('-'),
        domain,
        held_out,
        names: empty(),
        far_names: empty(),
        can: "",
        desc: empty(),
        params: Vec::new(),
        ask: empty(),
        result: Vec::new(),
        say: empty(),
    })
}

fn everyday_field(function: &mut Everyday, field: &str, rest: &'static str) -> Option<()> {
    match field {
        "names" => {
            let (near, far) = rest.split_once('|')?;
            (function.names, function.far_names) = (split(near, ' '), split(far, ' '));
        }
        "can" => function.can = rest,
        "desc" => function.desc = split(rest, ';'),
        "p" => function.params.push(everyday_param(rest)?),
        "ask" => function.ask = split(rest, ';'),
        "result" => {
            // Kinds hold spaces only inside parentheses, so a field starts after a space that is followed by `name=`.
            for part in result_fields(rest) {
                let (name, kind) = part.split_once('=')?;
                function.result.push((name, Kind::parse(kind)?));
            }
        }
        "say" => function.say = split(rest, ';'),
        _ => return None,
    }
    Some(())
}

fn result_fields(text: &'static str) -> Words {
    let mut fields = Words::new();
    let (mut start, mut depth) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ' ' if depth == 0 => {
                fields.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    fields.push(&text[start..]);
    fields
}

fn everyday_param(rest: &'static str) -> Option<EverydayParam> {
    let [key, kind, names, descriptions] = rest.split('|').map(str::trim).collect::<Vec<_>>()[..] else { return None };
    let (key, required) = flagged(key);
    let (kind, cues) = kind.split_once(':').unwrap_or((kind, ""));
    let mut all = vec![key];
    all.extend(split(names, ','));
    Some(EverydayParam {
        key,
        required,
        kind: Kind::parse(kind)?,
        cues: split(cues, ':'),
        names: all,
        descriptions: split(descriptions, ';'),
    })
}

/// The lines of a table below each `## heading`.
pub(in crate::data) fn sections(text: &'static str) -> HashMap<&'static str, Words> {
    let mut sections: HashMap<&'static str, Words> = HashMap::new();
    let mut section = "";
    for line in lines(text) {
        match line.strip_prefix("## ") {
            Some(name) => section = name,
            None => sections.entry(section).or_default().push(line),
        }
    }
    sections
}
