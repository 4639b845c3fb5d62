//! Which KV blocks are free. Pure bookkeeping of ids: knows neither the tensors behind them nor the sequences that hold them.

/// A fixed set of blocks. Every block is either free here or in exactly one sequence's list.
pub(super) struct BlockPool {
    free: Vec<u32>,
    total: usize,
    block_size: usize,
}

impl BlockPool {
    pub(super) fn new(total: usize, block_size: usize) -> Self {
        let mut pool = Self { free: Vec::new(), total, block_size };
        pool.reset();
        pool
    }

    /// Takes every block back, whoever holds it.
    pub(super) fn reset(&mut self) {
        // Taken from the end, so that low ids are used first.
        self.free = (0..self.total as u32).rev().collect();
    }

    /// Blocks that hold `tokens` tokens.
    pub(super) fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// Extends a list of blocks until it holds `tokens` tokens. All or nothing: `false` = too few are free.
    pub(super) fn grow(&mut self, blocks: &mut Vec<u32>, tokens: usize) -> bool {
        let missing = self.needed(tokens).saturating_sub(blocks.len());
        let Some(rest) = self.free.len().checked_sub(missing) else { return false };
        blocks.extend(self.free.drain(rest..).rev());
        true
    }

    /// Takes the blocks of a list back and empties it.
    pub(super) fn release(&mut self, blocks: &mut Vec<u32>) {
        self.free.extend(blocks.drain(..).rev());
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    pub(super) fn used(&self) -> usize {
        self.total - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_that_cannot_grow_stays_as_it_is() {
        let mut pool = BlockPool::new(3, 4);
        let mut blocks = Vec::new();
        assert!(pool.grow(&mut blocks, 5));
        assert_eq!(blocks, [0, 1]);
        assert!(!pool.grow(&mut blocks, 13));
        assert_eq!((blocks.len(), pool.free(), pool.used()), (2, 1, 2));
        assert!(pool.grow(&mut blocks, 12));
        assert_eq!(blocks, [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn blocks_are_conserved_and_never_given_twice(
            total in 1usize..20,
            block_size in 1usize..9,
            moves in prop::collection::vec((0usize..4, prop::option::of(0usize..80)), 1..60),
        ) {
            let mut pool = BlockPool::new(total, block_size);
            let mut lists: [Vec<u32>; 4] = Default::default();
            for (who, tokens) in moves {
                match tokens {
                    Some(tokens) => {
                        let grew = pool.grow(&mut lists[who], tokens);
                        prop_assert_eq!(grew, lists[who].len() * block_size >= tokens);
                    }
                    None => pool.release(&mut lists[who]),
                }
                let mut all: Vec<u32> = lists.concat();
                prop_assert_eq!(all.len(), pool.used());
                all.extend(&pool.free);
                all.sort_unstable();
                prop_assert_eq!(all, (0..total as u32).collect::<Vec<_>>());
            }
        }
    }
}
