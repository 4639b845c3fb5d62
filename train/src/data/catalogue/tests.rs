//! Behaviour of reading and using functions of files.

use super::*;
use crate::data::synth::Split;
use crate::data::world::{Class, Move, WorldConfig};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

const PETS: &str = r##"
openapi: 3.0.3
info: { title: Pets, version: "1" }
paths:
  /pets/{petId}:
    parameters:
      - $ref: "#/components/parameters/PetId"
    get:
      operationId: getPet
      summary: Returns a pet.
      parameters:
        - { name: verbose, in: query, schema: { type: boolean }, description: Whether all is shown }
        - { name: X-Trace, in: header, required: true, schema: { type: string } }
    put:
      summary: Updates a pet in the shop
      requestBody:
        required: true
        content:
          application/json:
            schema: { $ref: "#/components/schemas/Pet" }
  /pets:
    post:
      operationId: getPet
      description: Adds pets. Several at once.
      requestBody:
        content:
          application/json:
            schema: { type: array, items: { $ref: "#/components/schemas/Pet" } }
components:
  parameters:
    PetId: { name: petId, in: path, required: true, schema: { type: integer, minimum: 1 } }
  schemas:
    Pet:
      type: object
      required: [name]
      properties:
        name: { type: string, example: Rex, nullable: true, xml: { name: n } }
        kind: { type: string, enum: [dog, cat] }
        friends: { type: array, items: { $ref: "#/components/schemas/Pet" } }
"##;

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn error_of(name: &str, text: &str) -> String {
    let (_dir, path) = file(name, text);
    read(&path).unwrap_err().to_string()
}

#[test]
fn operations_become_functions_with_their_references_resolved() {
    let (_dir, path) = file("pets.yaml", PETS);
    let tools = read(&path).unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["getPet", "put_pets__petId_", "getPet_2"]);
    let parameters = |at: usize| tools[at].parameters.clone().unwrap();
    assert_eq!(parameters(0)["properties"]["petId"], json!({"type": "integer", "minimum": 1}));
    assert_eq!(parameters(0)["properties"]["verbose"]["description"], "Whether all is shown");
    assert_eq!(parameters(0)["required"], json!(["petId"]));
    assert_eq!(parameters(0)["properties"].as_object().unwrap().len(), 2, "a header is the client's");
    assert_eq!(parameters(1)["required"], json!(["petId", "name"]));
    assert_eq!(parameters(1)["properties"]["name"], json!({"type": ["string", "null"], "examples": ["Rex"]}));
    assert_eq!(parameters(2)["properties"]["body"]["type"], "array");
    assert!(tools.iter().all(|tool| !tool.parameters.as_ref().unwrap().to_string().contains("$ref")));
}

#[test]
fn the_same_document_reads_the_same_as_json() {
    let (_dir, yaml) = file("pets.yml", PETS);
    let text = serde_json::to_string(&serde_saphyr::from_str::<Json>(PETS).unwrap()).unwrap();
    let (_dir, json) = file("pets.json", &text);
    assert_eq!(read(&yaml).unwrap(), read(&json).unwrap());
}

#[test]
fn swagger_2_has_its_schemas_in_the_parameters() {
    let text = r##"{"swagger":"2.0","paths":{"/find":{"get":{"operationId":"find","parameters":[
        {"name":"status","in":"query","required":true,"type":"string","enum":["a","b"],"description":"Which"},
        {"name":"body","in":"body","schema":{"$ref":"#/definitions/B"}}]}}},"definitions":{"B":{"type":"object","properties":{"n":{"type":"integer"}}}}}"##;
    let (_dir, path) = file("swagger.json", text);
    let schema = read(&path).unwrap()[0].parameters.clone().unwrap();
    assert_eq!(schema["properties"]["status"], json!({"type": "string", "enum": ["a", "b"], "description": "Which"}));
    assert_eq!(schema["properties"]["n"], json!({"type": "integer"}));
}

