//! What the guard takes for a key, and what it forbids, over tokens that cross the borders of keys.

use super::*;
use crate::grammar::testing::{Lab, Random, WordEnv, byte_env};
use proptest::prelude::*;
use serde_json::json;

fn guard(text: &str) -> KeyGuard {
    let tokens = Arc::new(KeyTokens::new(&byte_env()));
    let mut guard = KeyGuard::of("\"additionalProperties\":{", &tokens).unwrap();
    text.bytes().for_each(|byte| guard.follow(byte.into()));
    guard
}

/// Whether `rest`, as one piece, would say a key again.
fn repeats(text: &str, rest: &str) -> bool {
    let mut guard = guard(text);
    rest.bytes().any(|byte| {
        let repeats = guard.repeats(byte.into());
        guard.follow(byte.into());
        repeats
    })
}

#[test]
fn each_object_has_its_own_keys() {
    let cases = [
        (r#"{"a":1,"#, r#""a""#, true),
        (r#"{"a":1,"#, r#""ab""#, false),
        (r#"{"a":{"a":[{"a":1}"#, r#",{"a":2}]}"#, false),
        (r#"{"a":{"b":[{"a":1}]}"#, r#", "a""#, true),
        (r#"{"a":1}{"#, r#""a""#, false),
        (r#"{"a":"a","b":[],"#, r#""c":"\",\"a\":1"}"#, false),
        (r#"{"a\"":1,"#, r#""a\"""#, true),
        (r#"{"a":{"b":1},"b":2,"#, r#""b""#, true),
    ];
    for (text, rest, expected) in cases {
        assert_eq!(repeats(text, rest), expected, "{text} {rest}");
    }
}

#[test]
fn what_is_no_json_is_forgotten() {
    let cases = [
        "if (x) { return \"a\"; } ",
        "the set {\"a\", \"b\"} ",
        "he wrote {\"a\n",
        "a \"quoted\" word, \"a\": ",
        "{\"a\" 1, ",
        "{\"a\": [}, ",
    ];
    for text in cases {
        assert!(!repeats(text, "{\"a\":1,\"b\":2}"), "{text}");
        assert!(repeats(text, "{\"a\":1,\"a\":2}"), "{text}");
    }
}

#[test]
fn where_nothing_else_is_left_a_key_may_come_again() {
    let lab = Lab::new(byte_env());
    let schema = |names: &str| json!({"type": "object", "patternProperties": {names: {"const": 1}}, "additionalProperties": false, "minProperties": 2, "x-guidance": {"whitespace_flexible": false}});
    let start = |names: &str| lab.schema(&schema(names)).unwrap();
    assert!(lab.accepts(start("^a$"), r#"{"a":1,"a":1}"#));
    assert!(!lab.accepts(start("^ab?$"), r#"{"a":1,"a":1}"#));
}

#[test]
fn a_key_never_begins_where_it_can_only_end_as_one_that_was_said() {
    let lab = Lab::new(WordEnv::shared());
    let names = json!({"type": "object", "patternProperties": {"^(name|[ab]{7}|the.+)$": {"const": 1}}, "additionalProperties": false});
    let start = lab.schema(&crate::grammar::schema::admit(&names).unwrap()).unwrap();
    let after = |text: &str| {
        let mut constraint = start.fork();
        assert_eq!(
            constraint.advance(&lab.env.tokenize_bytes(text.as_bytes())).unwrap(),
            lab.env.tokenize_bytes(text.as_bytes()).len()
        );
        let allowed = lab.allowed(&mut constraint).into_iter().map(|id| lab.env.tok_trie().token_str(id));
        allowed.collect::<Vec<String>>()
    };
    assert!(after(r#"{""#).contains(&"n".to_owned()));
    let again = after(r#"{"name":1,""#);
    assert!(again.contains(&"the".to_owned()) && !again.iter().any(|token| token.starts_with('n')), "{again:?}");
    assert!(!after(r#"{"aaaaaaa":1,"aaaaaa"#).contains(&"a".to_owned()));
}

#[test]
fn maps_of_short_names_never_repeat_one() {
    let lab = Lab::new(WordEnv::shared());
    let short = json!({"type": "object", "propertyNames": {"pattern": "^[ab]{1,9}$"}, "additionalProperties": {"type": "object"}});
    let constraint = lab.schema(&crate::grammar::schema::admit(&short).unwrap()).unwrap();
    let (mut ended, mut several) = (0, 0);
    for seed in 1..400 {
        let Some(text) = lab.sample(constraint.fork(), &mut Random::new(seed), 200) else { continue };
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = crate::grammar::strict_json::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        ended += 1;
        several += usize::from(value.as_object().unwrap().len() > 1);
    }
    assert!(ended > 100 && several > 50, "{ended} ended, {several} with several keys");
}

proptest! {
    /// A mask forbids exactly the tokens that say a key again.
    #[test]
    fn a_mask_and_a_token_agree(pieces in prop::collection::vec(
        prop::sample::select(vec!["{", "}", "[", "]", "\"", "a", "ab", ",", ":", "\"a\":", "\\\"", "1", ",\"", " "]), 0..14)) {
        let env = WordEnv::shared();
        let tokens = Arc::new(KeyTokens::new(&env));
        let mut guard = KeyGuard::of("\"patternProperties\":{", &tokens).unwrap();
        env.tokenize_bytes(pieces.concat().as_bytes()).into_iter().for_each(|token| guard.follow(token));
        let mut mask = env.tok_trie().alloc_token_set();
        mask.set_all(true);
        guard.restrict(&mut mask);
        for token in 0..env.tok_trie().vocab_size() as u32 {
            prop_assert_eq!(mask.is_allowed(token), !guard.repeats(token), "{:?}", env.tok_trie().token_str(token));
        }
    }
}

/// The built-in model's own opening is one token, which ends two keys.
#[test]
fn a_token_that_ends_several_keys_is_judged_by_each() {
    let opening = br#"{"tool_uses":[{"recipient_name":"functions."#;
    let words = [b"{".as_slice(), b"\"a\":", b"{\"a\":1,\"a\":", b"{\"a\":{\"a\":", b"\"", opening];
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    let trie = toktrie::TokTrie::from(&toktrie::TokRxInfo::new(words.len() as u32, 0), &words);
    let env: TokEnv = Arc::new(toktrie::ApproximateTokEnv::new(trie));
    let guard = KeyGuard::of(FREE_NAMES, &Arc::new(KeyTokens::new(&env))).unwrap();
    let repeating: Vec<u32> = (0..words.len() as u32).filter(|token| guard.repeats(*token)).collect();
    assert_eq!(repeating, [2]);
}

#[test]
fn the_end_of_the_thoughts_is_a_new_start() {
    let tokens = Arc::new(KeyTokens::new(&byte_env()));
    let mut guard = KeyGuard::of("// free names\n\"</think>\"", &tokens).unwrap();
    br#"I'd say {"a": "b</</think>{"x":1,"x"#.iter().for_each(|byte| guard.follow((*byte).into()));
    assert!(guard.repeats(u32::from(b'"')));
}

#[test]
fn names_can_run_out_where_a_pattern_ends() {
    let tokens = Arc::new(KeyTokens::new(&byte_env()));
    let exhaustible = |lark: &str| KeyGuard::of(lark, &tokens).unwrap().exhaustible;
    assert!(!exhaustible(r#""patternProperties":{"^x-":{}}"#) && !exhaustible(r#""additionalProperties":{}"#));
    assert!(exhaustible(r#""patternProperties":{"^x-":{},"^.{3}$":{}}"#));
    assert!(exhaustible(r#""patternProperties":{"...":false}"#), "what does not match may be little");
}
