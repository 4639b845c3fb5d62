//! The files of one step of a ZeRO checkpoint: which there are, and what their dicts say.

use crate::error::{Result, TrainError};
use crate::pickle::{Content, Item, TorchFile, TorchTensor};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What the optimizer's states are called in their file.
const OPTIMIZER: &str = "optimizer_state_dict";
const OPTIMIZER_FILES: &str = "_optim_states.pt";
const MODEL_FILES: &str = "_model_states.pt";
/// The only rank of model parallelism that there may be.
const MODEL_RANK: &str = "00";

/// How the masters are divided among the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Stages 1 and 2: each group of parameters is one flat list, and each rank has a stretch of it.
    Stretches,
    /// Stage 3: each rank has a part of every parameter.
    Parts,
}

impl Stage {
    /// Where the masters are.
    fn key(self) -> &'static str {
        match self {
            Self::Stretches => "single_partition_of_fp32_groups",
            Self::Parts => "fp32_flat_groups",
        }
    }
}

/// Names and shapes, in the order in which the values lie.
pub(super) type Shapes = Vec<(String, Vec<usize>)>;

/// All files of a step.
pub(super) struct States {
    pub(super) stage: Stage,
    /// The optimizer's, by rank.
    optimizer: Vec<TorchFile>,
    /// The model's: one, or in stage 3 one for each rank.
    model: Vec<TorchFile>,
}

