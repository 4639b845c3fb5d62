//! What the command line means: low arguments → checked settings, each part for its owner.

use crate::api::Deadlines;
use crate::chat::ChatError;
use crate::chat::dialect::DialectChoice;
use crate::cli::{DtypeName, KvTypeName, LogFormatName, QuantizeName, ReasoningName, ServeArgs};
use crate::model::{KvType, Precision, Quantise};
use crate::priority::processors;
use axum::http::HeaderValue;
use candle_core::DType;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where the base model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    Embedded,
    /// A Hugging Face model directory, or a GGUF file.
    Path(PathBuf),
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// What is told about the server while it runs.
#[derive(Debug, Clone)]
pub struct Telemetry {
    pub log: LogFormat,
    /// Where traces are sent (OTLP over HTTP); `None` = nowhere.
    pub otlp_endpoint: Option<String>,
}

/// A server, described.
#[derive(Debug, Clone)]
pub struct Settings {
    pub model: ModelSource,
    /// The base model's name in requests.
    pub name: String,
    /// Adapters to load at start.
    pub adapters: Vec<(String, PathBuf)>,
    /// Where adapters may be loaded from over HTTP; `None` = not at all.
    pub adapter_root: Option<PathBuf>,
    /// Adapters from there may bring chat templates.
    pub adapter_templates: bool,
    pub adapter_budget: u64,
    pub host: String,
    pub port: u16,
    pub dialect: DialectChoice,
    /// A model that thinks aloud may do so.
    pub thoughts: bool,
    pub precision: Precision,
    /// Threads that compute.
    pub threads: usize,
    pub max_batch: usize,
    pub max_queue: usize,
    pub prefix_cache: bool,
    /// `None` = sized by the model.
    pub kv_cache_bytes: Option<usize>,
    pub drain: Duration,
    pub deadlines: Deadlines,
    pub telemetry: Telemetry,
    pub keys: KeySettings,
    /// Web pages that may call the server.
    pub cors_origins: Vec<HeaderValue>,
    /// How often adapter files are looked at; `None` = never.
    pub adapter_poll: Option<Duration>,
}

/// Who may do what. Not shown: nobody logs keys by mistake.
#[derive(Clone, Default)]
pub struct KeySettings {
    pub inference: Vec<String>,
    pub admin: Vec<String>,
    /// Most requests under way with one API key.
    pub requests_per_key: Option<usize>,
    pub protect_metrics: bool,
}

impl fmt::Debug for KeySettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeySettings({} API keys, {} admin keys)", self.inference.len(), self.admin.len())
    }
}

