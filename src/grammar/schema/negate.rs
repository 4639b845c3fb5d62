//! Negation: a schema that holds exactly where another does not, or in fewer places where said.
//!
//! Every keyword fails in its own way; a schema fails where one of its keywords does. Keywords whose failure cannot be said in
//! what is enforced are refused by name.

use super::super::GrammarError;
use super::document::Draft;
use super::guard::MAX_EXPANDED_DEPTH;
use super::keywords::{MAX_COUNT, asserts, count};
use super::rewrite::Rewriter;
use super::{atom, refuse, too_complex};
use serde_json::{Value, json};

type Negated = Result<Value, GrammarError>;

impl Rewriter<'_, '_> {
    /// What holds where `node` does not.
    pub(super) fn negative(&self, node: &Value) -> Negated {
        let map = match node {
            Value::Bool(verdict) => return Ok(Value::Bool(!verdict)),
            Value::Object(map) => map,
            _ => return Ok(Value::Bool(false)),
        };
        let at = self.document.pointer(node);
        self.visit(node, map)?;
        if self.depth.get() > MAX_EXPANDED_DEPTH {
            let message =
                "a negation (`not`, `if`, a `oneOf` with overlapping branches) that refers to itself or is too deep";
            return Err(too_complex(at, message));
        }
        self.depth.set(self.depth.get() + 1);
        let ways: Result<Vec<Value>, _> = map.iter().map(|(key, value)| self.failure(node, key, value)).collect();
        self.depth.set(self.depth.get() - 1);
        self.any(ways?, at)
    }

    /// Where one keyword fails.
    fn failure(&self, node: &Value, keyword: &str, value: &Value) -> Negated {
        let at = &self.at(node, keyword);
        match keyword {
            "type" => match atom::names_of(!atom::types_of(node)) {
                names if names.is_empty() => Ok(Value::Bool(false)),
                names => self.made(json!({"type": names}), at),
            },
            "enum" | "const" => self.other_constant(node, at),
            "properties" => self.wrong_property(value, at),
            "required" => self.missing_property(value, at),
            "allOf" | "anyOf" | "oneOf" => self.failed_combination(keyword, value, at),
            "not" => self.positive(value),
            "$ref" => self.failed_reference(value),
            "if" => self.failed_condition(node, at),
            "dependentRequired" | "dependentSchemas" | "dependencies" => self.failed_dependencies(value, at),
            "contains" => self.contains_nothing(node, at),
            "items" | "prefixItems" => self.wrong_item(node, value, at),
            "then" | "else" | "minContains" | "maxContains" => Ok(Value::Bool(false)),
            keyword if !asserts(keyword) || says_nothing(keyword, value) => Ok(Value::Bool(false)),
            keyword => self.out_of_bounds(keyword, value, at),
        }
    }

    /// Bounds fail on the other side of the bound.
    fn out_of_bounds(&self, keyword: &str, value: &Value, at: &str) -> Negated {
        let (kind, opposite) = match keyword {
            "minimum" => ("number", "exclusiveMaximum"),
            "maximum" => ("number", "exclusiveMinimum"),
            "exclusiveMinimum" => ("number", "maximum"),
            "exclusiveMaximum" => ("number", "minimum"),
            "minLength" => ("string", "maxLength"),
            "maxLength" => ("string", "minLength"),
            "minItems" => ("array", "maxItems"),
            "maxItems" => ("array", "minItems"),
            "minProperties" => ("object", "maxProperties"),
            "maxProperties" => ("object", "minProperties"),
            _ => return Err(refuse(at, not_negatable(keyword))),
        };
        let bound = match (count(value), kind) {
            (_, "number") => value.clone(),
            (Some(least), _) if keyword.starts_with("min") => match least.checked_sub(1) {
                Some(most) => json!(most),
                None => return Ok(Value::Bool(false)),
            },
            (Some(most), _) if most < MAX_COUNT => json!(most + 1),
            _ => return Err(too_complex(at, format!("the limit inside a negation is {}", MAX_COUNT - 1))),
        };
        self.made(json!({"type": kind, opposite: bound}), at)
    }

    fn other_constant(&self, node: &Value, at: &str) -> Negated {
        let values = atom::constants(node).unwrap_or_default();
        if values.iter().any(|value| value.is_array() || value.is_object()) {
            return Err(refuse(at, "list and object values in `enum`/`const` cannot be negated"));
        }
        self.made(json!({"not": {"enum": values}}), at)
    }

    fn wrong_property(&self, value: &Value, at: &str) -> Negated {
        let mut ways = Vec::new();
        for (name, schema) in value.as_object().into_iter().flatten() {
            let wrong = self.negative(schema)?;
            if wrong != Value::Bool(false) {
                ways.push(self.made(json!({"type": "object", "required": [name], "properties": {name: wrong}}), at)?);
            }
        }
        self.any(ways, at)
    }

