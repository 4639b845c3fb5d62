//! What a function does, as a command: the first sentence of its description, or else its name. Knows no value.

use callsmith::chat::Tool;

/// What a command may begin with.
const VERBS: &str = include_str!("verbs.txt");

/// "Returns a pet." → "return a pet"; of a description that begins with no verb, the name.
pub(super) fn command(tool: &Tool) -> String {
    let about = tool.description.as_deref().unwrap_or_default();
    let sentence = about.split(['\n', '\r']).next().unwrap_or_default();
    let sentence = sentence.split(". ").next().unwrap_or_default().trim().trim_end_matches('.');
    let (first, rest) = sentence.split_once(' ').unwrap_or((sentence, ""));
    match verb(first) {
        // "List of pets" is no command.
        Some(verb) if !rest.starts_with("of ") => format!("{verb} {rest}").trim().to_owned(),
        _ => by_name(&tool.name),
    }
}

/// `findPets` → "find pets", `user_status` → "use user status".
fn by_name(name: &str) -> String {
    let name = words(name);
    if begins_with_verb(&name) { name } else { format!("use {name}") }
}

/// Whether the first word is one that people command with.
pub(super) fn begins_with_verb(words: &str) -> bool {
    words.split(' ').next().is_some_and(is_verb)
}

fn is_verb(word: &str) -> bool {
    VERBS.split_whitespace().any(|verb| verb == word)
}

/// The verb that a word is a form of: "Returns" → "return", "searches" → "search", "modifies" → "modify".
fn verb(word: &str) -> Option<String> {
    let word = word.to_lowercase();
    let stem = |end: &str, with: &str| word.strip_suffix(end).map(|stem| format!("{stem}{with}"));
    let forms = [Some(word.clone()), stem("s", ""), stem("es", ""), stem("ies", "y")];
    forms.into_iter().flatten().find(|form| is_verb(form))
}

/// `dueDate`, `due_date` → "due date".
pub(super) fn words(name: &str) -> String {
    let mut words = String::new();
    let mut lower = false;
    for c in name.chars() {
        if c.is_uppercase() && lower || !c.is_alphanumeric() {
            words.push(' ');
        }
        if c.is_alphanumeric() {
            words.extend(c.to_lowercase());
        }
        lower = c.is_lowercase();
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_of(name: &str, about: &str) -> String {
        let description = Some(about.to_owned());
        command(&Tool { name: name.to_owned(), description, parameters: None, strict: false })
    }

    #[test]
    fn a_description_that_begins_with_a_verb_is_a_command() {
        assert_eq!(command_of("f", "Returns a pet."), "return a pet");
        assert_eq!(command_of("f", "Searches all. Then more."), "search all");
        assert_eq!(command_of("f", "Modifies the URL\nin place"), "modify the URL");
        assert_eq!(command_of("f", "Processes orders"), "process orders");
    }

    #[test]
    fn of_any_other_description_the_name_is_the_command() {
        assert_eq!(command_of("updateStatus", "User can update their status"), "update status");
        assert_eq!(command_of("list_pets", "List of pets"), "list pets");
        assert_eq!(command_of("user-status", ""), "use user status");
    }
}
