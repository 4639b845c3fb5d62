//! A training run from recipe to exported model: lock, resume, steps, evaluation, checkpoints, export.

use crate::atomic;
use crate::checkpoint::{self, Snapshot, State};
use crate::dataset::conversations::Corpus;
use crate::dataset::encode::Encoder;
use crate::dataset::feeder::{Cursor, Feeder, StepBatch};
use crate::dataset::source::Mixture;
use crate::error::{Result, TrainError};
use crate::eval::held_out::HeldOut;
use crate::export;
use crate::lock;
use crate::model_dir;
use crate::monitor::{self, Display, Monitor, StepLine, Watch};
use crate::own_tokenizer;
use crate::ranks::{Alone, Place, Ranks};
use crate::recipe::{EvalSection, Recipe};
use crate::selection::Selection;
use crate::stop;
use crate::trainable::{self, Trainable};
use crate::trainer::{StepReport, Trainer};
use callsmith::model::ModelConfig;
use callsmith::model::prompt::virtual_tokens;
use serde_json::json;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// How a run is started.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Continue from the newest whole checkpoint.
    pub resume: bool,
    /// Continue although the recipe is not the one of the checkpoint.
    pub allow_changed_recipe: bool,
    pub display: Display,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps were made and the model was exported.
    Finished,
    /// Stopped on request after this many steps; `--resume` continues.
    Stopped { step: u64 },
    /// Stopped on request before it made a step; there is no checkpoint of it.
    NotBegun,
}

/// Trains as the recipe says. `stop` is looked at after every step, and while it prepares data and measures.
pub fn train(recipe: &Recipe, options: RunOptions, stop: &Arc<AtomicBool>) -> Result<Outcome> {
    train_among(&(Rc::new(Alone) as Rc<dyn Ranks>), recipe, options, stop)
}

/// As [`train`], as one of several ranks: each calls it with the same recipe, whose batch is that of one rank. The
/// first one has the output directory; what one is asked, also to stop, all do after the same step.
pub fn train_among(
    ranks: &Rc<dyn Ranks>,
    recipe: &Recipe,
    options: RunOptions,
    stop: &Arc<AtomicBool>,
) -> Result<Outcome> {
    let recipe = &recipe.of_all(ranks.place().size);
    let _lock = ranks.place().is_first().then(|| take(&recipe.output)).transpose()?;
    ranks.meet()?;
    let mut run = match Run::open(recipe, options, ranks, stop) {
        Err(TrainError::Stopped) => {
            note_once(ranks.place(), "stopped before it made a step; start it again to begin");
            return Ok(Outcome::NotBegun);
        }
        run => run?,
    };
    let outcome = run.all_steps();
    outcome.inspect_err(|error| run.monitor.fail(error))
}

/// Takes the output directory for this process and removes what a killed one left half written.
fn take(output: &Path) -> Result<File> {
    let lock = lock::take(output)?;
    atomic::clean(output)?;
    Ok(lock)
}

struct Run<'a> {
    recipe: &'a Recipe,
    ranks: Rc<dyn Ranks>,
    stop: &'a AtomicBool,
    config: ModelConfig,
    trainer: Trainer,
    batches: std::sync::mpsc::Receiver<Result<StepBatch>>,
    held_out: Option<HeldOut>,
    state: State,
    monitor: Watch,
    total_steps: u64,
    saved_at: Option<u64>,
}

impl<'a> Run<'a> {
    fn open(recipe: &'a Recipe, options: RunOptions, ranks: &Rc<dyn Ranks>, stop: &'a AtomicBool) -> Result<Self> {
        let config = trainable::model_config(recipe)?;
        let device = trainable::device(recipe.device)?;
        if ranks.place().is_first() {
            own_tokenizer::prepare(recipe)?;
        }
        ranks.meet()?;
        let encoder = Encoder::of_run(recipe, config.vocab_size)?;
        let encoder = Arc::new(encoder.with_virtual_tokens(virtual_tokens(config.vocab_size, recipe.virtual_tokens())));
        let (mixtures, held_out) =
            stop::agreed(ranks.as_ref(), data(recipe, &encoder, config.vocab_size, ranks.place(), stop))?;
        let total_steps = mixtures.iter().map(|mixture| mixture.steps).sum();
        let trainer = Trainer::new(recipe, Trainable::build(recipe, config.clone(), &device)?, total_steps)?;
        let mut trainer = trainer.among(ranks.clone());
        let state = start(recipe, options, &mut trainer, ranks.place())?;
        ranks.meet()?;
        if !ranks.agree(crc32c::crc32c(state.recipe_digest.as_bytes())) {
            return Err(TrainError::Ranks("they were given different recipes; give all of them the same".into()));
        }
        trainer.check_agreement()?;
        stop::agreed(ranks.as_ref(), stop::check(stop))?;
        let batches = Feeder::new(recipe, mixtures, state.step, state.cursor.clone())?.spawn();
        let mut monitor = Watch(None);
        if ranks.place().is_first() {
            write_resolved(recipe)?;
            let measured = state.selection.seen == Some(state.step);
            monitor = Watch(Some(Monitor::new(&recipe.output, state.step, measured, total_steps, options.display)?));
        }
        let parameters = trainer.trainable.count();
        let sentence = format!("{parameters} trainable values, step {} of {total_steps}", state.step);
        let fields = json!({"step": state.step, "total_steps": total_steps, "trainable": parameters, "recipe_digest": state.recipe_digest});
        monitor.event("start", fields, &sentence)?;
        let saved_at = (state.step > 0).then_some(state.step);
        let ranks = ranks.clone();
        Ok(Self { recipe, ranks, stop, config, trainer, batches, held_out, state, monitor, total_steps, saved_at })
    }

