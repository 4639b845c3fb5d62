//! Classes where a call takes an argument from an earlier result.

use super::calls::touch;
use crate::data::synth::values;
use crate::data::world::families::{Deed, Family, Field, ID, Op, Part};
use crate::data::world::kind::Kind;
use crate::data::world::scene::{Scene, Step, Stuck};
use crate::data::world::speech::words;
use crate::data::world::state::{Record, World};
use serde_json::{Value as Json, json};

/// Most functions that are called on one record.
const MOST_ACTS: usize = 4;

/// Two to six calls, each with what the user said or an earlier call returned.
pub(super) fn dependent(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    match scene.dice.weighted(&[0.5, 0.2, 0.3]) {
        0 => found_then_used(scene),
        1 => made_then_used(scene, None),
        _ => {
            let source = lookup(scene)?;
            made_then_used(scene, Some(source))
        }
    }
}

/// A record is found by what people know it by, then worked on by its id.
fn found_then_used(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let family = scene.family();
    let (find, record) = titled(scene, family)?;
    let most = 1 + scene.dice.weighted(&[0.5, 0.3, 0.2]);
    let world = scene.world.clone();
    let acts = acts_on(scene, world, family, &record[ID], most)?;
    let mut request = scene.request_by_title(&acts[0], &record);
    further(scene, &mut request, &acts[1..]);
    scene.user_asks(&request);
    let found = scene.succeed(&find)?;
    carry_out(scene, acts, &found[family.many][0][ID])
}

/// A record is made, then worked on by its new id. With a lookup, one of its values is asked for first.
fn made_then_used(scene: &mut Scene<'_>, source: Option<Lookup>) -> Result<(), Stuck> {
    let family = scene.family();
    let create = scene.deed_of(family, |function| function.op == Op::Create)?;
    let mut made = scene.step(create, 0.3)?;
    let mut request = scene.request(&made);
    if let Some(source) = &source {
        let Some(target) = create.takes().map(|(field, ..)| field).find(|field| source.fits(family, field)) else {
            return Err(Stuck);
        };
        made = made.without(target.name);
        request = format!("{}{}", scene.request(&made), source.words(scene, create, target));
        made.filling.push((target, source.value.clone()));
    }
    let mut after = scene.world.clone();
    let Ok(result) = after.execute(&made.act()) else { return Err(Stuck) };
    let acts = match source.is_some() && scene.dice.chance(0.4) {
        true => Vec::new(),
        false => {
            let most = 1 + scene.dice.weighted(&[0.4, 0.3, 0.2, 0.1]);
            acts_on(scene, after, family, &result[ID], most)?
        }
    };
    further(scene, &mut request, &acts);
    scene.user_asks(&request);
    if let Some(source) = source {
        scene.succeed(&source.find)?;
    }
    let result = scene.succeed(&made)?;
    match acts.is_empty() {
        true => scene.answer(&[made], &[Ok(result)]),
        false => return carry_out(scene, acts, &result[ID]),
    }
    Ok(())
}

/// A value that another record holds, and the call that finds it.
struct Lookup {
    find: Step,
    field: &'static Field,
    value: Json,
    record: Record,
}

impl Lookup {
    /// Whether a parameter of another family can take the value.
    fn fits(&self, family: &Family, target: &Field) -> bool {
        !std::ptr::eq(family, self.find.deed.family) && target.part == Part::Given && target.kind == self.field.kind
    }

    /// " with the email of the contact named Ann".
    fn words(&self, scene: &mut Scene<'_>, create: Deed, target: &Field) -> String {
        let source = self.find.deed.family;
        let title = source.title();
        let named =
            scene.dice.pick(&title.say).replace("{}", &title.kind.said(&self.record[title.name], &mut scene.dice));
        let value = format!("the {} of the {} {named}", words(self.field.name), source.one);
        let say = create.takes().find(|(field, ..)| std::ptr::eq(*field, target)).map(|(_, say, _)| say);
        say.map_or_else(String::new, |say| format!(" {}", scene.dice.pick(say).replace("{}", &value)))
    }
}

