//! The options of every command that takes a file by URL.

use crate::error::Result;
use crate::fetch::Downloads;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub(super) struct DownloadArgs {
    /// Largest file that is downloaded where a URL is given for one.
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_download_mib: u64,
    /// Directory of downloaded files; default: callsmith/downloads in the user's cache directory.
    #[arg(long, value_name = "DIR", env = "CALLSMITH_DOWNLOAD_DIR")]
    download_dir: Option<PathBuf>,
}

impl DownloadArgs {
    pub(super) fn downloads(&self) -> Downloads {
        let dir = self.download_dir.clone().unwrap_or_else(Downloads::usual_dir);
        Downloads::new(dir, self.max_download_mib << 20)
    }

    /// The files that somebody has named, by path or URL.
    pub(super) fn files(&self, named: &[PathBuf]) -> Result<Vec<PathBuf>> {
        let downloads = self.downloads();
        named.iter().map(|file| downloads.file(file)).collect()
    }
}
