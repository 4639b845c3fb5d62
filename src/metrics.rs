//! Every Prometheus metric, by name; no other file names one.
//!
//! Label values come from known sets: adapter names from the registry, outcomes and error codes from our own tables.
//! The `vllm:` aliases let Kubernetes gateways route to this server without configuration.

mod timer;

pub use timer::{RequestTimer, Totals};

use crate::adapter::registry::{Listed, Registry as Adapters};
use crate::engine::EngineStats;
use crate::grammar::CacheStats;
use crate::model::kv_cache::BLOCK_SIZE;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Counter, Error, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Buckets of latencies in seconds, up to the longest that a request may take unless the operator says otherwise.
const SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0, 300.0];

/// All metrics of one server.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    errors: IntCounterVec,
    queue: Histogram,
    first_token: Histogram,
    inter_token: Histogram,
    duration: Histogram,
    compile: Histogram,
    adapter_load: Histogram,
    adapter_loads: IntCounterVec,
    violations: IntCounter,
    scraped: Scraped,
    /// Requests in flight by adapter name (the base is not among them).
    in_flight: Mutex<BTreeMap<String, InFlight>>,
    /// Of each known model.
    totals: Mutex<BTreeMap<String, Totals>>,
    /// One scrape at a time: counters are copied from the engine's totals.
    scrape: Mutex<()>,
}

/// The adapters at the time of a scrape.
#[derive(Default)]
pub struct AdapterStats {
    residents: Vec<Listed>,
    bytes: u64,
    swaps: u64,
    evictions: u64,
}

impl AdapterStats {
    pub fn of(adapters: &Adapters) -> Self {
        Self {
            residents: adapters.list(),
            bytes: adapters.bytes_used(),
            swaps: adapters.swaps(),
            evictions: adapters.evictions(),
        }
    }
}

/// Metrics that are copied from the engine and the registry when they are read.
struct Scraped {
    counters: [IntCounter; 8],
    mask_seconds: Counter,
    /// Replaced generations, and evictions.
    adapter_changes: [IntCounter; 2],
    /// Grammars found compiled, and not.
    grammar_cache: [IntCounter; 2],
    running: [IntGauge; 2],
    waiting: [IntGauge; 2],
    kv_usage: [Gauge; 2],
    cache: IntGaugeVec,
    residents: IntGauge,
    resident_bytes: IntGauge,
    loaded: IntGaugeVec,
    /// Where adapters lie: `cpu` or `gpu`.
    level: &'static str,
    lora: GaugeVec,
    max_lora: String,
}

/// Requests for an adapter.
#[derive(Debug, Default)]
struct InFlight {
    waiting: usize,
    running: usize,
}

/// Makes and registers metrics.
struct Maker<'a> {
    registry: &'a Registry,
    model: &'a str,
}