    fn all_steps(&mut self) -> Result<Outcome> {
        match self.steps_to_the_end() {
            Err(TrainError::Stopped) => self.stopped(),
            outcome => outcome,
        }
    }

    fn steps_to_the_end(&mut self) -> Result<Outcome> {
        // The process before this one may have been stopped while it measured.
        if self.state.step > 0 {
            self.evaluate_when_due()?;
        }
        while let Some(batch) = self.next_batch()? {
            self.step(&batch)?;
            stop::agreed(self.ranks.as_ref(), stop::check(self.stop))?;
        }
        self.finish()
    }

    /// The next step's data; `None` after the last step.
    fn next_batch(&self) -> Result<Option<StepBatch>> {
        if self.is_exhausted() {
            return Ok(None);
        }
        match self.batches.recv() {
            Ok(batch) => batch.map(Some),
            Err(_) if self.state.step >= self.total_steps => Ok(None),
            Err(_) => {
                Err(TrainError::Data("the data thread gave up before the last step; its reason stands above".into()))
            }
        }
    }

    fn step(&mut self, batch: &StepBatch) -> Result<()> {
        let report = self.trainer.step(batch)?;
        if report.skipped && self.state.skipped == 0 {
            self.check_base()?;
        }
        self.state.step = batch.step + 1;
        self.state.cursor.clone_from(&batch.cursor);
        self.state.tokens += batch.tokens() as u64;
        self.state.dropped += batch.dropped;
        self.state.skipped += u64::from(report.skipped);
        self.state.updates = self.trainer.moments().updates;
        self.show(batch, &report)?;
        if self.evaluate_when_due()? || self.due(self.recipe.checkpoint.every) {
            self.save()?;
        }
        Ok(())
    }

    /// A base that is damaged is the likeliest reason of a loss that is not finite.
    fn check_base(&self) -> Result<()> {
        let base = self.recipe.model.path.as_deref().filter(|path| path.is_dir());
        base.map_or(Ok(()), model_dir::check_finite)
    }

    fn eval_every(&self, eval: &EvalSection) -> u64 {
        eval.every.unwrap_or((self.total_steps / EVALUATIONS).max(1))
    }

    /// Whether evaluations have long shown nothing better.
    fn is_exhausted(&self) -> bool {
        self.state.selection.is_exhausted(self.recipe.eval.as_ref().and_then(|eval| eval.patience))
    }

    fn due(&self, every: u64) -> bool {
        self.state.step.is_multiple_of(every)
    }

    fn show(&mut self, batch: &StepBatch, report: &StepReport) -> Result<()> {
        let State { tokens, skipped, dropped, .. } = self.state;
        let line = StepLine {
            step: batch.step,
            phase: batch.phase,
            report,
            step_tokens: batch.tokens(),
            step_samples: batch.micros.iter().map(|micro| micro.lengths.len()).sum(),
            tokens,
            skipped,
            dropped,
        };
        self.monitor.step(&line, self.due(self.recipe.log.every))
    }

    /// Measures the present weights if it is their turn; says whether they are the best so far.
    fn evaluate_when_due(&mut self) -> Result<bool> {
        let due = self.recipe.eval.as_ref().is_some_and(|eval| self.due(self.eval_every(eval)));
        Ok(due && self.evaluate()?)
    }

