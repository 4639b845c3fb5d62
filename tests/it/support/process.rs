//! The real binary as a server process on a free port, and a plain HTTP client for it.

use super::tiny_model;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempDir};

const LIMIT: Duration = Duration::from_secs(30);

/// A server process on a free port.
pub(crate) struct Server {
    child: Child,
    address: String,
    pub(crate) banner: String,
    dir: TempDir,
}

impl Server {
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_with(options, Stdio::null(), "")
    }

    /// The same with its log in a file. `DIR` in an option stands for the server's own directory.
    pub(crate) fn start_logged(options: &[&str]) -> (Self, NamedTempFile) {
        let log = NamedTempFile::new().unwrap();
        let server = Self::start_with(options, log.reopen().unwrap().into(), "");
        (server, log)
    }

    /// The same with faults planted, in the words of the crate `fail`.
    #[cfg(feature = "failpoints")]
    pub(crate) fn start_faulty(options: &[&str], faults: &str) -> Self {
        Self::start_with(options, Stdio::null(), faults)
    }

    fn start_with(options: &[&str], log: Stdio, faults: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tiny_model(&dir.path().join("model"));
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_callsmith"))
            .args(["serve", "--port", "0", "--served-model-name", "base", "--model"])
            .arg(model)
            .args(options.iter().map(|option| option.replace("DIR", dir.path().to_str().unwrap())))
            .current_dir(&home)
            .envs([("HOME", &home), ("TMPDIR", &home)])
            .env("FAILPOINTS", faults)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut banner = String::new();
        while !banner.contains("try: ") {
            assert!(out.read_line(&mut banner).unwrap() > 0, "it ended early: {banner}");
        }
        let address = banner.lines().find_map(|line| line.strip_prefix("listening on http://")).unwrap().to_owned();
        Self { child, address, banner, dir }
    }

    pub(crate) fn signal(&self) {
        let killed = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status().unwrap();
        assert!(killed.success());
    }

    pub(crate) fn connect(&self) -> TcpStream {
        self.try_connect().unwrap()
    }

    pub(crate) fn try_connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// File descriptors that the process holds.
    pub(crate) fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Sends a request and returns the connection, from which the response can be read.
    pub(crate) fn send(&self, head: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// A connection that takes one request after another.
    pub(crate) fn client(&self) -> Client {
        let stream = self.connect();
        stream.set_nodelay(true).unwrap();
        Client(BufReader::new(stream))
    }

    /// Status and body of one chat request on a connection of its own.
    pub(crate) fn chat(&self, body: &str) -> (u16, String) {
        self.client().post("/v1/chat/completions", body).unwrap()
    }

    /// A line of `/proc/PID/status` in bytes (`VmRSS`, `VmHWM`).
    pub(crate) fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        found.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// A counter's value from `/metrics`.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.gauge(name) as u64
    }

    /// A metric's value from `/metrics`.
    pub(crate) fn gauge(&self, name: &str) -> f64 {
        let text = self.client().ask("GET /metrics", "").unwrap().1;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
    }

    /// Files in the server's home, temporary and working directory, which is empty at the start.
    pub(crate) fn files_written(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("home")).unwrap().count()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// A stream that runs for thousands of tokens; its first chunk has come.
    pub(crate) fn long_stream(&self) -> (TcpStream, String) {
        let body = json!({
            "model": "base", "messages": [{"role": "user", "content": "go on"}], "stream": true, "max_tokens": 4000, "n": 4,
            "logit_bias": {"0": -100},
        });
        let mut stream = self.send("POST /v1/chat/completions", &body.to_string());
        let mut seen = String::new();
        let mut buffer = [0; 1024];
        while !seen.contains("\"content\":\"") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{seen}");
            seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        (stream, seen)
    }

    /// The status line and headers of a response.
    pub(crate) fn head(&self, head: &str, body: &str) -> String {
        let mut lines = BufReader::new(self.send(head, body)).lines();
        let mut text = String::new();
        while let Some(line) = lines.next().map(Result::unwrap).filter(|line| !line.is_empty()) {
            text.push_str(&line.to_ascii_lowercase());
            text.push('\n');
        }
        text
    }

    pub(crate) fn until_unready(&self) {
        let started = Instant::now();
        while !self.head("GET /readyz", "").starts_with("http/1.1 503") {
            assert!(started.elapsed() < LIMIT, "still ready");
        }
    }

    pub(crate) fn exit_code(mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            if started.elapsed() > LIMIT {
                self.child.kill().unwrap();
                panic!("it does not end");
            }
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A failed test leaves no process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to a server.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn post(&mut self, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        self.ask(&format!("POST {path}"), body)
    }

    /// Status and body. The server may answer, and close, before it has read a body that is too large.
    pub(crate) fn ask(&mut self, head: &str, body: &str) -> std::io::Result<(u16, String)> {
        let length = body.len();
        let text = format!(
            "{head} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let _sent = self.0.get_mut().write_all(text.as_bytes());
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut length = 0;
        while !line.trim().is_empty() {
            line.clear();
            self.0.read_line(&mut line)?;
            let value = line.to_ascii_lowercase();
            length = value.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let status = status.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok((status, String::from_utf8(body).unwrap()))
    }
}
