//! Which KV blocks are free, held by sequences, or kept for their content.
//!
//! Pure bookkeeping of ids: knows neither the tensors behind them nor the sequences that hold them. A full block is known by
//! its tokens and everything before them, so that whoever begins alike holds the same blocks instead of computing them
//! again. Held blocks are never written to once they are full; unheld ones go, the least recently used first, when room
//! is needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Who may share computed prefixes: the same weights, and the same tenant.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Namespace {
    /// The content of the adapter; `None` = the base.
    pub(super) adapter: Option<String>,
    pub(super) tenant: Option<[u8; 32]>,
}

/// Everything before a block: nothing but its namespace, or a known block and everything before that.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Prefix {
    Start(Arc<Namespace>),
    /// The serial number of a content. Numbers are not used again, so a prefix that is gone is never mistaken for another.
    After(u64),
}

/// What a full block holds. Compared token by token: no hash can be mistaken for another.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Content {
    before: Prefix,
    tokens: Box<[u32]>,
}

#[derive(Default)]
struct Block {
    holders: usize,
    /// What it is known by, and the number of that.
    known: Option<(Arc<Content>, u64)>,
    /// When its last holder left, where it is idle.
    left: u64,
}

/// A fixed set of blocks. Every block is free, idle (nobody holds it and its content is known), or held.
pub(super) struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Idle blocks by when their last holder left.
    idle: BTreeMap<u64, u32>,
    contents: HashMap<Arc<Content>, u32>,
    /// Contents and departures so far.
    clock: u64,
    block_size: usize,
}

impl BlockPool {
    pub(super) fn new(total: usize, block_size: usize) -> Self {
        let blocks = std::iter::repeat_with(Block::default).take(total).collect();
        let (free, idle, contents) = (Vec::new(), BTreeMap::new(), HashMap::new());
        let mut pool = Self { blocks, free, idle, contents, clock: 0, block_size };
        pool.reset();
        pool
    }

    /// Takes every block back, whoever holds it, and forgets all contents.
    pub(super) fn reset(&mut self) {
        self.blocks.iter_mut().for_each(|block| *block = Block::default());
        self.idle.clear();
        self.contents.clear();
        // Taken from the end, so that low ids are used first.
        self.free = (0..self.blocks.len() as u32).rev().collect();
    }

