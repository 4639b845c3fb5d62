//! The gate of the feed-forward layer, on a tile of its output.

use super::parts::Tile;
use crate::model::ops::kernels::{Loop, sigmoid, vectorised};
use std::cell::RefCell;

thread_local!(static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) });

/// Lends a buffer that the thread keeps.
pub(super) fn with_scratch(len: usize, work: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        work(&mut buffer[..len]);
    });
}

/// `tile = silu(tile) * up`, where `up` is the tile's size.
pub(super) fn gate(tile: &mut Tile<'_>, up: &[f32]) {
    let width = tile.columns().len();
    for (row, up) in tile.rows().zip(up.chunks_exact(width)) {
        vectorised(Gate { gate: tile.row(row), up });
    }
}

struct Gate<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Loop for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = *gate * sigmoid(*gate) * up;
        }
    }
}