    fn missing_property(&self, names: &Value, at: &str) -> Negated {
        let names = names.as_array().into_iter().flatten().filter_map(Value::as_str);
        let ways: Result<Vec<Value>, _> =
            names.map(|name| self.made(json!({"type": "object", "properties": {name: false}}), at)).collect();
        self.any(ways?, at)
    }

    fn failed_combination(&self, keyword: &str, value: &Value, at: &str) -> Negated {
        let branches = value.as_array().map_or(&[][..], Vec::as_slice);
        let failed: Vec<Value> = branches.iter().map(|branch| self.negative(branch)).collect::<Result<_, _>>()?;
        match keyword {
            "allOf" => self.any(failed, at),
            "anyOf" => self.all(failed, at),
            _ => {
                let mut ways = vec![self.all(failed, at)?];
                for (index, one) in branches.iter().enumerate() {
                    for other in &branches[index + 1..] {
                        ways.push(self.all(vec![self.positive(one)?, self.positive(other)?], at)?);
                    }
                }
                self.any(ways, at)
            }
        }
    }

    fn failed_reference(&self, value: &Value) -> Negated {
        let target = value.as_str().and_then(|text| self.document.resolve(text));
        target.map_or(Ok(Value::Bool(false)), |(_, node)| self.negative(node))
    }

    fn failed_condition(&self, node: &Value, at: &str) -> Negated {
        let Some(condition) = node.get("if") else { return Ok(Value::Bool(false)) };
        let fails = |keyword: &str| node.get(keyword).map_or(Ok(Value::Bool(false)), |schema| self.negative(schema));
        let (then, otherwise) = (fails("then")?, fails("else")?);
        let mut ways = Vec::new();
        if then != Value::Bool(false) {
            ways.push(self.all(vec![self.positive(condition)?, then], at)?);
        }
        if otherwise != Value::Bool(false) {
            ways.push(self.all(vec![self.negative(condition)?, otherwise], at)?);
        }
        self.any(ways, at)
    }

    /// A name is there and its consequence fails.
    fn failed_dependencies(&self, value: &Value, at: &str) -> Negated {
        let mut ways = Vec::new();
        for (name, consequence) in value.as_object().into_iter().flatten() {
            let present = self.made(json!({"type": "object", "required": [name]}), at)?;
            let fails = if consequence.is_array() {
                self.missing_property(consequence, at)?
            } else {
                self.negative(consequence)?
            };
            ways.push(self.all(vec![present, fails], at)?);
        }
        self.any(ways, at)
    }

    /// An item at its place fails: in a tuple any of them, in a list one of the first few.
    fn wrong_item(&self, node: &Value, value: &Value, at: &str) -> Negated {
        let Some(tuple) = value.as_array() else {
            let alone = node.get("prefixItems").is_none();
            return match self.negative(value)? {
                Value::Bool(false) => Ok(Value::Bool(false)),
                wrong if alone => self.has_item(&wrong, at),
                _ => Err(refuse(at, not_negatable("items"))),
            };
        };
        let mut ways = Vec::new();
        for (index, schema) in tuple.iter().enumerate() {
            self.spend(index, at)?;
            let mut first = vec![Value::Bool(true); index];
            first.push(self.negative(schema)?);
            if first.last() != Some(&Value::Bool(false)) {
                ways.push(self.tuple(&first, &Value::Bool(true), index + 1, at)?);
            }
        }
        self.any(ways, at)
    }

    /// `contains` fails in arrays without such an item.
    fn contains_nothing(&self, node: &Value, at: &str) -> Negated {
        let bound = |keyword: &str| node.get(keyword).filter(|_| self.document.draft >= Draft::Nineteen);
        if bound("maxContains").is_some() || bound("minContains").is_some_and(|least| count(least) != Some(1)) {
            return Err(refuse(at, not_negatable("contains")));
        }
        let wrong = node.get("contains").map_or(Ok(Value::Bool(false)), |schema| self.negative(schema))?;
        self.tuple(&[], &wrong, 0, at)
    }
}

/// Values that allow everything.
fn says_nothing(keyword: &str, value: &Value) -> bool {
    match keyword {
        "uniqueItems" => value == &Value::Bool(false),
        "patternProperties" => value.as_object().is_some_and(serde_json::Map::is_empty),
        _ => {
            super::guard::holds_schema(keyword)
                && (value == &Value::Bool(true) || value.as_object().is_some_and(serde_json::Map::is_empty))
        }
    }
}

fn not_negatable(keyword: &str) -> String {
    format!(
        "`{keyword}` cannot be negated exactly (it stands in a `not`, an `if`, or a `oneOf` whose branches overlap); say it \
         another way"
    )
}
