//! Classes where calls fail: by the service, by what the user gave, by the assistant's own mistake.

use super::asking::unknown;
use super::calls::{joined, touch};
use super::chains::{acts_on, titled};
use crate::data::synth::values::join;
use crate::data::world::class::Move;
use crate::data::world::families::{Deed, Function, ID, Op};
use crate::data::world::scene::{Scene, Step, Stuck};
use crate::data::world::speech::named;
use crate::data::world::state::Fault;
use serde_json::json;

/// Times that a call is tried, at most.
const TRIES: usize = 3;

/// The function refuses.
pub(super) fn tool_error(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    match scene.dice.weighted(&[0.35, 0.15, 0.2, 0.2, 0.1]) {
        0 => tried_again(scene),
        1 => given_up(scene),
        2 => conflict(scene),
        3 => other_function(scene),
        _ => title_for_id(scene),
    }
}

/// The service is busy or silent: the call is made again, and given up after some tries.
fn tried_again(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|_| true)?;
    let step = scene.step(deed, 0.3)?;
    let request = scene.request(&step);
    scene.user_asks(&request);
    let fault = passing(scene, deed);
    let failures = 1 + scene.dice.weighted(&[0.6, 0.2, 0.2]);
    (0..failures).for_each(|later| scene.doom(later, fault));
    for _ in 1..failures {
        scene.call(std::slice::from_ref(&step));
    }
    let outcomes = scene.call(std::slice::from_ref(&step));
    if failures == TRIES {
        scene.answer(&[step], &outcomes);
        return Ok(());
    }
    let result = scene.succeed(&step)?;
    scene.answer(&[step], &[Ok(result)]);
    Ok(())
}

/// A fault that another try may get over. After a time-out nobody knows what was done, so it is not done twice.
fn passing(scene: &mut Scene<'_>, deed: Deed) -> Fault {
    let may_be_late = deed.function.is_repeatable() && scene.dice.chance(0.5);
    if may_be_late { Fault::Timeout } else { Fault::RateLimit }
}

/// The permission is missing, or what must not be done twice may have been done: no second try.
fn given_up(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|_| true)?;
    let step = scene.step(deed, 0.3)?;
    let unsure = !deed.function.is_repeatable() && scene.dice.chance(0.5);
    scene.doom(0, if unsure { Fault::Timeout } else { Fault::Permission });
    refused(scene, step)
}

/// What the user wants is not possible: a cancelled order is cancelled, an account is overdrawn.
fn conflict(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let may_conflict = |function: &Function| {
        function.needs.is_some() || matches!(function.op, Op::Set { .. } | Op::Take { .. } | Op::Move { .. })
    };
    let deed = scene.deed(may_conflict)?;
    let mut step = scene.step(deed, 0.3)?;
    let family = deed.family;
    match &deed.function.op {
        Op::Move { amount, .. } if scene.dice.chance(0.5) => {
            step = step.with(family.fields[*amount].name, &json!(scene.dice.between(9500, 90_000)));
        }
        _ => {
            let id = scene.dice.pick_ref(scene.world.records(family))[ID].clone();
            step = step.with(ID, &id);
        }
    }
    if scene.world.clone().execute(&step.act()).is_ok() {
        return Err(Stuck);
    }
    refused(scene, step)
}

fn refused(scene: &mut Scene<'_>, step: Step) -> Result<(), Stuck> {
    let request = scene.request(&step);
    scene.user_asks(&request);
    let outcomes = scene.call(std::slice::from_ref(&step));
    scene.answer(&[step], &outcomes);
    Ok(())
}

/// Nothing has the user's id: what exists is looked up and offered.
fn other_function(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let deed = scene.deed(|function| function.is_keyed() && !matches!(function.op, Op::Move { .. }))?;
    let list = scene.deed_of(deed.family, |function| matches!(function.op, Op::List(_)))?;
    let step = scene.step(deed, 0.2)?;
    let id = unknown(scene, &step);
    let wrong = step.with(ID, &json!(id));
    let request = scene.request(&wrong);
    scene.user_asks(&request);
    scene.call(&[wrong]);
    let all = Step { deed: list, filling: Vec::new() };
    let result = scene.succeed(&all)?;
    let records = result[deed.family.many].as_array().cloned().unwrap_or_default();
    if records.is_empty() {
        return Err(Stuck);
    }
    let what = join(&records.iter().map(|record| named(deed.family, record)).collect::<Vec<_>>());
    let text = scene.about("instead", deed.family, &[("id", &id), ("what", &what)]);
    scene.say(Move::Report, text);
    Ok(())
}

