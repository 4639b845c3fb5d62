//! The processes that train one model together: which of them this one is, sums over all, and its share of the work.
//!
//! Every rank holds the whole model and makes the same update from the summed gradient, so a run of n ranks is a run of
//! one with the n-fold batch. Knows no tensors and no files; `mpi` alone knows what carries the numbers.

mod launcher;
#[cfg(feature = "mpi")]
mod mpi;

use crate::error::Result;
use std::cmp::Reverse;
use std::rc::Rc;

/// Which of how many processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub rank: usize,
    pub size: usize,
}

impl Place {
    /// Whether this rank is the one that writes files and reports.
    pub fn is_first(self) -> bool {
        self.rank == 0
    }

    /// Which pieces of work of these sizes are this rank's, in order: the largest first, each to the rank with the
    /// least so far. Every rank comes to the same division.
    pub fn share(self, sizes: &[usize]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..sizes.len()).collect();
        order.sort_by_key(|&piece| Reverse(sizes[piece]));
        let mut loads = vec![0; self.size];
        let mut own = Vec::new();
        for piece in order {
            let idlest = (0..self.size).min_by_key(|&rank| loads[rank]).unwrap_or(0);
            loads[idlest] += sizes[piece];
            if idlest == self.rank {
                own.push(piece);
            }
        }
        own.sort_unstable();
        own
    }
}

/// What processes that work together can do. Every call but [`Ranks::place`] and those after an error is made by all
/// of them, in the same order, and waits for all.
pub trait Ranks {
    fn place(&self) -> Place;

    /// Replaces each value by its sum over the ranks, bit for bit the same on each.
    fn sum(&self, values: &mut [f32]);

    /// As [`Ranks::sum`], for few values that have to be exact.
    fn sum_f64(&self, values: &mut [f64]);

    /// Whether `here` holds on any rank.
    fn any(&self, here: bool) -> bool {
        let mut count = [f64::from(u8::from(here))];
        self.sum_f64(&mut count);
        count[0] > 0.0
    }

    /// Whether all ranks give the same number.
    fn agree(&self, number: u32) -> bool {
        let mut sum = [f64::from(number)];
        self.sum_f64(&mut sum);
        !self.any(sum[0] != f64::from(number) * self.place().size as f64)
    }

    /// Waits until all ranks are here. Comes before every sum that follows on work that can fail.
    ///
    /// # Errors
    /// On the first rank, that of another one which has failed instead of coming.
    fn meet(&self) -> Result<()> {
        self.any(false);
        Ok(())
    }

    /// Tells the first rank of an error here, and leaves it the time to say so and to end all; returns if it has not. On the first
    /// rank it returns at once.
    fn report(&self, _error: &str) {}

    /// Ends the other ranks, and this one with them, after an error: they would wait for ever.
    fn abort(&self) {}
}

/// One process.
pub struct Alone;

impl Ranks for Alone {
    fn place(&self) -> Place {
        Place { rank: 0, size: 1 }
    }

    fn sum(&self, _values: &mut [f32]) {}

    fn sum_f64(&self, _values: &mut [f64]) {}
}

/// Joins the processes that a launcher (`mpirun`, `srun`) started together with this one; without a launcher it is alone.
///
/// # Errors
/// When there are several and this build knows no MPI, or MPI does not find them.
pub fn join() -> Result<Rc<dyn Ranks>> {
    match launcher::size(|name| std::env::var(name).ok()) {
        0 | 1 => Ok(Rc::new(Alone)),
        size => together(size),
    }
}

#[cfg(feature = "mpi")]
fn together(size: usize) -> Result<Rc<dyn Ranks>> {
    Ok(Rc::new(mpi::World::join(size)?))
}

#[cfg(not(feature = "mpi"))]
fn together(size: usize) -> Result<Rc<dyn Ranks>> {
    let message = "processes were started together, but this build trains in one; build it with \
        `cargo build -p callsmith-train --features mpi`, or start it without mpirun or srun";
    Err(crate::error::TrainError::Ranks(format!("{size} {message}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sizes: &[usize], size: usize) -> Vec<Vec<usize>> {
        (0..size).map(|rank| Place { rank, size }.share(sizes)).collect()
    }

    #[test]
    fn one_rank_has_all_work_in_order() {
        assert_eq!(shares(&[3, 9, 1, 9], 1), [[0, 1, 2, 3]]);
        assert_eq!(Alone.place().share(&[]), [0; 0]);
    }

    #[test]
    fn every_piece_is_one_ranks_and_each_rank_keeps_the_order() {
        let sizes: Vec<usize> = (0..97).map(|n| 1 + n * 31 % 17).collect();
        for size in [2, 3, 8, 200] {
            let shares = shares(&sizes, size);
            assert!(shares.iter().all(|share| share.is_sorted()));
            let mut all = shares.concat();
            all.sort_unstable();
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_rank_has_more_than_the_largest_piece_above_another() {
        let sizes: Vec<usize> = (0..50).map(|n| 1 + n * 13 % 29).collect();
        let loads: Vec<usize> =
            shares(&sizes, 4).iter().map(|share| share.iter().map(|&piece| sizes[piece]).sum()).collect();
        let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
        assert!(most - least <= *sizes.iter().max().unwrap(), "{loads:?}");
        assert_eq!(shares(&[5, 5, 2], 2), [vec![0, 2], vec![1]]);
    }

    #[test]
    fn alone_everything_is_as_it_is_here() {
        let mut values = [1.5, -2.0];
        Alone.sum(&mut values);
        assert_eq!(values, [1.5, -2.0]);
        assert!(Alone.any(true) && !Alone.any(false) && Alone.agree(7));
    }
}
