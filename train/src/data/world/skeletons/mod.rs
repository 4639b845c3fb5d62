//! Which turns each class of dialogue consists of. Knows no function by name.

mod asking;
mod calls;
mod chains;
mod errors;
mod talk;

use super::class::Class;
use super::scene::{Scene, Stuck};

/// Functions on offer in class `distractors` that are not needed, at least.
const MANY: usize = 5;

/// Acts a dialogue of a class out, up to its last answer.
///
/// # Errors
/// When what was drawn leads nowhere.
pub(super) fn act_out(scene: &mut Scene<'_>, class: Class) -> Result<(), Stuck> {
    if class != Class::ConfirmWrite && scene.dice.chance(scene.config.system) {
        scene.system("system");
    }
    match class {
        Class::Single | Class::Distractors => calls::single(scene),
        Class::ParallelSame => calls::parallel_same(scene),
        Class::ParallelDifferent => calls::parallel_different(scene),
        Class::RichArguments => calls::rich(scene),
        Class::LongResult => calls::long_result(scene),
        Class::ZeroArguments => calls::zero_arguments(scene),
        Class::Dependent => chains::dependent(scene),
        Class::ParallelThenDependent => chains::parallel_then_dependent(scene),
        Class::MissingArgument => asking::missing_argument(scene),
        Class::InvalidValue => asking::invalid_value(scene),
        Class::ChangeOfMind => asking::change_of_mind(scene),
        Class::ConfirmWrite => asking::confirm_write(scene),
        Class::ToolError => errors::tool_error(scene),
        Class::PartialFailure => errors::partial_failure(scene),
        Class::SelfCorrection => errors::self_correction(scene),
        Class::Irrelevant => talk::irrelevant(scene),
        Class::FunctionSuppliedLater => talk::function_supplied_later(scene),
        Class::Chat => talk::chat(scene),
        Class::AnswerFromResult => talk::answer_from_result(scene),
    }?;
    let (low, high) = scene.config.distractors;
    let least = if class == Class::Distractors { low.max(MANY) } else { low };
    let high = high.max(least);
    // Few more often than many.
    let drawn = scene.dice.below(high - least + 1).min(scene.dice.below(high - least + 1));
    let alone = scene.offers.is_empty() && least + drawn == 0;
    scene.distract(if alone { 1 } else { least + drawn });
    Ok(())
}
