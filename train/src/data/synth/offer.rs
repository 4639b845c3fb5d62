//! Chooses the functions of a declaration block: a first one and distractors that are close to it, and functions that
//! are missing from a block. Knows no sentences.

use super::dice::Dice;
use super::function::{Function, Origin, Pen};
use super::open::{OPEN, made_noun, open_family, open_noun};
use super::tables::{Everyday, Family, Verb, tables};
use super::{Naming, Split, SynthConfig};

/// The functions of one block, at least one.
pub(super) fn offer(dice: &mut Dice, config: &SynthConfig) -> Vec<Function> {
    let (low, high) = config.tools;
    let count = low + dice.below(high - low + 1);
    let mut families = Vec::new();
    let mut functions: Vec<Function> = Vec::new();
    for _ in 0..count * 20 {
        if functions.len() == count {
            break;
        }
        let naming = draw_naming(dice, config);
        let pen = Pen { config, naming };
        let next = if functions.is_empty() {
            any(dice, &pen, &mut families)
        } else {
            distractor(dice, &pen, &functions, &mut families)
        };
        if functions.iter().all(|f| can_stand_beside(f, &next)) {
            functions.push(next);
        }
    }
    dice.shuffle(&mut functions);
    functions
}

pub(super) fn draw_naming(dice: &mut Dice, config: &SynthConfig) -> Naming {
    let mix = &config.naming;
    [Naming::Overlap, Naming::Synonym, Naming::Unrelated][dice.weighted(&[mix.overlap, mix.synonym, mix.unrelated])]
}

/// Two functions that a request can tell apart.
fn can_stand_beside(a: &Function, b: &Function) -> bool {
    a.tool.name != b.tool.name && (a.topic != b.topic || a.cluster != b.cluster)
}

fn any(dice: &mut Dice, pen: &Pen<'_>, families: &mut Vec<Family>) -> Function {
    let sources = &pen.config.sources;
    let (open, made) = if pen.config.split == Split::Train { (sources.open, sources.made_up) } else { (0.0, 0.0) };
    let weights = [sources.everyday, sources.listed, open, made];
    match dice.weighted(&weights) {
        0 => {
            let everyday = draw_everyday(dice, pen.config, |_| true).unwrap_or(&tables().everyday[0]);
            pen.everyday_function(dice, everyday)
        }
        1 => {
            let family = listed(dice, pen, |_| true);
            of_family(dice, pen, &family)
        }
        source => {
            let noun = if source == 2 { open_noun(dice) } else { made_noun(dice) };
            let family = open_family(dice, noun);
            let function = of_family(dice, pen, &family);
            families.push(family);
            function
        }
    }
}

fn draw_everyday(dice: &mut Dice, config: &SynthConfig, fits: impl Fn(&Everyday) -> bool) -> Option<&'static Everyday> {
    let held_out = config.split == Split::HeldOut;
    let all: Vec<&'static Everyday> = tables().everyday.iter().filter(|e| e.held_out == held_out && fits(e)).collect();
    (!all.is_empty()).then(|| dice.pick(&all))
}

/// A family of the tables that fits the split and the naming, or any of the split.
fn listed(dice: &mut Dice, pen: &Pen<'_>, fits: impl Fn(&Family) -> bool) -> Family {
    let held_out = pen.config.split == Split::HeldOut;
    let ours = || tables().families.iter().filter(|f| f.held_out == held_out);
    let mut all: Vec<&Family> = ours().filter(|f| fits(f)).collect();
    if all.is_empty() {
        all = ours().collect();
    }
    dice.pick(&all).clone()
}

fn of_family(dice: &mut Dice, pen: &Pen<'_>, family: &Family) -> Function {
    let verb = tables().verb(dice.pick(&family.verbs));
    pen.family_function(dice, family, verb)
}

