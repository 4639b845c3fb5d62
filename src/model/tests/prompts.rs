//! Soft prompts: what they do to a sequence, alone and beside others, and their gradient.

use super::gradients::{Task, check_slopes};
use super::*;
use crate::model::lora::AdapterWeights;
use crate::model::prompt::virtual_tokens;
use candle_core::Var;

/// The embeddings of these tokens as a soft prompt.
fn of_tokens(decoder: &Decoder, tokens: &[u32]) -> Arc<AdapterWeights> {
    Arc::new(AdapterWeights::empty(2).with_prompt(decoder.embeddings(tokens).unwrap()))
}

/// `n` virtual tokens and then these.
fn after(n: usize, tokens: &[u32]) -> Vec<u32> {
    virtual_tokens(61, n).chain(tokens.iter().copied()).collect()
}

fn logits(decoder: &Decoder, tokens: &[u32], adapters: &AdapterBatch) -> Vec<Vec<f32>> {
    let attention = Attention::Causal(&[tokens.len()]);
    let pass = ForwardPass { tokens, positions: &positions(tokens.len()), attention, adapters };
    decoder.logits(&decoder.hidden_states(pass).unwrap()).unwrap().to_vec2().unwrap()
}

#[test]
fn a_soft_prompt_of_known_embeddings_is_those_tokens() {
    for family in [Family::Llama, Family::Qwen2] {
        let config = config(family);
        let decoder = Decoder::from_tensors(config.clone(), &random_tensors(&config, 3)).unwrap();
        let (prompt, said) = (tokens(5, 1), tokens(9, 2));
        let batch = AdapterBatch::uniform(14, of_tokens(&decoder, &prompt));
        let spelled = [prompt, said.clone()].concat();
        assert_eq!(logits(&decoder, &after(5, &said), &batch), logits(&decoder, &spelled, &AdapterBatch::none()));
    }
}

#[test]
fn rows_of_a_pass_look_into_the_soft_prompt_of_their_own_adapter() {
    let config = config(Family::Llama);
    let decoder = Decoder::from_tensors(config.clone(), &random_tensors(&config, 3)).unwrap();
    let prompts = [of_tokens(&decoder, &[7, 8, 9]), of_tokens(&decoder, &[20, 21])];
    let mut batch = AdapterBatch::none();
    // The second sequence's first virtual token was computed before: its rows begin within its prompt.
    [(1..4, &prompts[0]), (4..6, &prompts[1])].into_iter().for_each(|(rows, prompt)| batch.push(rows, prompt.clone()));
    let embedded = prompt::embed(&decoder.embedding, &[5, 61, 62, 63, 62, 6], &batch).unwrap();
    let expected = decoder.embeddings(&[5, 7, 8, 9, 21, 6]).unwrap();
    assert_eq!(embedded.to_vec2::<f32>().unwrap(), expected.to_vec2::<f32>().unwrap());
}

#[test]
fn a_token_that_nobody_has_is_an_error() {
    let config = config(Family::Llama);
    let decoder = Decoder::from_tensors(config.clone(), &random_tensors(&config, 3)).unwrap();
    let embed = |token, batch: &AdapterBatch| prompt::embed(&decoder.embedding, &[1, token], batch);
    assert!(embed(61, &AdapterBatch::none()).unwrap_err().to_string().contains("61"));
    let two = AdapterBatch::uniform(2, of_tokens(&decoder, &[7, 8]));
    assert!(embed(62, &two).is_ok());
    assert!(embed(63, &two).unwrap_err().to_string().contains("63"));
}

#[test]
fn a_soft_prompt_has_the_gradient_that_differences_show_and_the_frozen_base_gets_none() {
    for family in [Family::Llama, Family::Qwen2] {
        let config = config(family);
        let tensors = random_tensors(&config, 3);
        let decoder = Decoder::from_tensors(config.clone(), &tensors).unwrap();
        let var = Var::from_tensor(&decoder.embeddings(&[7, 8, 9]).unwrap()).unwrap();
        let weights = AdapterWeights::empty(2).with_prompt(var.as_tensor().clone());
        let batch = AdapterBatch::uniform(24, Arc::new(weights));
        let mut task = Task::new();
        for start in [0, 10] {
            task.tokens.splice(start..start + 3, 61..64);
        }
        for recompute in [Recompute::Off, Recompute::All] {
            let gradients = task.gradients(&decoder, &batch, recompute);
            assert!(tensors.values().all(|t| !gradients.contains_key(&t.id())), "only the prompt is trained");
            check_slopes("prompt", &var, &gradients[&var.id()], || task.loss(&decoder, &batch));
        }
    }
}
