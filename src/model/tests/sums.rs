//! Gradients to which many tokens add are summed in f32 where the computation is in bf16, whose sums stop growing.

use super::*;
use crate::model::ops;
use crate::model::weight::Weight;
use candle_core::Var;

const TOKENS: usize = 3000;

fn random(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| rng.random_range(0f32..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

/// Sums of the rows at which `tokens` is each of `ids`, in f64.
fn sums(grad: &Tensor, tokens: &[u32], ids: &[u32]) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = grad.to_dtype(DType::F64).unwrap().to_vec2().unwrap();
    let of = |id: &u32| {
        let mut sum = vec![0.0; rows[0].len()];
        for (row, _) in rows.iter().zip(tokens).filter(|(_, token)| *token == id) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        sum
    };
    ids.iter().flat_map(of).collect()
}

fn assert_sums(found: &Tensor, expected: &[f64]) {
    assert_eq!((found.dtype(), found.elem_count()), (DType::F32, expected.len()));
    let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
    assert!(found.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-5 * b.abs()));
}

/// The gradients of an embedding's tables, in the order of these variables.
fn of_tables<const N: usize>(
    table: &Weight,
    tokens: &[u32],
    prompt: &Var,
    grad: &Tensor,
    vars: [&Var; N],
) -> [Tensor; N] {
    let adapter = AdapterWeights::empty(1).with_prompt(prompt.as_tensor().clone());
    let batch = AdapterBatch::uniform(tokens.len(), Arc::new(adapter));
    let mut found = HashMap::new();
    let mut sink = |id, gradient: &Tensor| {
        assert!(found.insert(id, gradient.clone()).is_none(), "in one piece");
        Ok(())
    };
    prompt::embed_backward(table, tokens, &batch, grad, &mut sink).unwrap();
    assert_eq!(found.len(), N, "nothing else is trained");
    vars.map(|var| found[&var.id()].clone())
}

#[test]
fn rows_that_many_tokens_read_get_gradients_summed_in_f32() {
    let var = |rows, dtype| Var::from_tensor(&random(&[rows, 8], dtype, 1)).unwrap();
    let (frozen, grad) = (random(&[61, 8], DType::BF16, 2), random(&[TOKENS, 8], DType::BF16, 3));
    // Two tokens of the table, two new ones, two of a prompt.
    let tokens: Vec<u32> = (0..TOKENS).map(|i| [0, 60, 61, 62, 63, 64][i % 6]).collect();
    let (prompt, rows) = (var(2, DType::F32), var(2, DType::F32));
    let extended = Weight::Dense(frozen).extended(61, rows.as_tensor().clone()).unwrap();
    let [of_rows, of_prompt] = of_tables(&extended, &tokens, &prompt, &grad, [&rows, &prompt]);
    assert_sums(&of_rows, &sums(&grad, &tokens, &[61, 62]));
    assert_sums(&of_prompt, &sums(&grad, &tokens, &[63, 64]));

    let table = var(63, DType::BF16);
    let [whole, _] = of_tables(&Weight::Dense(table.as_tensor().clone()), &tokens, &prompt, &grad, [&table, &prompt]);
    assert_sums(&whole, &sums(&grad, &tokens, &(0..63).collect::<Vec<_>>()));
}

#[test]
fn a_norm_that_many_tokens_go_through_gets_a_gradient_summed_in_f32() {
    let (x, grad) = (random(&[TOKENS, 8], DType::BF16, 1), random(&[TOKENS, 8], DType::BF16, 2));
    let of = |dtype: DType| {
        let [x, grad] = [&x, &grad].map(|t| t.to_dtype(dtype).unwrap());
        let w = Var::ones(8, dtype, &Device::Cpu).unwrap();
        ops::rms_norm_backward(&x, &w, 1e-5, &grad).unwrap().1.unwrap()
    };
    assert_sums(&of(DType::BF16), &of(DType::F64).to_vec1().unwrap());
}
