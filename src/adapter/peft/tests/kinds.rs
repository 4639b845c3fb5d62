//! Directories that hold more than factors, or none: soft prompts, and rows of tokens.

use super::*;

/// A soft prompt of three virtual tokens for [`model`], written by hand.
fn raw_prompt() -> Raw {
    let config =
        json!({"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "token_dim": 8});
    let mut raw = Raw { config, tensors: Vec::new() };
    raw.push("prompt_embeddings", &[3, 8]);
    raw
}

#[test]
fn a_soft_prompt_is_loaded_back_and_replaces_an_adapter_of_another_kind() {
    let dir = tempdir().unwrap();
    let place = dir.path().join("adapter");
    testing::write_adapter(&place, 1.0);
    let table = Tensor::arange(0f32, 24.0, &Device::Cpu).unwrap().reshape((3, 8)).unwrap();
    save_prompt(&place, &table, Some("tiny"), None).unwrap();
    let loaded = load_cpu(&place).unwrap();
    assert_eq!((loaded.config, loaded.weights.virtual_tokens(), loaded.weights.iter().count()), (None, 3, 0));
    assert_eq!(values(loaded.weights.prompt().unwrap()), values(&table));
    assert_eq!(loaded.weights.bytes(), 24 * 4);
    let settings: Value = serde_json::from_slice(&std::fs::read(place.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!((&settings["peft_type"], &settings["num_virtual_tokens"]), (&json!("PROMPT_TUNING"), &json!(3)));
}

#[test]
fn a_soft_prompt_that_does_not_fit_is_refused_by_what_is_wrong_with_it() {
    assert_eq!(load_raw(&raw_prompt()).unwrap().weights.virtual_tokens(), 3);
    for (field, value) in [
        ("num_virtual_tokens", json!(0)),
        ("num_virtual_tokens", json!(32)),
        ("num_virtual_tokens", json!(null)),
        ("token_dim", json!(16)),
        ("num_transformer_submodules", json!(2)),
        ("task_type", json!("SEQ_2_SEQ_LM")),
        ("modules_to_save", json!(["lm_head"])),
    ] {
        let mut raw = raw_prompt();
        raw.set(field, value);
        let reason = reason(load_raw(&raw));
        assert!(reason.contains(field), "{field}: {reason}");
    }
    let mut wrong = raw_prompt();
    wrong.set("num_virtual_tokens", json!(4));
    assert!(reason(load_raw(&wrong)).contains("[4, 8]"));
    let mut more = raw_prompt();
    more.push("base_model.model.lm_head.weight", &[2, 2]);
    assert!(reason(load_raw(&more)).contains("lm_head"));
    let mut empty = raw_prompt();
    empty.tensors.clear();
    assert!(reason(load_raw(&empty)).contains("prompt_embeddings"));
    let mut broken = raw_prompt();
    broken.tensors[0].bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(reason(load_raw(&broken)).contains("prompt_embeddings"));
}

/// Rows of the tokens 14 to 17, of which the base has two.
fn token_rows() -> TokenRows {
    let embedding = Tensor::arange(0f32, 32.0, &Device::Cpu).unwrap().reshape((4, 8)).unwrap();
    TokenRows { ids: vec![14, 15, 16, 17], embedding, head: None }
}

#[test]
fn rows_of_tokens_are_loaded_back_with_the_tokenizer_beside_them_and_a_server_refuses_them() {
    let dir = tempdir().unwrap();
    let (place, tokenizer) = (dir.path().join("adapter"), dir.path().join("tokenizer"));
    std::fs::create_dir(&tokenizer).unwrap();
    std::fs::write(tokenizer.join("tokenizer.json"), "{}").unwrap();
    std::fs::write(tokenizer.join("notes.txt"), "mine").unwrap();
    let config = config(&[Q]);
    let (weights, rows) = (weights(&config, 1.0), token_rows());
    // The second time it replaces what the first one wrote.
    for _ in 0..2 {
        save_with_tokens(&place, &config, &weights, (&rows, &tokenizer)).unwrap();
    }
    let loaded = load_cpu(&place).unwrap();
    let found = loaded.tokens.as_ref().unwrap();
    assert_eq!((&found.ids, values(&found.embedding)), (&rows.ids, values(&rows.embedding)));
    assert!(found.head.is_none() && loaded.weights.iter().count() == 2);
    assert!(reason(loaded.servable()).contains("callsmith merge"));
    let settings: Value = serde_json::from_slice(&std::fs::read(place.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(settings["trainable_token_indices"], json!({"embed_tokens": [14, 15, 16, 17]}));
    assert!(place.join("tokenizer.json").exists() && !place.join("notes.txt").exists());
    // An adapter without a tokenizer replaces one with it, but no tokenizer that stands alone.
    save(&place, &config, &weights).unwrap();
    assert!(!place.join("tokenizer.json").exists());
    std::fs::remove_file(tokenizer.join("notes.txt")).unwrap();
    assert!(save(&tokenizer, &config, &weights).unwrap_err().to_string().contains("tokenizer.json"));
}

#[test]
fn rows_of_tokens_that_do_not_fit_are_refused() {
    let name = Table::Embedding.rows_name();
    let raw = |ids: Value, rows: usize| {
        let mut raw = Raw::new(&[Q]);
        raw.set("trainable_token_indices", ids);
        raw.push(name, &[rows, 8]);
        raw
    };
    assert_eq!(load_raw(&raw(json!([3, 16]), 2)).unwrap().tokens.unwrap().ids, [3, 16]);
    for ids in [json!([17]), json!([3, 3]), json!([-1]), json!("all"), json!({"embed_tokens": []}), json!({"mlp": [1]})]
    {
        assert!(reason(load_raw(&raw(ids.clone(), 1))).contains("trainable_token_indices"), "{ids}");
    }
    let tied = reason(load_raw(&raw(json!({"embed_tokens": [1], "lm_head": [1]}), 1)));
    assert!(tied.contains("lm_head"), "{tied}");
    assert!(reason(load_raw(&raw(json!([1, 2]), 3))).contains("[2, 8]"));
    assert!(reason(load_raw(&raw(Value::Null, 1))).contains("trainable_tokens_delta"));
    let mut missing = Raw::new(&[Q]);
    missing.set("trainable_token_indices", json!([1]));
    assert!(reason(load_raw(&missing)).contains(name));
}
