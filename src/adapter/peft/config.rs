//! `adapter_config.json`: PEFT's settings → which sites are adapted, with what rank and scale.
//!
//! A setting that changes the arithmetic in a way this decoder does not follow is refused by name, never ignored.
//! Knows no tensors and no files.

use super::{PeftConfig, invalid};
use crate::adapter::{AdapterError, shown};
use crate::model::{Site, TargetModule};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const MAX_RANK: u64 = 4096;
const MAX_PATTERNS: usize = 1024;
/// Larger factors only ever come from a damaged file, and overflow half precision.
const MAX_SCALE: f64 = 10_000.0;
/// Compiled size that one pattern may have, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 18;
/// PEFT's default for `r` and `lora_alpha`.
const PEFT_DEFAULT: u64 = 8;

/// Settings that may be switched on: they are followed, or matter to training alone. PEFT gains new ones every few
/// months, so it is the switched-on unknown that is refused, and not a list of what was known once.
const UNDERSTOOD: [&str; 16] = [
    "use_rslora",
    "use_dora",
    "target_modules",
    super::tokens::SETTING,
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "inference_mode",
    "init_lora_weights",
    "auto_mapping",
    "runtime_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
];
/// Initialisations that leave the base weights as they are; others (PiSSA, OLoRA, CorDA, LoftQ) subtract from them.
const NEUTRAL_INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Rank and scale of one site.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SiteSpec {
    pub rank: usize,
    /// The factor on `B A x`: `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub scale: f64,
}

impl PeftConfig {
    /// The factor on `B A x`: `alpha / rank`, or `alpha / sqrt(rank)` for rsLoRA.
    pub fn scale(&self) -> f64 {
        scale(self.alpha, self.rank, self.use_rslora)
    }

    /// The file's content for an adapter with these sites, in the shortest words that PEFT reads so.
    pub(super) fn to_json(&self, sites: &BTreeMap<Site, SiteSpec>) -> Value {
        let words = Words { config: self, sites };
        json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base_model,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.use_rslora,
            "target_modules": words.targets(),
            "layers_to_transform": words.layers(),
            "rank_pattern": words.pattern(|spec| (spec.rank != self.rank).then(|| json!(spec.rank))),
            "alpha_pattern": words.pattern(|spec| self.other_alpha(spec).map(|alpha| json!(alpha))),
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "modules_to_save": null,
            "use_dora": self.use_dora,
        })
    }

    /// The alpha of a site where it is not the adapter's.
    fn other_alpha(&self, spec: &SiteSpec) -> Option<f64> {
        let usual = scale(self.alpha, spec.rank, self.use_rslora);
        let differs = (spec.scale - usual).abs() > 1e-9 * usual.abs();
        differs.then(|| spec.scale / scale(1.0, spec.rank, self.use_rslora))
    }
}

/// How the adapted sites are described.
struct Words<'a> {
    config: &'a PeftConfig,
    sites: &'a BTreeMap<Site, SiteSpec>,
}

impl Words<'_> {
    fn layer_set(&self) -> BTreeSet<usize> {
        self.sites.keys().map(|site| site.layer).collect()
    }

    /// Whether every adapted layer has every target module.
    fn is_regular(&self) -> bool {
        self.sites.len() == self.layer_set().len() * self.config.target_modules.len()
    }

    fn targets(&self) -> Vec<String> {
        match self.is_regular() {
            true => self.config.target_modules.iter().map(|module| module.peft_name().to_owned()).collect(),
            false => self.sites.keys().map(|site| module_path(*site)).collect(),
        }
    }

    /// The adapted layers, unless they are simply the first ones.
    fn layers(&self) -> Option<Vec<usize>> {
        let layers = self.layer_set();
        let leading = layers.iter().copied().eq(0..layers.len());
        (self.is_regular() && !leading).then(|| layers.into_iter().collect())
    }

    /// What differs from the adapter's own value, by the names of sites.
    fn pattern(&self, value: impl Fn(&SiteSpec) -> Option<Value>) -> Map<String, Value> {
        let named = |(site, spec): (&Site, &SiteSpec)| {
            let name = regex::escape(&format!("layers.{}.{}", site.layer, site.module.path()));
            value(spec).map(|value| (name, value))
        };
        self.sites.iter().filter_map(named).collect()
    }
}

fn scale(alpha: f64, rank: usize, use_rslora: bool) -> f64 {
    let rank = rank as f64;
    alpha / if use_rslora { rank.sqrt() } else { rank }
}

/// The file's content.
pub(super) fn read(bytes: &[u8]) -> Result<Value, AdapterError> {
    serde_json::from_slice(bytes).map_err(|e| invalid(format!("adapter_config.json: {e}")))
}