    /// Blocks that hold `tokens` tokens.
    pub(super) fn needed(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_size)
    }

    /// Extends a list of blocks until it holds `tokens` tokens. All or nothing: `false` = too few are to be had.
    pub(super) fn grow(&mut self, blocks: &mut Vec<u32>, tokens: usize) -> bool {
        let missing = self.needed(tokens).saturating_sub(blocks.len());
        if missing > self.available() {
            return false;
        }
        for _ in 0..missing {
            blocks.extend(self.take());
        }
        true
    }

    /// A block for one holder: a free one, or the idle one that was left first.
    fn take(&mut self) -> Option<u32> {
        let id = self.free.pop().or_else(|| self.evict())?;
        self.blocks[id as usize].holders = 1;
        Some(id)
    }

    fn evict(&mut self) -> Option<u32> {
        let (_, id) = self.idle.pop_first()?;
        if let Some((content, _)) = self.blocks[id as usize].known.take() {
            self.contents.remove(&content);
        }
        Some(id)
    }

    /// Takes the blocks of a list back and empties it.
    pub(super) fn release(&mut self, blocks: &mut Vec<u32>) {
        // The last first: a block is of no use without those before it.
        for id in blocks.drain(..).rev() {
            let block = &mut self.blocks[id as usize];
            block.holders -= 1;
            if block.holders > 0 {
                continue;
            }
            if block.known.is_none() {
                self.free.push(id);
            } else {
                self.clock += 1;
                block.left = self.clock;
                self.idle.insert(self.clock, id);
            }
        }
    }

    /// Appends the known blocks that `tokens` begins with, as long as a token is left to compute; moves `prefix` behind
    /// them.
    pub(super) fn adopt(&mut self, prefix: &mut Prefix, tokens: &[u32], blocks: &mut Vec<u32>) {
        let most = tokens.len().saturating_sub(1) / self.block_size;
        for part in tokens.chunks_exact(self.block_size).take(most) {
            let content = Content { before: prefix.clone(), tokens: part.into() };
            let Some(&id) = self.contents.get(&content) else { return };
            let block = &mut self.blocks[id as usize];
            if block.holders == 0 {
                self.idle.remove(&block.left);
            }
            block.holders += 1;
            if let Some((_, serial)) = block.known {
                *prefix = Prefix::After(serial);
            }
            blocks.push(id);
        }
    }

    /// Makes a full block known, and moves `prefix` behind it. What another block holds already stays that one's.
    pub(super) fn publish(&mut self, prefix: &mut Prefix, id: u32, tokens: &[u32]) {
        let content = Arc::new(Content { before: prefix.clone(), tokens: tokens.into() });
        let id = *self.contents.entry(Arc::clone(&content)).or_insert(id);
        self.clock += 1;
        let (_, serial) = self.blocks[id as usize].known.get_or_insert((content, self.clock));
        *prefix = Prefix::After(*serial);
    }

    /// Blocks that a sequence could get.
    pub(super) fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Blocks that sequences hold.
    pub(super) fn used(&self) -> usize {
        self.blocks.len() - self.available()
    }

    /// Positions in a block.
    pub(super) fn block_size(&self) -> usize {
        self.block_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start(adapter: &str) -> Prefix {
        Prefix::Start(Arc::new(Namespace { adapter: Some(adapter.to_owned()), tenant: None }))
    }

    /// A sequence's side of the cache.
    #[derive(Debug)]
    struct Holder {
        blocks: Vec<u32>,
        prefix: Prefix,
    }

    impl Holder {
        fn new(adapter: &str) -> Self {
            Self { blocks: Vec::new(), prefix: start(adapter) }
        }

        /// Begins with `tokens`, as far as they are known, and computes the rest. How many were known; `None` = no room.
        fn begin(&mut self, pool: &mut BlockPool, tokens: &[u32]) -> Option<usize> {
            pool.adopt(&mut self.prefix, tokens, &mut self.blocks);
            let known = self.blocks.len();
            if !pool.grow(&mut self.blocks, tokens.len()) {
                return None;
            }
            for (part, &id) in tokens.chunks_exact(pool.block_size()).zip(&self.blocks).skip(known) {
                pool.publish(&mut self.prefix, id, part);
            }
            Some(known * pool.block_size())
        }
    }

    #[test]
    fn a_list_that_cannot_grow_stays_as_it_is() {
        let mut pool = BlockPool::new(3, 4);
        let mut blocks = Vec::new();
        assert!(pool.grow(&mut blocks, 5));
        assert_eq!(blocks, [0, 1]);
        assert!(!pool.grow(&mut blocks, 13));
        assert_eq!((blocks.len(), pool.available(), pool.used()), (2, 1, 2));
        assert!(pool.grow(&mut blocks, 12));
        assert_eq!(blocks, [0, 1, 2]);
    }

    #[test]
    fn who_begins_alike_shares_blocks_and_computes_at_least_a_token() {
        let mut pool = BlockPool::new(20, 2);
        let [mut first, mut same, mut longer, mut other] = [(); 4].map(|()| Holder::new("a"));
        assert_eq!(first.begin(&mut pool, &[1, 2, 3, 4, 5]), Some(0));
        assert_eq!(same.begin(&mut pool, &[1, 2, 3, 4]), Some(2));
        assert_eq!(longer.begin(&mut pool, &[1, 2, 3, 4, 5, 6, 7]), Some(4));
        assert_eq!(other.begin(&mut pool, &[1, 2, 4, 4, 5]), Some(2));
        assert_eq!((&first.blocks[..2], first.blocks[0]), (&longer.blocks[..2], other.blocks[0]));
        // What stands before a block decides too, and so do weights and tenant.
        assert_eq!(Holder::new("a").begin(&mut pool, &[3, 4, 5, 6, 7]), Some(0));
        assert_eq!(Holder::new("b").begin(&mut pool, &[1, 2, 3, 4, 5]), Some(0));
    }

    #[test]
    fn what_nobody_holds_is_known_until_its_room_is_needed() {
        let mut pool = BlockPool::new(4, 2);
        let mut old = Holder::new("a");
        old.begin(&mut pool, &[1, 2, 3, 4, 5]);
        pool.release(&mut old.blocks);
        assert_eq!((pool.used(), pool.available()), (0, 4));
        let mut again = Holder::new("a");
        assert_eq!(again.begin(&mut pool, &[1, 2, 3, 4, 5]), Some(4));
        pool.release(&mut again.blocks);
        // Two blocks are free; the third takes the end of the old prefix, not its beginning.
        let mut new = Holder::new("a");
        assert_eq!(new.begin(&mut pool, &[9, 9, 9, 9, 9]), Some(0));
        pool.release(&mut new.blocks);
        assert_eq!(Holder::new("a").begin(&mut pool, &[1, 2, 3]), Some(2));
        pool.reset();
        assert_eq!(Holder::new("a").begin(&mut pool, &[1, 2, 3]), Some(0), "a reset forgets");
    }

    #[test]
    fn the_same_computed_twice_at_a_time_is_known_once() {
        let mut pool = BlockPool::new(8, 2);
        let mut blocks = [Vec::new(), Vec::new()];
        let mut prefixes = [start("a"), start("a")];
        for (blocks, prefix) in blocks.iter_mut().zip(&mut prefixes) {
            assert!(pool.grow(blocks, 2));
            pool.publish(prefix, blocks[0], &[1, 2]);
        }
        assert_eq!(prefixes[0], prefixes[1]);
        blocks.iter_mut().for_each(|blocks| pool.release(blocks));
        assert_eq!((pool.idle.len(), pool.free.len()), (1, 7));
    }

    proptest! {
        #[test]
        fn blocks_are_conserved_and_a_known_block_holds_what_it_is_known_for(
            total in 1usize..20,
            block_size in 1usize..5,
            moves in prop::collection::vec((0usize..4, prop::option::of(prop::collection::vec(0u32..2, 1..30))), 1..60),
        ) {
            let mut pool = BlockPool::new(total, block_size);
            // What a model would have written into each block.
            let mut written: Vec<Vec<u32>> = vec![Vec::new(); total];
            let mut holders: [Holder; 4] = std::array::from_fn(|_| Holder::new("a"));
            for (who, tokens) in moves {
                let mut holder = Holder::new("a");
                std::mem::swap(&mut holder, &mut holders[who]);
                pool.release(&mut holder.blocks);
                if let Some(tokens) = tokens {
                    let holder = &mut holders[who];
                    match holder.begin(&mut pool, &tokens) {
                        Some(known) => {
                            for (index, (part, &id)) in tokens.chunks(block_size).zip(&holder.blocks).enumerate() {
                                if index * block_size >= known {
                                    written[id as usize] = tokens[..index * block_size + part.len()].to_vec();
                                }
                                prop_assert_eq!(&written[id as usize], &tokens[..index * block_size + part.len()]);
                            }
                        }
                        None => pool.release(&mut holder.blocks),
                    }
                }
                let mut held: Vec<u32> = holders.iter().flat_map(|holder| holder.blocks.clone()).collect();
                for (id, block) in pool.blocks.iter().enumerate() {
                    prop_assert_eq!(block.holders, held.iter().filter(|held| **held == id as u32).count());
                }
                held.sort_unstable();
                held.dedup();
                prop_assert_eq!(held.len(), pool.used());
                held.extend(pool.free.iter().chain(pool.idle.values()));
                held.sort_unstable();
                prop_assert_eq!(held, (0..total as u32).collect::<Vec<_>>());
            }
        }
    }
}
