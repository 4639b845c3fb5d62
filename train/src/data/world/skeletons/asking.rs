//! Classes where words come before the call: missing and impossible values, changes of mind, confirmations.

use crate::data::world::class::Move;
use crate::data::world::families::{Ask, Field, Function, ID, Op, Part};
use crate::data::world::kind::Kind;
use crate::data::world::offer::fill;
use crate::data::world::scene::{Scene, Step, Stuck};
use crate::data::world::speech::{to_user, words};

/// One or two required arguments are missing, are asked for, and given.
pub(super) fn missing_argument(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| function.takes.iter().any(|take| take.required))?;
    let step = scene.step(deed, 0.25)?;
    let mut missing: Vec<&'static Field> =
        deed.takes().filter(|(.., required)| *required).map(|(field, ..)| field).collect();
    scene.dice.shuffle(&mut missing);
    let most = if scene.dice.chance(0.3) { 2 } else { 1 };
    missing.truncate(most);
    let partial = missing.iter().fold(step.clone(), |step, field| step.without(field.name));
    let request = scene.request(&partial);
    scene.user_asks(&request);
    let question = missing.iter().map(|field| fill(field.question, deed.family)).collect::<Vec<_>>().join(" ");
    let question = scene.phrase_of("ask_intro", &question);
    scene.say(Move::Ask, question);
    reply(scene, &step, &missing);
    finish(scene, step)
}

/// The user gives one or two values.
fn reply(scene: &mut Scene<'_>, step: &Step, fields: &[&'static Field]) {
    let said: Vec<String> =
        fields.iter().filter_map(|field| Some(field.kind.said(step.value(field.name)?, &mut scene.dice))).collect();
    let text = match said.as_slice() {
        [first, second] => scene.phrase_of("reply_two", first).replacen("{}", second, 1),
        _ => scene.phrase_of("reply", &said.join(" ")),
    };
    scene.user_replies(text);
}

fn finish(scene: &mut Scene<'_>, step: Step) -> Result<(), Stuck> {
    let result = scene.succeed(&step)?;
    scene.answer(&[step], &[Ok(result)]);
    Ok(())
}

/// A value that cannot be, or an id that nothing has, is asked for again.
pub(super) fn invalid_value(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    if scene.dice.chance(0.3) {
        return unknown_id(scene);
    }
    let deed = scene.deed(|function| function.op != Op::Find && !function.takes.is_empty())?;
    let step = scene.step(deed, 0.6)?;
    let wrong: Vec<&'static Field> = step.filling.iter().map(|(field, _)| *field).collect();
    let field = scene.dice.pick(&wrong);
    let (said, why) = field.kind.impossible(&mut scene.dice).ok_or(Stuck)?;
    // Said in its phrase, after all others.
    let say = deed.takes().find(|(other, ..)| std::ptr::eq(*other, field)).map(|(_, say, _)| say).ok_or(Stuck)?;
    let phrase = scene.dice.pick(say).replace("{}", &said);
    let request = format!("{} {phrase}", scene.request(&step.clone().without(field.name)));
    scene.user_asks(&request);
    let question = fill(field.question, deed.family);
    let text = scene.phrase("invalid", &[("why", &why), ("question", &question)]);
    scene.say(Move::Ask, text);
    reply(scene, &step, &[field]);
    finish(scene, step)
}

fn unknown_id(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| function.is_keyed() && !matches!(function.op, Op::Move { .. }))?;
    let step = scene.step(deed, 0.2)?;
    let id = step.value(ID).and_then(|id| id.as_str()).ok_or(Stuck)?.to_owned();
    // With a function that shows what exists, the id would not be asked for: `other_function`.
    scene.withhold(deed.family, |op| matches!(op, Op::List(_) | Op::Find));
    let unknown = unknown(scene, &step);
    let wrong = step.clone().with(ID, &unknown.as_str().into());
    let request = scene.request(&wrong);
    scene.user_asks(&request);
    scene.call(&[wrong]);
    let text = scene.about("unknown_id", deed.family, &[("id", &unknown)]);
    scene.say(Move::Ask, text);
    let corrected = scene.phrase("corrected_id", &[("id", &id)]);
    scene.user_replies(corrected);
    finish(scene, step)
}

/// An id of the family that no record has.
pub(super) fn unknown(scene: &mut Scene<'_>, step: &Step) -> String {
    let family = step.deed.family;
    loop {
        let id = scene.world.ids.write(family.prefix, scene.dice.between(5000, 9999));
        if scene.world.records(family).iter().all(|record| record[ID] != id.as_str()) {
            return id;
        }
    }
}