/// What settings in PEFT's words adapt in a decoder of `layers` blocks.
///
/// # Errors
/// A setting that is wrong or not supported, by name.
pub fn resolve(value: &Value, layers: usize) -> Result<(PeftConfig, BTreeMap<Site, SiteSpec>), AdapterError> {
    let fields = Fields::of(value)?;
    fields.refuse_unsupported()?;
    let mut config = PeftConfig {
        rank: rank("r", fields.get("r").unwrap_or(&json!(PEFT_DEFAULT)))?,
        alpha: alpha("lora_alpha", fields.get("lora_alpha").unwrap_or(&json!(PEFT_DEFAULT)))?,
        use_rslora: fields.flag("use_rslora")?,
        use_dora: fields.flag("use_dora")?,
        dropout: fields.dropout()?,
        target_modules: Vec::new(),
        base_model: fields.get("base_model_name_or_path").and_then(Value::as_str).map(str::to_owned),
    };
    let sites = fields.sites(layers)?;
    config.target_modules =
        TargetModule::ALL.into_iter().filter(|module| sites.iter().any(|site| site.module == *module)).collect();
    let ranks = fields.patterns("rank_pattern", rank)?;
    let alphas = fields.patterns("alpha_pattern", alpha)?;
    let spec = |site: &Site| {
        let rank = ranks.of(*site).unwrap_or(config.rank);
        let scale = scale(alphas.of(*site).unwrap_or(config.alpha), rank, config.use_rslora);
        SiteSpec { rank, scale }
    };
    let specs: BTreeMap<Site, SiteSpec> = sites.iter().map(|site| (*site, spec(site))).collect();
    if let Some(spec) = specs.values().find(|spec| spec.scale > MAX_SCALE) {
        return Err(field("lora_alpha", format!("gives a scale of {}, more than {MAX_SCALE}", spec.scale)));
    }
    Ok((config, specs))
}

pub(super) fn field(name: &str, reason: impl std::fmt::Display) -> AdapterError {
    invalid(format!("adapter_config.json: `{name}` {reason}"))
}

fn rank(name: &str, value: &Value) -> Result<usize, AdapterError> {
    let rank = value.as_u64().filter(|rank| (1..=MAX_RANK).contains(rank));
    let rank = rank.ok_or_else(|| field(name, format!("must be a whole number from 1 to {MAX_RANK}")))?;
    Ok(rank as usize)
}

fn alpha(name: &str, value: &Value) -> Result<f64, AdapterError> {
    let alpha = value.as_f64().filter(|alpha| alpha.is_finite() && *alpha > 0.0);
    alpha.ok_or_else(|| field(name, "must be a number above 0"))
}

/// The name PEFT matches patterns against.
fn module_path(site: Site) -> String {
    format!("model.layers.{}.{}", site.layer, site.module.path())
}

fn all_sites(layers: usize) -> impl Iterator<Item = Site> {
    (0..layers).flat_map(|layer| TargetModule::ALL.into_iter().map(move |module| Site { layer, module }))
}

fn pattern(name: &str, text: &str) -> Result<Regex, AdapterError> {
    let mut builder = RegexBuilder::new(text);
    let built = builder.size_limit(MAX_PATTERN_BYTES).nest_limit(50).build();
    built.map_err(|_| field(name, format!("has a pattern that cannot be used: `{}`", shown(text))))
}

/// `rank_pattern` or `alpha_pattern`: the first match wins, as in PEFT.
struct Patterns<T>(Vec<(Regex, T)>);

impl<T: Copy> Patterns<T> {
    fn of(&self, site: Site) -> Option<T> {
        let path = module_path(site);
        self.0.iter().find(|(regex, _)| regex.is_match(&path)).map(|(_, value)| *value)
    }
}

