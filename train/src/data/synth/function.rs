//! A function on offer: its name, description and JSON Schema, made from the tables. Knows no request.

use super::dice::Dice;
use super::names::{Case, content_words, meaningless};
use super::open::{OPEN, open_attribute};
use super::tables::{Class, Everyday, Family, Key, Noun, Verb, tables};
use super::values::{Kind, capitalise};
use super::{Naming, Split, SynthConfig};
use callsmith::chat::Tool;
use serde_json::{Map, Value as Json, json};

/// A parameter of a function on offer.
#[derive(Debug)]
pub(super) struct Param {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// How requests say it, with `{}` for the value; cues (`+yes`, `-no`) for a boolean.
    pub(super) phrases: Vec<&'static str>,
    pub(super) required: bool,
    pub(super) is_key: bool,
    /// Its place in the templates of an everyday function.
    pub(super) slot: &'static str,
    /// Name of the nested object that holds it.
    pub(super) group: Option<&'static str>,
}

/// Where a function comes from, which decides how it is asked for.
#[derive(Debug)]
pub(super) enum Origin {
    /// A verb on the noun `said`.
    Verb {
        verb: &'static Verb,
        said: Noun,
    },
    Everyday(&'static Everyday),
}

/// A function on offer.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) tool: Tool,
    pub(super) params: Vec<Param>,
    pub(super) origin: Origin,
    /// What was aimed at; the sample reports what the words of request and name really share.
    pub(super) naming: Naming,
    /// First noun of the family, or the topic.
    pub(super) topic: String,
    pub(super) domain: &'static str,
    pub(super) cluster: &'static str,
}

/// Words and cases that one function is written with.
pub(super) struct Pen<'a> {
    pub(super) config: &'a SynthConfig,
    pub(super) naming: Naming,
}

/// "an invoice", "luggage".
pub(super) fn with_article(noun: &Noun) -> String {
    let one = &*noun.one;
    let vowel = one.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O']);
    let consonant_sound = one.starts_with("us") || one.starts_with("uni") || one.starts_with("eu");
    match (noun.mass, vowel && !consonant_sound || one.starts_with("hour")) {
        (true, _) => one.to_owned(),
        (_, true) => format!("an {one}"),
        (_, false) => format!("a {one}"),
    }
}

/// Puts a noun into a template; `{the}` is filled by the caller where it matters.
pub(super) fn fill_noun(template: &str, noun: &Noun) -> String {
    template
        .replace("{a}", &with_article(noun))
        .replace("{the}", &format!("the {}", noun.one))
        .replace("{s}", &noun.many)
        .replace("{n}", &noun.one)
}

