//! Values for calls that can succeed, and the words that ask for them. Knows no turns.

use super::families::{Ask, Deed, Field, ID, Op, Part};
use super::kind::Kind;
use super::scene::{Filling, Scene, Step, Stuck};
use super::state::{Record, World, workable};
use serde_json::Value as Json;

impl Scene<'_> {
    /// A call that succeeds as the world is now; optional parameters are given with this probability.
    pub(super) fn step(&mut self, deed: Deed, optional: f64) -> Result<Step, Stuck> {
        let world = self.world.clone();
        self.step_in(&world, deed, optional, None)
    }

    /// The same in another state of the world, and on the record with this id.
    pub(super) fn step_in(
        &mut self,
        world: &World,
        deed: Deed,
        optional: f64,
        id: Option<&Json>,
    ) -> Result<Step, Stuck> {
        for _ in 0..4 {
            let filling = match deed.function.op {
                Op::Find => self.search(world, deed)?,
                _ => self.draw(world, deed, optional, id)?,
            };
            let step = Step { deed, filling };
            if world.clone().execute(&step.act()).is_ok() {
                return Ok(step);
            }
        }
        Err(Stuck)
    }

    fn draw(&mut self, world: &World, deed: Deed, optional: f64, id: Option<&Json>) -> Result<Filling, Stuck> {
        let records = world.records(deed.family);
        let mut filling = Filling::new();
        for (field, _, required) in deed.takes() {
            if !required && !self.dice.chance(optional) {
                continue;
            }
            let value = match (field.part, id) {
                (Part::Key, Some(id)) => id.clone(),
                (Part::Key, None) => {
                    let place = workable(records, deed, &mut self.dice).ok_or(Stuck)?;
                    records[place][ID].clone()
                }
                _ if field.kind == Kind::Key => self.other_id(records, &filling).ok_or(Stuck)?,
                _ => field.kind.draw(&mut self.dice, self.unicode),
            };
            filling.push((field, value));
        }
        Ok(filling)
    }

    fn other_id(&mut self, records: &[Record], filling: &Filling) -> Option<Json> {
        let given = |id: &Json| filling.iter().any(|(_, value)| value == id);
        let others: Vec<&Json> = records.iter().map(|record| &record[ID]).filter(|id| !given(id)).collect();
        (!others.is_empty()).then(|| self.dice.pick(&others).clone())
    }

    /// One or two values of a record, to find it by.
    fn search(&mut self, world: &World, deed: Deed) -> Result<Filling, Stuck> {
        let records = world.records(deed.family);
        if records.is_empty() {
            return Err(Stuck);
        }
        let record = self.dice.pick_ref(records);
        let simple =
            |field: &&Field| record.get(field.name).is_some_and(|value| !value.is_array() && !value.is_object());
        let mut fields: Vec<&'static Field> = deed.takes().map(|(field, ..)| field).filter(simple).collect();
        self.dice.shuffle(&mut fields);
        let count = 1 + usize::from(self.dice.chance(0.3));
        // In the order in which the function takes them.
        let chosen = deed
            .takes()
            .map(|(field, ..)| field)
            .filter(|field| fields.iter().take(count).any(|f| f.name == field.name));
        Ok(chosen.map(|field| (field, record[field.name].clone())).collect())
    }

    /// "schedule an event called Dentist on 2026-05-03", without frame.
    pub(super) fn request(&mut self, step: &Step) -> String {
        self.worded(step, |_| true).concat()
    }

    /// The same as a part of a longer sentence: no question.
    pub(super) fn order(&mut self, step: &Step) -> String {
        self.worded(step, |ask| !ask.is_question()).concat()
    }

    /// The request without its values, and its values.
    pub(super) fn worded(&mut self, step: &Step, fits: impl Fn(&Ask) -> bool) -> [String; 2] {
        let family = step.deed.family;
        let mut ask = self.ask(step.deed, fits).to_owned();
        if step.seeks_many() {
            ask = ask.replace(&format!("the {}", family.one), &format!("all {}", family.many));
        }
        [ask, self.words(step)]
    }

    /// A request without its values. A single field that it asks for is kept in mind.
    pub(super) fn ask(&mut self, deed: Deed, fits: impl Fn(&Ask) -> bool) -> &'static str {
        let asks: Vec<Ask> = deed.function.ask.iter().copied().filter(fits).collect();
        let ask = self.dice.pick(&asks);
        self.asked.extend(ask.about.map(|place| &deed.family.fields[place]));
        ask.text
    }

    /// A request that names the record by what people know it by, in place of its id.
    pub(super) fn request_by_title(&mut self, step: &Step, record: &Record) -> String {
        let ask = self.ask(step.deed, |_| true);
        let title = step.deed.family.title();
        let named = self.dice.pick(&title.say).replace("{}", &title.kind.said(&record[title.name], &mut self.dice));
        let rest = self.words(&step.clone().without(ID));
        format!("{ask} {named}{rest}")
    }

    /// The values of a call, each in a phrase of its own after a space.
    pub(super) fn words(&mut self, step: &Step) -> String {
        let mut words = String::new();
        for (field, say, _) in step.deed.takes() {
            if let Some(value) = step.value(field.name) {
                let said = field.kind.said(value, &mut self.dice);
                let mut phrase = self.dice.pick(if *value == false { &field.deny } else { say }).to_owned();
                if step.seeks_many() {
                    phrase = phrase.replace("that is ", "that are ").replace("who works ", "who work ");
                }
                words = format!("{words} {}", phrase.replace("{}", &said));
            }
        }
        words
    }
}

impl Step {
    /// The same without a field.
    pub(super) fn without(mut self, name: &str) -> Self {
        self.filling.retain(|(field, _)| field.name != name);
        self
    }

    /// Whether it looks for all records with something in common.
    fn seeks_many(&self) -> bool {
        self.deed.function.op == Op::Find && self.value(self.deed.family.title().name).is_none()
    }
}
