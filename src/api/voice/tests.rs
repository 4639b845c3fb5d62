use super::*;
use crate::chat::tokenizer::TokenizerFiles;
use crate::chat::{Conversation, Message, Role};

const VIGGO: &str = include_str!("../../../train/recipes/viggo.jinja");
const EMBEDDED: &[u8] = include_bytes!("../../../models/embedded/chat_template.jinja");

fn voices(choice: &DialectChoice, thoughts: bool) -> Voices {
    let files = TokenizerFiles {
        tokenizer: Some(include_bytes!("../../../models/embedded/tokenizer.json")),
        tokenizer_config: Some(include_bytes!("../../../models/embedded/tokenizer_config.json")),
        chat_template: Some(EMBEDDED),
        generation_config: None,
        config: Some(include_bytes!("../../../models/embedded/config.json")),
    };
    Voices::new(&ChatTokenizer::from_files(&files, 4096).unwrap(), choice, thoughts).unwrap()
}

fn usual() -> Voices {
    voices(&DialectChoice::default(), true)
}

/// A template that differs from all others.
fn numbered(number: usize) -> String {
    format!("{VIGGO}{{# {number} #}}")
}

#[test]
fn an_adapter_speaks_by_its_own_template_and_without_one_as_the_base() {
    let voices = usual();
    let own = voices.of(Some(VIGGO)).unwrap();
    assert_eq!((own.dialect.name(), voices.base().dialect.name()), ("viggo", "tool_uses"));
    assert_eq!((voices.dialect_of(Some(VIGGO)), voices.dialect_of(None)), ("viggo".into(), "tool_uses".into()));
    assert!(Arc::ptr_eq(&voices.of(None).unwrap(), voices.base()));
}

#[test]
fn an_adapter_with_the_bases_own_template_speaks_as_the_base_whatever_it_was_told_to() {
    let hermes = DialectChoice { name: Some("hermes".into()), dir: None };
    let voices = voices(&hermes, true);
    let text = std::str::from_utf8(EMBEDDED).unwrap();
    voices.judge(text).unwrap();
    assert!(Arc::ptr_eq(&voices.of(Some(text.trim_end())).unwrap(), voices.base()));
    assert_eq!(voices.dialect_of(Some(text)), "hermes");
}

#[test]
fn a_template_is_compiled_once_and_few_are_kept() {
    let voices = usual();
    let first = voices.of(Some(&numbered(0))).unwrap();
    for number in 1..MAX_KEPT {
        voices.of(Some(&numbered(number))).unwrap();
    }
    assert!(Arc::ptr_eq(&voices.of(Some(&numbered(0))).unwrap(), &first), "all of them fit");
    voices.of(Some(&numbered(MAX_KEPT))).unwrap();
    assert!(Arc::ptr_eq(&voices.of(Some(&numbered(0))).unwrap(), &first), "it was used after others");
    for number in 0..2 * MAX_KEPT {
        voices.of(Some(&numbered(1000 + number))).unwrap();
    }
    assert_eq!(voices.kept.lock().len(), MAX_KEPT);
    let again = voices.of(Some(&numbered(0))).unwrap();
    assert!(!Arc::ptr_eq(&again, &first) && again.dialect.name() == "viggo");
}

#[test]
fn a_template_that_cannot_be_used_is_refused_with_the_reason() {
    let voices = usual();
    for (text, reason) in [
        ("{% if %}", "syntax error"),
        ("{# dialect: klingon #}", "`klingon`"),
        (
            "{# dialect: viggo #}{{ tools }}{% for m in messages %}{% for c in m.tool_calls or [] %}<{{ c.function.name }}>{% endfor %}{% endfor %}",
            "find_lighthouse(island",
        ),
    ] {
        let error = voices.judge(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_server_without_thoughts_has_none_in_any_voice() {
    let asks = "{{ '<think>' if enable_thinking is not defined }}{% for m in messages %}{{ m.content }}{% endfor %}";
    let thinks = |voices: &Voices, thoughts: bool| {
        let chat = Conversation { messages: vec![Message::text(Role::User, "?")], ..Conversation::default() };
        let prompt = voices.of(Some(asks)).unwrap().template(thoughts).render(&chat, true).unwrap();
        format!("{prompt:?}").contains("<think>")
    };
    let silent = voices(&DialectChoice::default(), false);
    assert_eq!((thinks(&usual(), true), thinks(&usual(), false)), (true, false));
    assert_eq!((thinks(&silent, true), thinks(&silent, false)), (false, false));
}
