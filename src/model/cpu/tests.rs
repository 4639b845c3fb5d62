//! The packed decoder against the plain one, instruction sets against each other, and rows against other company.

use super::*;
use crate::model::tests::{config, configs, in_chunks, positions, random_adapter, random_tensors, tokens};
use crate::model::weights::Checkpoint;
use crate::model::{AdapterWeights, Decoder, Family, LoraPair, Magnitude, Packing};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::collections::HashMap;

fn checkpoint(config: &ModelConfig) -> Checkpoint<'static> {
    Checkpoint::from_tensors(config.clone(), random_tensors(config, 7))
}

fn packed(config: &ModelConfig, precision: Precision, threads: usize) -> CpuDecoder {
    let mut decoder = CpuDecoder::load(&checkpoint(config), precision, threads, &|_| {}).unwrap();
    decoder.reset_store(8);
    decoder
}

fn quantised(quantise: Quantise) -> Precision {
    Precision { quantise, ..Precision::FULL }
}

/// A shape that all formats can hold.
fn wide(family: Family) -> ModelConfig {
    ModelConfig {
        hidden_size: 256,
        intermediate_size: 512,
        num_heads: 8,
        head_dim: 32,
        vocab_size: 75,
        ..config(family)
    }
}

const BLOCKS: [&[u32]; 2] = [&[5, 0, 7], &[2, 6, 1]];

fn all_rows(count: usize) -> Vec<LogitRow<'static>> {
    (0..count as u32).map(|row| LogitRow { row, wanted: None }).collect()
}

/// Every row's logits of one sequence, in chunks.
fn run(decoder: &mut CpuDecoder, tokens: &[u32], chunks: &[usize], adapters: &AdapterBatch) -> Vec<Vec<f32>> {
    let mut cached = 0;
    let parts = chunks.iter().map(|&new| {
        cached += new;
        run_at(decoder, &tokens[..cached], new, adapters)
    });
    parts.collect::<Vec<_>>().concat()
}

/// The logits of the last `new` of these tokens; the others are computed already.
fn run_at(decoder: &mut CpuDecoder, tokens: &[u32], new: usize, adapters: &AdapterBatch) -> Vec<Vec<f32>> {
    let cached = tokens.len() - new;
    let pass = CpuPass {
        tokens: &tokens[cached..],
        positions: &positions(tokens.len())[cached..],
        sequences: &[PagedSequence { blocks: BLOCKS[0], cached, new }],
        adapters,
        logit_rows: &all_rows(new),
    };
    let mut logits = Vec::new();
    decoder.forward(&pass, &|| {}, &mut logits).unwrap();
    logits.chunks_exact(decoder.config().vocab_size).map(<[f32]>::to_vec).collect()
}

