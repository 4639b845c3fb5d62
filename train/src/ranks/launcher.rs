//! How many processes were started together, as the launchers of MPI programs tell it in the environment.
//!
//! Read before MPI is: a single process never has to start it, and a build without it can say so.

/// Open MPI's `mpirun`; MPICH's, Intel's and Slurm's PMI-2; `srun` of any kind. In this order: Slurm also starts the
/// daemons of `mpirun`, one a machine.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// Processes of the job; 0 where no launcher says anything.
pub(super) fn size(variable: impl Fn(&str) -> Option<String>) -> usize {
    SIZES.iter().find_map(|name| variable(name)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_in(environment: &[(&str, &str)]) -> usize {
        size(|name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn launchers_say_how_many_processes_they_started() {
        assert_eq!(size_in(&[]), 0);
        assert_eq!(size_in(&[("OMPI_COMM_WORLD_SIZE", "4")]), 4);
        assert_eq!(size_in(&[("PMI_SIZE", "3")]), 3);
        assert_eq!(size_in(&[("SLURM_STEP_NUM_TASKS", "8")]), 8);
    }

    #[test]
    fn a_batch_script_of_many_tasks_that_runs_one_process_is_alone() {
        assert_eq!(size_in(&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")]), 0);
    }

    #[test]
    fn mpirun_under_slurm_counts_its_own_processes() {
        assert_eq!(size_in(&[("SLURM_STEP_NUM_TASKS", "2"), ("OMPI_COMM_WORLD_SIZE", "16")]), 16);
    }
}
