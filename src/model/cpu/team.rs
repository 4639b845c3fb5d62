//! Threads that compute one pass together: fork and join in about a microsecond, because they spin for a while between tasks.
//!
//! Knows no tensors: numbered tasks, each with a part of the outputs.

use super::parts::Parts;
use parking_lot::{Condvar, Mutex, RwLock};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

/// How often an idle thread looks for a task before it sleeps: about as long as the longest gap between the stages of a pass.
const PATIENCE: usize = 20_000;
/// Below this many multiplications a stage is over before another thread could help.
const WORTH_SHARING: usize = 20_000;

/// A number of threads, the caller among them.
pub(super) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<std::thread::JoinHandle<()>>,
    /// Held while a job is shared: whoever comes meanwhile works alone.
    turn: Mutex<()>,
    alone: AtomicBool,
}

type Job<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    gate: Gate,
    job: RwLock<Option<(&'static Job<'static>, usize)>>,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    alarm: Condvar,
}

/// Lets helpers in to a job while it is open, and tells when the last has left. In one word: the number of the job, whether
/// it is open, and how many are inside.
#[derive(Default)]
struct Gate(AtomicU64);

const OPEN: u64 = 1 << 15;
const INSIDE: u64 = OPEN - 1;
const JOB: u64 = OPEN << 1;
/// The number of a job that never is.
const CLOSED_FOR_GOOD: u64 = !INSIDE & !OPEN;

impl Gate {
    /// Enters if there is a job other than `last`; returns its number.
    fn enter(&self, last: u64) -> Option<u64> {
        let state = self.0.load(Relaxed);
        if state & OPEN == 0 || state / JOB == last {
            return None;
        }
        self.0.compare_exchange(state, state + 1, SeqCst, Relaxed).ok().map(|state| state / JOB)
    }

    fn leave(&self) {
        self.0.fetch_sub(1, SeqCst);
    }

    fn open(&self) {
        let job = self.0.load(Relaxed) / JOB + 1;
        self.0.store((job * JOB) | OPEN, SeqCst);
    }

    /// Lets nobody in any more and waits until all have left.
    fn close(&self) {
        self.0.fetch_and(!OPEN, SeqCst);
        let mut spins = 0;
        while self.0.load(SeqCst) & INSIDE != 0 {
            wait(&mut spins);
        }
    }

    fn has_job(&self, last: u64) -> bool {
        let state = self.0.load(SeqCst);
        state & OPEN != 0 && state / JOB != last
    }

    fn is_closed_for_good(&self) -> bool {
        self.0.load(SeqCst) == CLOSED_FOR_GOOD
    }
}

/// Spins, but lets others have the processor if it takes very long: whoever yields may not be back for milliseconds.
fn wait(spins: &mut usize) {
    *spins += 1;
    if spins.is_multiple_of(100_000) { std::thread::yield_now() } else { std::hint::spin_loop() }
}

impl Team {
    /// `threads` threads with the caller; where the system gives no more, fewer.
    pub(super) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            gate: Gate::default(),
            job: RwLock::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
        });
        let spawn = |index| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("compute-{index}")).spawn(move || shared.help())
        };
        let helpers = (1..threads.min(INSIDE as usize)).map_while(|index| spawn(index).ok()).collect();
        Self { shared, helpers, turn: Mutex::new(()), alone: AtomicBool::new(false) }
    }

    /// Threads, the caller among them.
    pub(super) fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Whether the caller shall do everything itself from now on.
    pub(super) fn set_alone(&self, alone: bool) {
        self.alone.store(alone, Relaxed);
    }

    /// Hands each part to one call of `task`, together with its number. `work` is the number of multiplications in all.
    #[expect(clippy::needless_pass_by_value, reason = "parts are handed out once: nobody may ask for them again")]
    pub(super) fn each<P: Parts>(&self, work: usize, parts: P, task: impl Fn(usize, P::Part) + Sync) {
        let count = parts.count();
        #[expect(unsafe_code, reason = "the parts of a slice go to several threads")]
        // SAFETY: `share` and the loop below use each number below `count` once.
        let one = |index: usize| task(index, unsafe { parts.part(index) });
        if count < 2 || work < WORTH_SHARING || self.helpers.is_empty() || self.alone.load(Relaxed) {
            (0..count).for_each(one);
        } else {
            self.share(count, &one);
        }
    }

    /// Calls `job` once with each number below `count`, on all threads.
    #[expect(unsafe_code, reason = "a job borrows from its caller, threads live longer")]
    fn share(&self, count: usize, job: &Job<'_>) {
        // SAFETY: nobody calls it after this function: helpers touch a job inside the gate only, which is closed and empty
        // before the return, and nothing below it unwinds before that.
        let job: &'static Job<'static> = unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        let Some(_turn) = self.turn.try_lock() else { return (0..count).for_each(job) };
        let shared = &*self.shared;
        *shared.job.write() = Some((job, count));
        shared.next.store(0, SeqCst);
        shared.gate.open();
        if shared.sleepers.load(SeqCst) > 0 {
            shared.wake();
        }
        shared.work(job, count);
        shared.gate.close();
        *shared.job.write() = None;
        let panic = shared.panic.lock().take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.gate.0.store(CLOSED_FOR_GOOD, SeqCst);
        self.shared.wake();
        self.helpers.drain(..).for_each(|helper| drop(helper.join()));
    }
}

