//! Splits thinking from content while text streams in, as Ollama does for Go templates: the tags and the white space
//! after them are dropped.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Where a stream of text is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thinking {
    at: At,
    held: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    /// The opening tag was read; white space is dropped.
    Opened,
    Inside,
    /// The closing tag was read; white space is dropped.
    Closed,
    Content,
}

impl Thinking {
    /// What of the text so far is certain: thinking, then content.
    pub(crate) fn add(&mut self, text: &str) -> (String, String) {
        self.held.push_str(text);
        let (mut thinking, mut content) = (String::new(), String::new());
        loop {
            match self.at {
                At::Start => {
                    let start = self.held.trim_start();
                    if let Some(rest) = start.strip_prefix(OPEN) {
                        self.held = rest.to_owned();
                        self.at = At::Opened;
                    } else if OPEN.starts_with(start) {
                        break;
                    } else {
                        self.at = At::Content;
                    }
                }
                At::Opened | At::Closed => {
                    self.held = self.held.trim_start().to_owned();
                    if self.held.is_empty() {
                        break;
                    }
                    self.at = if self.at == At::Opened { At::Inside } else { At::Content };
                }
                At::Inside => {
                    if let Some((before, after)) = self.held.split_once(CLOSE) {
                        thinking.push_str(before);
                        self.held = after.to_owned();
                        self.at = At::Closed;
                    } else {
                        let held = (1..CLOSE.len()).rev().find(|len| self.held.ends_with(&CLOSE[..*len])).unwrap_or(0);
                        thinking.extend(self.held.drain(..self.held.len() - held));
                        break;
                    }
                }
                At::Content => {
                    content.push_str(&self.held);
                    self.held.clear();
                    break;
                }
            }
        }
        (thinking, content)
    }

    /// Whether the closing tag was read.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.at, At::Closed | At::Content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_and_the_space_after_them_are_dropped() {
        let mut parser = Thinking::default();
        assert_eq!(
            parser.add("<think>\nI add.\n</think>\n\nFour. <think>"),
            ("I add.\n".to_owned(), "Four. <think>".to_owned())
        );
    }

    #[test]
    fn text_without_thinking_is_content() {
        assert_eq!(Thinking::default().add(" <b>hi"), (String::new(), " <b>hi".to_owned()));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(thought in "[a<>/think\n ]{0,12}", said in "[a-z<> ]{0,12}", cut in 0_usize..60) {
            let text = format!("<think>\n{thought}</think>\n{said}");
            let mut whole = Thinking::default();
            let expected = whole.add(&text);
            let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let mut parts = Thinking::default();
            let (one, two) = (parts.add(&text[..cut]), parts.add(&text[cut..]));
            prop_assert_eq!((one.0 + &two.0, one.1 + &two.1), expected);
        }
    }
}
