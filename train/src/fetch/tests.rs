use super::*;
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A server on a free port that gives each request the next of its answers, as bytes, and remembers the requests.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answers: &[&str]) -> Self {
        Self::with(answers.iter().map(|answer| answer.as_bytes().to_vec()).collect(), Duration::ZERO)
    }

    /// Each answer's connection stays open for `pause` after it.
    fn with(mut answers: VecDeque<Vec<u8>>, pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        std::thread::spawn(move || {
            while let Some(answer) = answers.pop_front() {
                let (mut stream, _) = listener.accept().unwrap();
                seen.lock().unwrap().push(head(&mut stream));
                // The client may hang up before it has read everything.
                let _ = stream.write_all(&answer);
                std::thread::sleep(pause);
            }
        });
        Self { url, requests }
    }

    fn url(&self, path: &str) -> PathBuf {
        format!("{}{path}", self.url).into()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn head(stream: &mut impl Read) -> String {
    let (mut bytes, mut one) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut one).unwrap() == 1 {
        bytes.push(one[0]);
    }
    String::from_utf8(bytes).unwrap().to_ascii_lowercase()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn downloads(root: &tempfile::TempDir) -> Downloads {
    Downloads { silence: Duration::from_secs(20), ..Downloads::new(root.path().join("downloads"), 1000) }
}

/// What lies in the directory, without entries about URLs.
fn files(root: &tempfile::TempDir) -> Vec<String> {
    let Ok(entries) = fs::read_dir(root.path().join("downloads")) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.ends_with(".json")).collect()
}

fn error(found: Result<PathBuf>) -> String {
    found.unwrap_err().to_string()
}

#[test]
fn a_url_becomes_a_file_under_the_hash_of_its_content() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::new(&[&answer("200 OK", "", "one\ntwo\n")]);
    let path = downloads(&root).file(&server.url("/set/rows.csv?token=secret")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!(name, format!("{}-rows.csv", hex(&Sha256::digest("one\ntwo\n"))));
    assert!(server.requests()[0].starts_with("get /set/rows.csv?token=secret "));
}

#[test]
fn a_path_stays_what_it_is() {
    let root = tempfile::tempdir().unwrap();
    for path in ["data/a.jsonl", "http:/a", "ftp://host/a", ""] {
        assert_eq!(downloads(&root).file(Path::new(path)).unwrap(), Path::new(path));
    }
    assert!(error(downloads(&root).file(Path::new("https://"))).contains("is no URL"));
}

#[test]
fn what_has_not_changed_is_not_downloaded_again() {
    let root = tempfile::tempdir().unwrap();
    let unchanged = "HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n";
    let server = Server::new(&[
        &answer("200 OK", "etag: \"v1\"\r\n", "one"),
        unchanged,
        &answer("200 OK", "last-modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n", "two"),
        unchanged,
    ]);
    let get = || fs::read_to_string(downloads(&root).file(&server.url("/a")).unwrap()).unwrap();
    assert_eq!([get(), get(), get(), get()], ["one", "one", "two", "two"]);
    let requests = server.requests();
    assert!(!requests[0].contains("if-none-match") && requests[1].contains("if-none-match: \"v1\""), "{requests:?}");
    assert!(requests[3].contains("if-modified-since: sun, 01 nov 2026"), "{requests:?}");
    assert_eq!(files(&root).len(), 2, "a run on the first version still finds it");
}

#[test]
fn what_was_downloaded_is_used_where_nobody_answers() {
    let root = tempfile::tempdir().unwrap();
    // The second connection is closed without an answer.
    let server = Server::new(&[&answer("200 OK", "", "one"), ""]);
    let path = downloads(&root).file(&server.url("/a")).unwrap();
    assert_eq!(downloads(&root).file(&server.url("/a")).unwrap(), path);
    assert_eq!(fs::read(&path).unwrap(), b"one");
    fs::write(&path, "other").unwrap();
    assert!(downloads(&root).file(&server.url("/a")).is_err(), "it is no longer what was downloaded");
}