/// The settings that are present and not null.
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value) -> Result<Self, AdapterError> {
        value.as_object().map(Self).ok_or_else(|| invalid("adapter_config.json: is not an object"))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn flag(&self, name: &str) -> Result<bool, AdapterError> {
        self.get(name).map_or(Some(false), Value::as_bool).ok_or_else(|| field(name, "must be true or false"))
    }

    fn dropout(&self) -> Result<f64, AdapterError> {
        let name = "lora_dropout";
        let dropout = self.get(name).map_or(Some(0.0), Value::as_f64).filter(|p| (0.0..1.0).contains(p));
        dropout.ok_or_else(|| field(name, "must be a number from 0 to below 1"))
    }

    fn refuse_unsupported(&self) -> Result<(), AdapterError> {
        if self.get("peft_type").and_then(Value::as_str) != Some("LORA") {
            let message = "must be \"LORA\" or \"PROMPT_TUNING\"; other methods are not supported";
            return Err(field("peft_type", message));
        }
        if self.get("bias").is_some_and(|bias| bias != "none") {
            return Err(field("bias", "must be \"none\"; trained biases are not supported"));
        }
        self.refuse_others(&UNDERSTOOD, "is not supported; train without it, or merge the adapter into its base")?;
        for (name, only) in [("exclude_modules", ""), ("layers_pattern", "layers")] {
            if self.get(name).is_some_and(|value| value != only && value != &json!([only]) && value != &json!([])) {
                return Err(field(name, "is not supported with this value"));
            }
        }
        let init = self.get("init_lora_weights").and_then(Value::as_str);
        if let Some(init) = init.filter(|init| !NEUTRAL_INITS.contains(init)) {
            let reason = format!("`{}` changes the base weights; convert the adapter to plain LoRA", shown(init));
            return Err(field("init_lora_weights", reason));
        }
        Ok(())
    }

    /// Refuses what is switched on and not among `understood`.
    pub(super) fn refuse_others(&self, understood: &[&str], reason: &str) -> Result<(), AdapterError> {
        let refused = |(name, value): &(&String, &Value)| is_on(value) && !understood.contains(&name.as_str());
        self.0.iter().find(refused).map_or(Ok(()), |(name, _)| Err(field(&shown(name), reason)))
    }

    /// The adapted sites: `target_modules`, limited by `layers_to_transform`.
    fn sites(&self, layers: usize) -> Result<Vec<Site>, AdapterError> {
        let mut sites = self.targets(layers)?;
        if let Some(chosen) = self.chosen_layers(layers)? {
            sites.retain(|site| chosen.contains(&site.layer));
        }
        if sites.is_empty() {
            return Err(field("target_modules", "selects nothing of this model"));
        }
        Ok(sites)
    }

    fn targets(&self, layers: usize) -> Result<Vec<Site>, AdapterError> {
        let name = "target_modules";
        match self.get(name) {
            Some(Value::String(all)) if all == "all-linear" => Ok(all_sites(layers).collect()),
            Some(Value::String(text)) => {
                let regex = pattern(name, &format!(r"\A(?:{text})\z"))?;
                Ok(all_sites(layers).filter(|site| regex.is_match(&module_path(*site))).collect())
            }
            Some(Value::Array(entries)) if entries.len() <= MAX_PATTERNS => {
                let mut sites = Vec::new();
                for entry in entries {
                    sites.extend(named_sites(entry.as_str().unwrap_or_default(), layers)?);
                }
                Ok(sites)
            }
            _ => Err(field(name, "must be a list of module names, a pattern or \"all-linear\"")),
        }
    }

    fn chosen_layers(&self, layers: usize) -> Result<Option<Vec<usize>>, AdapterError> {
        let name = "layers_to_transform";
        let Some(value) = self.get(name) else { return Ok(None) };
        let listed = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        let layer = |value: &Value| {
            let layer = value.as_u64().filter(|layer| *layer < layers as u64);
            layer.map(|layer| layer as usize).ok_or_else(|| field(name, format!("must name layers below {layers}")))
        };
        listed.iter().map(layer).collect::<Result<_, _>>().map(Some)
    }

    fn patterns<T>(
        &self,
        name: &str,
        read: fn(&str, &Value) -> Result<T, AdapterError>,
    ) -> Result<Patterns<T>, AdapterError> {
        let Some(value) = self.get(name) else { return Ok(Patterns(Vec::new())) };
        let entries = value.as_object().filter(|entries| entries.len() <= MAX_PATTERNS);
        let entries = entries.ok_or_else(|| field(name, format!("must be an object of at most {MAX_PATTERNS}")))?;
        let entry = |(text, value): (&String, &Value)| {
            Ok((pattern(name, &format!(r"\A(?:.*\.)?(?:{text})\z"))?, read(name, value)?))
        };
        entries.iter().map(entry).collect::<Result<_, AdapterError>>().map(Patterns)
    }
}

/// The sites that an entry of a `target_modules` list means: a path or the end of one.
fn named_sites(entry: &str, layers: usize) -> Result<Vec<Site>, AdapterError> {
    let tail = format!(".{entry}");
    let sites: Vec<Site> = all_sites(layers)
        .filter(|site| {
            let path = module_path(*site);
            path == entry || path.ends_with(&tail)
        })
        .collect();
    if sites.is_empty() {
        let known = TargetModule::ALL.map(TargetModule::peft_name).join(", ");
        return Err(field("target_modules", format!("names `{}`; this model has {known}", shown(entry))));
    }
    Ok(sites)
}

/// Numbers and text are parameters of something else that would have to be switched on.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::Null | Value::String(_) | Value::Number(_) => false,
    }
}
