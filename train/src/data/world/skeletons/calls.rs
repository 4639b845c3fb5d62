//! Classes whose calls take everything from the request: one call, several in a turn, unusual arguments, long results.

use crate::data::synth::values;
use crate::data::world::families::{self, Field, Op};
use crate::data::world::kind::Kind;
use crate::data::world::scene::{Scene, Step, Stuck};
use serde_json::Value as Json;

/// A request, a call, an answer.
pub(super) fn single(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| !function.takes.is_empty())?;
    let step = scene.step(deed, 0.35)?;
    let request = scene.request(&step);
    one(scene, &request, step)
}

/// A function without arguments.
pub(super) fn zero_arguments(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| function.takes.is_empty())?;
    let step = scene.step(deed, 0.0)?;
    let request = scene.request(&step);
    one(scene, &request, step)
}

/// Everything that a function takes, with unusual writing.
pub(super) fn rich(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    scene.unicode = 0.5;
    let deed = scene.deed(|function| function.op == Op::Create)?;
    let unusual = deed.takes().any(|(field, ..)| !matches!(field.kind, Kind::Key | Kind::Plain(_)));
    if !unusual && scene.dice.chance(0.7) {
        return Err(Stuck);
    }
    let step = scene.step(deed, 0.9)?;
    let request = scene.request(&step);
    one(scene, &request, step)
}

fn one(scene: &mut Scene<'_>, request: &str, step: Step) -> Result<(), Stuck> {
    scene.user_asks(request);
    let result = scene.succeed(&step)?;
    scene.answer(&[step], &[Ok(result)]);
    Ok(())
}

/// Two or three calls of one function.
pub(super) fn parallel_same(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| !function.takes.is_empty())?;
    let count = if scene.dice.chance(0.7) { 2 } else { 3 };
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..count {
        let step = scene.step(deed, 0.2)?;
        // Calls of one turn do not wait for each other: none works on what another changes.
        if steps.iter().any(|other| touch(other, &step)) {
            return Err(Stuck);
        }
        steps.push(step);
    }
    // By anything else than what tells records apart, "in Oslo and cancelled" would be one search.
    let named = |step: &Step| match step.filling.as_slice() {
        [(field, _)] => field.kind == Kind::Key || std::ptr::eq(*field, deed.family.title()),
        _ => false,
    };
    let request = if steps.iter().all(named) { short(scene, &steps) } else { joined(scene, &steps) };
    together(scene, &request, &steps)
}

/// Calls of two or three functions.
pub(super) fn parallel_different(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let count = if scene.dice.chance(0.75) { 2 } else { 3 };
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..count {
        let deed = scene.deed(|_| true)?;
        let step = scene.step(deed, 0.2)?;
        let clash = |other: &Step| other.deed == deed || touch(other, &step) || reads_all(other, &step);
        if steps.iter().any(clash) {
            return Err(Stuck);
        }
        steps.push(step);
    }
    let request = joined(scene, &steps);
    together(scene, &request, &steps)
}

/// Whether two calls are the same, or work on the same record.
pub(super) fn touch(one: &Step, other: &Step) -> bool {
    let ids = |step: &Step| {
        step.filling
            .iter()
            .filter(|(field, _)| field.kind == Kind::Key)
            .map(|(_, id)| id.clone())
            .collect::<Vec<Json>>()
    };
    let same = one.deed == other.deed && one.act().arguments == other.act().arguments;
    same || ids(one).iter().any(|id| ids(other).contains(id))
}

/// Whether one call reads what another one of its family might change.
fn reads_all(one: &Step, other: &Step) -> bool {
    std::ptr::eq(one.deed.family, other.deed.family) && (one.deed.function.writes() || other.deed.function.writes())
}

/// "cancel the events EVT-1 and EVT-2".
fn short(scene: &mut Scene<'_>, steps: &[Step]) -> String {
    let (deed, field) = (steps[0].deed, steps[0].filling[0].0);
    let [one, many] = [deed.family.one, deed.family.many].map(|noun| format!("the {noun}"));
    let ask = scene.ask(deed, |ask| !ask.is_question()).replace(&one, &many);
    let said: Vec<String> = steps.iter().map(|step| field.kind.said(&step.filling[0].1, &mut scene.dice)).collect();
    format!("{ask} {}", field.say[0].replace("{}", &values::join(&said)))
}

/// All requests in one sentence.
pub(super) fn joined(scene: &mut Scene<'_>, steps: &[Step]) -> String {
    let mut text = scene.order(&steps[0]);
    for step in &steps[1..] {
        let next = scene.order(step);
        text = scene.phrase_of("join", &text).replacen("{}", &next, 1);
    }
    text
}

fn together(scene: &mut Scene<'_>, request: &str, steps: &[Step]) -> Result<(), Stuck> {
    scene.user_asks(request);
    steps.iter().try_for_each(|step| scene.intend(step))?;
    let outcomes = scene.call(steps);
    if outcomes.iter().any(Result::is_err) {
        return Err(Stuck);
    }
    scene.answer(steps, &outcomes);
    Ok(())
}

/// Many records, of which the user then means one.
pub(super) fn long_result(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let families = families::families(scene.config.split);
    let family = scene.dice.pick(&families);
    let count = 10 + scene.dice.below(11);
    scene.let_in(family, count);
    let deed = scene.deed_of(family, |function| matches!(function.op, Op::List(_) | Op::Find))?;
    let mut step = scene.step(deed, 0.0)?;
    let searched = deed.function.op == Op::Find;
    if searched {
        // By something that many have in common.
        let choice = |field: &&'static Field| matches!(field.kind, Kind::Plain(values::Kind::Enum(_)));
        let fields: Vec<_> = deed.takes().map(|(field, ..)| field).filter(choice).collect();
        let field = if fields.is_empty() { return Err(Stuck) } else { scene.dice.pick(&fields) };
        step.filling = vec![(field, scene.dice.pick_ref(scene.world.records(family))[field.name].clone())];
    }
    let request = scene.request(&step);
    scene.user_asks(&request);
    let result = scene.succeed(&step)?;
    let found = result[family.many].as_array().cloned().unwrap_or_default();
    if found.len() < 6 {
        return Err(Stuck);
    }
    scene.answer(&[step], &[Ok(result)]);
    let chosen = scene.dice.pick_ref(&found)["id"].clone();
    // A search returns whole records: there is nothing more to get.
    let uses = |op: &Op| !(matches!(op, Op::Move { .. }) || searched && *op == Op::Get);
    let deed = scene.deed_of(family, |function| function.is_keyed() && uses(&function.op))?;
    let world = scene.world.clone();
    let step = scene.step_in(&world, deed, 0.2, Some(&chosen))?;
    let record = world.records(family).iter().find(|record| record["id"] == chosen).cloned().ok_or(Stuck)?;
    let request = scene.request_by_title(&step, &record);
    one(scene, &request, step)
}