/// A function near one of `functions`: same noun, same verb, same domain, or any.
fn distractor(dice: &mut Dice, pen: &Pen<'_>, functions: &[Function], families: &mut Vec<Family>) -> Function {
    let near = dice.pick_ref(functions);
    match (&near.origin, dice.weighted(&[0.4, 0.3, 0.15, 0.15])) {
        (Origin::Verb { .. }, 0) => match family_of(near, families) {
            Some(family) => of_family(dice, pen, &family),
            None => any(dice, pen, families),
        },
        (Origin::Verb { verb, .. }, 1) => with_verb(dice, pen, verb, families),
        (Origin::Verb { .. }, 2) => {
            let family = listed(dice, pen, |f| f.domain == near.domain);
            of_family(dice, pen, &family)
        }
        (Origin::Everyday(_), 0 | 1) => match draw_everyday(dice, pen.config, |e| e.domain == near.domain) {
            Some(everyday) => pen.everyday_function(dice, everyday),
            None => any(dice, pen, families),
        },
        _ => any(dice, pen, families),
    }
}

fn family_of(function: &Function, families: &[Family]) -> Option<Family> {
    let all = tables().families.iter().chain(families);
    all.into_iter().find(|f| f.nouns[0].one == *function.topic).cloned()
}

/// The same verb on another noun.
fn with_verb(dice: &mut Dice, pen: &Pen<'_>, verb: &'static Verb, families: &mut Vec<Family>) -> Function {
    if pen.config.split == Split::Train && dice.chance(pen.config.sources.open) {
        let noun = if dice.chance(0.6) { open_noun(dice) } else { made_noun(dice) };
        let family = open_family(dice, noun);
        let function = pen.family_function(dice, &family, verb);
        families.push(family);
        return function;
    }
    let family = listed(dice, pen, |f| f.verbs.contains(&verb.key));
    let verb = if family.verbs.contains(&verb.key) { verb } else { tables().verb(dice.pick(&family.verbs)) };
    pen.family_function(dice, &family, verb)
}

/// A function that none of `functions` can stand in for, often close to one of them.
pub(super) fn missing(dice: &mut Dice, config: &SynthConfig, functions: &[Function]) -> Option<Function> {
    let pen = Pen { config, naming: Naming::Overlap };
    let mut families = Vec::new();
    for _ in 0..30 {
        let near = dice.pick_ref(functions);
        let next = match (&near.origin, dice.weighted(&[0.35, 0.3, 0.35])) {
            (Origin::Verb { .. }, 0) => match family_of(near, &[]) {
                Some(family) => of_family(dice, &pen, &family),
                None => any(dice, &pen, &mut families),
            },
            (Origin::Verb { verb, .. }, 1) => with_verb(dice, &pen, verb, &mut families),
            _ => any(dice, &pen, &mut families),
        };
        if functions.iter().all(|f| cannot_serve(f, &next)) {
            return Some(next);
        }
    }
    None
}

/// Whether `offered` is clearly of no use for what `wanted` does.
fn cannot_serve(offered: &Function, wanted: &Function) -> bool {
    if offered.topic == "websearch" || wanted.topic == "websearch" {
        return false;
    }
    if offered.topic == wanted.topic {
        return kin(offered.cluster) != kin(wanted.cluster);
    }
    let both_open = offered.domain == OPEN && wanted.domain == OPEN;
    both_open || region(offered.domain) != region(wanted.domain)
}

/// Domains whose functions might stand in for each other.
fn region(domain: &str) -> &str {
    match domain {
        "calendar" | "work" | "clock" => "time",
        "home" | "smarthome" => "home",
        "food" | "dining" => "food",
        "travel" | "trip" | "vehicles" => "travel",
        "weather" | "sky" | "sea" | "nature" => "nature",
        "finance" | "commerce" => "money",
        "health" | "maternity" => "health",
        other => other,
    }
}

/// Verbs whose functions might stand in for each other.
fn kin(cluster: &str) -> &str {
    match cluster {
        "get" | "find" | "count" | "recommend" | "compare" | "download" | "print" => "read",
        "update" | "rename" | "reschedule" | "move" | "assign" | "tag" | "rate" | "renew" => "write",
        "activate" | "reopen" | "unlock" | "restore" => "on",
        "deactivate" | "pause" | "lock" => "off",
        "delete" | "clear" | "archive" | "close" | "reject" => "gone",
        "make" | "duplicate" => "make",
        other => other,
    }
}
