//! Objects: named properties, properties by pattern, all others, and how many.

use super::super::GrammarError;
use super::document::{Document, Node};
use super::evaluated;
use super::keywords::{self, MAX_PROPERTIES};
use super::location::Locations;
use super::names::{self, Free};
use super::number::clamp_count;
use super::pattern;
use super::{refuse, too_complex};
use serde_json::Value;
use std::collections::HashSet;

/// Children are locations.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) fields: Vec<Field>,
    /// Pattern in the compiler's syntax, and what it covers.
    pub(super) patterns: Vec<(String, usize)>,
    /// `None` allows no further properties.
    pub(super) additional: Option<usize>,
    pub(super) minimum: u64,
    pub(super) maximum: Option<u64>,
    /// Where the schema stands, for refusals.
    pub(super) pointer: String,
}

/// A property known by name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) value: usize,
    pub(super) required: bool,
}

/// Names that are written out, of an object with patterns.
const MAX_NAMED: usize = 128;

/// No value.
static NOTHING: Value = Value::Bool(false);

/// What the object keywords of all parts leave; `None` when nothing.
pub(super) fn merge<'a>(
    document: &Document<'a>,
    locations: &mut Locations<'a>,
    parts: &[Node<'a>],
) -> Result<Option<Object>, GrammarError> {
    let scopes: Vec<Scope<'a>> = parts.iter().map(|part| Scope::of(document, parts, part)).collect();
    let mut open = Open {
        additional: additional(locations, &scopes),
        names: names(parts),
        patterns: Vec::new(),
        counted: parts.iter().any(|part| part.get("minProperties").or_else(|| part.get("maxProperties")).is_some()),
    };
    open.add_patterns(document, locations, &scopes)?;
    open.restrict(document, parts)?;
    let pointer = parts.first().map_or("", |part| document.pointer(part)).to_owned();
    if open.names.len() > MAX_PROPERTIES {
        return Err(too_complex(pointer, format!("more than {MAX_PROPERTIES} properties meet in one object")));
    }
    let required: HashSet<&str> = parts.iter().flat_map(|part| required(part)).collect();
    let mut field = |name: &str| {
        let possible = names::allows(document, parts, name);
        let schemas = scopes.iter().flat_map(|scope| scope.schemas_for(document, name));
        let value = locations.id(schemas.chain((!possible).then_some(&NOTHING)));
        Field { name: name.to_owned(), value, required: required.contains(name) }
    };
    let fields = open.names.iter().map(|name| field(name)).collect();
    let minimum = parts.iter().filter_map(|part| keywords::count(part.get("minProperties")?)).max().unwrap_or(0);
    let maximum = parts.iter().filter_map(|part| clamp_count(part.get("maxProperties")?)).min();
    let maximum = maximum.map(|maximum| open.most().map_or(maximum, |most| maximum.min(most)));
    Ok(Some(Object { fields, patterns: open.patterns, additional: open.additional, minimum, maximum, pointer }))
}

/// The names that are known, and what there is beside them.
struct Open {
    names: Vec<String>,
    patterns: Vec<(String, usize)>,
    additional: Option<usize>,
    /// Whether the compiler counts the properties, which it does best where they are not named.
    counted: bool,
}

impl Open {
    /// The names that a rewritten pattern stands for, if they are few.
    fn few(&self, translated: &str) -> Option<Vec<String>> {
        let found = pattern::strings(translated).filter(|_| !self.counted)?;
        (self.names.len() + found.len() <= MAX_NAMED).then_some(found)
    }

    /// How many names there are, where they are few: the compiler would count on when they are used up.
    fn most(&self) -> Option<u64> {
        let strings = self.patterns.iter().map(|(regex, _)| Some(pattern::strings(regex)?.len()));
        let free = strings.sum::<Option<usize>>().filter(|_| self.additional.is_none())?;
        u64::try_from(self.names.len() + free).ok()
    }

