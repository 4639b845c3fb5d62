//! Earlier turns as every template can show them: results in the order of their calls, and one call a turn for templates that
//! know no more. Knows no template and no wire format.

use super::{Message, Role, ToolCall};
use std::borrow::Cow;

/// The messages as a template can show them that knows several calls a turn, or one alone.
pub(super) fn shown(messages: &[Message], several_calls: bool) -> Cow<'_, [Message]> {
    if messages.iter().all(|message| message.tool_calls.len() < 2) {
        return Cow::Borrowed(messages);
    }
    let ordered = in_call_order(messages.to_vec());
    Cow::Owned(if several_calls { ordered } else { one_call_a_turn(ordered) })
}

/// The results after each assistant turn in the order of its calls; formats without call ids rely on it.
fn in_call_order(mut ordered: Vec<Message>) -> Vec<Message> {
    for start in 0..ordered.len() {
        if ordered[start].tool_calls.len() < 2 {
            continue;
        }
        let (turn, rest) = ordered.split_at_mut(start + 1);
        let results = rest.iter().take_while(|message| message.role == Role::Tool).count();
        rest[..results].sort_by_cached_key(|result| place(&turn[start].tool_calls, result));
    }
    ordered
}

/// A turn of several calls as several turns of one call, each followed by its results.
fn one_call_a_turn(messages: Vec<Message>) -> Vec<Message> {
    let mut split = Vec::with_capacity(messages.len());
    let mut rest = messages.into_iter().peekable();
    while let Some(mut message) = rest.next() {
        let calls = std::mem::take(&mut message.tool_calls);
        if calls.len() < 2 {
            split.push(Message { tool_calls: calls, ..message });
            continue;
        }
        let mut results: Vec<Message> = std::iter::from_fn(|| rest.next_if(|next| next.role == Role::Tool)).collect();
        for call in calls {
            let (own, others) = results.into_iter().partition(|result| answers(&call, result));
            results = others;
            split.push(Message { tool_calls: vec![call], ..message.clone() });
            split.extend::<Vec<_>>(own);
            // What was said beside the calls was said once.
            (message.content, message.reasoning) = (String::new(), None);
        }
        split.extend(results);
    }
    split
}

fn answers(call: &ToolCall, result: &Message) -> bool {
    result.tool_call_id.as_deref() == Some(call.id.as_str())
}

fn place(calls: &[ToolCall], result: &Message) -> usize {
    calls.iter().position(|call| answers(call, result)).unwrap_or(calls.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn calls(content: &str, ids: &[&str]) -> Message {
        let call = |id: &&str| ToolCall { id: (*id).to_owned(), name: format!("f{id}"), arguments: json!({}) };
        Message { tool_calls: ids.iter().map(call).collect(), ..Message::text(Role::Assistant, content) }
    }

    fn result(id: &str) -> Message {
        Message { tool_call_id: Some(id.to_owned()), ..Message::text(Role::Tool, format!("result {id}")) }
    }

    #[test]
    fn results_follow_the_order_of_the_calls() {
        let given =
            [calls("", &["a", "b", "c"]), result("c"), result("a"), result("b"), calls("", &["d"]), result("d")];
        let shown: Vec<_> = in_call_order(given.to_vec()).into_iter().map(|message| message.content).collect();
        assert_eq!(shown, ["", "result a", "result b", "result c", "", "result d"]);
    }

    #[test]
    fn several_calls_become_several_turns_each_with_its_result() {
        let given =
            vec![calls("Let me see.", &["a", "b"]), result("a"), result("b"), Message::text(Role::User, "Thanks")];
        let split = one_call_a_turn(given);
        let shown: Vec<_> = split.iter().map(|message| (message.tool_calls.len(), message.content.as_str())).collect();
        assert_eq!(shown, [(1, "Let me see."), (0, "result a"), (1, ""), (0, "result b"), (0, "Thanks")]);
    }
}
