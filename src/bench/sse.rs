//! Server-sent events out of bytes as they arrive. Knows no JSON.

/// Splits a stream into the data of its events, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The line that is not complete.
    line: Vec<u8>,
    /// Data lines of the event that is not complete.
    data: Vec<u8>,
    has_data: bool,
}

impl Events {
    /// Hands the data of every event that the bytes complete to `each`.
    pub(crate) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let rest = lines.next_back().unwrap_or_default();
        for end in lines {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(end);
            self.take_line(line.strip_suffix(b"\r").unwrap_or(&line), &mut each);
            // Keeps its memory for the next line.
            line.clear();
            self.line = line;
        }
        self.line.extend_from_slice(rest);
    }

    fn take_line(&mut self, line: &[u8], each: &mut impl FnMut(&[u8])) {
        if line.is_empty() {
            if self.has_data {
                each(&self.data);
            }
            self.data.clear();
            self.has_data = false;
        } else if let Some(data) = line.strip_prefix(b"data:") {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            self.has_data = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": hello\n\ndata: {\"a\": 1}\n\nevent: x\r\ndata:two\r\ndata: lines é\r\n\r\ndata: [DONE]\n\nid: 3\n\n";

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let (mut parser, mut found) = (Events::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, |data| found.push(String::from_utf8(data.to_vec()).unwrap()));
        }
        found
    }

    #[test]
    fn any_split_gives_the_same_events() {
        let expected = ["{\"a\": 1}", "two\nlines é", "[DONE]"];
        let bytes = STREAM.as_bytes();
        assert_eq!(events(&[bytes]), expected);
        for at in 0..=bytes.len() {
            assert_eq!(events(&[&bytes[..at], &bytes[at..]]), expected, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(events(&single), expected);
    }

    #[test]
    fn what_has_no_end_is_no_event() {
        assert!(events(&[b"data: half\n"]).is_empty());
    }
}