impl States {
    /// Opens the files of a folder.
    ///
    /// # Errors
    /// When one is missing, damaged, or holds what is not known; or when the model is divided in other ways too.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let open = |path: &PathBuf| TorchFile::open(path, Content::DeepSpeed);
        let optimizer: Vec<TorchFile> = ranked(dir, OPTIMIZER_FILES)?.iter().map(open).collect::<Result<_>>()?;
        let Some(first) = optimizer.first() else {
            let message =
                format!("holds no zero_pp_rank_0_mp_rank_{MODEL_RANK}{OPTIMIZER_FILES}: it is no ZeRO checkpoint");
            return Err(TrainError::input(dir, message));
        };
        let stage = stage(first)?;
        let model = match stage {
            Stage::Stretches => vec![dir.join(format!("mp_rank_{MODEL_RANK}{MODEL_FILES}"))],
            Stage::Parts => ranked(dir, MODEL_FILES)?,
        };
        let model: Vec<TorchFile> = model.iter().map(open).collect::<Result<_>>()?;
        if stage == Stage::Parts && model.len() != optimizer.len() {
            let message = format!("holds {} files *{MODEL_FILES} of {} ranks", model.len(), optimizer.len());
            return Err(TrainError::input(dir, message));
        }
        let states = Self { stage, optimizer, model };
        states.check_count(dir)?;
        Ok(states)
    }

    /// How many ranks trained together.
    pub(super) fn world(&self) -> usize {
        self.optimizer.len()
    }

    /// Each rank's file and what it holds of the masters, by group.
    pub(super) fn masters(&self) -> Result<Vec<(&TorchFile, Vec<TorchTensor>)>> {
        let key = self.stage.key();
        let of_rank = |file| {
            let groups = optimizer(file)?.get(key).and_then(Item::elements);
            let groups = groups.ok_or_else(|| TrainError::input(file.path(), format!("holds no list `{key}`")))?;
            let tensors = groups.into_iter().map(|group| file.tensor(key, group));
            Ok((file, tensors.collect::<Result<_>>()?))
        };
        self.optimizer.iter().map(of_rank).collect()
    }

    /// Names and shapes of what was trained, by group.
    pub(super) fn trained(&self) -> Result<Vec<Shapes>> {
        let file = &self.model[0];
        let item = file.root().get("param_shapes");
        let item = item.ok_or_else(|| TrainError::input(file.path(), "holds no `param_shapes`"))?;
        // One group was once not wrapped in a list.
        let groups = item.elements().unwrap_or_else(|| vec![item]);
        groups.into_iter().map(|group| shapes(file, group)).collect()
    }

    /// Names and shapes of what was not trained.
    pub(super) fn frozen(&self) -> Result<Shapes> {
        let file = &self.model[0];
        match file.root().get("frozen_param_shapes").filter(|item| !item.is_none()) {
            Some(item) => shapes(file, item),
            None => Ok(Vec::new()),
        }
    }

    /// Each model file's part of a frozen parameter.
    pub(super) fn fragments(&self, name: &str) -> Result<Vec<(&TorchFile, TorchTensor)>> {
        let of_rank = |file: &'_ TorchFile| {
            let found = file.root().get("frozen_param_fragments").and_then(|fragments| fragments.get(name));
            let missing = || TrainError::input(file.path(), format!("has no `frozen_param_fragments` of `{name}`"));
            file.tensor(name, found.ok_or_else(missing)?)
        };
        self.model.iter().map(|file| Ok((file, of_rank(file)?))).collect()
    }

    /// The values that are no parameters (`buffer_names`), as the module holds them.
    pub(super) fn buffers(&self) -> Result<Vec<(String, &TorchFile, TorchTensor)>> {
        let file = &self.model[0];
        let names = file.root().get("buffer_names").and_then(Item::elements).unwrap_or_default();
        let module = file.root().get("module");
        let mut found = Vec::new();
        for name in names.into_iter().filter_map(Item::text) {
            if let Some(item) = module.and_then(|module| module.get(name)) {
                found.push((name.to_owned(), file, file.tensor(name, item)?));
            }
        }
        Ok(found)
    }

    /// Names of parameters that are others: of the one, and of the other.
    pub(super) fn shared(&self) -> Vec<(&str, &str)> {
        let entries = self.model[0].root().get("shared_params").and_then(Item::entries).unwrap_or_default();
        entries.into_iter().filter_map(|(name, same)| Some((name.text()?, same.text()?))).collect()
    }

    /// An error unless there are as many ranks as the optimizer says.
    fn check_count(&self, dir: &Path) -> Result<()> {
        let count = optimizer(&self.optimizer[0])?.get("partition_count");
        // One number, or one for each group (fewer where experts are divided otherwise).
        let counts = count.and_then(Item::elements).or(count.map(|count| vec![count])).unwrap_or_default();
        match counts.into_iter().filter_map(Item::size).max() {
            Some(count) if count != self.world() => Err(TrainError::input(
                dir,
                format!(
                    "holds the optimizer states of {} ranks, but {count} trained; copy the others too",
                    self.world()
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn optimizer(file: &TorchFile) -> Result<Item<'_>> {
    file.root().get(OPTIMIZER).ok_or_else(|| TrainError::input(file.path(), format!("holds no `{OPTIMIZER}`")))
}

/// As `zero_stage` says, or, where there is none, as the masters are called.
fn stage(file: &TorchFile) -> Result<Stage> {
    let states = optimizer(file)?;
    match states.get("zero_stage").and_then(Item::int) {
        Some(1 | 2) => Ok(Stage::Stretches),
        Some(3) => Ok(Stage::Parts),
        Some(other) => Err(TrainError::input(file.path(), format!("is of ZeRO stage {other}; 1, 2 and 3 are read"))),
        None => [Stage::Stretches, Stage::Parts]
            .into_iter()
            .find(|stage| states.get(stage.key()).is_some())
            .ok_or_else(|| TrainError::input(file.path(), "has neither `zero_stage` nor masters in f32")),
    }
}

fn shapes(file: &TorchFile, item: Item<'_>) -> Result<Shapes> {
    let wrong = || TrainError::input(file.path(), format!("holds {item} where names and shapes are expected"));
    let named = |(name, shape): (Item<'_>, Item<'_>)| Some((name.text()?.to_owned(), shape.sizes()?));
    item.entries().ok_or_else(wrong)?.into_iter().map(|entry| named(entry).ok_or_else(wrong)).collect()
}

/// The files `[bf16_]zero_pp_rank_N_mp_rank_00{suffix}` of all ranks, in their order.
fn ranked(dir: &Path, suffix: &str) -> Result<Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(TrainError::io(dir))? {
        let entry = entry.map_err(TrainError::io(dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((rank, model_rank)) = ranks(&name, suffix) else { continue };
        if model_rank != MODEL_RANK {
            return Err(TrainError::input(&entry.path(), "is of a model that was divided among devices by itself too"));
        }
        found.insert(rank, entry.path());
    }
    if let Some(missing) = (0..found.len()).find(|rank| !found.contains_key(rank)) {
        let message = format!("holds no zero_pp_rank_{missing}_mp_rank_{MODEL_RANK}{suffix}; copy it too");
        return Err(TrainError::input(dir, message));
    }
    Ok(found.into_values().collect())
}

fn ranks<'a>(name: &'a str, suffix: &str) -> Option<(usize, &'a str)> {
    let name = name.strip_prefix("bf16_").unwrap_or(name);
    let (rank, model_rank) = name.strip_prefix("zero_pp_rank_")?.strip_suffix(suffix)?.split_once("_mp_rank_")?;
    Some((rank.parse().ok()?, model_rank))
}