/// What OpenAPI 3.0 has and JSON Schema has not, or has otherwise.
const ORDERS: &str = r##"
openapi: 3.0.3
paths:
  /orders: { $ref: "#/x-items/orders" }
  /found:
    get:
      operationId: findOrders
      parameters:
        - { name: limit, in: query, required: true, schema: { type: integer, minimum: 0, exclusiveMinimum: true, maximum: 9, exclusiveMaximum: false } }
        - { name: filter, in: query, content: { application/json: { schema: { type: object, properties: { paid: { type: boolean } } } } } }
x-items:
  orders:
    post:
      operationId: addOrder
      summary: Adds an order
      requestBody:
        required: true
        content:
          application/json:
            schema:
              allOf:
                - $ref: "#/components/schemas/Stored"
                - type: object
                  required: [id, title]
                  properties:
                    title: { type: string }
                    place: { allOf: [{ $ref: "#/components/schemas/Place" }], description: Where to }
    put:
      operationId: setOrder
      requestBody:
        required: true
        content: { text/plain: { schema: { type: string, pattern: "^[0-9a-f]{8}$" } } }
components:
  schemas:
    Stored:
      type: object
      required: [id]
      properties:
        id: { type: string, readOnly: true }
    Place: { type: object, nullable: true, required: [city], properties: { city: { type: string }, since: { type: string, readOnly: true } } }
"##;

#[test]
fn what_json_schema_has_otherwise_is_translated() {
    let (_dir, path) = file("orders.yaml", ORDERS);
    let tools = read(&path).unwrap();
    let properties = |at: usize| tools[at].parameters.clone().unwrap()["properties"].clone();
    assert_eq!(tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["addOrder", "setOrder", "findOrders"]);
    assert_eq!(properties(2)["limit"], json!({"type": "integer", "exclusiveMinimum": 0, "maximum": 9}));
    assert_eq!(properties(2)["filter"]["properties"]["paid"], json!({"type": "boolean"}));
    assert_eq!(tools[0].parameters.as_ref().unwrap()["required"], json!(["title"]), "an id is given by the service");
    assert!(properties(0).get("id").is_none());
    let place = json!({
        "type": ["object", "null"], "description": "Where to", "required": ["city"], "properties": {"city": {"type": "string"}},
    });
    assert_eq!(properties(0)["place"], place);
}

#[test]
fn a_function_without_arguments_that_can_be_made_up_is_named() {
    let (_dir, path) = file("orders.yaml", ORDERS);
    let names = |split| {
        let config = WorldConfig { split, ..WorldConfig::default() };
        Catalogue::open(&path, &config).map_or_else(|error| error.to_string(), |found| found.left_out().join(", "))
    };
    assert!([names(Split::Train), names(Split::HeldOut)].iter().any(|told| told.contains("setOrder")));
}

