//! Servers that answer well, badly or not at all: what becomes the reply, what is asked again and what ends the evaluation.

use super::*;
use callsmith::chat::{Conversation, Message as Said, Role};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Gives each connection the next of its answers and remembers the first line and the headers of the requests.
struct Scripted {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                seen.lock().unwrap().push(head(&mut stream));
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The replies to so many questions, asked one after the other.
    fn replies(&self, key: Option<&str>, questions: usize) -> Result<Vec<Reply>> {
        let question = |number: usize| Case {
            id: number.to_string(),
            conversation: Conversation { messages: vec![Said::text(Role::User, "q")], ..Conversation::default() },
        };
        let cases: Vec<Case> = (0..questions).map(question).collect();
        let mut replies = Vec::new();
        let remote = Remote::new(&self.url, key, "m", 8, 1)?;
        remote.answer(&cases.iter().collect::<Vec<_>>(), &mut |_, reply| {
            replies.push(reply);
            Ok(())
        })?;
        Ok(replies)
    }
}

/// Reads a request whole; its head in small letters.
fn head(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let lines = reader.by_ref().lines().map(|line| line.unwrap().to_ascii_lowercase());
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let length = head.iter().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    reader.read_exact(&mut vec![0; length.unwrap_or(0)]).unwrap();
    head.join("\n")
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn good(text: &str) -> String {
    answer("200 OK", &json!({"choices": [{"message": {"content": text}}]}).to_string())
}

fn calling(arguments: &Value) -> Reply {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}});
    read(&json!({"choices": [{"message": {"content": "Let me see.", "tool_calls": [call]}}]}).to_string()).unwrap()
}

fn texts(replies: &[Reply]) -> Vec<&str> {
    replies.iter().map(|reply| reply.text.as_str()).collect()
}

#[test]
fn arguments_are_read_as_servers_write_them_and_broken_ones_equal_nothing() {
    for (written, meant) in [
        (json!("{\"x\":1}"), json!({"x": 1})),
        (json!({"x": 1}), json!({"x": 1})),
        (json!(""), json!({})),
        (json!(null), json!({})),
        (json!("{"), Value::Null),
    ] {
        assert_eq!(calling(&written).calls, [("f".to_owned(), meant)]);
    }
}

#[test]
fn words_beside_calls_do_not_hide_them() {
    assert_eq!(calling(&json!("{}")).shown(), r#"[{"name":"f","arguments":{}}]"#);
    assert_eq!(read(r#"{"choices":[{"message":{"content":"hi"}}]}"#).unwrap().shown(), "hi");
}

#[test]
fn what_is_no_completion_is_asked_for_again_and_then_is_the_reply_to_this_one_question() {
    let odd = || answer("200 OK", "<html>");
    let server = Scripted::new(vec![odd(), good("a"), odd(), answer("200 OK", r#"{"choices":[]}"#), good("c")]);
    let replies = server.replies(None, 3).unwrap();
    assert_eq!(texts(&replies), ["a", "", "c"]);
    let refused = replies[1].refused.as_deref().unwrap();
    assert!(refused.contains("a completion without a choice"), "{refused}");
}

#[test]
fn a_request_that_is_refused_is_a_reply_without_an_answer() {
    let server = Scripted::new(vec![answer("400 Bad Request", r#"{"error":{"message":"too long"}}"#), good("b")]);
    let replies = server.replies(None, 2).unwrap();
    assert_eq!(replies[0].refused.as_deref(), Some("http 400: too long"));
    assert_eq!((replies[0].made(), texts(&replies)[1]), (None, "b"));
}

#[test]
fn an_answer_that_is_lost_on_its_way_and_a_busy_server_are_asked_again() {
    let cut = good("a").replace("a\"}", "");
    let busy = "HTTP/1.1 503 Busy\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n".to_owned();
    let server = Scripted::new(vec![cut, good("a"), busy, good("b")]);
    let begun = std::time::Instant::now();
    assert_eq!(texts(&server.replies(None, 2).unwrap()), ["a", "b"]);
    assert!(begun.elapsed() >= PAUSES[0] + Duration::from_secs(1), "the server's own pause counts");
}

#[test]
fn a_server_that_has_moved_is_not_asked_elsewhere_but_named() {
    let moved = "HTTP/1.1 301 Moved\r\nconnection: close\r\nlocation: https://other/v1\r\ncontent-length: 0\r\n\r\n";
    let server = Scripted::new(vec![moved.to_owned()]);
    let refused = server.replies(None, 1).unwrap_err().to_string();
    assert!(refused.contains("http 301") && refused.contains("https://other/v1"), "{refused}");
    assert!(server.heads()[0].starts_with("post /v1/chat/completions"), "{:?}", server.heads());
}

#[test]
fn the_key_is_the_bearer_and_an_empty_one_is_none() {
    for (key, sent) in [(Some("k"), true), (Some(""), false), (None, false)] {
        let server = Scripted::new(vec![good("a")]);
        server.replies(key, 1).unwrap();
        assert_eq!(server.heads()[0].contains("authorization: bearer k"), sent, "{key:?}");
        assert_eq!(server.heads()[0].contains("authorization"), sent, "{key:?}");
    }
}

#[test]
fn a_failure_names_its_own_remedy() {
    let status = |code| Failure { cause: Cause::Status { code, again: None }, ..Failure::of("http") };
    let remote = |kept| Remote::new("http://x", None, "m", 8, 1).unwrap().kept(kept);
    let told = |kept, failure: &Failure| remote(kept).wrong(failure).to_string();
    assert_eq!(told(true, &status(401)), "http://x: http; give the server's key with --api-key");
    assert!(told(true, &status(404)).contains("--served-model"));
    let lost = Failure::of("connection lost");
    assert!(told(true, &lost).contains("what was answered is kept under --out"));
    assert!(!told(false, &lost).contains("what was answered is kept"));
    let refused = Remote::new("not a url", None, "m", 8, 1).err().unwrap().to_string();
    assert!(refused.contains("not a URL") && !refused.contains("--out"), "{refused}");
}