/// A wrong call of the assistant's own: the title where an id belongs. It is not trained on; the way out is.
fn title_for_id(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let family = scene.family();
    let (find, record) = titled(scene, family)?;
    let world = scene.world.clone();
    let act = acts_on(scene, world, family, &record[ID], 1)?.remove(0);
    let request = scene.request_by_title(&act, &record);
    scene.user_asks(&request);
    // Of the right form, so that the schema lets it pass, and of no record.
    let wrong = unknown(scene, &act);
    scene.call(&[act.clone().with(ID, &json!(wrong))]);
    scene.untrain();
    scene.succeed(&find)?;
    let result = scene.succeed(&act)?;
    scene.answer(&[act], &[Ok(result)]);
    Ok(())
}

/// Some calls of a turn fail: what can be tried again is, the rest is reported.
pub(super) fn partial_failure(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let count = 2 + usize::from(scene.dice.chance(0.3));
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..count {
        let deed = scene.deed(Function::is_keyed)?;
        let step = scene.step(deed, 0.2)?;
        if steps.iter().any(|other| touch(other, &step) || other.deed == deed) {
            return Err(Stuck);
        }
        steps.push(step);
    }
    let failing = scene.dice.below(count);
    let later = scene.dice.chance(0.5);
    if later {
        let fault = passing(scene, steps[failing].deed);
        scene.doom(failing, fault);
    } else {
        // As in `unknown_id`: what exists cannot be looked up.
        scene.withhold(steps[failing].deed.family, |op| matches!(op, Op::List(_) | Op::Find));
        let id = unknown(scene, &steps[failing]);
        steps[failing] = steps[failing].clone().with(ID, &json!(id));
    }
    let request = joined(scene, &steps);
    scene.user_asks(&request);
    for (place, step) in steps.iter().enumerate() {
        if later || place != failing {
            scene.intend(step)?;
        }
    }
    let mut outcomes = scene.call(&steps);
    if later {
        outcomes[failing] = scene.call(&steps[failing..=failing]).pop().ok_or(Stuck)?;
    }
    scene.answer(&steps, &outcomes);
    Ok(())
}

/// The assistant calls with another id than the user said, and puts it right: after the function's refusal, or after the
/// user has noticed it. The mistake is not trained on.
pub(super) fn self_correction(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let noticed = scene.dice.chance(0.4);
    let reads = |function: &Function| matches!(function.op, Op::Get);
    let deed = scene.deed(|function| if noticed { reads(function) } else { function.is_keyed() })?;
    let step = scene.step(deed, 0.2)?;
    let id = step.value(ID).cloned().ok_or(Stuck)?;
    let request = scene.request(&step);
    scene.user_asks(&request);
    if !noticed {
        let wrong = step.clone().with(ID, &json!(slip(scene, &step)?));
        if scene.call(&[wrong]).iter().all(Result::is_ok) {
            return Err(Stuck);
        }
        scene.untrain();
    } else {
        let others: Vec<_> = scene
            .world
            .records(deed.family)
            .iter()
            .map(|record| record[ID].clone())
            .filter(|other| *other != id)
            .collect();
        if others.is_empty() {
            return Err(Stuck);
        }
        let wrong = step.clone().with(ID, scene.dice.pick_ref(&others));
        let outcomes = scene.call(std::slice::from_ref(&wrong));
        scene.untrain();
        scene.answer(&[wrong], &outcomes);
        scene.untrain();
        let text = scene.phrase("own_mistake", &[("id", id.as_str().unwrap_or_default())]);
        scene.user_says(&text);
    }
    let result = scene.succeed(&step)?;
    scene.answer(&[step], &[Ok(result)]);
    Ok(())
}

/// The id with one digit wrong, of no record.
fn slip(scene: &mut Scene<'_>, step: &Step) -> Result<String, Stuck> {
    let id = step.value(ID).and_then(|id| id.as_str()).ok_or(Stuck)?.to_owned();
    let taken = |id: &str| scene.world.records(step.deed.family).iter().any(|record| record[ID] == id);
    let digits: Vec<usize> = id.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at).collect();
    let at = if digits.is_empty() { return Err(Stuck) } else { scene.dice.pick(&digits) };
    let slipped = (1..10)
        .map(|digit| format!("{}{digit}{}", &id[..at], &id[at + 1..]))
        .find(|slipped| *slipped != id && !taken(slipped));
    slipped.ok_or(Stuck)
}
