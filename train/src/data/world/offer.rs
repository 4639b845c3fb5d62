//! Functions as a dialogue offers them: under other names, described, in any order. Knows no request.

use super::config::Noise;
use super::execute::Act;
use super::families::{Deed, Family, Field};
use super::ids::Ids;
use crate::data::synth::dice::Dice;
use crate::data::synth::names::{Case, meaningless};
use callsmith::chat::Tool;
use serde_json::{Map, Value as Json, json};

/// A function on offer.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) tool: Tool,
    pub(super) deed: Deed,
    /// Each parameter's field and the name it goes by, in the order of the schema.
    names: Vec<(&'static Field, String)>,
}

impl Offer {
    /// Draws names and descriptions.
    pub(super) fn new(deed: Deed, ids: Ids, noise: &Noise, dice: &mut Dice) -> Self {
        let Deed { family, function } = deed;
        let (case, renamed) = (Case::draw(dice), dice.chance(noise.rename));
        let name = match dice.chance(noise.meaningless) {
            true => meaningless(dice),
            false => case.join(if renamed { dice.pick(&function.names) } else { function.names[0] }),
        };
        let parameter_case = case.for_parameters(dice);
        let named = |field: &'static Field, dice: &mut Dice| {
            let other = renamed && !field.others.is_empty() && dice.chance(0.6);
            let words = if other { dice.pick(&field.others) } else { field.name };
            (field, parameter_case.join(&fill(words, family)))
        };
        let mut names: Vec<(&'static Field, String)> = Vec::new();
        for (field, ..) in deed.takes() {
            let (field, name) = named(field, dice);
            let taken = names.iter().any(|(_, other)| *other == name);
            names.push((field, if taken { field.name.to_owned() } else { name }));
        }
        if dice.chance(noise.shuffle) {
            dice.shuffle(&mut names);
        }
        let parameters =
            (!names.is_empty() || dice.chance(0.5)).then(|| schema(deed, ids, &names, noise.descriptions, dice));
        let description = Some(dice.pick(&function.about).to_owned());
        Self { tool: Tool { name, description, parameters, strict: false }, deed, names }
    }

    /// Arguments under the names on offer, in the order of the schema.
    pub(super) fn shown(&self, arguments: &Map<String, Json>) -> Json {
        let given =
            self.names.iter().filter_map(|(field, name)| Some((name.clone(), arguments.get(field.name)?.clone())));
        Json::Object(given.collect())
    }

    /// The call behind arguments as the dialogue shows them; `None` when it has an unknown one.
    pub(super) fn act(&self, arguments: &Json) -> Option<Act> {
        let known = |(name, value): (&String, &Json)| {
            let (field, _) = self.names.iter().find(|(_, shown)| shown == name)?;
            Some((field.name.to_owned(), value.clone()))
        };
        let arguments = arguments.as_object()?.iter().map(known).collect::<Option<_>>()?;
        Some(Act { deed: self.deed, arguments })
    }

    /// Each argument's field and value.
    pub(super) fn fields<'a>(&'a self, arguments: &'a Json) -> impl Iterator<Item = (&'static Field, &'a Json)> {
        self.names.iter().filter_map(|(field, name)| Some((*field, arguments.get(name)?)))
    }
}

/// `{one}` and `{many}` filled in.
pub(super) fn fill(text: &str, family: &Family) -> String {
    text.replace("{one}", family.one).replace("{many}", family.many)
}

fn schema(deed: Deed, ids: Ids, names: &[(&'static Field, String)], descriptions: f64, dice: &mut Dice) -> Json {
    let described = dice.chance(descriptions);
    let pattern = ids.pattern(deed.family.prefix);
    let example = ids.write(deed.family.prefix, dice.between(100, 4000));
    let mut properties = Map::new();
    let mut required: Vec<&str> = Vec::new();
    for (field, name) in names {
        let mut property = field.kind.schema(&pattern);
        // Names that say nothing need it.
        if described || field.name != name {
            property["description"] = json!(fill(field.about, deed.family).replace("{example}", &example));
        }
        properties.insert(name.clone(), property);
        if deed.takes().any(|(other, _, required)| required && std::ptr::eq(other, *field)) {
            required.push(name);
        }
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}
