//! Data files that are named by URL: downloaded whole into a directory of the user's, or not at all.
//!
//! A file lies there under the SHA-256 of its content, so what once was trained on never changes under a run. What a server
//! says about a URL (ETag, date) lies beside it, and the next use asks whether it still holds; where nobody answers, what lies
//! there is used. Knows HTTP and files, and nothing of what files hold.

mod response;

use self::response::{Validators, causes, download};
use crate::atomic;
use crate::error::{Result, TrainError};
use crate::monitor;
use reqwest::blocking::{Client, RequestBuilder};
use reqwest::header::{ACCEPT_ENCODING, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{StatusCode, Url};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const MOST_REDIRECTS: usize = 10;
/// Bytes of the URL's own name that a file keeps: its ending says what it holds.
const LONGEST_NAME: usize = 100;

/// Where downloaded files lie, and how large one may be.
#[derive(Debug, Clone)]
pub struct Downloads {
    dir: PathBuf,
    most_bytes: u64,
    /// Longest time until an answer begins, and between two pieces of it.
    silence: Duration,
}

/// What is known of a URL since the last download.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    validators: Validators,
    sha256: String,
    /// Name of the file in the same directory.
    file: String,
}

impl Downloads {
    /// Files of at most `most_bytes`, in `dir`.
    pub fn new(dir: PathBuf, most_bytes: u64) -> Self {
        Self { dir, most_bytes, silence: SILENCE_LIMIT }
    }

    /// `callsmith/downloads` in the user's cache directory ($XDG_CACHE_HOME, else ~/.cache), or in that for temporary files
    /// of a user without a home.
    pub fn usual_dir() -> PathBuf {
        let given = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let caches = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")));
        caches.unwrap_or_else(std::env::temp_dir).join("callsmith/downloads")
    }

    /// The file that somebody has named: itself, or what a URL gives.
    ///
    /// # Errors
    /// A URL that gives no file of a permitted size; the message names it, what came instead, and what to do.
    pub fn file(&self, named: &Path) -> Result<PathBuf> {
        match named.to_str().filter(|text| is_url(text)) {
            Some(text) => self.fetch(text),
            None => Ok(named.to_owned()),
        }
    }

    fn fetch(&self, text: &str) -> Result<PathBuf> {
        let url = Url::parse(text).map_err(|error| failed(text, format!("is no URL: {error}")))?;
        let entry_path = self.dir.join(format!("{}.json", hex(&Sha256::digest(text))));
        let known = self.known(&entry_path);
        let client = self.client(&url).map_err(|error| failed(text, causes(&error)))?;
        let request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        let asked = known.as_ref().map_or(&Validators::default(), |(entry, _)| &entry.validators).ask(request);
        let response = match (asked.send(), known) {
            (Ok(response), Some((entry, path))) if response.status() == StatusCode::NOT_MODIFIED => {
                monitor::note(&format!("{}: as downloaded before, SHA-256 {}", shown(text), entry.sha256));
                return Ok(path);
            }
            (Ok(response), _) => response,
            (Err(error), Some((entry, path))) => {
                let (url, why, sha256) = (shown(text), causes(&error), entry.sha256);
                monitor::note(&format!("{url}: {why}; what was downloaded before is used, SHA-256 {sha256}"));
                return Ok(path);
            }
            (Err(error), None) => return Err(failed(text, causes(&error))),
        };
        let found = download(response, self).map_err(|problem| failed(text, problem))?;
        let file = format!("{}-{}", found.sha256, file_name(&url));
        let entry = Entry { validators: found.validators, file, sha256: found.sha256 };
        let path = self.dir.join(&entry.file);
        // Whole and flushed; whoever reads the same file sees the same bytes.
        found.file.persist(&path).map_err(|error| TrainError::io(&path)(error.error))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(TrainError::io(&self.dir))?;
        let json = serde_json::to_vec_pretty(&entry).map_err(|error| failed(text, error.to_string()))?;
        atomic::file(&entry_path, &json)?;
        monitor::note(&format!("{}: {} bytes, SHA-256 {}", shown(text), found.bytes, entry.sha256));
        Ok(path)
    }

    fn client(&self, url: &Url) -> reqwest::Result<Client> {
        // An error means that a provider was chosen before, by an earlier call.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder().connect_timeout(CONNECT_LIMIT).timeout(self.silence);
        let builder = builder.redirect(Policy::custom(redirect));
        // No proxy knows this machine's own addresses.
        let builder = if is_local(url) { builder.no_proxy() } else { builder };
        builder.build()
    }

    /// The entry of a URL and its file, if that still holds what was downloaded.
    fn known(&self, entry: &Path) -> Option<(Entry, PathBuf)> {
        let entry: Entry = serde_json::from_slice(&std::fs::read(entry).ok()?).ok()?;
        let path = self.dir.join(&entry.file);
        (sha256(&path).ok()? == entry.sha256).then_some((entry, path))
    }
}

impl Validators {
    /// Asks only for what has changed.
    fn ask(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self { etag: Some(etag), .. } => request.header(IF_NONE_MATCH, etag),
            Self { last_modified: Some(date), .. } => request.header(IF_MODIFIED_SINCE, date),
            _ => request,
        }
    }
}

fn is_url(text: &str) -> bool {
    let begins = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    begins("http://") || begins("https://")
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let was_safe = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    match attempt.url().scheme() {
        _ if attempt.previous().len() > MOST_REDIRECTS => {
            attempt.error(format!("more than {MOST_REDIRECTS} redirects"))
        }
        "https" => attempt.follow(),
        "http" if !was_safe => attempt.follow(),
        "http" => attempt.error("a redirect from https to http; name the address that it leads to"),
        scheme => {
            let message = format!("a redirect to `{scheme}:`, which is neither http nor https");
            attempt.error(message)
        }
    }
}

/// The last part of the URL's path as a name that every file system takes.
fn file_name(url: &Url) -> String {
    let last = url.path().rsplit('/').find(|part| !part.is_empty()).unwrap_or("data");
    let safe =
        |character: char| if character.is_ascii_alphanumeric() || ".-_".contains(character) { character } else { '_' };
    let name: Vec<char> = last.chars().map(safe).collect();
    name[name.len().saturating_sub(LONGEST_NAME)..].iter().collect()
}

/// A URL as messages have it: without the keys that may stand in it.
fn shown(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return url.to_owned() };
    // Fails only for URLs that cannot hold any.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_query(None);
    url.to_string()
}

fn failed(url: &str, problem: impl Into<String>) -> TrainError {
    TrainError::input(Path::new(&shown(url)), problem)
}

/// Of a file's content.
fn sha256(path: &Path) -> io::Result<String> {
    let (mut hash, mut file) = (Sha256::new(), BufReader::with_capacity(1 << 20, File::open(path)?));
    loop {
        let piece = file.fill_buf()?;
        if piece.is_empty() {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(piece);
        let count = piece.len();
        file.consume(count);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