impl Pen<'_> {
    /// The function that does `verb` to a thing of `family`.
    pub(super) fn family_function(&self, dice: &mut Dice, family: &Family, verb: &'static Verb) -> Function {
        let said = dice.pick_ref(&family.nouns).clone();
        let case = Case::draw(dice);
        let (name_noun, desc_noun) = self.nouns(dice, family, &said);
        let plural = matches!(verb.class, Class::Find) || (verb.class == Class::All && verb.key != "latest");
        let noun = if plural && !dice.chance(0.1) { &name_noun.many } else { &name_noun.one };
        let verb_word =
            if self.naming == Naming::Overlap && dice.chance(0.6) { verb.names[0] } else { dice.pick(&verb.names) };
        let words = if dice.chance(0.07) { format!("{noun} {verb_word}") } else { format!("{verb_word} {noun}") };
        let name = if self.naming == Naming::Unrelated { meaningless(dice) } else { case.join(&words) };
        let mut description = capitalise(&fill_noun(dice.pick(&verb.desc), &desc_noun));
        if !family.gloss.is_empty() && dice.chance(0.1) {
            let verb = if desc_noun.mass { "is" } else { "means" };
            description = format!(
                "{}. {} {verb} {}.",
                description.trim_end_matches('.'),
                capitalise(&with_article(&desc_noun)),
                family.gloss
            );
        }
        let parameter_case = case.for_parameters(dice);
        let params = self.family_params(dice, family, verb, parameter_case);
        let (topic, domain) = (family.nouns[0].one.to_string(), family.domain);
        self.finish(
            dice,
            name,
            description,
            Draft { params, origin: Origin::Verb { verb, said }, topic, domain, cluster: verb.cluster },
        )
    }

    /// The nouns of the name and of the description, given the one that the request says.
    fn nouns(&self, dice: &mut Dice, family: &Family, said: &Noun) -> (Noun, Noun) {
        let others: Vec<&Noun> = family.nouns.iter().filter(|n| *n != said).collect();
        let open = family.domain == OPEN;
        match (self.naming, others.is_empty()) {
            (Naming::Synonym, false) => {
                let other = dice.pick(&others).clone();
                // Open families pair nouns at random: nothing but the description tells that they mean the same.
                let described = if open || dice.chance(0.85) { said.clone() } else { other.clone() };
                (other, described)
            }
            (Naming::Unrelated, false) if !open && dice.chance(0.12) => (said.clone(), dice.pick(&others).clone()),
            (Naming::Overlap, false) if dice.chance(0.3) => (said.clone(), dice.pick(&others).clone()),
            _ => (said.clone(), said.clone()),
        }
    }

    fn family_params(
        &self,
        dice: &mut Dice,
        family: &Family,
        verb: &'static Verb,
        case: Case,
    ) -> Vec<(Param, Option<String>)> {
        let mut params = Vec::new();
        if self.config.draw_bare(dice) {
            return params;
        }
        if matches!(verb.class, Class::Key | Class::Edit) {
            params.push(key_param(dice, family, case));
        }
        let mut optional = 0;
        for (key, required) in attributes_of(dice, family, verb) {
            optional += usize::from(!required);
            if required || optional <= self.config.max_optional {
                params.push(attribute_param(dice, key, required, case));
            }
        }
        let open = if family.domain == OPEN { 0.4 } else { 0.06 };
        if self.config.split == Split::Train && !params.is_empty() && dice.chance(open) {
            params.push(open_attribute(dice, case));
        }
        dedupe(&mut params);
        if dice.chance(0.3) {
            dice.shuffle(&mut params);
        }
        params
    }

    /// A hand-written function.
    pub(super) fn everyday_function(&self, dice: &mut Dice, everyday: &'static Everyday) -> Function {
        let case = Case::draw(dice);
        let name = match self.naming {
            Naming::Overlap => case.join(dice.pick(&everyday.names)),
            Naming::Synonym => case.join(dice.pick(&everyday.far_names)),
            Naming::Unrelated => meaningless(dice),
        };
        let description = dice.pick(&everyday.desc).to_owned();
        let parameter_case = case.for_parameters(dice);
        let mut params = Vec::new();
        // One column of names, so that `from` goes with `to` and `low` with `high`.
        let column = if dice.chance(0.45) { 0 } else { dice.below(5) };
        for param in &everyday.params {
            if !param.required && dice.chance(0.4) {
                continue;
            }
            let name = if dice.chance(0.9) { param.names[column % param.names.len()] } else { dice.pick(&param.names) };
            let kind = param.kind.settle(dice);
            let description = describe(dice, &param.descriptions, &kind);
            let name = parameter_case.join(name);
            let made = Param {
                name,
                kind,
                phrases: param.cues.clone(),
                required: param.required,
                is_key: false,
                slot: param.key,
                group: None,
            };
            params.push((made, description));
        }
        dedupe(&mut params);
        let (topic, domain) = (everyday.topic.to_owned(), everyday.domain);
        self.finish(
            dice,
            name,
            description,
            Draft { params, origin: Origin::Everyday(everyday), topic, domain, cluster: everyday.topic },
        )
    }

    fn finish(&self, dice: &mut Dice, name: String, description: String, mut draft: Draft) -> Function {
        if dice.chance(self.config.nested) {
            nest(dice, &mut draft.params);
        }
        let described = self.naming != Naming::Overlap || dice.chance(self.config.descriptions);
        let parameters = schema(dice, &draft.params);
        let tool = Tool { name, description: described.then_some(description), parameters, strict: false };
        let params = draft.params.into_iter().map(|(param, _)| param).collect();
        let Draft { origin, topic, domain, cluster, .. } = draft;
        Function { tool, params, origin, naming: self.naming, topic, domain, cluster }
    }
}

/// A function that still lacks its schema; each parameter with its description.
struct Draft {
    params: Vec<(Param, Option<String>)>,
    origin: Origin,
    topic: String,
    domain: &'static str,
    cluster: &'static str,
}

impl Function {
    /// Whether the name shares a content word with the text.
    pub(super) fn name_overlaps(&self, text: &str) -> bool {
        let words = content_words(text);
        content_words(&self.tool.name).iter().any(|w| words.contains(w))
    }
}