fn largest_difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn it_computes_what_the_plain_decoder_computes() {
    let tokens = tokens(40, 1);
    for config in configs() {
        let plain = Decoder::from_tensors(config.clone(), &random_tensors(&config, 7)).unwrap();
        let expected = in_chunks(&plain, &tokens, &[40]);
        let mut decoder = packed(&config, Precision::FULL, 3);
        let found = run(&mut decoder, &tokens, &[40], &AdapterBatch::none());
        let difference = largest_difference(&found, &expected);
        assert!(difference <= 1e-4, "{config:?}: {difference}");
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let tokens = tokens(40, 1);
    for precision in precisions() {
        let mut decoder = packed(&wide(Family::Qwen3), precision, 1);
        let runs = Isa::all().into_iter().map(|isa| {
            decoder.isa = isa;
            run(&mut decoder, &tokens, &[17, 1, 22], &AdapterBatch::none())
        });
        let runs: Vec<_> = runs.collect();
        assert!(runs.iter().all(|run| *run == runs[0]), "{precision:?}");
    }
}

#[test]
fn an_adapters_rows_do_not_depend_on_chunks_either() {
    let (config, tokens) = (wide(Family::Llama), tokens(40, 1));
    for (precision, packing) in precisions().into_iter().zip(PACKINGS) {
        let adapter = Arc::new(random_adapter(&config, 3, 5).into_packed(packing).unwrap());
        let with = |threads: usize, chunks: &[usize]| {
            let mut decoder = packed(&config, precision, threads);
            let mut start = 0;
            let parts = chunks.iter().map(|&new| {
                start += new;
                run_at(&mut decoder, &tokens[..start], new, &AdapterBatch::uniform(new, Arc::clone(&adapter)))
            });
            parts.collect::<Vec<_>>().concat()
        };
        let whole = with(1, &[40]);
        assert_eq!([with(3, &[40]), with(2, &[3, 17, 1, 16, 3])], [whole.clone(), whole], "{precision:?}");
    }
}

/// How adapters are held beside each of [`precisions`].
const PACKINGS: [Packing; 5] = [Packing::Full, Packing::Halves, Packing::Halves, Packing::Compact, Packing::Compact];

fn precisions() -> [Precision; 5] {
    let floats = |dtype| Precision { dtype, ..Precision::FULL };
    let [half, brain] = [candle_core::DType::F16, candle_core::DType::BF16].map(floats);
    [Precision::FULL, half, brain, quantised(Quantise::Q8), quantised(Quantise::Q4)]
}

#[test]
fn a_row_depends_neither_on_chunks_nor_on_threads() {
    let tokens = tokens(40, 1);
    for precision in precisions() {
        for family in [Family::Llama, Family::Mistral] {
            let none = AdapterBatch::none();
            let expected = run(&mut packed(&wide(family), precision, 1), &tokens, &[40], &none);
            for (threads, chunks) in [(3, vec![40]), (1, vec![1; 40]), (2, vec![3, 17, 1, 16, 3])] {
                let found = run(&mut packed(&wide(family), precision, threads), &tokens, &chunks, &none);
                assert_eq!(found, expected, "{precision:?} {chunks:?}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_company() {
    let config = wide(Family::Qwen2);
    let (first, second) = (tokens(21, 1), tokens(9, 2));
    let adapter = Arc::new(random_adapter(&config, 3, 5));
    for precision in precisions() {
        let alone = run(&mut packed(&config, precision, 2), &first, &[21], &AdapterBatch::none());
        let mut adapted_alone = packed(&config, precision, 2);
        let adapted = run(&mut adapted_alone, &second, &[9], &AdapterBatch::uniform(9, Arc::clone(&adapter)));
        let mut adapters = AdapterBatch::none();
        adapters.push(21..30, Arc::clone(&adapter));
        let sequences = [0, 1].map(|i| PagedSequence { blocks: BLOCKS[i], cached: 0, new: [21, 9][i] });
        let both: Vec<u32> = [positions(21), positions(9)].concat();
        let pass = CpuPass {
            tokens: &[first.clone(), second.clone()].concat(),
            positions: &both,
            sequences: &sequences,
            adapters: &adapters,
            logit_rows: &all_rows(30),
        };
        let mut together = Vec::new();
        packed(&config, precision, 2).forward(&pass, &|| {}, &mut together).unwrap();
        let together: Vec<Vec<f32>> = together.chunks_exact(config.vocab_size).map(<[f32]>::to_vec).collect();
        assert_eq!(together, [alone, adapted].concat(), "{precision:?}");
    }
}

#[test]
fn a_row_that_is_no_number_spoils_no_other() {
    let config = wide(Family::Llama);
    let mut tensors = random_tensors(&config, 7);
    let table = tensors["model.embed_tokens.weight"].clone();
    // Token 9 is no number.
    let broken = Tensor::full(f32::NAN, (1, config.hidden_size), &Device::Cpu).unwrap();
    tensors.insert(
        "model.embed_tokens.weight".to_owned(),
        table.slice_assign(&[9..10, 0..config.hidden_size], &broken).unwrap(),
    );
    let checkpoint = Checkpoint::from_tensors(config.clone(), tensors);
    for precision in precisions() {
        let mut decoder = CpuDecoder::load(&checkpoint, precision, 2, &|_| {}).unwrap();
        decoder.reset_store(8);
        let sequences = [0, 1].map(|i| PagedSequence { blocks: BLOCKS[i], cached: 0, new: 2 });
        let mut run = |tokens: [u32; 4]| {
            let mut logits = Vec::new();
            let (none, logit_rows) = (AdapterBatch::none(), [1, 3].map(|row| LogitRow { row, wanted: None }));
            let pass = CpuPass {
                tokens: &tokens,
                positions: &[0, 1, 0, 1],
                sequences: &sequences,
                adapters: &none,
                logit_rows: &logit_rows,
            };
            decoder.forward(&pass, &|| {}, &mut logits).unwrap();
            logits.chunks_exact(config.vocab_size).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        let (whole, broken) = (run([5, 6, 7, 8]), run([5, 9, 7, 8]));
        assert!(broken[0].iter().all(|logit| logit.is_nan()), "{precision:?}");
        // The head is the table, and its row of token 9 is broken in both.
        let sound =
            |row: &[f32]| row.iter().map(|x| x.to_bits()).enumerate().filter(|(id, _)| *id != 9).collect::<Vec<_>>();
        assert_eq!(sound(&broken[1]), sound(&whole[1]), "{precision:?}");
    }
}

#[test]
fn an_adapter_changes_what_it_changes_in_the_plain_decoder() {
    let (config, tokens) = (config(Family::Llama), tokens(12, 1));
    let adapter = random_adapter(&config, 3, 5);
    let uniform = |weights: AdapterWeights| AdapterBatch::uniform(12, Arc::new(weights));
    let plain = Decoder::from_tensors(config.clone(), &random_tensors(&config, 7)).unwrap();
    let (batch, lengths) = (uniform(adapter.clone()), [12]);
    let pass = crate::model::ForwardPass {
        tokens: &tokens,
        positions: &positions(12),
        attention: crate::model::Attention::Causal(&lengths),
        adapters: &batch,
    };
    let hidden = plain.hidden_states(pass).unwrap();
    let expected: Vec<Vec<f32>> = plain.logits(&hidden).unwrap().to_vec2().unwrap();
    let mut decoder = packed(&config, Precision::FULL, 2);
    let base = run(&mut decoder, &tokens, &[12], &AdapterBatch::none());
    let exact = run(&mut decoder, &tokens, &[12], &uniform(adapter.clone()));
    let halves = adapter.clone().into_packed(Packing::Halves).unwrap();
    assert_eq!(halves.iter().count(), 0, "the tensors are gone");
    let halves = run(&mut decoder, &tokens, &[12], &uniform(halves));
    assert!(largest_difference(&exact, &expected) <= 1e-4);
    assert!(largest_difference(&halves, &expected) <= 0.02);
    assert!(largest_difference(&base, &expected) > 0.1);
    // What needs integers finds none here.
    let compact = uniform(adapter.into_packed(Packing::Compact).unwrap());
    assert!(Group::all(&compact, decoder.packing).is_err());
}

/// A random adapter with magnitudes (DoRA).
fn random_dora(config: &ModelConfig) -> AdapterWeights {
    let mut adapter = AdapterWeights::empty(config.num_layers);
    for (site, pair) in random_adapter(config, 3, 5).iter() {
        let lengths: Vec<f32> = (0..pair.b.dims()[0]).map(|i| 1.0 + (i % 7) as f32 / 5.0).collect();
        let magnitude = Some(Magnitude::Wanted(Tensor::new(lengths, &Device::Cpu).unwrap()));
        adapter.insert(site, LoraPair { magnitude, ..pair.clone() });
    }
    adapter
}

#[test]
fn a_dora_adapter_is_served_as_it_is_trained_and_its_neighbours_are_not_touched() {
    let (config, tokens) = (config(Family::Qwen2), tokens(12, 1));
    let (adapter, checkpoint) = (random_dora(&config), checkpoint(&config));
    let plain = Decoder::from_tensors(config.clone(), &random_tensors(&config, 7)).unwrap();
    let (uniform, lengths) = (AdapterBatch::uniform(12, Arc::new(adapter.clone())), [12]);
    let pass = crate::model::ForwardPass {
        tokens: &tokens,
        positions: &positions(12),
        attention: crate::model::Attention::Causal(&lengths),
        adapters: &uniform,
    };
    let hidden = plain.hidden_states(pass).unwrap();
    let expected: Vec<Vec<f32>> = plain.logits(&hidden).unwrap().to_vec2().unwrap();
    let mut decoder = packed(&config, Precision::FULL, 2);
    let served = adapter.clone().beside(&checkpoint).unwrap().into_packed(Packing::Full).unwrap();
    let served = AdapterBatch::uniform(12, Arc::new(served));
    let found = run(&mut decoder, &tokens, &[12], &served);
    assert!(largest_difference(&found, &expected) <= 1e-4);
    let base = run(&mut decoder, &tokens, &[12], &AdapterBatch::none());
    assert!(largest_difference(&base, &expected) > 0.1);
    // Without the base its rows cannot be measured.
    assert!(adapter.into_packed(Packing::Full).is_err());
}

#[test]
fn a_compact_adapter_changes_nearly_the_same() {
    let (config, tokens) = (wide(Family::Llama), tokens(12, 1));
    let adapter = random_adapter(&config, 3, 5);
    let mut decoder = packed(&config, quantised(Quantise::Q8), 2);
    let mut with = |adapter: Option<AdapterWeights>| {
        let batch = adapter.map_or_else(AdapterBatch::none, |weights| AdapterBatch::uniform(12, Arc::new(weights)));
        run(&mut decoder, &tokens, &[12], &batch)
    };
    let (base, exact) = (with(None), with(Some(adapter.clone())));
    let compact = with(Some(adapter.into_packed(Packing::Compact).unwrap()));
    let (change, error) = (largest_difference(&exact, &base), largest_difference(&compact, &exact));
    assert!(error < change / 50.0, "{error} of {change}");
}

#[test]
fn adapters_are_as_exact_as_the_weights_beside_them() {
    let config = wide(Family::Llama);
    let packing = |precision: Precision| packed(&config, precision, 1).packing();
    assert_eq!(precisions().map(packing), PACKINGS);
}

#[test]
fn logits_that_are_wanted_are_those_of_a_whole_row() {
    let config = ModelConfig { vocab_size: 700, ..wide(Family::Llama) };
    let (tokens, positions) = (tokens(6, 1), positions(6));
    let mut decoder = packed(&config, quantised(Quantise::Q8), 2);
    let expected = run(&mut decoder, &tokens, &[6], &AdapterBatch::none());
    let sets: [&[u32]; 4] = [&[0, 1 << 3, 0, 1 << 31], &[], &[u32::MAX; 22], &[0, 0, 3]];
    let rows = [Some(0), None, Some(1), Some(2), Some(0), Some(3)].into_iter().zip(0..);
    let rows: Vec<_> = rows.map(|(set, row)| LogitRow { row, wanted: set.map(|set| sets[set]) }).collect();
    let none = AdapterBatch::none();
    // With rows that want all of them, without, and with one alone.
    for logit_rows in [&rows[..], &rows[4..], &rows[5..], &rows[2..3], &rows[..0]] {
        let sequences = [PagedSequence { blocks: BLOCKS[0], cached: 0, new: 6 }];
        let pass =
            CpuPass { tokens: &tokens, positions: &positions, sequences: &sequences, adapters: &none, logit_rows };
        let mut found = vec![7.0; 5000];
        decoder.forward(&pass, &|| {}, &mut found).unwrap();
        assert_eq!(found.len(), logit_rows.len() * 700);
        for (wanted, found) in logit_rows.iter().zip(found.chunks_exact(700)) {
            for (id, (found, expected)) in found.iter().zip(&expected[wanted.row as usize]).enumerate() {
                let set =
                    wanted.wanted.is_none_or(|set| set.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1));
                assert!(
                    found == expected || !set && *found == f32::NEG_INFINITY,
                    "{wanted:?} {id}: {found} {expected}"
                );
            }
        }
        let computed = found.iter().filter(|logit| logit.is_finite()).count();
        let whole = logit_rows.iter().any(|row| row.wanted.is_none() || row.wanted == Some(sets[2]));
        assert!(whole || computed < 100, "{computed}");
    }
}

/// The values that remain of a checkpoint after GGUF's own rounding.
fn rounded(config: &ModelConfig, quantise: Quantise) -> HashMap<String, Tensor> {
    let round = |(name, tensor): (String, Tensor)| {
        let encoding = match quantise {
            Quantise::Q4 if name.contains("layers") => GgmlDType::Q4K,
            _ => GgmlDType::Q8_0,
        };
        let tensor = match tensor.rank() {
            2 => QTensor::quantize(&tensor, encoding).unwrap().dequantize(&Device::Cpu).unwrap(),
            _ => tensor,
        };
        (name, tensor)
    };
    random_tensors(config, 7).into_iter().map(round).collect()
}

#[test]
fn quantised_weights_compute_what_their_values_do() {
    let (config, tokens) = (wide(Family::Llama), tokens(30, 1));
    for quantise in [Quantise::Q8, Quantise::Q4] {
        let plain = Decoder::from_tensors(config.clone(), &rounded(&config, quantise)).unwrap();
        let expected = in_chunks(&plain, &tokens, &[30]);
        let precision = Precision { kv: Some(KvType::F32), ..quantised(quantise) };
        let found = run(&mut packed(&config, precision, 2), &tokens, &[30], &AdapterBatch::none());
        let spread = expected.iter().flatten().fold(0f32, |most, x| most.max(x.abs()));
        let difference = largest_difference(&found, &expected) / spread;
        assert!(difference < 2e-3, "{quantise:?}: {difference}");
    }
}

#[test]
fn an_embedding_is_its_row_of_weights() {
    let config = wide(Family::Llama);
    for quantise in [Quantise::None, Quantise::Q8] {
        let expected = match quantise {
            Quantise::None => random_tensors(&config, 7),
            _ => rounded(&config, quantise),
        };
        let name = "model.layers.0.mlp.down_proj.weight";
        let expected: Vec<Vec<f32>> = expected[name].to_vec2().unwrap();
        let decoder = packed(&config, quantised(quantise), 2);
        let matrix = &decoder.blocks[0].down.matrix;
        let mut row = vec![0.0; matrix.inputs];
        for (index, expected) in expected.iter().enumerate() {
            matrix.row_into(index, &mut row);
            let furthest = row.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(furthest < 1e-6, "{quantise:?} {index} {furthest}");
        }
    }
}

#[test]
fn a_soft_prompt_is_read_as_the_plain_decoder_reads_it_however_it_is_cut() {
    let config = config(Family::Llama);
    let plain = Decoder::from_tensors(config.clone(), &random_tensors(&config, 7)).unwrap();
    let weights = AdapterWeights::empty(config.num_layers).with_prompt(plain.embeddings(&[7, 8, 9]).unwrap());
    let weights = Arc::new(weights.into_packed(Packing::Halves).unwrap());
    let said = tokens(6, 2);
    let (before, spelled): (Vec<u32>, Vec<u32>) =
        ([&[61, 62, 63], said.as_slice()].concat(), [&[7, 8, 9], said.as_slice()].concat());
    let mut decoder = packed(&config, Precision::FULL, 2);
    let expected = run(&mut decoder, &spelled, &[9], &AdapterBatch::none());
    for chunks in [&[9][..], &[2, 7], &[1; 9]] {
        let mut cached = 0;
        let mut found = Vec::new();
        for &new in chunks {
            cached += new;
            found.extend(run_at(&mut decoder, &before[..cached], new, &AdapterBatch::uniform(new, weights.clone())));
        }
        assert_eq!(found, expected, "{chunks:?}");
    }
}
