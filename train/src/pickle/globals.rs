//! The names that may stand in a pickle. A name is never looked up or called, whatever it is; one that is not listed
//! means that the file is not what it should be.

use super::{Result, refuse};
use safetensors::Dtype;

/// What a file is expected to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Named tensors and nothing else.
    StateDict,
    /// A checkpoint of DeepSpeed: also shapes, sets and the few objects of its own that it saves beside tensors.
    DeepSpeed,
}

pub(super) const ORDERED_DICT: &str = "collections.OrderedDict";
pub(super) const REBUILD_TENSOR: &str = "torch._utils._rebuild_tensor_v2";
/// The same with attributes of Python's beside it, as ZeRO 3 gives them to its masters.
pub(super) const REBUILD_WITH_ATTRIBUTES: &str = "torch._tensor._rebuild_from_type_v2";
pub(super) const TENSOR: &str = "torch.Tensor";
pub(super) const REBUILD_PARAMETER: &str = "torch._utils._rebuild_parameter";
pub(super) const SIZE: &str = "torch.Size";
/// How the protocols name Python's sets.
pub(super) const SETS: [&str; 2] = ["__builtin__.set", "builtins.set"];

/// What DeepSpeed saves beside tensors (`deepspeed/runtime/zero`). None of it says anything about weights but the stage.
const DEEPSPEED: [&str; 4] = [
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.utils.tensor_fragment.fragment_address",
];

/// PyTorch's classes of storage, by the type of their values.
const STORAGES: [(&str, Dtype); 10] = [
    ("torch.FloatStorage", Dtype::F32),
    ("torch.BFloat16Storage", Dtype::BF16),
    ("torch.HalfStorage", Dtype::F16),
    ("torch.DoubleStorage", Dtype::F64),
    ("torch.LongStorage", Dtype::I64),
    ("torch.IntStorage", Dtype::I32),
    ("torch.ShortStorage", Dtype::I16),
    ("torch.CharStorage", Dtype::I8),
    ("torch.ByteStorage", Dtype::U8),
    ("torch.BoolStorage", Dtype::BOOL),
];

impl Content {
    /// An error unless this name may stand in such a file.
    pub(super) fn check(self, name: &str) -> Result<()> {
        let plain = [ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER].contains(&name) || dtype(name).is_some();
        let known = [SIZE, TENSOR, REBUILD_WITH_ATTRIBUTES].contains(&name)
            || SETS.contains(&name)
            || DEEPSPEED.contains(&name);
        match self {
            Self::StateDict if plain => Ok(()),
            Self::DeepSpeed if plain || known => Ok(()),
            Self::StateDict => refuse(format!(
                "its pickle names `{name}`, which a file of plain tensors does not; nothing was run. Save the tensors \
                 alone: torch.save(model.state_dict(), …)"
            )),
            Self::DeepSpeed => refuse(format!(
                "its pickle holds an object of `{name}`, which is neither a tensor nor known from DeepSpeed's own \
                 checkpoints; nothing was run. Save the checkpoint without it: it comes from the training script \
                 (client_state, arguments, schedulers)"
            )),
        }
    }
}

/// The type of the values in a class of storage.
pub(super) fn dtype(storage: &str) -> Option<Dtype> {
    STORAGES.iter().find(|(name, _)| *name == storage).map(|(_, dtype)| *dtype)
}

/// The class of storage for values of a type.
pub(super) fn storage(dtype: Dtype) -> Option<&'static str> {
    STORAGES.iter().find(|(_, known)| *known == dtype).map(|(name, _)| *name)
}
