//! `eval viggo`: sentences of ViGGO, and how close what is written comes to their meaning representations.
//!
//! What counts is the text. Where only calls are known (a server, another dialect), they are written as the data set does.

pub mod meaning;

use super::Task;
use super::answerer::{Case, Reply};
use super::judged::{Figure, Judged, Verdict};
use super::score::Call;
use crate::data::viggo;
use crate::dataset::conversations::Conversations;
use crate::error::{Result, TrainError};
use callsmith::chat::dialect::{self, Dialect};
use callsmith::chat::{Message, Role, ToolCall};
use meaning::{Closeness, Meaning};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

/// The rows of a file.
pub struct Viggo {
    title: String,
    cases: Vec<Case>,
    /// The meaning of each.
    wanted: Vec<String>,
    dialect: Arc<dyn Dialect>,
}

impl Viggo {
    /// Reads the first `limit` rows of the data set's CSV (columns `mr` and `ref`), or of conversations made from it, one JSON
    /// object a line, each ending in one call.
    ///
    /// # Errors
    /// A file that cannot be read, and the first wrong row, by line and field.
    pub fn open(path: &Path, limit: Option<usize>) -> Result<Self> {
        let dialect = dialect::by_name("viggo")?;
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        let is_json = text.trim_start_matches(['\u{feff}', ' ', '\r', '\n']).starts_with('{');
        let rows = if is_json { json_rows(path, dialect.as_ref())? } else { csv_rows(path, &text)? };
        if rows.is_empty() {
            return Err(TrainError::input(path, "holds no row"));
        }
        let (cases, wanted) = rows.into_iter().take(limit.unwrap_or(usize::MAX)).unzip();
        Ok(Self { title: format!("ViGGO, {}", path.display()), cases, wanted, dialect })
    }

    /// The text that is compared.
    fn written(&self, reply: &Reply) -> String {
        if reply.calls.is_empty() || Meaning::of(&reply.text).function.is_some() {
            return reply.text.clone();
        }
        let call = |(name, arguments): &Call| {
            let call = ToolCall { id: String::new(), name: name.clone(), arguments: arguments.clone() };
            viggo::meaning(self.dialect.as_ref(), &call)
        };
        reply.calls.iter().map(call).collect::<Vec<_>>().join("\n")
    }
}

impl Task for Viggo {
    fn title(&self) -> String {
        self.title.clone()
    }

    fn cases(&self) -> &[Case] {
        &self.cases
    }

    fn shipped_adapter(&self) -> Option<&'static str> {
        Some("viggo")
    }

    fn judge(&self, replies: &[Reply]) -> Judged {
        let written: Vec<String> = replies.iter().map(|reply| self.written(reply)).collect();
        let close: Vec<Closeness> =
            self.wanted.iter().zip(&written).map(|(wanted, written)| Closeness::of(wanted, written)).collect();
        let mean = Closeness::mean(&close);
        let function = |text: &str| Meaning::of(text).function.unwrap_or_else(|| "(none)".to_owned());
        let verdicts = self.wanted.iter().zip(&written).zip(&close).map(|((wanted, written), close)| Verdict {
            right: close.exact == 1.0,
            wanted: wanted.clone(),
            fault: None,
            functions: (function(wanted), function(written)),
        });
        let rows = close.len() as u64;
        let figure = |name: &str, share| Figure { name: name.to_owned(), share: Some(share), of: rows };
        Judged {
            metrics: json!({
                "function": mean.function, "attribute_set": mean.attribute_set,
                "attribute_values": mean.attribute_values, "overall": mean.overall(), "exact": mean.exact, "rows": rows,
            }),
            figures: vec![
                figure("function", mean.function),
                figure("attribute set", mean.attribute_set),
                figure("attribute values", mean.attribute_values),
                figure("overall", mean.overall()),
                figure("exact", mean.exact),
            ],
            verdicts: verdicts.collect(),
        }
    }
}

type Rows = Vec<(Case, String)>;

fn csv_rows(path: &Path, text: &str) -> Result<Rows> {
    let wrong = |line: u64, what: String| TrainError::Data(format!("{}:{line}: {what}", path.display()));
    let unread = |error: csv::Error| match error.position() {
        Some(place) => wrong(place.line(), error.to_string()),
        None => TrainError::input(path, error.to_string()),
    };
    // The reader counts a line feed after a carriage return to the next row.
    let text = text.replace("\r\n", "\n");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(unread)?.clone();
    let column = |name: &str| {
        let missing = || wrong(1, format!("no column `{name}`; the first line must name the columns `mr` and `ref`"));
        header.iter().position(|column| column == name).ok_or_else(missing)
    };
    let (meaning, sentence) = (column("mr")?, column("ref")?);
    let tools = viggo::tools();
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(unread)?;
        let line = record.position().map_or(0, csv::Position::line);
        let (meaning, sentence) = (record[meaning].to_owned(), &record[sentence]);
        if Meaning::of(&meaning).function.is_none() {
            return Err(wrong(line, format!("`mr`: {meaning:?} is no meaning; write function(attribute[value], …)")));
        }
        let conversation = viggo::conversation(&tools, vec![Message::text(Role::User, sentence)]);
        Ok((Case { id: line.to_string(), conversation }, meaning))
    };
    reader.records().map(row).collect()
}