#[test]
fn a_damaged_copy_is_downloaded_again() {
    let root = tempfile::tempdir().unwrap();
    let whole = answer("200 OK", "etag: \"v1\"\r\n", "one");
    let server = Server::new(&[&whole, &whole]);
    let path = downloads(&root).file(&server.url("/a")).unwrap();
    fs::write(&path, "on").unwrap();
    assert_eq!(fs::read_to_string(downloads(&root).file(&server.url("/a")).unwrap()).unwrap(), "one");
    assert!(!server.requests()[1].contains("if-none-match"), "{:?}", server.requests());
}

#[test]
fn a_download_that_breaks_off_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this";
    let server = Server::new(&[cut, chunked]);
    for _ in 0..2 {
        let message = error(downloads(&root).file(&server.url("/a")));
        assert!(message.contains("broke off after 9 bytes"), "{message}");
        assert!(files(&root).is_empty());
    }
}

#[test]
fn what_is_too_large_is_refused_with_the_option_that_allows_it() {
    let root = tempfile::tempdir().unwrap();
    let body = "x".repeat(2000);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7d0\r\n{body}\r\n0\r\n\r\n");
    let server = Server::new(&[&answer("200 OK", "", &body), &chunked]);
    for _ in 0..2 {
        let message = error(downloads(&root).file(&server.url("/a")));
        assert!(message.contains("2000 bytes or more") && message.contains("--max-download-mib"), "{message}");
        assert!(files(&root).is_empty());
    }
}

#[test]
fn an_error_names_address_and_status_and_no_key() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::new(&[&answer("404 Not Found", "", "nothing"), &answer("206 Partial Content", "", "part")]);
    for status in ["404 Not Found", "206 Partial Content"] {
        let url = server.url("/a?key=secret").display().to_string().replace("http://", "http://me:secret@");
        let message = error(downloads(&root).file(Path::new(&url)));
        assert!(message.contains(&format!("{}/a: the server answers {status}", server.url)), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
    let message = error(downloads(&root).file(Path::new("http://127.0.0.1:1/a?key=secret")));
    assert!(message.contains("http://127.0.0.1:1/a") && !message.contains("secret"), "{message}");
}

#[test]
fn redirects_lead_to_http_alone() {
    let root = tempfile::tempdir().unwrap();
    let to = |place: &str| answer("302 Found", &format!("location: {place}\r\n"), "");
    let server = Server::new(&[&to("/b"), &answer("200 OK", "", "found"), &to("file:///etc/passwd")]);
    assert_eq!(fs::read(downloads(&root).file(&server.url("/a")).unwrap()).unwrap(), b"found");
    let message = error(downloads(&root).file(&server.url("/a")));
    assert!(message.contains("302 Found"), "{message}");
    let endless = Server::new(&[to("/a").as_str(); 12]);
    let message = error(downloads(&root).file(&endless.url("/a")));
    assert!(message.contains("redirects"), "{message}");
}

#[test]
fn an_encoded_body_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let server = Server::new(&[&answer("200 OK", "content-encoding: gzip\r\n", "??")]);
    assert!(error(downloads(&root).file(&server.url("/a"))).contains("gzip"));
}

#[test]
fn a_server_that_falls_silent_is_not_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec();
    let server = Server::with([half, Vec::new()].into(), Duration::from_secs(15));
    let downloads = Downloads { silence: Duration::from_millis(200), ..downloads(&root) };
    let started = Instant::now();
    assert!(error(downloads.file(&server.url("/a"))).contains("broke off after 4 bytes"));
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(files(&root).is_empty());
}

#[test]
fn names_that_no_file_system_takes_are_made_safe() {
    let name = |url: &str| file_name(&Url::parse(url).unwrap());
    assert_eq!(name("https://host/a/b.jsonl?x=1#y"), "b.jsonl");
    assert_eq!(name("https://host/"), "data");
    assert_eq!(name("https://host/a/%2e%2e%2fx%00/"), "_2e_2e_2fx_00");
    assert_eq!(name(&format!("https://host/{}.csv", "a".repeat(500))).len(), LONGEST_NAME);
}
