//! Whether a template that shows calls shows them as its dialect writes them: what the one shows a model, the other forces.

use super::{ChatTemplate, PROBED, Segment};
use crate::chat::dialect::{Delta, Dialect};
use crate::chat::{ChatError, Conversation, Message, Role, SPACE, Tool, ToolCall, reasoning};
use serde_json::{Value, json};

impl ChatTemplate {
    /// Lets the template show a call, and the dialect read it.
    ///
    /// # Errors
    /// [`ChatError::Disagreement`] when the dialect reads something else. A template that shows no calls by itself, or not
    /// this conversation, passes: its calls are written by the dialect, or are for others to judge.
    pub fn check_dialect(&self) -> Result<(), ChatError> {
        let Some(shown) = self.shown_call().filter(|shown| shown.contains(PROBED)) else { return Ok(()) };
        if reads(self.dialect.as_ref(), &shown) {
            return Ok(());
        }
        Err(ChatError::Disagreement {
            shown: shown.chars().take(200).collect(),
            dialect: self.dialect.name().to_owned(),
            written: self.dialect.render_calls(&[call()]),
        })
    }

    /// An assistant turn that makes [`call`], as the template shows it and a parser sees it.
    fn shown_call(&self) -> Option<String> {
        if !(self.abilities.tools && self.abilities.calls) {
            return None;
        }
        let messages = vec![Message::text(Role::User, "Where is it?")];
        let mut conversation = Conversation { messages, tools: vec![tool()], ..Conversation::default() };
        let head = self.render(&conversation, true).ok()?;
        let turn = Message { tool_calls: vec![call()], ..Message::text(Role::Assistant, "") };
        conversation.messages.push(turn);
        let whole = self.text(&self.render(&conversation, false).ok()?);
        let answer = whole.strip_prefix(&self.text(&head))?;
        Some(reasoning::split(self.reasoning_after(&head), answer).rest.trim_matches(SPACE).to_owned())
    }

    /// Of control tokens, those of the dialect alone are shown to parsers.
    fn text(&self, segments: &[Segment]) -> String {
        let fixed = self.dialect.fixed_texts();
        let shown = |segment: &Segment| match segment {
            Segment::Control(token) if !fixed.iter().any(|text| text.contains(token.as_str())) => String::new(),
            Segment::Control(text) | Segment::Text(text) => text.clone(),
        };
        segments.iter().map(shown).collect()
    }
}

fn reads(dialect: &dyn Dialect, text: &str) -> bool {
    let (mut name, mut arguments) = (String::new(), String::new());
    let mut parser = dialect.parser(&[(PROBED.to_owned(), parameters())]);
    for delta in parser.push(text).into_iter().chain(parser.finish()) {
        match delta {
            Delta::CallStart { name: found, .. } => name.push_str(&found),
            Delta::CallArguments { fragment, .. } => arguments.push_str(&fragment),
            _ => {}
        }
    }
    name == PROBED && serde_json::from_str::<Value>(&arguments).is_ok_and(|found| found == call().arguments)
}

fn parameters() -> Value {
    json!({"type": "object", "properties": {"island": {"type": "string"}}, "required": ["island"], "additionalProperties": false})
}

fn tool() -> Tool {
    Tool { name: PROBED.to_owned(), description: None, parameters: Some(parameters()), strict: false }
}

fn call() -> ToolCall {
    // Nine letters, as Mistral's templates want them.
    ToolCall { id: "aaaaaaaaa".to_owned(), name: PROBED.to_owned(), arguments: json!({"island": "Fair Isle"}) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::dialect::{by_name, for_template};
    use crate::testing::data_set;

    const EMBEDDED: &str = include_str!("../../../models/embedded/chat_template.jinja");

    fn template(source: &str, dialect: &str) -> ChatTemplate {
        let control = ["<|end|>", "<|im_end|>", "<|eot_id|>", "</s>", "[TOOL_CALLS]"].map(str::to_owned).to_vec();
        let (bos, eos) = (Some("<s>".to_owned()), Some("</s>".to_owned()));
        ChatTemplate::new(Some(source), by_name(dialect).unwrap(), control, bos, eos).unwrap()
    }

    #[test]
    fn the_templates_of_real_models_agree_with_the_dialects_that_recognise_them() {
        template(EMBEDDED, "tool_uses").check_dialect().unwrap();
        let Some(folder) = data_set("chat-templates") else { return };
        let mut checked = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(source) = std::fs::read_to_string(&path) else { continue };
            let dialect = for_template(Some(&source)).unwrap();
            if path.extension().is_some_and(|ending| ending == "jinja") && dialect.name() != "tool_uses" {
                let agreed = template(&source, dialect.name()).check_dialect();
                agreed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                checked += 1;
            }
        }
        assert!(checked > 4, "{checked}");
    }

    #[test]
    fn a_template_that_shows_calls_otherwise_than_its_dialect_is_found_out() {
        for dialect in ["hermes", "llama3", "mistral", "mistral_args", "llama_functions", "viggo"] {
            let error = template(EMBEDDED, dialect).check_dialect().unwrap_err().to_string();
            assert!(error.contains("functions.find_lighthouse") && error.contains(dialect), "{error}");
        }
    }

    #[test]
    fn a_template_that_leaves_calls_to_the_dialect_agrees_with_any() {
        let plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        let mute = "{{ tools }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        let picky = "{{ tools }}{{ raise_exception('no') }}";
        for source in [plain, mute, picky] {
            for dialect in ["tool_uses", "hermes", "viggo"] {
                template(source, dialect).check_dialect().unwrap();
            }
        }
    }
}