/// A command line that cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("--model {0}: no such model directory or GGUF file")]
    NoModel(String),
    #[error("--adapter-root {0}: not a directory")]
    NoAdapterRoot(String),
    #[error("--adapter {0}: the name is given twice")]
    AdapterTwice(String),
    #[error("--dialect: {0}")]
    Dialect(#[from] ChatError),
    #[error("--served-model-name must be 1 to 128 characters of letters, digits and ./_:-")]
    ModelName,
    #[error("{option} {path}: {source}")]
    KeyFile { option: &'static str, path: String, source: std::io::Error },
    #[error("{option} {path}: the file holds no key; the server would be open")]
    NoKeyInFile { option: &'static str, path: String },
    #[error("{0}: a key must be 1 to 512 visible ASCII characters, and no key may be given for both uses")]
    Key(&'static str),
    #[error("--otlp-endpoint: this build sends no traces; build it with --features otel")]
    NoTraces,
    #[error("--otlp-endpoint {0}: must be http://HOST:PORT")]
    OtlpEndpoint(String),
    #[error("--cors-origin {0}: must be an origin such as https://example.org, without a path")]
    Origin(String),
}

const MIB: u64 = 1024 * 1024;

impl Settings {
    /// Checks what was typed.
    pub fn from_args(args: ServeArgs) -> Result<Self, SettingsError> {
        let model = match &args.model {
            Some(path) if !path.exists() => return Err(SettingsError::NoModel(path.display().to_string())),
            Some(path) => ModelSource::Path(path.clone()),
            None => ModelSource::Embedded,
        };
        if let Some(root) = args.adapter_root.as_ref().filter(|root| !root.is_dir()) {
            return Err(SettingsError::NoAdapterRoot(root.display().to_string()));
        }
        check_adapters(&args.adapters)?;
        let (keys, deadlines, precision) = (keys(&args)?, deadlines(&args), precision(&args));
        Ok(Self {
            keys,
            cors_origins: args.cors_origins.iter().map(|origin| self::origin(origin)).collect::<Result<_, _>>()?,
            adapter_poll: Some(Duration::from_secs(args.adapter_poll_seconds)).filter(|poll| !poll.is_zero()),
            name: model_name(args.served_model_name, &model)?,
            model,
            adapters: args.adapters,
            adapter_root: args.adapter_root,
            adapter_templates: args.adapter_templates,
            adapter_budget: args.adapter_budget_mib * MIB,
            host: args.host,
            port: args.port,
            dialect: dialect(args.dialect, args.dialect_dir)?,
            thoughts: args.reasoning == ReasoningName::Auto,
            precision,
            threads: args.threads.map_or_else(processors, |threads| threads as usize),
            max_batch: args.max_batch as usize,
            max_queue: args.max_queue as usize,
            prefix_cache: !args.no_prefix_cache,
            kv_cache_bytes: args.kv_cache_mib.map(|mib| (mib * MIB) as usize),
            drain: Duration::from_secs(args.drain_seconds),
            deadlines,
            telemetry: telemetry(&args.otlp_endpoint, args.log_format)?,
        })
    }
}

/// Checked before a long load: the directory's files and the name.
fn dialect(name: Option<String>, dir: Option<PathBuf>) -> Result<DialectChoice, SettingsError> {
    let choice = DialectChoice { name, dir };
    choice.resolve(None)?;
    Ok(choice)
}

fn deadlines(args: &ServeArgs) -> Deadlines {
    let [queue, total, silence] =
        [args.queue_timeout_seconds, args.request_timeout_seconds, args.silence_timeout_seconds]
            .map(Duration::from_secs);
    Deadlines { queue, total, silence }
}

fn keys(args: &ServeArgs) -> Result<KeySettings, SettingsError> {
    let read = |option, given: &[String], file: &Option<PathBuf>| -> Result<Vec<String>, SettingsError> {
        let mut keys = given.to_vec();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| SettingsError::KeyFile {
                option,
                path: path.display().to_string(),
                source,
            })?;
            let found = keys.len();
            keys.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
            if keys.len() == found {
                return Err(SettingsError::NoKeyInFile { option, path: path.display().to_string() });
            }
        }
        let good = |key: &String| (1..=512).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if keys.iter().all(good) { Ok(keys) } else { Err(SettingsError::Key(option)) }
    };
    let inference = read("--api-key", &args.api_keys, &args.api_key_file)?;
    let admin = read("--admin-key", &args.admin_keys, &args.admin_key_file)?;
    if admin.iter().any(|key| inference.contains(key)) {
        return Err(SettingsError::Key("--admin-key"));
    }
    let requests_per_key = args.max_requests_per_key.map(|most| most as usize);
    Ok(KeySettings { inference, admin, requests_per_key, protect_metrics: args.protect_metrics })
}

fn origin(text: &str) -> Result<HeaderValue, SettingsError> {
    let wrong = || SettingsError::Origin(text.to_owned());
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    if !matches!(scheme, "http" | "https") || host.is_empty() || host.contains('/') {
        return Err(wrong());
    }
    HeaderValue::from_str(text).map_err(|_| wrong())
}

fn precision(args: &ServeArgs) -> Precision {
    let dtype = match args.dtype {
        DtypeName::F32 => DType::F32,
        DtypeName::F16 => DType::F16,
        DtypeName::Bf16 => DType::BF16,
    };
    let quantise = match args.quantize {
        QuantizeName::None => Quantise::None,
        QuantizeName::Q8 => Quantise::Q8,
        QuantizeName::Q4 => Quantise::Q4,
    };
    let kv = match args.kv_cache_dtype {
        KvTypeName::Auto => None,
        KvTypeName::F32 => Some(KvType::F32),
        KvTypeName::F16 => Some(KvType::F16),
    };
    Precision { dtype, quantise, kv }
}

fn telemetry(endpoint: &Option<String>, log: LogFormatName) -> Result<Telemetry, SettingsError> {
    if let Some(endpoint) = endpoint {
        if !cfg!(feature = "otel") {
            return Err(SettingsError::NoTraces);
        }
        if !endpoint.starts_with("http://") {
            return Err(SettingsError::OtlpEndpoint(endpoint.clone()));
        }
    }
    Ok(Telemetry { log: log_format(log), otlp_endpoint: endpoint.clone() })
}

fn log_format(name: LogFormatName) -> LogFormat {
    match name {
        LogFormatName::Text => LogFormat::Text,
        LogFormatName::Json => LogFormat::Json,
    }
}

fn check_adapters(adapters: &[(String, PathBuf)]) -> Result<(), SettingsError> {
    for (index, (name, _)) in adapters.iter().enumerate() {
        if adapters[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(SettingsError::AdapterTwice(name.clone()));
        }
    }
    Ok(())
}

/// The given name, else the model directory's or file's, else the built-in model's.
fn model_name(given: Option<String>, model: &ModelSource) -> Result<String, SettingsError> {
    let name = given.unwrap_or_else(|| match model {
        ModelSource::Embedded => "callsmith".to_owned(),
        ModelSource::Path(path) if path.is_dir() => dir_name(path),
        // Not of what a link points to: download caches name that by its hash.
        ModelSource::Path(path) => path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
    });
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"./_:-".contains(&byte);
    let good = (1..=128).contains(&name.len()) && name.bytes().all(allowed);
    if good { Ok(name) } else { Err(SettingsError::ModelName) }
}

fn dir_name(dir: &std::path::Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn settings(args: &[&str]) -> Result<Settings, SettingsError> {
        let cli = Cli::parse_from(std::iter::once("callsmith").chain(args.iter().copied()));
        Settings::from_args(cli.serve)
    }

    #[test]
    fn no_argument_serves_the_embedded_model_on_the_loopback_address() {
        let settings = settings(&[]).unwrap();
        assert_eq!((settings.model, settings.name.as_str()), (ModelSource::Embedded, "callsmith"));
        assert_eq!((settings.host.as_str(), settings.port), ("127.0.0.1", 8000));
    }

    #[test]
    fn a_directory_gives_the_base_its_name() {
        let dir = tempfile::Builder::new().prefix("my-model").rand_bytes(0).tempdir().unwrap();
        let found = settings(&["--model", dir.path().to_str().unwrap()]).unwrap();
        assert_eq!(found.name, "my-model");
    }

    #[test]
    fn a_gguf_file_gives_the_base_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my-model.Q4_K.gguf");
        std::fs::write(&path, "").unwrap();
        let found = settings(&["--model", path.to_str().unwrap()]).unwrap();
        assert_eq!(found.name, "my-model.Q4_K");
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        assert!(matches!(settings(&["--model", "/nowhere"]), Err(SettingsError::NoModel(_))));
        assert!(matches!(settings(&["--adapter-root", "/nowhere"]), Err(SettingsError::NoAdapterRoot(_))));
        assert!(matches!(settings(&["--adapter", "a=x", "--adapter", "a=y"]), Err(SettingsError::AdapterTwice(_))));
        assert!(matches!(settings(&["--served-model-name", "a b"]), Err(SettingsError::ModelName)));
    }
}
