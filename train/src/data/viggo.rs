//! The ViGGO task as functions: nine dialogue acts about video games, their attributes in the order of the data set.
//!
//! Says what an act may hold (Juraska et al., "ViGGO: A Video Game Corpus for Data-To-Text Generation in Open-Domain
//! Conversation", 2019, and its training rows), so that the dialect `viggo` writes every meaning back exactly. Reads no file.

use callsmith::chat::dialect::Dialect;
use callsmith::chat::{Conversation, Message, Tool, ToolCall, ToolChoice};
use serde_json::{Map, Value, json};

/// All attributes, in the order in which an act lists them.
pub const ATTRIBUTES: [&str; 14] = [
    "name",
    "exp_release_date",
    "release_year",
    "developer",
    "esrb",
    "rating",
    "genres",
    "player_perspective",
    "has_multiplayer",
    "platforms",
    "available_on_steam",
    "has_linux_release",
    "has_mac_release",
    "specifier",
];

const ESRB: [&str; 4] = ["E (for Everyone)", "E 10+ (for Everyone 10 and Older)", "T (for Teen)", "M (for Mature)"];
const RATINGS: [&str; 4] = ["poor", "average", "good", "excellent"];
const PERSPECTIVES: [&str; 4] = ["bird view", "first person", "side view", "third person"];
const PLATFORMS: [&str; 5] = ["PlayStation", "Xbox", "Nintendo", "Nintendo Switch", "PC"];

/// A dialogue act.
struct Act {
    name: &'static str,
    description: &'static str,
    required: &'static [&'static str],
    /// Attributes of the fourteen that it never has.
    without: &'static [&'static str],
}

const ACTS: [Act; 9] = [
    Act {
        name: "inform",
        description: "States facts about a game.",
        required: &["name", "genres"],
        without: &["specifier"],
    },
    Act {
        name: "request",
        description: "Asks for a game that is the most or least of something.",
        required: &["specifier"],
        without: &["name", "exp_release_date", "rating"],
    },
    Act {
        name: "give_opinion",
        description: "Says what the speaker thinks of a game, and why.",
        required: &["name", "rating"],
        without: &["exp_release_date", "specifier"],
    },
    Act {
        name: "confirm",
        description: "Makes sure that the other means this game.",
        required: &["name"],
        without: &["rating", "specifier"],
    },
    Act {
        name: "verify_attribute",
        description: "Asks whether an opinion of the other's holds for this too.",
        required: &["name", "rating"],
        without: &["exp_release_date", "specifier"],
    },
    Act {
        name: "suggest",
        description: "Asks for an opinion of a game of some kind.",
        required: &["name"],
        without: &["exp_release_date", "rating", "specifier"],
    },
    Act {
        name: "request_explanation",
        description: "Asks why the other thinks so of such games.",
        required: &["rating"],
        without: &["name", "exp_release_date", "specifier"],
    },
    Act {
        name: "recommend",
        description: "Asks whether the other has tried a game, or should.",
        required: &["name"],
        without: &["exp_release_date", "rating", "specifier"],
    },
    Act {
        name: REQUEST_ATTRIBUTE,
        description: "Asks what the other likes of one attribute, which stays empty.",
        required: &[],
        without: &["name", "exp_release_date", "rating", "specifier"],
    },
];

/// The act that names an attribute and leaves its value empty.
const REQUEST_ATTRIBUTE: &str = "request_attribute";

/// The nine functions.
pub fn tools() -> Vec<Tool> {
    ACTS.iter().map(tool).collect()
}

fn tool(act: &Act) -> Tool {
    let attributes = ATTRIBUTES.iter().filter(|attribute| !act.without.contains(attribute));
    let schema = |&attribute: &&'static str| match act.name {
        REQUEST_ATTRIBUTE => (attribute.to_owned(), json!({"enum": [""]})),
        _ => (attribute.to_owned(), value_schema(attribute)),
    };
    let properties: Map<String, Value> = attributes.map(schema).collect();
    Tool {
        name: act.name.to_owned(),
        description: Some(act.description.to_owned()),
        parameters: Some(json!({"type": "object", "properties": properties, "required": act.required})),
        strict: false,
    }
}

