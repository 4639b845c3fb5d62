//! Meanings, how rows share conversations, and all rows of the real data.

use super::*;
use crate::data::native;
use crate::data::rows::{self, Row};
use crate::testing::data_set;
use callsmith::chat::dialect;

fn row(mr: &str, sentence: &str) -> Json {
    json!({"mr": mr, "ref": sentence})
}

fn reader(turns: usize) -> Viggo {
    Viggo::new(ViggoSwitches { turns: NonZeroUsize::new(turns).unwrap() }, 7)
}

fn flaw_of(mr: &str) -> String {
    reader(1).row(&row(mr, "?"), &mut Rules::new()).unwrap_err().to_string()
}

#[test]
fn a_row_is_a_sentence_and_its_call() {
    let mr = "inform(name[Dirt: Showdown], release_year[2012], esrb[T (for Teen)], genres[driving/racing, sport], has_mac_release[no])";
    let read = reader(1).row(&row(mr, "Dirt!"), &mut Rules::new()).unwrap().unwrap();
    let line = native::dialogue_to_json(&read);
    assert_eq!(line["messages"][0], json!({"role": "user", "content": "Dirt!"}));
    assert_eq!(
        line["messages"][1]["tool_calls"],
        json!([{"id": "call_1", "type": "function", "function": {"name": "inform", "arguments":
        r#"{"name":"Dirt: Showdown","release_year":2012,"esrb":"T (for Teen)","genres":["driving/racing","sport"],"has_mac_release":false}"#}}])
    );
    assert_eq!(line["tool_choice"], "required");
    let parameters = &line["tools"][8]["function"]["parameters"]["properties"];
    assert_eq!(parameters["genres"], json!({"enum": [""]}), "an attribute is named without a value");
}

#[test]
fn a_meaning_outside_the_task_is_a_flaw_that_names_it() {
    assert!(flaw_of("inform").contains("not the form"));
    assert!(flaw_of("inform(name[a]").contains("not the form"));
    assert!(flaw_of("inform(name[a], )").contains("not the form"));
    assert!(flaw_of("inform(name[a],rating[good])").contains("not the form"));
    assert!(flaw_of("tell(name[a])").contains("unknown function `tell`"));
    assert!(flaw_of("inform(rating[good], name[a])").contains("`name` is unknown or not in its place"));
    assert!(flaw_of("confirm(name[a], rating[good])").contains("`rating` is unknown or not in its place"));
    assert!(flaw_of("inform(rating[good], rating[good])").contains("`rating` is unknown or not in its place"));
    assert!(flaw_of("inform(player_perspective[side view, inner])").contains("unknown value of `player_perspective`"));
    assert!(flaw_of("inform(release_year[02012])").contains("unknown value of `release_year`"));
    assert!(flaw_of("inform(platforms[])").contains("unknown value of `platforms`"));
    assert!(flaw_of("request_attribute(platforms[PC])").contains("unknown value of `platforms`"));
}

/// The sentences of each conversation.
fn grouped(turns: usize, rows: usize) -> Vec<Vec<String>> {
    let mut reader = reader(turns);
    for number in 0..rows {
        let taken = reader.row(&row("request()", &number.to_string()), &mut Rules::new());
        assert!(taken.unwrap().is_none());
    }
    let conversations = std::iter::from_fn(|| reader.grouped(true));
    let sentences = |conversation: Conversation| {
        conversation.messages.into_iter().filter(|one| one.role == Role::User).map(|one| one.content).collect()
    };
    conversations.map(sentences).collect()
}

#[test]
fn rows_share_conversations_in_a_seeded_order_and_none_is_lost() {
    let groups = grouped(4, 10);
    assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    let mut all = groups.concat();
    assert_ne!(all, (0..10).map(|n| n.to_string()).collect::<Vec<_>>(), "in the order of the file");
    all.sort();
    assert_eq!(all, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(grouped(4, 10), groups);
}

fn meanings(file: &str) -> Option<Vec<(String, Conversation)>> {
    let path = data_set("viggo")?.join(file);
    let mut reader = reader(1);
    let read = |row: std::io::Result<Row>| {
        let json = row.unwrap().json.unwrap();
        (json["mr"].as_str().unwrap().to_owned(), reader.row(&json, &mut Rules::new()).unwrap().unwrap().conversation)
    };
    Some(rows::open(&path, None).unwrap().map(read).collect())
}

#[test]
fn the_dialect_writes_every_real_row_back_to_the_letter() {
    let dialect = dialect::by_name("viggo").unwrap();
    for (file, count) in [("train.csv", 5_103), ("valid.csv", 714)] {
        let Some(meanings) = meanings(file) else { return };
        assert_eq!(meanings.len(), count, "{file}");
        for (mr, conversation) in meanings {
            let calls = &conversation.messages[1].tool_calls;
            assert_eq!(dialect.render_calls(calls), mr);
        }
    }
}
