//! Tokenizers that went through a GGUF file give the same ids; what a file cannot say exactly is refused by name.

use super::super::tests::{small_files, tokenizer_json as small_json};
use super::super::{ChatTokenizer, TokenizerFiles};
use super::metadata as metadata_of_files;
use super::*;
use crate::gguf::Metadata;
use crate::testing::data_set;
use proptest::prelude::*;
use std::path::PathBuf;
use tempfile::TempDir;

/// Digits, scripts, code, runs of blanks, contractions, control characters, and texts of special tokens.
const TEXTS: [&str; 14] = [
    "",
    "Hello, World! It's 2024; we've 1234567.89 reasons, I'LL say.",
    "  leading and   inner    blanks \n\n\n\t\tand\ttabs \r\n end  ",
    "naïve café ﬁne Å Å e\u{301} \u{1F600}\u{1F469}\u{200D}\u{1F680} ½ ² Ⅷ",
    "日本語のテキスト、中文文本。한국어 텍스트 ไทย हिन्दी العربية ١٢٣",
    "fn main() {\n    let x: Vec<u8> = vec![0x1F; 10];\n    println!(\"{x:?}\"); // done\n}\n",
    "def f(a, *, b=1):\n\treturn {'k': [a**b, ~b]} if a != b else None\n",
    "<|im_start|>user\nHi<|im_end|><|endoftext|> <tool_call>{}</tool_call>",
    "\u{0}\u{1}\u{7f}\u{80}\u{a0}\u{feff}\u{fffd}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "https://example.org/path?query=1&other=%20#frag user@host.example",
    "CamelCaseWords snake_case_words kebab-case-words SCREAMING_CASE iPhone15Pro",
    "1 12 123 1234 12345 3.14159 -1e-10 0xDEADBEEF",
    "... --- *** !!! ??? ((())) [[[]]] {{{}}} <<<>>> ''' \"\"\" ```",
];

/// A file of these metadata alone, in a directory of its own.
fn file(metadata: &Metadata) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, metadata.to_file()).unwrap();
    (dir, path)
}

fn holds_tokenizer_json(metadata: &Metadata) -> bool {
    let file = metadata.to_file();
    Header::parse(&file).unwrap().text(TOKENIZER_JSON).unwrap().is_some()
}

fn assert_same(original: &ChatTokenizer, rebuilt: &ChatTokenizer, width: u32) {
    for text in TEXTS {
        assert_eq!(original.encode_text(text).unwrap(), rebuilt.encode_text(text).unwrap(), "{text:?}");
    }
    assert_eq!(original.control_ids(), rebuilt.control_ids());
    assert_eq!(original.lead().unwrap(), rebuilt.lead().unwrap());
    assert_eq!(original.chat_template(), rebuilt.chat_template());
    assert_eq!(original.eos_token(), rebuilt.eos_token());
    assert_eq!(original.eos_token_ids()[0], rebuilt.eos_token_ids()[0]);
    for id in 0..width {
        assert_eq!(original.token_bytes(id), rebuilt.token_bytes(id), "{id}");
    }
}

/// The tokenizer of some files, and what a GGUF file keeps of it.
fn both(files: &TokenizerFiles<'_>, width: usize) -> (ChatTokenizer, ChatTokenizer, bool) {
    let metadata = metadata_of_files(files, width).unwrap();
    let (_dir, path) = file(&metadata);
    let original = ChatTokenizer::from_files(files, width).unwrap();
    (original, ChatTokenizer::load(&path, width).unwrap(), holds_tokenizer_json(&metadata))
}

#[test]
fn the_qwen_tokenizer_rebuilt_from_metadata_gives_the_same_ids() {
    let Some(dir) = data_set("tokenizers/qwen2_5") else { return };
    let files = read_dir(&dir).unwrap();
    let (original, rebuilt, whole) = both(&files.as_ref(), 151_936);
    assert!(!whole, "the metadata say everything");
    assert_same(&original, &rebuilt, 151_936);
    assert_eq!(rebuilt.token_bytes(151_657), b"<tool_call>");
}

#[test]
fn every_way_of_splitting_survives_a_file_without_tokenizer_json() {
    for splitting in byte_level::known() {
        let mut json = small_json();
        json["pre_tokenizer"] = splitting.pre_tokenizer.clone();
        json["normalizer"] = splitting.normalizer.clone();
        json["model"]["ignore_merges"] = ["llama-bpe", "tekken"].contains(&splitting.names[0]).into();
        let text = json.to_string();
        let files = small_files(text.as_bytes());
        let (original, rebuilt, whole) = both(&files, 300);
        assert!(!whole, "{:?}", splitting.names);
        assert_same(&original, &rebuilt, 300);
    }
}