/// Lists are arrays, closed sets are enums, `yes` and `no` are booleans. Genres stay open: there are many, and a list of them in
/// every function would fill the prompt.
fn value_schema(attribute: &str) -> Value {
    match attribute {
        "release_year" => json!({"type": "integer"}),
        "esrb" => json!({"enum": ESRB}),
        "rating" => json!({"enum": RATINGS}),
        "genres" => json!({"type": "array", "items": {"type": "string"}}),
        "player_perspective" => json!({"type": "array", "items": {"enum": PERSPECTIVES}}),
        "platforms" => json!({"type": "array", "items": {"enum": PLATFORMS}}),
        "has_multiplayer" | "available_on_steam" | "has_linux_release" | "has_mac_release" => {
            json!({"type": "boolean"})
        }
        _ => json!({"type": "string"}),
    }
}

/// A conversation about the meanings of sentences, with the task's functions: every answer is one call.
pub fn conversation(tools: &[Tool], messages: Vec<Message>) -> Conversation {
    Conversation { messages, tools: tools.to_vec(), tool_choice: ToolChoice::Required, parallel_tool_calls: false }
}

/// A call as the data set writes it: `inform(name[Portal 2], genres[puzzle])`.
pub fn meaning(dialect: &dyn Dialect, call: &ToolCall) -> String {
    dialect.render_calls(std::slice::from_ref(call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::data_set;
    use callsmith::chat::dialect::{self, Delta, Function};
    use callsmith::grammar::schema;

    /// What the dialect reads of a meaning.
    fn call(dialect: &dyn Dialect, functions: &[Function], text: &str) -> ToolCall {
        let mut parser = dialect.parser(functions);
        let deltas = [parser.push(text), parser.finish()].concat();
        let mut call = ToolCall { id: String::new(), name: String::new(), arguments: Value::Null };
        let mut arguments = String::new();
        for delta in deltas {
            match delta {
                Delta::CallStart { name, .. } => call.name = name,
                Delta::CallArguments { fragment, .. } => arguments.push_str(&fragment),
                _ => {}
            }
        }
        call.arguments = serde_json::from_str(&arguments).unwrap_or_default();
        call
    }

    fn functions() -> Vec<Function> {
        let admit = |tool: Tool| (tool.name, schema::admit_parameters(&tool.parameters).unwrap());
        tools().into_iter().map(admit).collect()
    }

    fn read(text: &str) -> Value {
        call(dialect::by_name("viggo").unwrap().as_ref(), &functions(), text).arguments
    }

    #[test]
    fn values_have_their_types() {
        let meaning = "inform(name[Portal 2], release_year[2011], genres[puzzle, platformer], platforms[PC], has_mac_release[yes])";
        let expected = json!({"name": "Portal 2", "release_year": 2011, "genres": ["puzzle", "platformer"], "platforms": ["PC"], "has_mac_release": true});
        assert_eq!(read(meaning), expected);
        assert_eq!(read("request_attribute(genres[])"), json!({"genres": ""}));
    }

    #[test]
    fn an_act_lists_its_attributes_in_the_data_sets_order() {
        for tool in tools() {
            let parameters = tool.parameters.unwrap();
            let names: Vec<&String> = parameters["properties"].as_object().unwrap().keys().collect();
            let places: Vec<_> = names.iter().map(|name| ATTRIBUTES.iter().position(|known| known == name)).collect();
            assert!(places.is_sorted() && places.iter().all(Option::is_some), "{}: {names:?}", tool.name);
            for required in parameters["required"].as_array().unwrap() {
                assert!(names.iter().any(|name| *name == required), "{}: {required}", tool.name);
            }
        }
    }

    #[test]
    fn every_meaning_of_the_data_set_is_valid_and_written_back_exactly() {
        let Some(found) = data_set("viggo") else { return };
        let (dialect, functions) = (dialect::by_name("viggo").unwrap(), functions());
        for file in ["train.csv", "valid.csv"] {
            let text = std::fs::read_to_string(found.join(file)).unwrap();
            for line in text.lines().skip(1) {
                let quoted = line.strip_prefix('"').and_then(|line| line.split_once("\","));
                let (written, _) = quoted.unwrap_or_else(|| line.split_once(',').unwrap());
                let call = call(dialect.as_ref(), &functions, written);
                let tool = functions.iter().find(|(name, _)| *name == call.name).unwrap();
                let valid = jsonschema::validator_for(&tool.1).unwrap().is_valid(&call.arguments);
                assert!(valid, "{written}: {}", call.arguments);
                assert_eq!(meaning(dialect.as_ref(), &call), written);
            }
        }
    }
}
