//! Schemas from bytes: small, over few names and values, so that their parts often meet. Knows no grammar.

use serde_json::{Map, Value, json};

/// Levels of schemas inside schemas.
const DEPTH: usize = 3;

/// A schema that the bytes choose; every byte string gives one.
pub fn schema_from(bytes: &[u8]) -> Value {
    let mut maker = Maker { bytes, used: 0 };
    let mut schema = maker.schema(DEPTH);
    if let (0, Some(map)) = (maker.below(3), schema.as_object_mut()) {
        map.insert("$defs".into(), json!({"a": maker.schema(1), "b": maker.schema(2)}));
    }
    schema
}

struct Maker<'b> {
    bytes: &'b [u8],
    used: usize,
}

const TYPES: [&str; 7] = ["string", "integer", "null", "boolean", "number", "array", "object"];
const VALUES: [&str; 10] = ["0", "1", "2.5", "1.5", "-0.5", "\"a\"", "\"ab\"", "\"\"", "null", "true"];

impl Maker<'_> {
    /// The next choice; beyond the last byte always the first.
    fn below(&mut self, limit: usize) -> usize {
        let byte = self.bytes.get(self.used).copied().unwrap_or(0);
        self.used += 1;
        usize::from(byte) % limit
    }

    fn name(&mut self) -> String {
        ["a", "b", "c", "ab"][self.below(4)].to_owned()
    }

    fn value(&mut self) -> Value {
        serde_json::from_str(VALUES[self.below(VALUES.len())]).unwrap_or_default()
    }

    fn names(&mut self) -> Vec<String> {
        let mut names: Vec<String> = (0..1 + self.below(2)).map(|_| self.name()).collect();
        names.dedup();
        names
    }

    fn list(&mut self, depth: usize) -> Vec<Value> {
        (0..1 + self.below(3)).map(|_| self.schema(depth - 1)).collect()
    }

    fn map(&mut self, depth: usize) -> Map<String, Value> {
        (0..self.below(4)).map(|_| (self.name(), self.schema(depth - 1))).collect()
    }

    fn schema(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 8 } else { 28 }) {
            0 => json!({"type": TYPES[self.below(7)]}),
            1 => json!({"enum": (0..1 + self.below(4)).map(|_| self.value()).collect::<Vec<_>>()}),
            2 => json!({"const": self.value()}),
            3 => self.bounds(),
            4 => json!({"type": [TYPES[self.below(7)], "string"], "pattern": (["^a", "b$", "^[ab]*$"][self.below(3)])}),
            5 => json!(self.below(4) > 0),
            6 => json!({"type": "integer", "minimum": self.below(3), "maximum": self.below(6)}),
            7 => json!({"$ref": (["#/$defs/a", "#/$defs/b"][self.below(2)])}),
            kind @ 8..=15 => self.common(kind, depth),
            kind @ 16..=23 => self.rewritten(kind, depth),
            kind => self.contested(kind, depth - 1),
        }
    }

    fn bounds(&mut self) -> Value {
        let keywords = ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength"];
        let more = ["maxLength", "minItems", "maxItems", "minProperties", "maxProperties"];
        let all = [&keywords[..], &more[..]].concat();
        let mut schema = Map::new();
        for _ in 0..1 + self.below(2) {
            schema.insert(all[self.below(all.len())].into(), json!(1 + self.below(3)));
        }
        Value::Object(schema)
    }

    fn common(&mut self, kind: usize, depth: usize) -> Value {
        match kind {
            8 => json!({"anyOf": self.list(depth)}),
            9 => json!({"allOf": self.list(depth)}),
            10 => json!({"oneOf": self.list(depth)}),
            11 => {
                json!({"type": "array", "prefixItems": self.list(depth), "items": self.schema(depth - 1), "maxItems": 3})
            }
            12 => json!({"properties": self.map(depth), "required": self.names()}),
            13 => {
                json!({"type": "object", "properties": self.map(depth), "additionalProperties": self.schema(depth - 1)})
            }
            14 => {
                json!({"properties": self.map(depth), "minProperties": self.below(3), "maxProperties": self.below(4)})
            }
            _ => json!({"type": "object", "properties": self.map(depth), "anyOf": self.list(depth)}),
        }
    }

    fn rewritten(&mut self, kind: usize, depth: usize) -> Value {
        let inner = depth - 1;
        match kind {
            16 => json!({"type": TYPES[self.below(7)], "not": self.schema(inner)}),
            17 => json!({"if": self.schema(inner), "then": self.schema(inner), "else": self.schema(inner)}),
            18 => {
                json!({"type": "object", "properties": self.map(depth), "dependentRequired": {self.name(): self.names()}})
            }
            19 => json!({"properties": self.map(depth), "dependentSchemas": {self.name(): self.schema(inner)}}),
            20 => {
                let mut schema =
                    json!({"type": "array", "contains": self.schema(inner), "maxItems": 1 + self.below(3)});
                if self.below(2) == 0 {
                    (schema["minContains"], schema["maxContains"]) = (json!(self.below(3)), json!(self.below(3)));
                }
                schema
            }
            21 => {
                let open = json!(self.below(2) == 0);
                json!({"type": "object", "properties": self.map(depth), "propertyNames": self.schema(inner), "additionalProperties": open})
            }
            22 => json!({"type": "array", "items": self.schema(inner), "uniqueItems": true, "maxItems": self.below(4)}),
            _ => {
                let keyword = ["unevaluatedProperties", "unevaluatedItems"][self.below(2)];
                json!({"properties": self.map(depth), keyword: self.schema(inner), "anyOf": self.list(depth)})
            }
        }
    }

    /// Branches that a narrow reading of one another would take for exclusive, and negations of negations.
    fn contested(&mut self, kind: usize, inner: usize) -> Value {
        match kind {
            24 => {
                let (base, except) = (self.schema(inner), self.schema(inner));
                json!({"oneOf": [base, {"allOf": [base, {"not": except}]}]})
            }
            25 => {
                let values: Vec<Value> = (0..1 + self.below(4)).map(|_| self.value()).collect();
                let number = json!({"type": "number", "not": {"type": (["integer", "string"][self.below(2)])}});
                json!({"oneOf": [{"enum": values}, number, self.schema(inner)]})
            }
            26 => {
                let list = json!({"type": "array", "prefixItems": [self.schema(0)], "items": self.schema(0), "minItems": 6 + self.below(4)});
                let rival = json!({"type": "array", "contains": self.schema(0), "minContains": 5 + self.below(4)});
                json!({"oneOf": [list, rival]})
            }
            _ => {
                let denied =
                    json!({(["not", "contains", "if"][self.below(3)]): self.schema(inner), "else": self.schema(0)});
                json!({"type": TYPES[self.below(7)], "not": {"oneOf": [denied, self.schema(0)]}})
            }
        }
    }
}