/// The user changes what was just asked for, in the same sentence or after it was done.
pub(super) fn change_of_mind(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    match scene.dice.below(3) {
        0 => changed_in_the_sentence(scene),
        1 => changed_afterwards(scene),
        _ => referred_back(scene),
    }
}

/// "on Monday, no, wait: Tuesday": the last word counts.
fn changed_in_the_sentence(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| function.op == Op::Create || function.op == Op::Update)?;
    let step = scene.step(deed, 0.4)?;
    let (field, last) = step.filling.last().cloned().ok_or(Stuck)?;
    let first = field.kind.draw(&mut scene.dice, 0.0);
    if matches!(field.kind, Kind::Flag | Kind::Key) || first == last {
        return Err(Stuck);
    }
    let earlier = step.clone().with(field.name, &first);
    let said = field.kind.said(&last, &mut scene.dice);
    let request = format!("{}{}", scene.request(&earlier), scene.phrase_of("mind_inline", &said));
    scene.user_says(&request);
    finish(scene, step)
}

/// The record is made, and one of its values changed by the function that changes it.
fn changed_afterwards(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let (made, id) = make(scene)?;
    let family = made.deed.family;
    let update = scene.deed_of(family, |function| function.op == Op::Update)?;
    let world = scene.world.clone();
    let step = scene.step_in(&world, update, 0.0, Some(&id))?;
    let (field, value) = step.filling.iter().find(|(field, _)| field.part == Part::Given).cloned().ok_or(Stuck)?;
    if made.value(field.name).is_none_or(|before| *before == value) || step.filling.len() != 2 {
        return Err(Stuck);
    }
    let said = format!("the {} {}", words(field.name), field.kind.said(&value, &mut scene.dice));
    let text = scene.phrase_of("mind_change", &said);
    scene.user_says(&text);
    finish(scene, step)
}

/// The record is made, and then spoken of without its id.
fn referred_back(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let (made, id) = make(scene)?;
    let family = made.deed.family;
    // All that there is to know of it has just been returned.
    let uses = |function: &Function| function.is_keyed() && !matches!(function.op, Op::Move { .. } | Op::Get);
    let deed = scene.deed_of(family, uses)?;
    let world = scene.world.clone();
    let step = scene.step_in(&world, deed, 0.2, Some(&id))?;
    let [ask, words] = scene.worded(&step.clone().without(ID), |_| true);
    let short = scene.dice.chance(0.6);
    let request = match ask.strip_suffix(&format!("the {}", family.one)).filter(|_| short) {
        Some(start) => format!("{start}{}{words}", scene.phrase("it", &[])),
        None => format!("{}{words}", scene.phrase_of("refer_new", &ask)),
    };
    scene.user_asks(&request);
    finish(scene, step)
}

/// A record is made and reported.
fn make(scene: &mut Scene<'_>) -> Result<(Step, serde_json::Value), Stuck> {
    let create = scene.deed(|function| function.op == Op::Create)?;
    let made = scene.step(create, 0.5)?;
    let request = scene.request(&made);
    scene.user_asks(&request);
    let result = scene.succeed(&made)?;
    let id = result[ID].clone();
    scene.answer(std::slice::from_ref(&made), &[Ok(result)]);
    Ok((made, id))
}

/// A policy demands a confirmation of what changes anything, which the user gives or refuses. What only looks needs none.
pub(super) fn confirm_write(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    scene.system("policy");
    let looks = scene.dice.chance(0.35);
    let deed = scene.deed(|function| function.writes() != looks)?;
    let step = scene.step(deed, 0.25)?;
    let [ask, words] = scene.worded(&step, |ask: &Ask| looks || !ask.is_question());
    scene.user_asks(&format!("{ask}{words}"));
    if looks {
        return finish(scene, step);
    }
    let what = format!("{}{words}", to_user(&ask));
    let text = scene.phrase("confirm", &[("what", &what)]);
    scene.offer(deed);
    scene.say(Move::Confirm, text);
    if scene.dice.chance(0.7) {
        let yes = scene.phrase("yes", &[]);
        scene.user_says(&yes);
        return finish(scene, step);
    }
    let no = scene.phrase("no", &[]);
    scene.user_says(&no);
    let left = scene.phrase("left", &[]);
    scene.say(Move::Answer, left);
    Ok(())
}