    /// Measures the present weights, once; says whether they are the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        let (Some(held_out), step) = (&self.held_out, self.state.step) else { return Ok(false) };
        if self.state.selection.seen == Some(step) {
            return Ok(false);
        }
        let report = self.monitor.paused(|| held_out.run(&self.trainer.trainable, self.ranks.as_ref(), self.stop))?;
        let best = self.state.selection.record(step, report.loss(), report.wrong());
        let mut fields = report.to_json();
        (fields["step"], fields["best"]) = (json!(step), json!(best));
        self.monitor.event("eval", fields, &format!("held-out at step {step}: {report}"))?;
        Ok(best)
    }

    fn save(&mut self) -> Result<()> {
        if self.saved_at == Some(self.state.step) {
            return Ok(());
        }
        self.saved_at = Some(self.state.step);
        self.trainer.check_agreement()?;
        if !self.ranks.place().is_first() {
            return Ok(());
        }
        let trainer = &self.trainer;
        let snapshot = Snapshot { state: &self.state, values: &trainer.values, moments: trainer.moments() };
        let (slots, keep) = (&trainer.trainable.slots, self.recipe.checkpoint.keep);
        let dir = self.monitor.paused(|| checkpoint::save(&self.recipe.output, slots, snapshot, keep))?;
        let fields = json!({"step": self.state.step, "path": dir});
        self.monitor.event("checkpoint", fields, &format!("saved {}", dir.display()))
    }

    /// Goes back to the weights that did best on what was held out.
    fn take_best(&mut self) -> Result<()> {
        let Some(best) = self.state.selection.best_step().filter(|&best| best != self.state.step) else {
            return Ok(());
        };
        let dir = checkpoint::directory(&self.recipe.output, best);
        let found = checkpoint::load(&dir, &self.trainer.trainable.slots).map_err(|error| {
            let remedy = "`callsmith-train export` writes the newest checkpoint instead";
            TrainError::output(&dir, format!("the best step cannot be read ({error}); {remedy}"))
        })?;
        self.trainer.trainable.set_values(&found.values)?;
        let sentence = format!("step {best} did best on what was held out: its weights are taken");
        self.monitor.event("best", json!({"step": self.state.step, "best_step": best}), &sentence)
    }

    fn stopped(&mut self) -> Result<Outcome> {
        self.save()?;
        let step = self.state.step;
        self.monitor.event(
            "stopped",
            json!({"step": step}),
            &format!("stopped after step {step}; --resume continues"),
        )?;
        Ok(Outcome::Stopped { step })
    }

    fn finish(&mut self) -> Result<Outcome> {
        self.evaluate()?;
        self.save()?;
        if !self.ranks.place().is_first() {
            return Ok(Outcome::Finished);
        }
        self.take_best()?;
        let target = self.recipe.output.join("model");
        export::write(self.recipe, &self.config, &self.trainer.trainable.tensors(), &target, export::Precision::F32)?;
        let best = self.state.selection.best_step();
        let fields = json!({"step": self.state.step, "tokens": self.state.tokens, "path": target, "best_step": best});
        self.monitor.event("finished", fields, &format!("wrote {}", target.display()))?;
        Ok(Outcome::Finished)
    }
}

/// Says what all ranks find.
fn note_once(place: Place, text: &str) {
    if place.is_first() {
        monitor::note(text);
    }
}

/// Evaluations of a run whose recipe does not say how often.
const EVALUATIONS: u64 = 10;

/// What is trained on and what is measured on.
fn data(
    recipe: &Recipe,
    encoder: &Arc<Encoder>,
    vocab_size: usize,
    place: Place,
    stop: &AtomicBool,
) -> Result<(Vec<Mixture>, Option<HeldOut>)> {
    let ordinary = (0..vocab_size as u32).filter(|&id| !encoder.tokenizer.token_bytes(id).is_empty()).collect();
    let corpus = Corpus::open(&recipe.files(), recipe.held_out())?;
    let mixtures = Mixture::all(recipe, &corpus, encoder, ordinary, stop)?;
    let held_out = HeldOut::prepare(recipe, &corpus, encoder, |text| note_once(place, text), stop)?;
    Ok((mixtures, held_out))
}

/// The state to start from: a checkpoint's, or that of a new run.
fn start(recipe: &Recipe, options: RunOptions, trainer: &mut Trainer, place: Place) -> Result<State> {
    let output = &recipe.output;
    let recipe_digest = recipe.digest()?;
    let fresh = State {
        step: 0,
        updates: 0,
        cursor: Cursor::default(),
        tokens: 0,
        skipped: 0,
        dropped: 0,
        selection: Selection::default(),
        recipe_digest: recipe_digest.clone(),
    };
    if !options.resume {
        return match checkpoint::list(output)?.first() {
            Some(_) => Err(TrainError::output(
                output,
                "holds checkpoints of an earlier run; give --resume or another `output`",
            )),
            None => Ok(fresh),
        };
    }
    let note = |text: &str| note_once(place, text);
    let Some(found) = checkpoint::newest(output, &trainer.trainable.slots, note)? else {
        note("there is no checkpoint yet; starting at step 0");
        return Ok(fresh);
    };
    if found.state.recipe_digest != recipe_digest && !options.allow_changed_recipe {
        let message = "the recipe differs from the one of its checkpoint (see recipe.toml there); restore it, with as many processes (batch.tokens times them counts), or give --allow-changed-recipe";
        return Err(TrainError::output(output, message));
    }
    trainer.restore(found.values, found.moments)?;
    Ok(State { recipe_digest, ..found.state })
}

fn write_resolved(recipe: &Recipe) -> Result<()> {
    atomic::file(&recipe.output.join("recipe.toml"), recipe.resolved()?.as_bytes())
}