impl Shared {
    /// Takes numbers until there are none; a panic ends the job and is kept for the caller.
    fn work(&self, job: &Job<'_>, count: usize) {
        let done = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let index = self.next.fetch_add(1, Relaxed);
                if index >= count {
                    return;
                }
                job(index);
            }
        }));
        if let Err(panic) = done {
            self.next.store(count, SeqCst);
            self.panic.lock().get_or_insert(panic);
        }
    }

    /// The life of a helper.
    fn help(&self) {
        let (mut last, mut spins) = (0, 0);
        while !self.gate.is_closed_for_good() {
            if let Some(number) = self.gate.enter(last) {
                let job = *self.job.read();
                if let Some((job, count)) = job {
                    self.work(job, count);
                }
                self.gate.leave();
                (last, spins) = (number, 0);
            } else if spins > PATIENCE {
                self.sleep(last);
                spins = 0;
            } else {
                wait(&mut spins);
            }
        }
    }

    fn sleep(&self, last: u64) {
        let mut bed = self.bed.lock();
        self.sleepers.fetch_add(1, SeqCst);
        while !self.gate.has_job(last) && !self.gate.is_closed_for_good() {
            self.alarm.wait(&mut bed);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }

    fn wake(&self) {
        drop(self.bed.lock());
        self.alarm.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::parts::Chunks;
    use super::*;

    const MUCH: usize = usize::MAX;

    #[test]
    fn every_part_is_handed_out_once() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads);
            let mut data = vec![0usize; 1003];
            for round in 0..200 {
                team.each(MUCH, Chunks::new(&mut data, 10), |index, part| {
                    part.iter_mut().for_each(|value| *value += index + round);
                });
            }
            let expected = |i: usize| 200 * (i / 10) + (0..200).sum::<usize>();
            assert!(data.iter().enumerate().all(|(i, value)| *value == expected(i)));
        }
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller_and_the_team_goes_on() {
        let team = Team::new(3);
        let mut data = vec![0; 64];
        let broken = catch_unwind(AssertUnwindSafe(|| {
            team.each(MUCH, Chunks::new(&mut data, 1), |index, _| assert_ne!(index, 40, "task {index}"));
        }));
        assert!(broken.unwrap_err().downcast_ref::<String>().unwrap().contains("task 40"));
        team.each(MUCH, Chunks::new(&mut data, 1), |_, part| part[0] = 1);
        assert_eq!(data, [1; 64]);
    }

    #[test]
    fn callers_that_meet_do_not_disturb_each_other() {
        let team = Team::new(3);
        let count = || {
            let mut data = vec![0; 500];
            (0..200).for_each(|_| team.each(MUCH, Chunks::new(&mut data, 1), |_, part| part[0] += 1));
            data
        };
        let all = std::thread::scope(|scope| [(); 3].map(|()| scope.spawn(count)).map(|caller| caller.join().unwrap()));
        assert!(all.iter().flatten().all(|times| *times == 200));
    }

    #[test]
    fn threads_that_fell_asleep_wake_up_for_a_task() {
        let team = Team::new(2);
        let (mut data, here) = (vec![false; 2], std::thread::current().id());
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(30));
            // Each task waits until the other has begun, so two threads must take part.
            let begun = AtomicUsize::new(0);
            team.each(MUCH, Chunks::new(&mut data, 1), |_, part| {
                begun.fetch_add(1, SeqCst);
                while begun.load(SeqCst) < 2 {
                    std::hint::spin_loop();
                }
                part[0] = std::thread::current().id() == here;
            });
            assert!(data.contains(&true) && data.contains(&false));
        }
    }
}
