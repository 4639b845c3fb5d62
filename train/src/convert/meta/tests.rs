//! The order of rows and the cuts, on numbers that show them.

use super::*;
use candle_core::{Device, Tensor};

fn rows(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn halves_of_a_head_become_neighbours_and_back() {
    // Two heads of four rows.
    let halves = Tensor::arange(0f32, 8f32, &Device::Cpu).unwrap().reshape((8, 1)).unwrap();
    let pairs = interleaved(&halves, 2).unwrap();
    assert_eq!(rows(&pairs), [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
    assert_eq!(rows(&halved(&pairs, 2).unwrap()), rows(&halves));
}

#[test]
fn every_tensor_of_a_llama_has_a_name_of_metas() {
    let named = names::all(2);
    assert_eq!(named.len(), 3 + 2 * 9);
    let find = |meta: &str| named.iter().find(|named| named.meta == meta).unwrap();
    assert_eq!(find("layers.1.attention.wo.weight").hf, "model.layers.1.self_attn.o_proj.weight");
    assert_eq!(find("layers.1.attention.wo.weight").cut, Some(Cut::Columns));
    assert_eq!(find("output.weight").cut, Some(Cut::Rows));
    assert_eq!((names::table_cut(32_000), names::table_cut(128_256)), (Cut::Columns, Cut::Rows));
}