fn lookup(scene: &mut Scene<'_>) -> Result<Lookup, Stuck> {
    let family = scene.family();
    let (find, record) = titled(scene, family)?;
    let passes = |field: &&Field| {
        field.part == Part::Given
            && match &field.kind {
                Kind::Date | Kind::Clock | Kind::Object(_) => true,
                Kind::Plain(kind) => matches!(
                    kind,
                    values::Kind::Email
                        | values::Kind::Phone
                        | values::Kind::Person
                        | values::Kind::Company
                        | values::Kind::Pool("city")
                ),
                _ => false,
            }
    };
    let fields: Vec<&'static Field> = family.fields[2..].iter().filter(passes).collect();
    if fields.is_empty() {
        return Err(Stuck);
    }
    let field = scene.dice.pick(&fields);
    let value = record.get(field.name).cloned().ok_or(Stuck)?;
    Ok(Lookup { find, field, value, record })
}

/// The search for a record by what people know it by, and the record, which nothing else is found with.
pub(super) fn titled(scene: &mut Scene<'_>, family: &'static Family) -> Result<(Step, Record), Stuck> {
    let find = scene.deed_of(family, |function| function.op == Op::Find)?;
    let record = scene.dice.pick_ref(scene.world.records(family)).clone();
    let title = family.title();
    let step = Step { deed: find, filling: vec![(title, record[title.name].clone())] };
    let found = scene.world.clone().execute(&step.act()).map_err(|_| Stuck)?;
    if found["count"] == json!(1) { Ok((step, record)) } else { Err(Stuck) }
}

/// Up to `most` different functions, one after the other on one record; at least one.
pub(super) fn acts_on(
    scene: &mut Scene<'_>,
    mut world: World,
    family: &'static Family,
    id: &Json,
    most: usize,
) -> Result<Vec<Step>, Stuck> {
    let mut acts: Vec<Step> = Vec::new();
    let on_one = |op: &Op| !matches!(op, Op::Move { .. } | Op::Delete);
    for _ in 0..12 {
        if acts.len() == most.min(MOST_ACTS) {
            break;
        }
        let deed = scene.deed_of(family, |function| function.is_keyed() && (on_one(&function.op) || most == 1))?;
        // Looking at it last tells what has become of it; before anything is done to it, it has just been shown.
        let idle = deed.function.op == Op::Get && (acts.is_empty() || acts.len() + 1 < most);
        if idle || acts.iter().any(|act| act.deed == deed) {
            continue;
        }
        if let Ok(act) = scene.step_in(&world, deed, 0.2, Some(id)) {
            world.execute(&act.act()).map_err(|_| Stuck)?;
            acts.push(act);
        }
    }
    if acts.is_empty() { Err(Stuck) } else { Ok(acts) }
}

/// ", then tag the note with work", for each.
fn further(scene: &mut Scene<'_>, request: &mut String, acts: &[Step]) {
    for act in acts {
        let words = scene.order(&act.clone().without(ID));
        request.push_str(&scene.phrase_of("then", &words));
    }
}

/// Calls on the record with this id, one after the other, and what came of them.
fn carry_out(scene: &mut Scene<'_>, acts: Vec<Step>, id: &Json) -> Result<(), Stuck> {
    let mut outcomes = Vec::new();
    let acts: Vec<Step> = acts.into_iter().map(|act| act.with(ID, id)).collect();
    for act in &acts {
        outcomes.push(Ok(scene.succeed(act)?));
    }
    scene.answer(&acts, &outcomes);
    Ok(())
}

/// Two records are looked for at once, then both are worked on at once.
pub(super) fn parallel_then_dependent(scene: &mut Scene<'_>) -> Result<(), Stuck> {
    let mut found: Vec<(Step, Record, Step)> = Vec::new();
    for _ in 0..2 {
        let family = scene.family();
        let (find, record) = titled(scene, family)?;
        let world = scene.world.clone();
        let act = acts_on(scene, world, family, &record[ID], 1)?.remove(0);
        if found.iter().any(|(other, _, used)| touch(other, &find) || touch(used, &act)) {
            return Err(Stuck);
        }
        found.push((find, record, act));
    }
    let (first, second) =
        (scene.request_by_title(&found[0].2, &found[0].1), scene.request_by_title(&found[1].2, &found[1].1));
    let request = scene.phrase_of("join", &first).replacen("{}", &second, 1);
    scene.user_asks(&request);
    let finds: Vec<Step> = found.iter().map(|(find, ..)| find.clone()).collect();
    let acts: Vec<Step> = found.into_iter().map(|(_, _, act)| act).collect();
    if scene.call(&finds).iter().any(Result::is_err) {
        return Err(Stuck);
    }
    acts.iter().try_for_each(|act| scene.intend(act))?;
    let outcomes = scene.call(&acts);
    scene.answer(&acts, &outcomes);
    Ok(())
}