#[test]
fn what_cannot_be_read_is_refused_with_place_and_remedy() {
    assert!(error_of("a.yaml", "a: [").contains("not YAML"));
    assert!(error_of("a.json", r#"{"a": 1}"#).contains("holds no `paths`"));
    assert!(error_of("a.json", r#"{"paths": {}}"#).contains("holds no function"));
    let outside = PETS.replace("#/components/parameters/PetId", "other.yaml#/PetId");
    assert!(error_of("a.yaml", &outside).contains("only references inside the document"));
    let missing = PETS.replace("#/components/parameters/PetId", "#/components/parameters/Nobody");
    let message = error_of("a.yaml", &missing);
    assert!(message.contains("`paths./pets/{petId}.get`") && message.contains("does not hold"), "{message}");
    assert!(error_of("a.jsonl", "{\"api_name\":\"f\"}\n{").contains("line 2: not JSON"));
    assert!(error_of("a.jsonl", "{\"api_name\":\"f\"}\n{\"name\":\"g\"}").contains("line 2: `api_name`"));
}

/// Six tools in the way of Seal-Tools.
fn seal() -> String {
    let tool = |name: &str, about: &str| {
        format!(
            r#"{{"api_name":"{name}","api_description":"{about}","parameters":{{"city":{{"type":"str","description":"The city (e.g., Oslo, Rome)"}},"days":{{"type":"int","description":"How many"}},"hot":{{"type":"bool","description":"Whether hot"}}}},"required":["city"],"responses":{{}}}}"#
        )
    };
    let about = ["Gets tips", "Analyze the air", "Search for hotels", "Modifies plans", "Buy a ticket", "Returns maps"];
    (0..60).map(|n| tool(&format!("do{n}"), &format!("{} {n}", about[n % 6])) + "\n").collect()
}

#[test]
fn tools_of_seal_tools_are_read_by_line() {
    let (_dir, path) = file("tool.jsonl", &seal());
    let tools = read(&path).unwrap();
    assert_eq!(tools.len(), 60);
    let schema = tools[0].parameters.clone().unwrap();
    assert_eq!(schema["properties"]["days"]["type"], "integer");
    assert_eq!(schema["required"], json!(["city"]));
}

#[test]
fn dialogues_call_what_was_read_with_what_was_said() {
    let (_dir, path) = file("tool.jsonl", &seal());
    let mut names: Vec<BTreeSet<String>> = Vec::new();
    for split in [Split::Train, Split::HeldOut] {
        let config = WorldConfig { split, distractors: (1, 6), ..WorldConfig::default() };
        let catalogue = Catalogue::open(&path, &config).unwrap();
        let (mut classes, mut used) = (BTreeSet::new(), BTreeSet::new());
        for index in 0..120 {
            let sample = catalogue.generate(&config, index).unwrap();
            let conversation = &sample.dialogue.conversation;
            used.extend(conversation.tools.iter().map(|tool| tool.name.clone()));
            classes.insert(sample.class);
            let calls = &conversation.messages[1].tool_calls;
            let count = match sample.class {
                Class::Irrelevant => 0,
                Class::ParallelSame | Class::ParallelDifferent => 2,
                _ => 1,
            };
            assert_eq!(calls.len(), count, "{:?}", sample.class);
            assert_eq!(sample.turns[0].does, if count == 0 { Move::Decline } else { Move::Call });
            for call in calls {
                let tool = conversation.tools.iter().find(|tool| tool.name == call.name).unwrap();
                assert!(jsonschema::is_valid(tool.parameters.as_ref().unwrap(), &call.arguments));
                let city = call.arguments["city"].as_str().unwrap();
                assert!(["Oslo", "Rome"].contains(&city) && conversation.messages[0].content.contains(city));
            }
            let again = catalogue.generate(&config, index).unwrap();
            assert_eq!(again.dialogue.conversation.messages, conversation.messages);
        }
        assert_eq!(classes.len(), 5);
        names.push(used);
    }
    assert_eq!(names[0].intersection(&names[1]).count(), 0, "a held-out function is never trained on");
}

#[test]
fn settings_that_would_do_nothing_are_refused() {
    let (_dir, path) = file("tool.jsonl", &seal());
    let refused = |text: &str| {
        let config: WorldConfig = toml::from_str(text).unwrap();
        Catalogue::open(&path, &config).map(drop).unwrap_err().to_string()
    };
    assert!(refused("noise = { chatter = 0.5 }").contains("`noise`"));
    assert!(refused("system = 0.9").contains("`system`"));
    assert!(refused("classes = { single = 1, dependent = 1 }").contains("`classes`"));
}

#[test]
fn among_distractors_there_are_many() {
    let (_dir, path) = file("tool.jsonl", &seal());
    let config = WorldConfig { classes: [(Class::Distractors, 1.0)].into(), ..WorldConfig::default() };
    let catalogue = Catalogue::open(&path, &config).unwrap();
    let offered = |index| catalogue.generate(&config, index).unwrap().dialogue.conversation.tools.len();
    assert!((0..40).map(offered).min() >= Some(4), "the one that is called and about five others");
}

#[test]
fn a_mix_without_a_class_that_needs_no_results_is_refused() {
    let (_dir, path) = file("tool.jsonl", &seal());
    let config = WorldConfig { classes: [(Class::Dependent, 1.0)].into(), ..WorldConfig::default() };
    let message = Catalogue::open(&path, &config).map(drop).unwrap_err().to_string();
    assert!(message.contains("`classes`") && message.contains("single"), "{message}");
}