impl Maker<'_> {
    fn keep<C: Collector + Clone + 'static>(&self, metric: Result<C, Error>) -> Result<C, Error> {
        let metric = metric?;
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// Options of a `vllm:` alias, which carries the model's name.
    fn alias(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("vllm:{name}"), help).const_label("model_name", self.model)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.keep(IntCounter::new(format!("callsmith_{name}"), help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.keep(IntCounterVec::new(Opts::new(format!("callsmith_{name}"), help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.keep(IntGauge::new(format!("callsmith_{name}"), help))
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Histogram, Error> {
        let options = HistogramOpts::new(format!("callsmith_{name}_seconds"), help).buckets(SECONDS.to_vec());
        self.keep(Histogram::with_opts(options))
    }

    fn gauges(&self, own: &str, alias: &str, help: &str) -> Result<[IntGauge; 2], Error> {
        Ok([self.gauge(own, help)?, self.keep(IntGauge::with_opts(self.alias(alias, help)))?])
    }
}

impl Metrics {
    /// Registers everything. `model` is the base's name, `max_batch` how many adapters may run together, `level` where they
    /// lie (`cpu` or `gpu`).
    pub fn new(model: &str, max_batch: usize, level: &'static str) -> Result<Self, Error> {
        let registry = Registry::new();
        let maker = Maker { registry: &registry, model };
        Ok(Self {
            requests: maker.counters(
                "requests_total",
                "Requests for a known model, by outcome.",
                &["model", "outcome"],
            )?,
            errors: maker.counters("errors_total", "Error responses by code.", &["code"])?,
            queue: maker.seconds("request_queue", "From request to the start of its computation.")?,
            first_token: maker.seconds("time_to_first_token", "From request to first token.")?,
            inter_token: maker.seconds("inter_token_latency", "Time per token after the first.")?,
            duration: maker.seconds("request_duration", "From request to last token.")?,
            compile: maker.seconds("grammar_compile", "Compilation of a turn's grammar with its first mask.")?,
            adapter_load: maker.seconds("adapter_load", "Loading an adapter.")?,
            adapter_loads: maker.counters("adapter_loads_total", "Adapter loads by outcome.", &["outcome"])?,
            violations: maker
                .counter("constraint_violations_total", "Finished answers that broke their schema. Must stay 0.")?,
            scraped: Scraped::new(&maker, max_batch, level)?,
            in_flight: Mutex::default(),
            totals: Mutex::default(),
            scrape: Mutex::default(),
            registry,
        })
    }

    /// An error response with this code was sent.
    pub fn refused(&self, code: &str) {
        self.errors.with_label_values(&[code]).inc();
    }

    pub fn grammar_compiled(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
    }

    pub fn adapter_loaded(&self, took: Duration, good: bool) {
        self.adapter_load.observe(took.as_secs_f64());
        self.adapter_loads.with_label_values(&[if good { "loaded" } else { "refused" }]).inc();
    }

    pub fn constraint_violated(&self) {
        self.violations.inc();
    }

    /// Starts the clock of a request for a known model (the base or a loaded adapter).
    pub fn start_request(self: &Arc<Self>, model: &str, is_adapter: bool, arrived: Instant) -> RequestTimer {
        if is_adapter {
            self.in_flight.lock().entry(model.to_owned()).or_default().waiting += 1;
        }
        RequestTimer::new(Arc::clone(self), model, is_adapter, arrived)
    }

    /// Requests in flight for an adapter.
    pub fn in_flight(&self, adapter: &str) -> usize {
        self.in_flight.lock().get(adapter).map_or(0, |count| count.waiting + count.running)
    }

    /// What became of the requests for a model.
    pub fn totals(&self, model: &str) -> Totals {
        self.totals.lock().get(model).copied().unwrap_or_default()
    }

    /// The text for `/metrics`.
    pub fn render(&self, stats: &EngineStats, cache: CacheStats, adapters: &AdapterStats) -> String {
        let _one = self.scrape.lock();
        self.scraped.update_engine(stats);
        advance(&self.scraped.grammar_cache, &[cache.hits, cache.misses]);
        self.scraped.update_adapters(adapters, &self.in_flight.lock());
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written");
            String::new()
        })
    }
}

impl Scraped {
    fn new(maker: &Maker<'_>, max_batch: usize, level: &'static str) -> Result<Self, Error> {
        let usage = "Share of the KV cache in use, 0 to 1.";
        let cache = maker.alias("cache_config_info", "Geometry of the KV cache.");
        let loaded = maker.alias("lora_adapter_loaded", "Resident adapters.");
        let lora = maker.alias("lora_requests_info", "Adapters with requests; the value is the time of the update.");
        Ok(Self {
            counters: [
                maker.counter("prompt_tokens_total", "Prompt tokens taken in.")?,
                maker.counter("generated_tokens_total", "Tokens generated, forced ones included.")?,
                maker.counter("forced_tokens_total", "Tokens that the grammar forced.")?,
                maker.counter("masks_total", "Token masks applied.")?,
                maker.counter("preemptions_total", "Sequences set back for lack of KV blocks.")?,
                maker.counter("prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.")?,
                maker.counter("prefix_cache_hits_total", "Prompt tokens found there, which need not be computed.")?,
                maker.counter("engine_steps_total", "Forward passes.")?,
            ],
            mask_seconds: maker
                .keep(Counter::new("callsmith_mask_seconds_total", "Time that token masks took, in seconds."))?,
            adapter_changes: [
                maker.counter("adapter_swaps_total", "Adapter names that got another generation.")?,
                maker.counter("adapter_evictions_total", "Adapters that made room for others.")?,
            ],
            grammar_cache: [
                maker.counter("grammar_cache_hits_total", "Turns whose grammar was found compiled.")?,
                maker.counter("grammar_cache_misses_total", "Turns whose grammar had to be compiled.")?,
            ],
            running: maker.gauges("requests_running", "num_requests_running", "Sequences that run.")?,
            waiting: maker.gauges("requests_waiting", "num_requests_waiting", "Sequences that wait.")?,
            kv_usage: [
                maker.keep(Gauge::new("callsmith_kv_cache_usage_ratio", usage))?,
                maker.keep(Gauge::with_opts(maker.alias("kv_cache_usage_perc", usage)))?,
            ],
            cache: maker.keep(IntGaugeVec::new(cache, &["block_size", "num_gpu_blocks"]))?,
            residents: maker.gauge("adapters_resident", "Loaded adapters.")?,
            resident_bytes: maker.gauge(
                "adapter_bytes_resident",
                "Memory of the adapters, retired ones with running requests included.",
            )?,
            loaded: maker.keep(IntGaugeVec::new(loaded, &["adapter_name", "level", "pinned"]))?,
            lora: maker.keep(GaugeVec::new(lora, &["max_lora", "running_lora_adapters", "waiting_lora_adapters"]))?,
            max_lora: max_batch.to_string(),
            level,
        })
    }

    fn update_engine(&self, stats: &EngineStats) {
        let totals = [
            stats.prompt_tokens,
            stats.generated_tokens,
            stats.forced_tokens,
            stats.masks,
            stats.preemptions,
            stats.prefix_queries,
            stats.prefix_hits,
            stats.steps,
        ];
        advance(&self.counters, &totals);
        self.mask_seconds.inc_by((stats.mask_ns as f64 / 1e9 - self.mask_seconds.get()).max(0.0));
        self.running.iter().for_each(|gauge| gauge.set(stats.running as i64));
        self.waiting.iter().for_each(|gauge| gauge.set(stats.waiting as i64));
        let usage = stats.blocks_used as f64 / stats.blocks_total.max(1) as f64;
        self.kv_usage.iter().for_each(|gauge| gauge.set(usage));
        self.cache.with_label_values(&[&BLOCK_SIZE.to_string(), &stats.blocks_total.to_string()]).set(1);
    }

    fn update_adapters(&self, adapters: &AdapterStats, in_flight: &BTreeMap<String, InFlight>) {
        advance(&self.adapter_changes, &[adapters.swaps, adapters.evictions]);
        self.resident_bytes.set(i64::try_from(adapters.bytes).unwrap_or(i64::MAX));
        self.residents.set(adapters.residents.len() as i64);
        self.loaded.reset();
        for Listed { lease, pinned } in &adapters.residents {
            let pinned = if *pinned { "true" } else { "false" };
            self.loaded.with_label_values(&[lease.name.as_str(), self.level, pinned]).set(1);
        }
        // Exactly one series: readers take the one with the largest value.
        self.lora.reset();
        let names = |has: fn(&InFlight) -> bool| {
            let names = in_flight.iter().filter(|(_, count)| has(count)).map(|(name, _)| name.as_str());
            names.collect::<Vec<_>>().join(",")
        };
        let (running, waiting) = (names(|count| count.running > 0), names(|count| count.waiting > 0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        self.lora.with_label_values(&[self.max_lora.as_str(), &running, &waiting]).set(now);
    }
}

/// Brings counters up to totals that are kept elsewhere.
fn advance(counters: &[IntCounter], totals: &[u64]) {
    for (counter, total) in counters.iter().zip(totals) {
        counter.inc_by(total.saturating_sub(counter.get()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(generated_tokens: u64) -> EngineStats {
        EngineStats { running: 2, blocks_used: 5, blocks_total: 20, generated_tokens, ..EngineStats::default() }
    }

    #[test]
    fn the_engines_totals_and_the_gateway_names_are_rendered() {
        let metrics = Metrics::new("base", 8, "cpu").unwrap();
        metrics.render(&stats(7), CacheStats::default(), &AdapterStats::default());
        let text = metrics.render(&stats(9), CacheStats::default(), &AdapterStats::default());
        for line in [
            "callsmith_generated_tokens_total 9",
            "callsmith_constraint_violations_total 0",
            "vllm:num_requests_running{model_name=\"base\"} 2",
            "vllm:kv_cache_usage_perc{model_name=\"base\"} 0.25",
            "vllm:cache_config_info{block_size=\"16\",model_name=\"base\",num_gpu_blocks=\"20\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn lora_requests_info_is_one_series_that_names_the_busy_adapters() {
        let metrics = Arc::new(Metrics::new("base", 8, "cpu").unwrap());
        let series = |text: &str| {
            text.lines()
                .filter(|line| line.starts_with("vllm:lora_requests_info{"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut timer = metrics.start_request("weather", true, Instant::now());
        let render = || series(&metrics.render(&stats(0), CacheStats::default(), &AdapterStats::default()));
        let names = |running: &str, waiting: &str| {
            format!("running_lora_adapters=\"{running}\",waiting_lora_adapters=\"{waiting}\"")
        };
        let queued = render();
        assert!(queued.len() == 1 && queued[0].contains(&names("", "weather")), "{queued:?}");
        timer.left_queue();
        let busy = render();
        assert!(busy.len() == 1 && busy[0].contains(&names("weather", "")), "{busy:?}");
        drop(timer);
        let idle = render();
        assert!(idle.len() == 1 && idle[0].contains(&names("", "")), "{idle:?}");
    }

    #[test]
    fn a_request_that_is_dropped_counts_as_cancelled() {
        let metrics = Arc::new(Metrics::new("base", 8, "cpu").unwrap());
        drop(metrics.start_request("base", false, Instant::now()));
        metrics.start_request("base", false, Instant::now()).finish("stop");
        let text = metrics.render(&stats(0), CacheStats::default(), &AdapterStats::default());
        assert!(text.contains("callsmith_requests_total{model=\"base\",outcome=\"cancelled\"} 1"), "{text}");
        assert!(text.contains("callsmith_requests_total{model=\"base\",outcome=\"stop\"} 1"), "{text}");
    }
}