    /// Adds the patterns of all parts: by name, and in the order of the names, those that few names match, so that no name
    /// comes twice. The compiler refuses overlapping patterns, so a name under one of the others is under no other.
    fn add_patterns<'a>(
        &mut self,
        document: &Document<'a>,
        locations: &mut Locations<'a>,
        scopes: &[Scope<'a>],
    ) -> Result<(), GrammarError> {
        let mut seen = HashSet::new();
        for owner in scopes {
            for (regex, _) in map(owner.part, "patternProperties").filter(|(regex, _)| seen.insert(*regex)) {
                let translated = document.translate(regex, owner.part, "patternProperties")?;
                match self.few(&translated) {
                    Some(names) => self.add(names.into_iter().filter(|name| document.name_matches(regex, name))),
                    None => {
                        let id = locations.id(scopes.iter().flat_map(|scope| scope.covering(regex)));
                        self.patterns.push((translated, id));
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, names: impl Iterator<Item = String>) {
        for name in names {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }

    /// Applies `propertyNames` to the names that are not known.
    fn restrict(&mut self, document: &Document<'_>, parts: &[Node<'_>]) -> Result<(), GrammarError> {
        let free = match names::free(document, parts)? {
            Free::Matching(regex, rule) => match self.few(&regex).filter(|_| self.patterns.is_empty()) {
                Some(names) => {
                    Free::Only(names.into_iter().filter(|name| names::allows(document, parts, name)).collect())
                }
                None => Free::Matching(regex, rule),
            },
            free => free,
        };
        match free {
            Free::Any => {}
            Free::Only(more) => {
                let covered = |name: &String| self.additional.is_some() || covered(document, parts, name);
                let more: Vec<String> = more.into_iter().filter(covered).collect();
                self.add(more.into_iter());
                self.patterns.clear();
                self.additional = None;
            }
            Free::Matching(regex, rule) => {
                if !self.patterns.is_empty() {
                    let message = "`propertyNames` cannot be combined with `patternProperties`";
                    return Err(refuse(document.pointer(rule), message));
                }
                self.patterns.extend(self.additional.take().map(|value| (regex, value)));
            }
        }
        Ok(())
    }
}

/// A part with the schemas whose properties it does not count as unevaluated.
struct Scope<'a> {
    part: Node<'a>,
    unevaluated: Option<Node<'a>>,
    seeing: Vec<Node<'a>>,
}

impl<'a> Scope<'a> {
    fn of(document: &Document<'a>, parts: &[Node<'a>], part: Node<'a>) -> Self {
        let unevaluated = part.get("unevaluatedProperties");
        let seeing = unevaluated.map_or_else(Vec::new, |_| evaluated::seeing(document, parts, part));
        Self { part, unevaluated, seeing }
    }

    /// The schemas that the part applies to the property `name`.
    fn schemas_for(&self, document: &Document<'a>, name: &str) -> Vec<Node<'a>> {
        let mut found = named(document, self.part, name);
        if found.is_empty() {
            found.extend(self.part.get("additionalProperties"));
        }
        if !self.sees_all() && !self.seeing.iter().any(|part| !named(document, part, name).is_empty()) {
            found.extend(self.unevaluated);
        }
        found
    }

    /// What it says of properties that match a pattern of some part.
    fn covering(&self, regex: &str) -> impl Iterator<Item = Node<'a>> {
        let own = |part: Node<'a>| map(part, "patternProperties").find(|(key, _)| *key == regex).map(|(_, node)| node);
        let seen = self.sees_all() || self.seeing.iter().any(|part| own(part).is_some());
        let found = own(self.part).or_else(|| self.part.get("additionalProperties"));
        found.into_iter().chain(self.unevaluated.filter(|_| !seen))
    }

    /// What it says of all other properties.
    fn others(&self) -> impl Iterator<Item = Node<'a>> {
        let unevaluated = self.unevaluated.filter(|_| !self.sees_all());
        self.part.get("additionalProperties").into_iter().chain(unevaluated)
    }

    /// A schema beside the keyword speaks of every property.
    fn sees_all(&self) -> bool {
        let inner = |part: &Node<'a>| !std::ptr::eq(*part, self.part) && part.get("unevaluatedProperties").is_some();
        self.seeing.iter().any(|part| part.get("additionalProperties").is_some() || inner(part))
    }
}

fn map<'a>(part: Node<'a>, keyword: &str) -> impl Iterator<Item = (&'a String, Node<'a>)> {
    part.get(keyword).and_then(Value::as_object).into_iter().flatten()
}

fn required<'a>(part: Node<'a>) -> impl Iterator<Item = &'a str> {
    part.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Names in the order of declaration, then those that are only required.
fn names(parts: &[Node<'_>]) -> Vec<String> {
    let declared = parts.iter().flat_map(|part| map(part, "properties").map(|(name, _)| name.as_str()));
    let demanded = parts.iter().flat_map(|part| required(part));
    let mut seen = HashSet::new();
    declared.chain(demanded).filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}

/// The schemas by name and by pattern.
fn named<'a>(document: &Document<'a>, part: Node<'a>, name: &str) -> Vec<Node<'a>> {
    let declared = map(part, "properties").filter(|(key, _)| *key == name).map(|(_, node)| node);
    let matching = map(part, "patternProperties").filter(|(regex, _)| document.name_matches(regex, name));
    declared.chain(matching.map(|(_, node)| node)).collect()
}

fn covered<'a>(document: &Document<'a>, parts: &[Node<'a>], name: &str) -> bool {
    let mut patterns = parts.iter().flat_map(|part| map(part, "patternProperties"));
    patterns.any(|(regex, _)| document.name_matches(regex, name))
}

/// What further properties hold: as the parts say; nothing when they say nothing but declare some; else anything.
fn additional<'a>(locations: &mut Locations<'a>, scopes: &[Scope<'a>]) -> Option<usize> {
    let said: Vec<Node<'a>> = scopes.iter().flat_map(Scope::others).collect();
    (!said.is_empty() || !scopes.iter().any(|scope| declares(scope.part))).then(|| locations.id(said))
}

/// Whether a schema describes an object's properties; to forbid some is not to describe any.
fn declares(part: Node<'_>) -> bool {
    let forbids = map(part, "properties").next().is_some() && map(part, "properties").all(|(_, node)| node == &NOTHING);
    let has = |keyword: &str| part.get(keyword).is_some();
    (has("properties") && !forbids) || has("patternProperties") || has("required")
}
