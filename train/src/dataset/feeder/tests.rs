use super::*;
use crate::dataset::source::Source;

/// Samples of `length(index)` tokens, all equal to `base + index`.
struct Counting {
    base: u32,
    length: fn(u64) -> usize,
}

impl Source for Counting {
    fn sample(&self, index: u64, progress: f64) -> Result<Example> {
        let length = (self.length)(index);
        let mut example = Example::new(vec![self.base + index as u32; length]);
        example.answer(1..length);
        // The progress is visible in the data, so that equality covers it.
        example.weights[1] = 1.0 + progress as f32;
        Ok(example)
    }
}

fn recipe(workers: usize) -> Recipe {
    let text = format!(
        r#"
        method = "full"
        output = "unused"
        [model]
        path = "unused"
        [optim]
        lr = 0.1
        [batch]
        tokens = 40
        max_len = 12
        micro_tokens = 20
        workers = {workers}
        [[phase]]
        steps = 1
        source = [{{ copy = {{ pool = [4, 4], length = [2, 2] }} }}]
        "#
    );
    Recipe::parse(&text, "test", &[]).unwrap()
}

fn feeder(workers: usize, step: u64, cursor: Cursor) -> Feeder {
    let source = |base, length| -> (f64, Box<dyn Source>) { (1.0, Box::new(Counting { base, length })) };
    let phases = vec![
        Mixture {
            steps: 6,
            samples: None,
            sources: vec![source(0, |index| 4 + (index % 7) as usize), source(10_000, |_| 5)],
        },
        Mixture { steps: 5, samples: None, sources: vec![source(20_000, |index| 3 + (index % 11) as usize)] },
    ];
    Feeder::new(&recipe(workers), phases, step, cursor).unwrap()
}

fn all(mut feeder: Feeder) -> Vec<StepBatch> {
    std::iter::from_fn(|| feeder.next_step().unwrap()).collect()
}

#[test]
fn the_data_does_not_depend_on_the_number_of_threads() {
    let (one, three) = (all(feeder(1, 0, Cursor::default())), all(feeder(3, 0, Cursor::default())));
    assert_eq!(one.len(), 11);
    for (one, three) in one.iter().zip(&three) {
        assert_eq!(one.micros, three.micros);
        assert_eq!(one.cursor, three.cursor);
    }
}

#[test]
fn a_resumed_feeder_continues_where_the_cursor_stands() {
    let whole = all(feeder(2, 0, Cursor::default()));
    for stop in 1..whole.len() {
        let rest = all(feeder(2, stop as u64, whole[stop - 1].cursor.clone()));
        let micros = |steps: &[StepBatch]| steps.iter().flat_map(|step| step.micros.clone()).collect::<Vec<_>>();
        assert_eq!(micros(&rest), micros(&whole[stop..]), "after step {stop}");
    }
}

#[test]
fn steps_and_micro_batches_keep_their_limits_and_no_sample_is_lost() {
    let steps = all(feeder(2, 0, Cursor::default()));
    let mut seen = Vec::new();
    for step in &steps {
        assert!(step.tokens() <= 40 && step.tokens() > 40 - 12);
        assert!(step.micros.iter().all(|micro| micro.tokens.len() <= 20));
        seen.extend(step.micros.iter().flat_map(|micro| &micro.tokens).filter(|&&token| token < 10_000).copied());
    }
    seen.dedup();
    assert_eq!(seen, (0..seen.len() as u32).collect::<Vec<_>>());
    assert!(seen.len() > 10);
}

#[test]
fn samples_that_are_too_long_are_dropped_and_counted() {
    // The second phase makes lengths 3..=13; 13 is over the limit of 12.
    let dropped: u64 = all(feeder(2, 0, Cursor::default())).iter().map(|step| step.dropped).sum();
    assert!(dropped > 0);
}

#[test]
fn a_limit_below_every_sample_is_an_error() {
    let source: Box<dyn Source> = Box::new(Counting { base: 0, length: |_| 13 });
    let phases = vec![Mixture { steps: 1, samples: None, sources: vec![(1.0, source)] }];
    let message = Feeder::new(&recipe(1), phases, 0, Cursor::default()).unwrap().next_step().err().unwrap().to_string();
    assert!(message.contains("batch.max_len"), "{message}");
}