/// The attributes that a function of this class takes, and which are required.
fn attributes_of(dice: &mut Dice, family: &Family, verb: &'static Verb) -> Vec<(&'static str, bool)> {
    let mut chosen: Vec<(&'static str, bool)> = Vec::new();
    for (at, (key, required)) in family.attributes.iter().enumerate() {
        match verb.class {
            Class::Make if *required || dice.chance(0.5) => chosen.push((key, *required)),
            Class::Edit if at == 0 || dice.chance(0.4) => chosen.push((key, chosen.is_empty())),
            Class::Find if dice.chance(0.55) => chosen.push((key, dice.chance(0.3))),
            _ => {}
        }
    }
    for (key, required) in &verb.extra {
        if *required || dice.chance(0.4) {
            chosen.push((key, *required));
        }
    }
    chosen
}

fn key_param(dice: &mut Dice, family: &Family, case: Case) -> (Param, Option<String>) {
    let noun = &family.nouns[0].one;
    let (kind, name, about) = match &family.key {
        Key::Id(prefix) => {
            let name = match dice.below(5) {
                0 => "id".to_owned(),
                1 => format!("{noun} number"),
                _ => format!("{noun} id"),
            };
            (Kind::Id(prefix.clone()), name, "The id")
        }
        Key::Name => {
            let name = match dice.below(5) {
                0 => "name".to_owned(),
                1 => (*noun).to_string(),
                _ => format!("{noun} name"),
            };
            (Kind::Title, name, "The name")
        }
    };
    let description = dice.chance(0.75).then(|| format!("{about} of the {noun}."));
    let param = Param {
        name: case.join(&name),
        kind,
        phrases: Vec::new(),
        required: true,
        is_key: true,
        slot: "",
        group: None,
    };
    (param, description)
}

fn attribute_param(dice: &mut Dice, key: &'static str, required: bool, case: Case) -> (Param, Option<String>) {
    let attribute = tables().attribute(key);
    let name = if dice.chance(0.5) { attribute.names[0] } else { dice.pick(&attribute.names) };
    let kind = attribute.kind.settle(dice);
    let description = describe(dice, &attribute.descriptions, &kind);
    let phrases = attribute.phrases.clone();
    (Param { name: case.join(name), kind, phrases, required, is_key: false, slot: key, group: None }, description)
}

fn describe(dice: &mut Dice, texts: &[&'static str], kind: &Kind) -> Option<String> {
    if texts.is_empty() || !dice.chance(0.75) {
        return None;
    }
    let text = dice.pick(texts);
    let dated = *kind == Kind::IsoDate && !text.contains("YYYY") && dice.chance(0.5);
    Some(if dated { format!("{} (YYYY-MM-DD).", text.trim_end_matches('.')) } else { text.to_owned() })
}

/// Of two parameters with one name the first stays.
fn dedupe(params: &mut Vec<(Param, Option<String>)>) {
    let mut seen: Vec<String> = Vec::new();
    params.retain(|(param, _)| {
        let fresh = !seen.contains(&param.name);
        seen.push(param.name.clone());
        fresh
    });
}

/// Moves two neighbouring parameters into one object.
fn nest(dice: &mut Dice, params: &mut [(Param, Option<String>)]) {
    const NAMES: &[&str] = &["details", "options", "settings", "fields", "payload", "info", "attributes"];
    if params.len() < 3 {
        return;
    }
    let start = dice.below(params.len() - 1);
    let name = dice.pick(NAMES);
    if params.iter().all(|(p, _)| p.name != name) {
        for (param, _) in &mut params[start..start + 2] {
            param.group = Some(name);
        }
    }
}

fn schema(dice: &mut Dice, params: &[(Param, Option<String>)]) -> Option<Json> {
    if params.is_empty() {
        return dice.chance(0.7).then(|| json!({"type": "object", "properties": {}}));
    }
    let mut root = Shape::default();
    let mut nested = Shape::default();
    for (param, description) in params {
        let mut property = param.kind.schema(dice);
        if let Some(text) = description {
            property.insert("description".to_owned(), json!(text));
        }
        match param.group {
            None => root.add(&param.name, Json::Object(property), param.required),
            Some(group) => {
                nested.add(&param.name, Json::Object(property), param.required);
                let required = !nested.required.is_empty();
                root.add(group, nested.to_json(), required);
            }
        }
    }
    Some(root.to_json())
}

/// An object schema under construction.
#[derive(Default)]
struct Shape {
    properties: Map<String, Json>,
    required: Vec<String>,
}

impl Shape {
    /// A second property of the same name replaces the first in its place.
    fn add(&mut self, name: &str, schema: Json, required: bool) {
        self.properties.insert(name.to_owned(), schema);
        if required && !self.required.iter().any(|r| r == name) {
            self.required.push(name.to_owned());
        }
    }

    fn to_json(&self) -> Json {
        let mut object = json!({"type": "object", "properties": self.properties});
        if !self.required.is_empty() {
            object["required"] = json!(self.required);
        }
        object
    }
}
