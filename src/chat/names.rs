//! Function names with dots (`math.factorial`), as catalogues have them: a name that every dialect can write, and back.
//! Callers see their own names only; prompt and grammar see the others. Knows no wire format.

use super::{Conversation, ToolChoice};

/// The renamed functions of one conversation; most have none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Names {
    renamed: Vec<Renamed>,
}

#[derive(Debug, Clone, PartialEq)]
struct Renamed {
    given: String,
    legal: String,
}

impl Names {
    /// Gives every function a name without dots, unique among the tools; calls, results and the choice follow.
    pub fn legalise(conversation: &mut Conversation) -> Self {
        let mut names = Self::default();
        for index in 0..conversation.tools.len() {
            let given = conversation.tools[index].name.clone();
            if given.contains('.') {
                let legal = free(conversation, &without_dots(&given));
                conversation.tools[index].name.clone_from(&legal);
                names.renamed.push(Renamed { given, legal });
            }
        }
        for message in &mut conversation.messages {
            let calls = message.tool_calls.iter_mut().map(|call| &mut call.name);
            calls.chain(&mut message.name).for_each(|name| *name = names.legal(name));
        }
        if let ToolChoice::Named(name) = &mut conversation.tool_choice {
            *name = names.legal(name);
        }
        names
    }

    /// What the caller calls the function that the model calls `legal`.
    pub fn given<'a>(&'a self, legal: &'a str) -> &'a str {
        self.renamed.iter().find(|one| one.legal == legal).map_or(legal, |one| &one.given)
    }

    /// What the model calls the function that the caller calls `given`, even if it is no longer on offer.
    fn legal(&self, given: &str) -> String {
        let known = self.renamed.iter().find(|one| one.given == given);
        known.map_or_else(|| without_dots(given), |one| one.legal.clone())
    }
}

fn without_dots(name: &str) -> String {
    name.replace('.', "_")
}

/// `name`, with a number behind it as long as a tool has it already.
fn free(conversation: &Conversation, name: &str) -> String {
    let taken = |name: &str| conversation.tools.iter().any(|tool| tool.name == name);
    let (mut free, mut number) = (name.to_owned(), 1);
    while taken(&free) {
        number += 1;
        free = format!("{name}_{number}");
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role, Tool, ToolCall};
    use serde_json::json;

    fn conversation(tools: &[&str], called: &[&str]) -> Conversation {
        let tool = |name: &&str| Tool { name: (*name).to_owned(), description: None, parameters: None, strict: false };
        let call = |name: &&str| ToolCall { id: "c".into(), name: (*name).to_owned(), arguments: json!({}) };
        let calls = called.iter().map(call).collect();
        let result = Message { name: Some(called[0].to_owned()), ..Message::text(Role::Tool, "done") };
        Conversation {
            messages: vec![Message { tool_calls: calls, ..Message::text(Role::Assistant, "") }, result],
            tools: tools.iter().map(tool).collect(),
            tool_choice: ToolChoice::Named(called[0].to_owned()),
            parallel_tool_calls: true,
        }
    }

    #[test]
    fn names_with_dots_find_their_way_back() {
        let mut conversation = conversation(&["math.add", "math_add", "a.b.c", "plain"], &["plain"]);
        let names = Names::legalise(&mut conversation);
        let legal: Vec<&str> = conversation.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(legal, ["math_add_2", "math_add", "a_b_c", "plain"]);
        let given: Vec<&str> = legal.iter().map(|name| names.given(name)).collect();
        assert_eq!(given, ["math.add", "math_add", "a.b.c", "plain"]);
    }

    #[test]
    fn earlier_calls_results_and_the_choice_follow() {
        let mut conversation = conversation(&["math.add", "math_add"], &["math.add", "gone.now", "math_add"]);
        Names::legalise(&mut conversation);
        let called: Vec<&str> = conversation.messages[0].tool_calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(called, ["math_add_2", "gone_now", "math_add"]);
        assert_eq!(conversation.messages[1].name.as_deref(), Some("math_add_2"));
        assert_eq!(conversation.tool_choice, ToolChoice::Named("math_add_2".into()));
    }
}
