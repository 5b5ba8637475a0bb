//! Stop sequences, looked for in the text as it comes. Ollama stops at one too, but does not say which it was. Pure.

/// The stop sequences of a request, and the text that may be the beginning of one.
#[derive(Clone, Debug, Default)]
pub(super) struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    pub(super) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Whether there are none, so that text need not pass through here.
    pub(super) fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// Takes the next text. Returns what of it can go out, and the stop sequence that ends the answer there. The one
    /// that ends first counts, however the text is cut into pieces; of several that end at the same place, the longest.
    pub(super) fn push(&mut self, text: &str) -> (String, Option<String>) {
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| {
            let start = self.held.find(&**stop)?;
            Some((start + stop.len(), start, stop))
        });
        if let Some((_, start, stop)) = found.min_by_key(|(end, start, _)| (*end, *start)) {
            let stop = stop.clone();
            self.held.truncate(start);
            return (std::mem::take(&mut self.held), Some(stop));
        }
        let safe = self.held.len() - self.begun();
        let rest = self.held.split_off(safe);
        (std::mem::replace(&mut self.held, rest), None)
    }

    /// What is held back, once no more text can follow it.
    pub(super) fn rest(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The length of the longest end of the held text that some stop sequence begins with.
    fn begun(&self) -> usize {
        // Both are UTF-8, so that such an end starts where a character does.
        let begins = |stop: &String| {
            let most = self.held.len().min(stop.len().saturating_sub(1));
            (1..=most).rev().find(|length| self.held.as_bytes().ends_with(&stop.as_bytes()[..*length]))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run<'a>(stops: &[&str], pieces: impl IntoIterator<Item = &'a str>) -> (String, Option<String>) {
        let mut stops = Stops::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out = String::new();
        for piece in pieces {
            let (text, stop) = stops.push(piece);
            out.push_str(&text);
            if stop.is_some() {
                return (out, stop);
            }
        }
        out.push_str(&stops.rest());
        (out, None)
    }

    #[test]
    fn an_answer_ends_before_the_stop_sequence_that_ends_first() {
        for (stops, text, before, stop) in [
            (&["END"][..], "a END b", "a ", Some("END")),
            (&["b", "abc"], "xabc", "xa", Some("b")),
            (&["bc", "abc"], "xabc", "x", Some("abc")),
            (&["END"], "a EN", "a EN", None),
            (&["é"], "aéb", "a", Some("é")),
            (&[], "a", "a", None),
        ] {
            assert_eq!(run(stops, [text]), (before.to_owned(), stop.map(str::to_owned)), "{stops:?} {text}");
        }
    }

    #[test]
    fn only_what_may_begin_a_stop_sequence_is_held_back() {
        let mut stops = Stops::new(vec!["</x>".to_owned()]);
        assert_eq!(stops.push("a</"), ("a".to_owned(), None));
        assert_eq!(stops.push("b"), ("</b".to_owned(), None));
        assert_eq!(stops.push("é</x"), ("é".to_owned(), None));
        assert_eq!(stops.push(">c"), (String::new(), Some("</x>".to_owned())));
    }

    proptest! {
        #[test]
        fn text_may_come_in_any_pieces(
            stops in prop::collection::vec("[abé]{1,4}", 0..4), text in "[abé]{0,24}", size in 1usize..5,
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let chars: Vec<char> = text.chars().collect();
            let pieces: Vec<String> = chars.chunks(size).map(|piece| piece.iter().collect()).collect();
            prop_assert_eq!(run(&stops, pieces.iter().map(String::as_str)), run(&stops, [&*text]));
        }
    }
}