#[test]
fn a_tokenizer_that_metadata_cannot_say_is_kept_whole() {
    let changes: [fn(&mut Value); 4] = [
        |json| json["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": false}, json["pre_tokenizer"]]}),
        |json| json["normalizer"] = json!({"type": "Lowercase"}),
        |json| json["added_tokens"][0]["lstrip"] = true.into(),
        |json| json["model"]["ignore_merges"] = true.into(),
    ];
    for change in changes {
        let mut json = small_json();
        change(&mut json);
        let text = json.to_string();
        let (original, rebuilt, whole) = both(&small_files(text.as_bytes()), 300);
        assert!(whole, "{json}");
        assert_same(&original, &rebuilt, 300);
    }
}

/// `he`, `the` and a blank before it, by scores; bytes for everything else.
fn sentencepiece_json() -> Value {
    let mut pieces: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    pieces.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    pieces.extend(["▁t", "he", "▁the", "▁", "t", "h", "e", "é", "th"].map(str::to_owned));
    let id = |text: &str| pieces.iter().position(|piece| piece == text).unwrap();
    let added = |text: &str| {
        json!({"id": id(text), "content": text, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false})
    };
    let vocab: serde_json::Map<_, _> = pieces.iter().map(|piece| (piece.clone(), id(piece).into())).collect();
    let bos = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [added("<unk>"), added("<s>"), added("</s>")],
        "normalizer": sentencepiece::normalizer(true), "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocab,
            "merges": [["▁", "t"], ["h", "e"], ["▁t", "he"], ["t", "h"]]},
    })
}

