//! Whether to call at all, as precision and recall of both choices, and whether the calls keep to their schemas.

use crate::eval::judged::Figure;
use crate::eval::score::Call;
use crate::loss::Ratio;
use callsmith::chat::Tool;
use serde_json::{Value, json};

/// Counts over turns and calls.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Decision {
    /// Of the turns with a call, those that want one.
    call_precision: Ratio,
    /// Of the turns that want a call, those with one.
    call_recall: Ratio,
    no_call_precision: Ratio,
    no_call_recall: Ratio,
    /// Of the calls, those of a function on offer with arguments that its schema allows.
    schema_valid: Ratio,
}

impl Decision {
    /// Counts a turn and the calls that were made in it. Without any answer (`None`) nothing was decided: what was wanted has
    /// not come.
    pub(super) fn add(&mut self, tools: &[Tool], wanted: bool, calls: Option<&[Call]>) {
        let made = calls.map(|calls| !calls.is_empty());
        if let Some(made) = made {
            if made { &mut self.call_precision } else { &mut self.no_call_precision }.add(wanted == made);
        }
        if wanted { &mut self.call_recall } else { &mut self.no_call_recall }.add(made == Some(wanted));
        calls.unwrap_or_default().iter().for_each(|call| self.schema_valid.add(valid(tools, call)));
    }

    fn all(&self) -> [(&'static str, Ratio); 5] {
        [
            ("call precision", self.call_precision),
            ("call recall", self.call_recall),
            ("no-call precision", self.no_call_precision),
            ("no-call recall", self.no_call_recall),
            ("schema valid", self.schema_valid),
        ]
    }

    /// For people.
    pub(super) fn figures(&self) -> Vec<Figure> {
        self.all().into_iter().map(|(name, ratio)| Figure::of(name, ratio)).collect()
    }

    /// For programs.
    pub(super) fn to_json(self) -> Value {
        let share = |ratio: Ratio| json!({"right": ratio.right, "total": ratio.total, "share": ratio.share()});
        self.all().into_iter().map(|(name, ratio)| (name.replace([' ', '-'], "_"), share(ratio))).collect()
    }
}

fn valid(tools: &[Tool], (name, arguments): &Call) -> bool {
    let Some(tool) = tools.iter().find(|tool| tool.name == *name) else { return false };
    let schema = tool.parameters.clone().unwrap_or_else(|| json!({"type": "object", "maxProperties": 0}));
    arguments.is_object() && jsonschema::validator_for(&schema).is_ok_and(|schema| schema.is_valid(arguments))
}
