//! Text of others on a terminal: it is shown and never obeyed. Control characters stand there as their pictures.

/// Text, with its lines.
pub fn text(text: &str) -> String {
    let shown = |character| if matches!(character, '\n' | '\t') { character } else { picture(character) };
    text.chars().map(shown).collect()
}

/// A name, on one line.
pub fn name(name: &str) -> String {
    name.chars().map(picture).collect()
}

fn picture(character: char) -> char {
    match character {
        '\0'..'\x20' => char::from_u32(0x2400 + character as u32).unwrap_or('\u{FFFD}'),
        _ if character.is_control() => '\u{FFFD}',
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_pictures() {
        assert_eq!(text("a\x1b]0;title\x07b\u{9b}31m\r\n\té"), "a␛]0;title␇b\u{FFFD}31m␍\n\té");
        assert_eq!(name("f\n\t\x1b"), "f␊␉␛");
    }
}