#[test]
fn a_sentencepiece_tokenizer_survives_with_scores_and_bytes() {
    let text = sentencepiece_json().to_string();
    let files = TokenizerFiles {
        tokenizer: Some(text.as_bytes()),
        tokenizer_config: Some(br#"{"bos_token": "<s>", "eos_token": "</s>"}"#),
        ..TokenizerFiles::default()
    };
    let (original, rebuilt, whole) = both(&files, 270);
    assert!(!whole, "the metadata say everything");
    assert_same(&original, &rebuilt, 270);
    // " the thé" as ▁the, ▁t, h, é; the prefix blank belongs to the first.
    assert_eq!(rebuilt.encode_text("the thé").unwrap(), [261, 259, 264, 266]);
    assert_eq!(rebuilt.encode_text("ß").unwrap(), [262, 3 + 0xC3, 3 + 0x9F]);
    assert_eq!(rebuilt.lead().unwrap(), [1]);
}

#[test]
fn files_beside_win_and_metadata_fill_what_they_leave_open() {
    let text = small_json().to_string();
    let template = TokenizerFiles { chat_template: Some(b"from metadata"), ..small_files(text.as_bytes()) };
    let (dir, path) = file(&metadata_of_files(&template, 300).unwrap());
    let mut other = small_json();
    other["model"]["merges"] = json!([]);
    std::fs::write(dir.path().join("tokenizer.json"), other.to_string()).unwrap();
    let beside = ChatTokenizer::load(&path, 300).unwrap();
    assert_eq!(beside.encode_text("the").unwrap().len(), 3);
    assert_eq!((beside.chat_template(), beside.eos_token_ids()), (Some("from metadata"), &[258][..]));
    std::fs::write(dir.path().join("chat_template.jinja"), "from beside").unwrap();
    assert_eq!(ChatTokenizer::prompt_files(&path).unwrap()[0].as_deref(), Some("from beside"));
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    assert_eq!(ChatTokenizer::load(&path, 300).unwrap().encode_text("the").unwrap(), [257]);
}

#[test]
fn files_beside_that_are_complete_mend_metadata_that_are_not() {
    let (dir, path) = file(&Metadata::default());
    let error = ChatTokenizer::load(&path, 300).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    let json = small_json();
    let control = json["added_tokens"][0]["content"].clone();
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    assert!(ChatTokenizer::load(&path, 300).is_err(), "nothing says what ends a turn");
    let config = json!({"bos_token": control, "eos_token": control, "chat_template": "t"});
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    assert_eq!(ChatTokenizer::load(&path, 300).unwrap().chat_template(), Some("t"));
}

#[test]
fn control_tokens_that_end_turns_by_their_name_end_them() {
    let mut metadata = entries(&[]);
    metadata.texts("tokenizer.ggml.tokens", ["a", "<|eot_id|>", "<|eom_id|>", "<s>"].into_iter());
    metadata.integers("tokenizer.ggml.token_type", &[1, 3, 1, 3]);
    metadata.u32("tokenizer.ggml.eos_token_id", 3);
    let file = metadata.to_file();
    let special = special(&Header::parse(&file).unwrap()).unwrap();
    assert_eq!((special.eos.as_deref(), special.eos_ids), (Some("<s>"), vec![3, 1]));
}

#[test]
fn a_template_for_tools_serves_the_conversations_with_tools() {
    let metadata = entries(&[("tokenizer.chat_template", "plain"), ("tokenizer.chat_template.tool_use", "with")]);
    let file = metadata.to_file();
    let template = chat_template(&Header::parse(&file).unwrap()).unwrap();
    assert_eq!(template.as_deref(), Some("{% if tools %}with{% else %}plain{% endif %}"));
}

fn entries(texts: &[(&str, &str)]) -> Metadata {
    let mut metadata = Metadata::default();
    texts.iter().for_each(|(key, text)| metadata.text(key, text));
    metadata
}

#[test]
fn what_is_not_known_exactly_is_refused_with_a_remedy() {
    let tokens = |model: &str, pre: &str| {
        let mut metadata = entries(&[("tokenizer.ggml.model", model), ("tokenizer.ggml.pre", pre)]);
        metadata.texts("tokenizer.ggml.tokens", ["a", "b"].into_iter());
        metadata
    };
    let with = |metadata: &Metadata, add: fn(&mut Metadata)| {
        let mut changed = metadata.clone();
        add(&mut changed);
        changed
    };
    let unknown_merge = |m: &mut Metadata| {
        m.texts("tokenizer.ggml.merges", ["x y"].into_iter());
        m.u32("tokenizer.ggml.eos_token_id", 1);
    };
    let unknown_bos = |m: &mut Metadata| {
        m.texts("tokenizer.ggml.merges", std::iter::empty());
        m.u32("tokenizer.ggml.bos_token_id", 9);
    };
    let gpt2 = tokens("gpt2", "gpt-2");
    let cases = [
        (entries(&[]), "tokenizer.ggml.tokens"),
        (tokens("bert", "x"), "tokenizer.ggml.model `bert`"),
        (tokens("gpt2", "default"), "tokenizer.ggml.pre `default`"),
        (tokens("gpt2", "default"), "put the model's own tokenizer.json"),
        (gpt2.clone(), "tokenizer.ggml.merges` is missing"),
        (with(&gpt2, |m| m.texts("tokenizer.ggml.merges", ["ab"].into_iter())), "not two tokens"),
        (with(&gpt2, unknown_merge), "tokenizer.json"),
        (with(&gpt2, |m| m.integers("tokenizer.ggml.token_type", &[1])), "another length"),
        (with(&gpt2, unknown_bos), "bos_token_id` is 9"),
        (tokens("llama", "default"), "tokenizer.ggml.scores` is missing"),
        (
            with(&tokens("llama", ""), |m| m.floats("tokenizer.ggml.scores", &[f32::NAN, 0.0])),
            "token 0 has no finite score",
        ),
        (entries(&[("tokenizer.ggml.tokens", "a")]), "must be a list"),
    ];
    for (metadata, expected) in cases {
        let (_dir, path) = file(&metadata);
        let error = ChatTokenizer::load(&path, 300).err().expect("must be refused").to_string();
        assert!(error.contains(expected) && error.contains("model.gguf"), "{expected}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn damaged_metadata_make_a_tokenizer_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let text = sentencepiece_json().to_string();
        let small = small_json().to_string();
        for tokenizer in [text.as_bytes(), small.as_bytes()] {
            let config = Some(&br#"{"bos_token": "<s>", "eos_token": "e"}"#[..]);
            let files = TokenizerFiles { tokenizer_config: config, ..small_files(tokenizer) };
            let mut bytes = metadata_of_files(&files, 300).unwrap().to_file();
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model.gguf");
            std::fs::write(&path, bytes).unwrap();
            match ChatTokenizer::load(&path, 300) {
                Ok(tokenizer) => prop_assert!(tokenizer.eos_token_ids().iter().all(|id| *id < 300)),
                Err(error) => prop_assert!(error.to_string().contains("model.gguf"), "{error}"),
            }
        }
    }
}
