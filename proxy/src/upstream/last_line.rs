//! The last line of a native stream, which says whether the stream is complete. Pure.
//!
//! Ollama ends a stream that fails in some ways in order, without its last line, so that most clients take it for
//! complete.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};

/// How much of a line is kept: half of its beginning and half of its end. The last line of `/api/generate` lists the
/// whole context.
const KEPT: usize = 8 << 10;

/// The last line that came.
#[derive(Debug, Default)]
pub(crate) struct LastLine {
    line: Vec<u8>,
    /// Whether its line end came.
    complete: bool,
    /// Whether bytes in its middle were left out.
    cut: bool,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(default)]
    done: bool,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    error: Option<IgnoredAny>,
}

impl LastLine {
    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, packet: &[u8]) {
        let end = packet.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
        let (text, line_end) = packet.split_at(end);
        if !text.is_empty() {
            let begin = memchr::memrchr(b'\n', text).map_or(0, |at| at + 1);
            if begin > 0 || self.complete {
                self.line.clear();
                self.cut = false;
            }
            self.complete = false;
            self.line.extend_from_slice(&text[begin..]);
            if self.line.len() > KEPT {
                self.line.drain(KEPT / 2..self.line.len() - KEPT / 2);
                self.line.shrink_to(KEPT);
                self.cut = true;
            }
        }
        self.complete |= line_end.contains(&b'\n');
    }

    /// Whether another line may follow: nothing came yet, or a whole line that is not final.
    pub(crate) fn takes_another(&self) -> bool {
        self.line.is_empty() || self.complete && !self.is_final()
    }

    /// Whether a stream may end after this line: an answer that is done, a transfer that succeeded, or an error.
    pub(crate) fn is_final(&self) -> bool {
        if self.cut {
            return memchr::memmem::find(&self.line, b"\"done\":true").is_some()
                || self.line[1..].starts_with(b"\"error\":");
        }
        serde_json::from_slice::<Line<'_>>(&self.line).is_ok_and(|line| {
            line.done || line.error.is_some() || line.status.is_some_and(|status| status == "success")
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_final(stream: &str, cut: usize) -> bool {
        let mut last = LastLine::default();
        stream.as_bytes().chunks(cut).for_each(|packet| last.push(packet));
        last.is_final()
    }

    #[test]
    fn only_done_success_or_an_error_ends_a_stream() {
        for (stream, expected) in [
            ("{\"message\":{},\"done\":false}\n{\"message\":{},\"done\":true}\n", true),
            ("{\"message\":{},\"done\":true}", true),
            ("{\"done\":true}\r\n\n", true),
            ("{\"status\":\"pulling manifest\"}\n{\"status\":\"success\"}\n", true),
            ("{\"message\":{},\"done\":false}\n{\"error\":\"an error was encountered\"}\n", true),
            ("{\"message\":{},\"done\":false}\n", false),
            ("{\"message\":{\"tool_calls\":[{\"function\":{\"arguments\":{\"done\":true}}}]},\"done\":false}\n", false),
            ("{\"done\":true}\n{\"done\":false}\n", false),
            ("{\"status\":\"pulling manifest\"}\n", false),
            ("{\"done\":tr", false),
            ("", false),
            ("\n", false),
        ] {
            for cut in [1, 2, 7, 1000] {
                assert_eq!(is_final(stream, cut), expected, "{stream:?} in pieces of {cut}");
            }
        }
    }

    #[test]
    fn every_recorded_stream_ends_with_a_final_line_unless_the_client_left() {
        fn files(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { files(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        files(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../mock-ollama/fixtures")), &mut found);
        let (mut streams, mut cut) = (0, Vec::new());
        for path in found.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
            let Ok(recorded) = serde_json::from_slice::<serde_json::Value>(&std::fs::read(path).unwrap()) else {
                continue;
            };
            let (request, response) = (&recorded["request"], &recorded["response"]);
            let Some(chunks) = response["chunks"].as_array() else { continue };
            let is_stream = response["headers"].to_string().contains("application/x-ndjson")
                && response["status"].as_str().is_some_and(|status| status.contains(" 200"));
            if request["method"] != "POST" || !is_stream {
                continue;
            }
            let mut last = LastLine::default();
            chunks.iter().filter_map(|chunk| chunk[1].as_str()).for_each(|text| last.push(text.as_bytes()));
            streams += 1;
            if !last.is_final() {
                cut.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
        assert!(streams > 20, "{streams} streams were read");
        cut.retain(|name| !matches!(&**name, "client-leaves.json" | "pull-left.json"));
        assert_eq!(cut, [""; 0]);
    }

    #[test]
    fn a_long_last_line_is_recognized_without_being_kept() {
        let context = "1,".repeat(1 << 20);
        for (stream, expected) in [
            (format!("{{\"response\":\"\",\"done\":true,\"context\":[{context}1]}}\n"), true),
            (format!("{{\"message\":{{\"content\":\"{context}\"}},\"done\":true}}\n"), true),
            (format!("{{\"message\":{{\"content\":\"{context}\"}},\"done\":false}}\n"), false),
        ] {
            let mut last = LastLine::default();
            stream.as_bytes().chunks(10_000).for_each(|packet| last.push(packet));
            assert_eq!(last.is_final(), expected);
            assert!(last.line.capacity() <= 2 * KEPT, "{}", last.line.capacity());
        }
    }

    proptest! {
        #[test]
        fn packets_make_no_difference(lines in prop::collection::vec("[a{}\":tdone]{0,9}", 0..4), cut in 1_usize..9) {
            let stream = lines.join("\n");
            let (mut whole, mut pieces) = (LastLine::default(), LastLine::default());
            whole.push(stream.as_bytes());
            stream.as_bytes().chunks(cut).for_each(|packet| pieces.push(packet));
            prop_assert_eq!(whole.line, pieces.line);
        }
    }
}
