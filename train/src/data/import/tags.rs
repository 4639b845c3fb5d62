//! Text with marked parts: `words <tool_call>{…}</tool_call> words`.

/// What stands between each pair of marks, and the text around them. A mark that never closes is text.
pub(super) fn split<'a>(text: &'a str, open: &str, close: &str) -> (Vec<&'a str>, String) {
    let (mut inside, mut around, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once(open) {
        let Some((part, after)) = after.split_once(close) else { break };
        inside.push(part.trim());
        around.push_str(before);
        rest = after;
    }
    around.push_str(rest);
    (inside, around.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marked_parts_and_the_text_around_them_come_apart() {
        let text = "Well. <t> {1} </t>\n<t>{2}</t> So <t>open";
        assert_eq!(split(text, "<t>", "</t>"), (vec!["{1}", "{2}"], "Well. \n So <t>open".to_owned()));
        assert_eq!(split(" words ", "<t>", "</t>"), (vec![], "words".to_owned()));
    }
}
