//! Classes whose last turn calls nothing: refusals, small talk, answers from what is known. And functions that come late.

use crate::data::synth::values::capitalise;
use crate::data::world::class::Move;
use crate::data::world::families::{ID, Op, Part};
use crate::data::world::scene::{Scene, Step, Stuck};
use crate::data::world::speech::{plain, words};
use crate::data::world::state::Record;
use serde_json::Value as Json;

/// No function does what the user wants.
pub(super) fn irrelevant(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|_| true)?;
    let step = scene.step(deed, 0.3)?;
    // None of its family is on offer: another one might do.
    scene.withheld.extend(deed.family.deeds(|_| true));
    let request = scene.request(&step);
    decline(scene, &step, &request);
    Ok(())
}

fn decline(scene: &mut Scene<'_>, step: &Step, request: &str) {
    scene.user_asks(request);
    // Of the ways to ask for it, one that is no question.
    let task = step.deed.function.ask.iter().find(|ask| !ask.starts_with("wh") && !ask.starts_with("how"));
    let text = scene.phrase_of("decline", task.unwrap_or(&"do that"));
    scene.say(Move::Decline, text);
}

/// What was refused works once the function is there. As the functions are shown at the beginning of a prompt, the refusal
/// stands beside the new function, and is not trained on; class `irrelevant` has it without.
pub(super) fn function_supplied_later(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|_| true)?;
    let step = scene.step(deed, 0.3)?;
    let request = scene.request(&step);
    decline(scene, &step, &request);
    scene.untrain();
    let supplied = scene.phrase("supplied", &[]);
    scene.user_says(&supplied);
    let result = scene.succeed(&step)?;
    scene.answer(&[step], &[Ok(result)]);
    Ok(())
}

/// Small talk.
pub(super) fn chat(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    scene.family();
    for _ in 0..1 + scene.dice.below(2) {
        let entry = scene.phrase("chat", &[]);
        let (said, answer) = entry.split_once(" => ").ok_or(Stuck)?;
        scene.user_says(said);
        scene.say(Move::Chat, capitalise(answer));
    }
    Ok(())
}

/// A question about a record that was just returned, whose answer is in it or not.
pub(super) fn answer_from_result(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| matches!(function.op, Op::Get | Op::Last | Op::Create))?;
    let step = scene.step(deed, 0.6)?;
    let request = scene.request(&step);
    scene.user_asks(&request);
    let result = scene.succeed(&step)?;
    scene.answer(std::slice::from_ref(&step), &[Ok(result.clone())]);
    let record: Record = result.as_object().cloned().ok_or(Stuck)?;
    for _ in 0..1 + scene.dice.below(2) {
        ask_about(scene, &step, &record)?;
    }
    Ok(())
}

fn ask_about(scene: &mut Scene<'_>, step: &Step, record: &Record) -> Result<(), Stuck> {
    let family = step.deed.family;
    let fields: Vec<_> = family.stored().filter(|field| field.part != Part::Key).collect();
    let field = scene.dice.pick(&fields);
    let id = plain(&record[ID]);
    let value = record.get(field.name).filter(|value| !matches!(value, Json::Array(items) if items.is_empty()));
    let question = scene.about("about_field", family, &[("field", &words(field.name)), ("id", &id)]);
    scene.user_says(&question);
    let text = match value {
        Some(value) => {
            scene.phrase("about_field_answer", &[("field", &words(field.name)), ("id", &id), ("value", &plain(value))])
        }
        None => scene.phrase("unlike", &[("field", &words(field.name)), ("id", &id)]),
    };
    scene.say(Move::Answer, text);
    Ok(())
}
