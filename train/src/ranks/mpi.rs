//! Ranks over an MPI library. Its errors are fatal by its own default: it says what went wrong and ends the job.

use super::{Place, Ranks};
use crate::error::{Result, TrainError};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Destination, MatchedReceiveVec, Source};
use std::time::Duration;

/// Values that one message carries: what is copied stays small, and MPI counts in 32 bits.
const CHUNK: usize = 1 << 22;

/// Marks what a rank that has failed tells the first one.
const FAILED: i32 = 1;
/// How long it then waits to be ended. The first one listens whenever ranks meet, which it may reach a long step later.
const PATIENCE: Duration = Duration::from_secs(300);
/// Bytes that are told of an error: a short message is sent without waiting for its reader.
const MAX_TOLD: usize = 2000;

/// All processes of the job.
pub(super) struct World {
    world: SimpleCommunicator,
    /// Leaves MPI when dropped.
    _universe: Universe,
}

impl World {
    /// Joins `size` processes.
    pub(super) fn join(size: usize) -> Result<Self> {
        let started = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, _) = started.ok_or_else(|| TrainError::Ranks("MPI runs in this process already".into()))?;
        let world = universe.world();
        let found = world.size() as usize;
        if found != size {
            let message = format!(
                "{size} processes were started together, but MPI finds {found}; start them with the mpirun of the MPI \
                 library that this was built with, or under Slurm with `srun --mpi=pmix`"
            );
            return Err(TrainError::Ranks(message));
        }
        Ok(Self { world, _universe: universe })
    }

    /// What another rank has told of its error.
    fn failure(&self) -> Option<TrainError> {
        let told = self.world.any_process().immediate_matched_probe_with_tag(FAILED)?;
        let (text, _) = told.matched_receive_vec::<u8>();
        Some(TrainError::Elsewhere(String::from_utf8_lossy(&text).into_owned()))
    }

    fn sum_all<T: Equivalence + Copy>(&self, values: &mut [T])
    where
        [T]: mpi::traits::Buffer + mpi::traits::BufferMut,
    {
        for chunk in values.chunks_mut(CHUNK) {
            let own = chunk.to_vec();
            self.world.all_reduce_into(own.as_slice(), chunk, SystemOperation::sum());
        }
    }
}

impl Ranks for World {
    fn place(&self) -> Place {
        Place { rank: self.world.rank() as usize, size: self.world.size() as usize }
    }

    fn sum(&self, values: &mut [f32]) {
        self.sum_all(values);
    }

    fn sum_f64(&self, values: &mut [f64]) {
        self.sum_all(values);
    }

    fn meet(&self) -> Result<()> {
        let mut arrivals = self.world.immediate_barrier();
        loop {
            match arrivals.test() {
                Ok(_) => return Ok(()),
                Err(pending) => arrivals = pending,
            }
            if let Some(error) = self.failure() {
                // The barrier stays open until the job ends, and that is next.
                std::mem::forget(arrivals);
                return Err(error);
            }
            std::thread::yield_now();
        }
    }

    fn report(&self, error: &str) {
        if !self.place().is_first() {
            let told = &error.as_bytes()[..error.len().min(MAX_TOLD)];
            self.world.process_at_rank(0).send_with_tag(told, FAILED);
            std::thread::sleep(PATIENCE);
        }
    }

    fn abort(&self) {
        self.world.abort(1)
    }
}

impl Drop for World {
    /// Leaving MPI waits for the other ranks, and they for this one: a panic has to end them.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.world.abort(1)
        }
    }
}