fn json_rows(path: &Path, dialect: &dyn Dialect) -> Result<Rows> {
    let conversations = Conversations::open(path)?;
    let row = |index: usize| {
        let mut conversation = conversations.get(index).conversation.clone();
        let answer = conversation.messages.pop().filter(|message| message.role == Role::Assistant);
        match answer.as_ref().map(|answer| answer.tool_calls.as_slice()) {
            Some([call]) => Ok((Case { id: (index + 1).to_string(), conversation }, viggo::meaning(dialect, call))),
            _ => Err(conversations.error(index, &"`messages`: must end in an assistant message with one call")),
        }
    };
    (0..conversations.len()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::native;
    use callsmith::chat::Message;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn refusal(text: &str) -> String {
        Viggo::open(file(text).path(), None).err().unwrap().to_string()
    }

    const TWO: &str =
        "mr,ref\r\n\"inform(name[A, B], has_mac_release[yes])\",\"About \"\"A\"\".\"\r\nsuggest(name[C]),Do you\n";

    #[test]
    fn rows_of_the_csv_are_questions_with_the_nine_functions() {
        let viggo = Viggo::open(file(&format!("\u{feff}{TWO}")).path(), None).unwrap();
        assert_eq!(viggo.wanted, ["inform(name[A, B], has_mac_release[yes])", "suggest(name[C])"]);
        let [first, second] = viggo.cases() else { panic!("two rows") };
        assert_eq!((first.id.as_str(), second.id.as_str()), ("2", "3"));
        assert_eq!(first.conversation.messages, [Message::text(Role::User, "About \"A\".")]);
        assert_eq!(first.conversation.tools.len(), 9);
        assert_eq!(Viggo::open(file(TWO).path(), Some(1)).unwrap().cases().len(), 1);
    }

    #[test]
    fn conversations_made_from_the_rows_ask_the_same() {
        let rows = Viggo::open(file(TWO).path(), None).unwrap();
        let arguments = json!({"name": "A, B", "has_mac_release": true});
        let mut conversation = rows.cases()[0].conversation.clone();
        let call = ToolCall { id: "a".to_owned(), name: "inform".to_owned(), arguments };
        conversation.messages.push(Message { tool_calls: vec![call], ..Message::text(Role::Assistant, "") });
        let again = Viggo::open(file(&native::to_json(&conversation).to_string()).path(), None).unwrap();
        assert_eq!(again.wanted, rows.wanted[..1]);
        let question = |viggo: &Viggo| native::to_json(&viggo.cases()[0].conversation);
        assert_eq!(question(&again), question(&rows));
    }

    #[test]
    fn what_is_scored_is_the_text_and_otherwise_the_calls() {
        let viggo = Viggo::open(file(TWO).path(), None).unwrap();
        let calls = vec![("inform".to_owned(), json!({"name": "A, B", "has_mac_release": true}))];
        let reply = |text: &str, calls: &[Call]| Reply { text: text.to_owned(), calls: calls.to_vec(), refused: None };
        let remote = viggo.judge(&[reply("", &calls), reply("suggest(name[c])", &[])]);
        let expected = json!({"function": 1.0, "attribute_set": 1.0, "attribute_values": 1.0, "overall": 1.0, "exact": 0.5, "rows": 2});
        assert_eq!(remote.metrics, expected);
        let raw = viggo.judge(&[reply("inform(name[A, B], has_mac_release[yes", &calls), Reply::refusal("too long")]);
        assert_eq!(
            (raw.metrics["function"].clone(), raw.metrics["attribute_values"].clone()),
            (json!(0.5), json!(0.25))
        );
        assert_eq!(raw.verdicts[1].functions, ("suggest".to_owned(), "(none)".to_owned()));
    }

    #[test]
    fn wrong_rows_are_named_by_line_and_field() {
        let refused = refusal("mr,ref\n\"inform(name[A])\",x\nnonsense,y\n");
        assert!(
            refused.contains(":3: `mr`: \"nonsense\"") && refused.contains("function(attribute[value]"),
            "{refused}"
        );
        assert!(refusal("meaning,ref\n").contains(":1: no column `mr`"));
        let short = refusal("mr,ref\ninform(name[A])\n");
        assert!(short.contains(":2:"), "{short}");
        assert!(refusal("mr,ref\n").contains("holds no row"));
        let words = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
        assert!(refusal(words).contains(":1: `messages`: must end in an assistant message with one call"));
    }
}
