//! Opens the files of an adapter directory without trusting what the path names: two, and a chat template if there is one.
//!
//! Only regular files are opened, all through one directory handle (so a directory that is replaced meanwhile is seen
//! either old or new), and when there is a [`Jail`] the place of what was *opened* is checked, not the path that was
//! asked for: a link swapped in between gains nothing. Knows nothing of what the files hold.

use super::{AdapterError, shown};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

pub(super) const CONFIG_FILE: &str = "adapter_config.json";
pub(super) const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// How the adapter shows conversations, where that is not as its base does.
pub(super) const TEMPLATE_FILE: &str = "chat_template.jinja";

/// Formats that can run code when they are read; named only to say why there is nothing to load.
const PICKLES: [&str; 5] =
    ["adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "adapter_model.pkl", "adapter_model.ckpt"];
const MAX_CONFIG_BYTES: u64 = 1 << 20;
const MAX_WEIGHTS_BYTES: u64 = 1 << 30;
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// How often a directory that cannot be opened is looked at.
const TRIES: usize = 10;

/// The directory outside of which nothing is read.
pub(super) struct Jail {
    spelled: PathBuf,
    canonical: PathBuf,
}

impl Jail {
    pub(super) fn new(root: &Path) -> Result<Self, AdapterError> {
        let fail = |source| AdapterError::Io { path: format!("adapter root `{}`", root.display()), source };
        let canonical = root.canonicalize().map_err(fail)?;
        Ok(Self { spelled: std::path::absolute(root).map_err(fail)?, canonical })
    }

    /// The absolute form of `path` (absolute, or relative to the root), if its spelling stays inside.
    pub(super) fn resolve(&self, path: &str) -> Result<PathBuf, AdapterError> {
        let absolute = without_dots(&self.canonical.join(path));
        if absolute.starts_with(&self.canonical) || absolute.starts_with(&self.spelled) {
            Ok(absolute)
        } else {
            Err(AdapterError::Forbidden { path: shown(path) })
        }
    }
}

/// Removes `.` and `..` by spelling alone, before the file system is asked anything.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// An adapter whose files are part of the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// `adapter_config.json`
    pub config: &'static [u8],
    /// `adapter_model.safetensors`
    pub weights: &'static [u8],
    /// `chat_template.jinja`
    pub template: Option<&'static [u8]>,
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "BuiltIn({} bytes)", self.weights.len())
    }
}

/// The files of an adapter, open.
pub(super) struct AdapterFiles {
    /// Where the directory really is.
    pub(super) dir: PathBuf,
    pub(super) config: OpenFile,
    pub(super) weights: OpenFile,
    template: Option<OpenFile>,
}

impl AdapterFiles {
    /// Opens them; the chat template only where it is to be used (`own_template`).
    pub(super) fn open(path: &Path, jail: Option<&Jail>, own_template: bool) -> Result<Self, AdapterError> {
        // Again, because a writer may have replaced the directory between the steps, and may do so more than once.
        let again = |opened: Result<Self, _>, _| opened.or_else(|_| Self::open_once(path, jail, own_template));
        (1..TRIES).fold(Self::open_once(path, jail, own_template), again)
    }

    fn open_once(path: &Path, jail: Option<&Jail>, own_template: bool) -> Result<Self, AdapterError> {
        let dir = Dir::open(path, jail)?;
        let config = dir.file(CONFIG_FILE, MAX_CONFIG_BYTES)?;
        let weights = dir.file(WEIGHTS_FILE, MAX_WEIGHTS_BYTES)?;
        let template = match own_template {
            true if dir.has(TEMPLATE_FILE) => Some(dir.file(TEMPLATE_FILE, MAX_TEMPLATE_BYTES)?),
            false if dir.has(TEMPLATE_FILE) => {
                tracing::info!(dir = %dir.place.display(), "chat_template.jinja ignored; --adapter-templates would have it used");
                None
            }
            _ => None,
        };
        Ok(Self { dir: dir.place, config, weights, template })
    }

    /// The files of an adapter that is part of the program.
    pub(super) fn built_in(files: BuiltIn) -> Self {
        Self {
            dir: PathBuf::from("(built in)"),
            config: OpenFile::in_memory(CONFIG_FILE, files.config),
            weights: OpenFile::in_memory(WEIGHTS_FILE, files.weights),
            template: files.template.map(|bytes| OpenFile::in_memory(TEMPLATE_FILE, bytes)),
        }
    }

    /// Reads the chat template, if there is one.
    pub(super) fn template(&mut self) -> Result<Option<String>, AdapterError> {
        let Some(file) = &mut self.template else { return Ok(None) };
        let bytes = file.read(file.len as usize)?;
        file.check_unchanged()?;
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| AdapterError::Invalid(format!("`{TEMPLATE_FILE}` is not UTF-8")))
    }
}

/// An open directory that was found inside the jail, if there is one.
struct Dir<'a> {
    fd: OwnedFd,
    place: PathBuf,
    jail: Option<&'a Jail>,
}

