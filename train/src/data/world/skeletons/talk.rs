//! Classes whose last turn calls nothing: refusals, small talk, answers from what is known. And functions that come late.

use crate::data::world::class::Move;
use crate::data::world::families::{Deed, Field, Op, Part};
use crate::data::world::scene::{Scene, Step, Stuck, rivals};
use crate::data::world::speech::to_user;
use crate::data::world::state::Record;

/// No function does what the user wants.
pub(super) fn irrelevant(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|_| true)?;
    let step = scene.step(deed, 0.3)?;
    let all = deed.family.deeds(|_| true);
    if scene.dice.chance(0.5) {
        scene.withheld.extend(all);
    } else {
        near_miss(scene, deed, &all)?;
    }
    let request = scene.request(&step);
    decline(scene, &step, &request);
    Ok(())
}

/// Others of the family are on offer that work on the same things, and none that could do what is wanted.
fn near_miss(scene: &mut Scene<'_>, wanted: Deed, all: &[Deed]) -> Result<(), Stuck> {
    // A search can show what is wanted by its id.
    let shows = |other: Deed| wanted.function.op == Op::Get && other.function.op == Op::Find;
    let (serving, near): (Vec<Deed>, Vec<Deed>) =
        all.iter().copied().partition(|other| rivals(wanted, *other) || shows(*other));
    if near.is_empty() {
        return Err(Stuck);
    }
    scene.withheld.extend(serving);
    for _ in 0..1 + scene.dice.below(2) {
        let deed = scene.dice.pick(&near);
        scene.offer(deed);
    }
    Ok(())
}

fn decline(scene: &mut Scene<'_>, step: &Step, request: &str) {
    scene.user_asks(request);
    // Of the ways to ask for it, one that is no question.
    let task = step.deed.function.ask.iter().find(|ask| !ask.is_question());
    let text = scene.phrase_of("decline", &task.map_or_else(|| "do that".to_owned(), |ask| to_user(ask.text)));
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

/// Small talk: one thing, and perhaps another or a farewell.
pub(super) fn chat(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    scene.family();
    let opening = if scene.dice.chance(0.4) { "greeting" } else { "chat" };
    let first = scene.phrase(opening, &[]);
    let mut entries = vec![first];
    if scene.dice.chance(0.5) {
        let going_on = if scene.dice.chance(0.3) { "farewell" } else { "chat" };
        entries.push(scene.phrase(going_on, &[]));
    }
    entries.dedup();
    for entry in entries {
        let (said, answer) = entry.split_once(" => ").ok_or(Stuck)?;
        scene.user_says(said);
        scene.say(Move::Chat, answer);
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
        ask_about(scene, &step, &record);
    }
    Ok(())
}

fn ask_about(scene: &mut Scene<'_>, step: &Step, record: &Record) {
    let family = step.deed.family;
    let fields: Vec<&Field> = family.stored().filter(|field| field.part != Part::Key).collect();
    let field = scene.dice.pick(&fields);
    let question = scene.question_about(family, field, record);
    scene.user_says(&question);
    let text = scene.field_told(family, field, record);
    scene.say(Move::Answer, text);
}
