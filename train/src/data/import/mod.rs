//! Importers: files of dialogues in the forms that people have them in → one native conversation a line.
//!
//! Rows come one after the other from [`super::rows`], a `Format` makes conversations of them, and the output appears
//! whole or not at all. The same files, switches and seed give the same bytes. Knows neither the fields of a format
//! (`formats`) nor those of the native one ([`native`]).

mod calls;
mod dialogue;
mod fields;
mod formats;
mod functions;
mod literal;
mod report;
mod tags;
mod types;

#[cfg(test)]
mod tests;

pub use formats::FormatName;
pub use formats::glaive::Rule as GlaiveRule;
pub use formats::viggo::ViggoSwitches;
pub use report::{Flawed, Place, Report};

use super::rows::{self, Flaw, Reason, Row};
use super::{DataError, Dialogue, native};
use crate::atomic;
use formats::{Format, detect};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What to import, and how.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    pub files: Vec<PathBuf>,
    /// Seen from each file's rows where it is not named.
    pub format: Option<FormatName>,
    /// File of native conversations.
    pub out: PathBuf,
    /// Bytes of the longest row that is taken.
    pub longest_row: Option<usize>,
    /// Number of flaws that the report shows with their place.
    pub shown: usize,
    /// Of everything that is drawn.
    pub seed: u64,
    pub viggo: ViggoSwitches,
    /// The cleaning rules for Glaive.
    pub glaive_rules: Vec<GlaiveRule>,
    /// Seal-Tools: functions offered beside those that are called.
    pub distractors: usize,
}

/// Imports the files into one.
///
/// # Errors
/// A file that cannot be read or written, and files in which no row makes a conversation; then nothing is written.
pub fn run(options: &ImportOptions) -> Result<Report, DataError> {
    let mut failure = None;
    let mut report = Report::default();
    report.flawed.shown = options.shown;
    let written = atomic::stream(&options.out, |out| {
        let mut import = Import { options, formats: BTreeMap::new(), report: &mut report, out };
        import.all().map_err(|error| io::Error::other(failure.insert(error).to_string()))
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    written.map_err(|error| DataError::file(&options.out, error))?;
    Ok(report)
}

struct Import<'a> {
    options: &'a ImportOptions,
    /// Each with what it keeps from row to row.
    formats: BTreeMap<FormatName, Box<dyn Format>>,
    report: &'a mut Report,
    out: &'a mut dyn Write,
}

impl Import<'_> {
    fn all(&mut self) -> Result<(), DataError> {
        for path in &self.options.files {
            self.file(path)?;
        }
        for name in self.formats.keys().copied().collect::<Vec<_>>() {
            self.write_grouped(name, true)?;
        }
        match self.report.conversations {
            0 => Err(DataError::Nothing(Box::new(std::mem::take(self.report)))),
            _ => Ok(()),
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), DataError> {
        let mut format = self.options.format;
        let place = path.display().to_string();
        let named = format.is_some();
        for row in rows::open(path, self.options.longest_row)? {
            let Row { line, json, .. } = row.map_err(|error| DataError::file(path, error))?;
            self.report.rows += 1;
            // Where it is not named, the first row that can be read tells, and each row its variety.
            let known = |json: Json| {
                let name = match format {
                    Some(name) if named => name,
                    Some(name) => name.variety(&json),
                    None => detect(&json)?,
                };
                Ok((*format.insert(name), json))
            };
            let dialogue = json.and_then(known).and_then(|(name, json)| self.row(name, json));
            match dialogue {
                Ok(Some(dialogue)) => self.write(&dialogue)?,
                Ok(None) => {}
                Err(flaw) => self.report.flawed.add(&place, line, &flaw),
            }
            if let Some(name) = format {
                self.write_grouped(name, false)?;
            }
        }
        Ok(())
    }

    fn row(&mut self, name: FormatName, row: Json) -> Result<Option<Dialogue>, Flaw> {
        *self.report.formats.entry(name.text()).or_default() += 1;
        let format = self.formats.entry(name).or_insert_with(|| name.reader(self.options));
        let dialogue = format.row(&row, &mut self.report.rules)?;
        let fields = row.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
        fields.filter(|field| !name.fields().contains(field)).for_each(|field| self.report.unread(field));
        // A row may be large: no more of its forms are held than one needs.
        drop(row);
        dialogue.map(readable).transpose()
    }

    /// Writes the conversations that a format has made of several rows; of what is left over too at the `end`.
    fn write_grouped(&mut self, name: FormatName, end: bool) -> Result<(), DataError> {
        while let Some(conversation) = self.formats.get_mut(&name).and_then(|format| format.grouped(end)) {
            self.write(&conversation.into())?;
        }
        Ok(())
    }

    fn write(&mut self, dialogue: &Dialogue) -> Result<(), DataError> {
        self.report.conversations += 1;
        writeln!(self.out, "{}", native::dialogue_to_json(dialogue))
            .map_err(|error| DataError::file(&self.options.out, error))
    }
}

/// The dialogue as it will be read again.
fn readable(dialogue: Dialogue) -> Result<Dialogue, Flaw> {
    let json = native::dialogue_to_json(&dialogue);
    drop(dialogue);
    native::dialogue_from_json(&json, "").map_err(|error| Flaw::new(Reason::Field, error.to_string()))
}
