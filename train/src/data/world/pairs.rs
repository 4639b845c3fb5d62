//! Single calls in the shape of instruction_tune: `{instruction, input: {user_question, function_call_example: {name,
//! arguments}}, output: {function_call: {name, arguments}}}`.
//!
//! The example is another call of the same function with other values: it shows the name of every parameter that the answer
//! needs, and the answer is not in it.

use super::attempts;
use super::class::Class;
use super::config::WorldConfig;
use super::families::Op;
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
    let step = scene.step(deed, 0.35)?;
    let example = example(scene, &step)?;
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

/// Another call, with every parameter of this one and perhaps more.
fn example(scene: &mut Scene<'_>, step: &Step) -> Result<Step, Stuck> {
    let deed = step.deed;
    if deed.function.op == Op::Find {
        let record = scene.dice.pick_ref(scene.world.records(deed.family)).clone();
        let filling = step.filling.iter().map(|(field, _)| Some((*field, record.get(field.name)?.clone())));
        return Ok(Step { deed, filling: filling.collect::<Option<_>>().ok_or(Stuck)? });
    }
    let mut example = scene.step(deed, 1.0)?;
    let wanted =
        |name: &str| step.value(name).is_some() || deed.takes().any(|(field, _, must)| must && field.name == name);
    example.filling.retain(|(field, _)| wanted(field.name) || scene.dice.chance(0.3));
    Ok(example)
}
