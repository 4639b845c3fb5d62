//! Out of which pieces each tensor of a ZeRO checkpoint is made. Reads no values.

use super::states::{Shapes, Stage, States};
use crate::error::{Result, TrainError};
use crate::pickle::{TorchFile, TorchTensor};
use crate::tensors::Layout;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::ops::Range;

/// What wrappers put before the names of a module.
const WRAPPER: &str = "module.";

/// A tensor in pieces, which hold its values in their order.
#[derive(Clone)]
pub(super) struct Assembled<'a> {
    /// As it is stored.
    pub(super) layout: Layout,
    pub(super) pieces: Vec<Piece<'a>>,
}

/// Some values of a tensor in a file, counted through all its dimensions.
#[derive(Clone)]
pub(super) struct Piece<'a> {
    pub(super) file: &'a TorchFile,
    pub(super) tensor: TorchTensor,
    pub(super) values: Range<usize>,
}

/// Every tensor of the model by its name.
///
/// # Errors
/// When the shapes do not account for the values, or a name occurs twice.
pub(super) fn assemble(states: &States) -> Result<BTreeMap<String, Assembled<'_>>> {
    let mut all = BTreeMap::new();
    let mut add = |name: &str, tensor| {
        let name = name.strip_prefix(WRAPPER).unwrap_or(name);
        match all.insert(name.to_owned(), tensor) {
            None => Ok(()),
            Some(_) => Err(TrainError::Data(format!("the checkpoint holds `{name}` twice"))),
        }
    };
    let trained = match states.stage {
        Stage::Stretches => from_stretches(states)?,
        Stage::Parts => from_parts(states)?,
    };
    for (name, tensor) in trained.into_iter().chain(frozen(states)?) {
        add(&name, tensor)?;
    }
    for (name, file, tensor) in states.buffers()? {
        let values = 0..tensor.values();
        add(&name, Assembled { layout: tensor.layout.clone(), pieces: vec![Piece { file, tensor, values }] })?;
    }
    for (name, same) in states.shared() {
        let bare = |name: &'_ str| name.strip_prefix(WRAPPER).unwrap_or(name).to_owned();
        if let Some(tensor) = all.get(&bare(same)).cloned() {
            all.entry(bare(name)).or_insert(tensor);
        }
    }
    Ok(all)
}

type Named<'a> = Vec<(String, Assembled<'a>)>;

/// Tensors laid end to end.
struct Flat<'a>(Vec<(&'a TorchFile, TorchTensor)>);

impl<'a> Flat<'a> {
    fn len(&self) -> usize {
        self.0.iter().map(|(_, tensor)| tensor.values()).sum()
    }

    /// The pieces that hold these values, as far as there are any.
    fn pieces(&self, wanted: Range<usize>) -> Vec<Piece<'a>> {
        let mut start = 0;
        let mut pieces = Vec::new();
        for (file, tensor) in &self.0 {
            let end = start + tensor.values();
            let (from, to) = (wanted.start.max(start), wanted.end.min(end));
            if from < to {
                pieces.push(Piece { file, tensor: tensor.clone(), values: from - start..to - start });
            }
            start = end;
        }
        pieces
    }
}

/// Stages 1 and 2: the ranks' stretches of a group, end to end, hold its parameters one after the other.
fn from_stretches(states: &States) -> Result<Named<'_>> {
    let masters = states.masters()?;
    let mut named = Vec::new();
    for (index, group) in states.trained()?.into_iter().enumerate() {
        let stretch = |(file, groups): &(_, Vec<TorchTensor>)| Some((*file, groups.get(index)?.clone()));
        let flat = Flat(masters.iter().filter_map(stretch).collect());
        check_padding(index, values_of(&group)?, flat.len(), 2 * states.world())?;
        let mut offset = 0;
        for (name, shape) in group {
            let count = count(&name, &shape)?;
            let pieces = flat.pieces(offset..offset + count);
            offset += count;
            named.push((name.clone(), assembled(&name, shape, pieces)?));
        }
    }
    Ok(named)
}

/// A group is padded to a multiple of `alignment`, and some versions of DeepSpeed save it without the padding.
fn check_padding(index: usize, needed: usize, found: usize, alignment: usize) -> Result<()> {
    match found >= needed && found.next_multiple_of(alignment) == needed.next_multiple_of(alignment) {
        true => Ok(()),
        false => Err(TrainError::Data(format!(
            "the checkpoint's group {index} of parameters has {needed} values by its shapes, but the ranks hold {found}"
        ))),
    }
}

/// Stage 3: every rank has the same number of values of each parameter; the last ones are padding.
fn from_parts(states: &States) -> Result<Named<'_>> {
    let flat = |(file, groups): (_, Vec<TorchTensor>)| Flat(groups.into_iter().map(|group| (file, group)).collect());
    let ranks: Vec<Flat<'_>> = states.masters()?.into_iter().map(flat).collect();
    let mut offset = 0;
    let mut named = Vec::new();
    for (name, shape) in states.trained()?.into_iter().flatten() {
        let count = count(&name, &shape)?;
        let share = count.div_ceil(states.world());
        let pieces = ranks.iter().flat_map(|rank| rank.pieces(offset..offset + share)).collect();
        offset += share;
        named.push((name.clone(), assembled(&name, shape, cut(pieces, count))?));
    }
    match ranks.iter().find(|rank| rank.len() != offset) {
        None => Ok(named),
        Some(rank) => Err(TrainError::Data(format!(
            "the checkpoint's shapes need {offset} values of each rank, but one holds {}",
            rank.len()
        ))),
    }
}

/// The first `count` values.
fn cut(mut pieces: Vec<Piece<'_>>, count: usize) -> Vec<Piece<'_>> {
    let mut left = count;
    for piece in &mut pieces {
        piece.values.end = piece.values.start + piece.values.len().min(left);
        left -= piece.values.len();
    }
    pieces
}

/// Parameters that were not trained lie in the model's states, in stage 3 divided as the trained ones are.
fn frozen(states: &States) -> Result<Named<'_>> {
    let whole = |(name, shape): (String, Vec<usize>)| {
        let flat = Flat(states.fragments(&name)?);
        let pieces = flat.pieces(0..count(&name, &shape)?);
        Ok((name.clone(), assembled(&name, shape, pieces)?))
    };
    states.frozen()?.into_iter().map(whole).collect()
}

/// A tensor of `shape` if the pieces have as many values, of one type.
fn assembled<'a>(name: &str, shape: Vec<usize>, pieces: Vec<Piece<'a>>) -> Result<Assembled<'a>> {
    let dtype = pieces.first().map_or(Dtype::F32, |piece| piece.tensor.layout.dtype);
    let found: usize = pieces.iter().map(|piece| piece.values.len()).sum();
    if found != count(name, &shape)? || pieces.iter().any(|piece| piece.tensor.layout.dtype != dtype) {
        let message = format!("the checkpoint holds {found} values of `{name}`, whose shape is {shape:?}");
        return Err(TrainError::Data(message));
    }
    Ok(Assembled { layout: Layout { dtype, shape }, pieces })
}

fn values_of(group: &Shapes) -> Result<usize> {
    group.iter().map(|(name, shape)| count(name, shape)).sum()
}

/// More values than any tensor has, and so few that no sum of them overflows.
const MAX_VALUES: usize = 1 << 40;

/// Number of values.
fn count(name: &str, shape: &[usize]) -> Result<usize> {
    let product = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let too_large = || TrainError::Data(format!("the checkpoint says an impossible shape of `{name}`"));
    product.filter(|count| *count <= MAX_VALUES).ok_or_else(too_large)
}
