//! Single calls in the shape of instruction_tune: `{instruction, input: {user_question, function_call_example: {name,
//! arguments}}, output: {function_call: {name, arguments}}}`.
//!
//! The example is another call of the same function, with other arguments: the answer is not in the input.

use super::attempts;
use super::class::Class;
use super::config::WorldConfig;
use super::scene::{Scene, Step, Stuck};
use super::text::phrases;
use crate::data::DataError;
use callsmith::chat::{Conversation, Role};
use serde_json::{Value as Json, json};

/// The pair number `index`, made and verified as a dialogue of one call.
pub(super) fn pair(config: &WorldConfig, index: u64) -> Result<Json, DataError> {
    let (sample, script, example) = attempts(config, index, Class::Single, act_out)?;
    let Conversation { messages, .. } = &sample.dialogue.conversation;
    let question = messages.iter().find(|message| message.role == Role::User).map(|message| &message.content);
    let call = messages.iter().find_map(|message| message.tool_calls.first());
    // The same tasks for all functions, in turn.
    let tasks = phrases("task");
    let instruction = tasks[index as usize % tasks.len()];
    let offer = script.offers.iter().find(|offer| offer.deed == example.deed);
    let example =
        offer.map(|offer| json!({"name": offer.tool.name, "arguments": offer.shown(&example.act().arguments)}));
    Ok(json!({
        "instruction": instruction,
        "input": {"user_question": question, "function_call_example": example},
        "output": {"function_call": call.map(|call| json!({"name": call.name, "arguments": call.arguments}))},
    }))
}

/// One request and its call; returns another call.
fn act_out(scene: &mut Scene<'_>) -> Result<Step, Stuck> {
    let deed = scene.deed(|function| !function.takes.is_empty())?;
    let (step, example) = (scene.step(deed, 0.35)?, scene.step(deed, 0.5)?);
    let shared = step.filling.iter().any(|(field, value)| example.value(field.name) == Some(value));
    if shared {
        return Err(Stuck);
    }
    let request = scene.request(&step);
    scene.user_asks(&request);
    let result = scene.succeed(&step)?;
    scene.answer(&[step], &[Ok(result)]);
    Ok(example)
}
