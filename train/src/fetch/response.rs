//! An answer's body as a file: counted, hashed and shown while it comes, and complete or an error.

use super::{Downloads, hex};
use crate::atomic::TEMPORARY;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_ENCODING, ETAG, HeaderName, LAST_MODIFIED};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Longest time that one download may take, however steadily it trickles.
const TOTAL_LIMIT: Duration = Duration::from_secs(6 * 3600);
const PIECE: usize = 1 << 16;

/// By what a server tells whether its answer still holds.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Validators {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_modified: Option<String>,
}

/// A complete file that has no name yet.
pub(super) struct Found {
    pub(super) file: NamedTempFile,
    pub(super) sha256: String,
    pub(super) bytes: u64,
    pub(super) validators: Validators,
}

/// Takes the whole body.
///
/// # Errors
/// Another status than 200, an encoded body, one that is too large or breaks off, a disk that refuses it; nothing is left.
pub(super) fn download(mut response: Response, downloads: &Downloads) -> Result<Found, String> {
    check(&response, downloads)?;
    let header = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let validators = Validators { etag: header(ETAG), last_modified: header(LAST_MODIFIED) };
    let refused = |error: std::io::Error| format!("cannot be kept in {}: {error}", downloads.dir.display());
    std::fs::create_dir_all(&downloads.dir).map_err(refused)?;
    let readable = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new()
        .prefix(TEMPORARY)
        .permissions(readable)
        .tempfile_in(&downloads.dir)
        .map_err(refused)?;
    let bar = bar(response.content_length());
    let (mut hash, mut bytes, started) = (Sha256::new(), 0, Instant::now());
    let mut piece = vec![0; PIECE];
    loop {
        let count =
            response.read(&mut piece).map_err(|error| format!("broke off after {bytes} bytes: {}", causes(&error)))?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > downloads.most_bytes {
            return Err(too_large(bytes, downloads));
        }
        if started.elapsed() > TOTAL_LIMIT {
            return Err(format!("took longer than {} hours; download it by other means", TOTAL_LIMIT.as_secs() / 3600));
        }
        hash.update(&piece[..count]);
        file.write_all(&piece[..count]).map_err(refused)?;
        bar.inc(count as u64);
    }
    bar.finish_and_clear();
    file.as_file().sync_all().map_err(refused)?;
    Ok(Found { file, sha256: hex(&hash.finalize()), bytes, validators })
}

fn check(response: &Response, downloads: &Downloads) -> Result<(), String> {
    let status = response.status();
    if status != StatusCode::OK {
        return Err(format!("the server answers {status}"));
    }
    if let Some(encoding) = response.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        return Err(format!(
            "the server sends it encoded ({}), although it was asked not to",
            encoding.to_str().unwrap_or("?")
        ));
    }
    match response.content_length().filter(|&length| length > downloads.most_bytes) {
        Some(length) => Err(too_large(length, downloads)),
        None => Ok(()),
    }
}

fn too_large(bytes: u64, downloads: &Downloads) -> String {
    let mib = downloads.most_bytes >> 20;
    format!("has {bytes} bytes or more, which is above the limit of {mib} MiB; raise --max-download-mib")
}

fn bar(length: Option<u64>) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let template = match length {
        Some(_) => "downloading {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}",
        None => "downloading {spinner} {bytes} {bytes_per_sec}",
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// An error with what caused it: the outermost alone says too little. What says the same again is left out.
pub(super) fn causes(error: &(dyn Error + 'static)) -> String {
    let (mut texts, mut next) = (Vec::<String>::new(), Some(error));
    while let Some(error) = next {
        // The library adds the URL, with the keys that may stand in it.
        let text = error.to_string();
        let text = text.split(" for url (").next().unwrap_or_default();
        if texts.iter().all(|said| !said.contains(text)) {
            texts.push(text.to_owned());
        }
        next = error.source();
    }
    texts.join(": ")
}