impl<'a> Dir<'a> {
    /// Never blocks: the kernel refuses a pipe or device because of `DIRECTORY`.
    fn open(path: &Path, jail: Option<&'a Jail>) -> Result<Self, AdapterError> {
        let asked = shown(&path.to_string_lossy());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT | Errno::NAMETOOLONG | Errno::LOOP | Errno::INVAL => {
                AdapterError::FileNotFound { path: asked.clone() }
            }
            Errno::NOTDIR => AdapterError::Invalid("it is not a directory".to_owned()),
            other => AdapterError::Io { path: asked.clone(), source: other.into() },
        })?;
        let place = place_of(&fd, path).map_err(|source| AdapterError::Io { path: asked.clone(), source })?;
        let dir = Self { fd, place, jail };
        dir.admit(&dir.place, &asked)?;
        Ok(dir)
    }

    fn admit(&self, place: &Path, asked: &str) -> Result<(), AdapterError> {
        match self.jail {
            Some(jail) if !place.starts_with(&jail.canonical) => Err(AdapterError::Forbidden { path: shown(asked) }),
            _ => Ok(()),
        }
    }

    fn file(&self, name: &'static str, limit: u64) -> Result<OpenFile, AdapterError> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::empty()).map_err(|errno| self.unopened(name, errno))?;
        refuse_special(name, FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)?;
        // Non-blocking, should the file have become a pipe since the line above.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| self.unopened(name, e))?;
        let place = place_of(&fd, &self.place.join(name));
        let place = place.map_err(|source| AdapterError::Io { path: name.into(), source })?;
        self.admit(&place, name)?;
        OpenFile::new(name, File::from(fd), limit)
    }

    /// Whether there is something of that name; a link that leads nowhere is.
    fn has(&self, name: &str) -> bool {
        !matches!(rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    fn unopened(&self, name: &str, errno: Errno) -> AdapterError {
        if errno != Errno::NOENT && errno != Errno::LOOP {
            return AdapterError::Io { path: name.into(), source: errno.into() };
        }
        let pickle = PICKLES.into_iter().find(|other| rustix::fs::statat(&self.fd, *other, AtFlags::empty()).is_ok());
        AdapterError::Invalid(match pickle {
            Some(other) if name == WEIGHTS_FILE => format!(
                "`{other}` can run code when read and is never opened; save the adapter again as `{WEIGHTS_FILE}` \
                 (save_pretrained(…, safe_serialization=True))"
            ),
            _ => format!("the directory has no file `{name}`"),
        })
    }
}

/// The place of an open file, as the kernel knows it.
#[cfg(target_os = "linux")]
fn place_of(file: &impl AsFd, _path: &Path) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// The place of an open file. Without Linux's `/proc` this asks the path again, which leaves a race.
#[cfg(not(target_os = "linux"))]
fn place_of(_file: &impl AsFd, path: &Path) -> io::Result<PathBuf> {
    path.canonicalize()
}

/// A regular file, opened for reading.
pub(super) struct OpenFile {
    pub(super) name: &'static str,
    pub(super) len: u64,
    content: Content,
}

/// Where a file's bytes come from.
enum Content {
    /// The disk; with the time of the last change when it was opened.
    Disk(File, (i64, i64)),
    /// The program itself: what is still to be read.
    Memory(&'static [u8]),
}

impl OpenFile {
    fn new(name: &'static str, file: File, limit: u64) -> Result<Self, AdapterError> {
        let meta = file.metadata().map_err(|source| AdapterError::Io { path: name.into(), source })?;
        refuse_special(name, meta.is_file())?;
        if meta.len() > limit {
            return Err(AdapterError::TooLarge { path: name.into(), bytes: meta.len(), limit });
        }
        Ok(Self { name, len: meta.len(), content: Content::Disk(file, (meta.mtime(), meta.mtime_nsec())) })
    }

    fn in_memory(name: &'static str, bytes: &'static [u8]) -> Self {
        Self { name, len: bytes.len() as u64, content: Content::Memory(bytes) }
    }

    /// The next `count` bytes.
    pub(super) fn read(&mut self, count: usize) -> Result<Vec<u8>, AdapterError> {
        let mut bytes = vec![0; count];
        let read = match &mut self.content {
            Content::Disk(file, _) => file.read_exact(&mut bytes),
            Content::Memory(rest) => rest.read_exact(&mut bytes),
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.unstable(),
            _ => self.io(error),
        })?;
        Ok(bytes)
    }

    /// Fails if the file was written to since it was opened: what was read might then be a mixture.
    pub(super) fn check_unchanged(&self) -> Result<(), AdapterError> {
        let Content::Disk(file, modified) = &self.content else { return Ok(()) };
        let meta = file.metadata().map_err(|source| self.io(source))?;
        let same = meta.len() == self.len && (meta.mtime(), meta.mtime_nsec()) == *modified;
        if same { Ok(()) } else { Err(self.unstable()) }
    }

    fn unstable(&self) -> AdapterError {
        AdapterError::Changed(self.name)
    }

    fn io(&self, source: io::Error) -> AdapterError {
        AdapterError::Io { path: self.name.into(), source }
    }
}

fn refuse_special(name: &str, regular: bool) -> Result<(), AdapterError> {
    if regular { Ok(()) } else { Err(AdapterError::Invalid(format!("`{name}` is not a regular file"))) }
}
