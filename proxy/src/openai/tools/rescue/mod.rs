//! Calls that a model wrote as text: found, held back while they come, and turned into calls. Pure.
//!
//! An answer, or its tail, is calls where tools were offered and nothing else follows. Text is held back only while it
//! can still become a call: [`Rescue::push`] returns what cannot at once. A call in the middle of text, or in front of
//! more text, is text, and so is one that the text calls an example. Whole answers go through the same machine in one
//! piece, so both ways give the same.

#[cfg(test)]
mod corpus;
mod forms;
mod grammar;
mod tail;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc};

use forms::{Place, STARTS};
use grammar::{Extent, Read, read};

use super::{
    forced::Call,
    repair::{Offer, Repairs},
};

/// Most bytes that are held back.
const MOST: usize = 1 << 20;

/// Most bytes that are read for one answer: text that begins like a call again and again is read again and again.
const WORK: usize = 64 << 20;

/// How much of the text in front of a call is remembered, in bytes.
const REMEMBERED: usize = 400;

/// Text on its way to the client, in which calls may stand.
#[derive(Clone, Debug)]
pub(crate) struct Rescue {
    offer: Arc<Offer>,
    /// What may become calls.
    held: String,
    /// Where `held` begins; `None` while nothing is held.
    holding: Option<Place>,
    /// How long `held` must be before it is read again, so that reading takes linear time.
    next: usize,
    /// Bytes that were read.
    work: usize,
    /// Nothing is looked for any more.
    off: bool,
    /// What follows the text that was passed on.
    spot: Spot,
    /// The end of the text that was passed on.
    passed: String,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, Default)]
struct Spot {
    /// Whether there is more than blanks in front of it.
    any: bool,
    line: Line,
    /// The character in front of it.
    last: Option<char>,
    /// Whether a code block is open.
    fenced: bool,
}

/// What there is of a line in front of a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    #[default]
    Blank,
    /// So many backticks, which may become the mark of a code block.
    Ticks(u8),
    Text,
}

/// What an answer ends with: text, then calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Text that is no call after all.
    pub(crate) text: String,
    pub(crate) calls: Vec<Call>,
}

impl Spot {
    fn pass(&mut self, c: char) {
        self.line = match (self.line, c) {
            (_, '\n') => Line::Blank,
            (Line::Blank, c) if c.is_whitespace() => Line::Blank,
            (Line::Blank, '`') => Line::Ticks(1),
            (Line::Ticks(1), '`') => Line::Ticks(2),
            (Line::Ticks(2), '`') => {
                self.fenced = !self.fenced;
                Line::Text
            }
            _ => Line::Text,
        };
        self.any |= !c.is_whitespace();
        self.last = Some(c);
    }

    /// Which calls may begin here. `None`: none, in a code block or in quotes.
    fn place(&self) -> Option<Place> {
        if self.fenced {
            None
        } else if !self.any {
            Some(Place::Answer)
        } else if self.line == Line::Blank {
            Some(Place::Line)
        } else {
            let quoted = self.last.is_some_and(|last| "`\"'“‘«(".contains(last));
            (!quoted).then_some(Place::Anywhere)
        }
    }
}

impl Repairs {
    /// Looks for calls in text, if the settings say so.
    pub(crate) fn rescue(&self) -> Option<Rescue> {
        let offer = self.offer().filter(|offer| offer.rescues())?;
        Some(Rescue {
            offer: offer.clone(),
            held: String::new(),
            holding: None,
            next: 0,
            work: 0,
            off: false,
            spot: Spot::default(),
            passed: String::new(),
        })
    }
}

impl Rescue {
    /// Takes the next text. Returns what of it, and of what was held, cannot become a call.
    pub(crate) fn push<'t>(&mut self, text: &'t str) -> Cow<'t, str> {
        if self.off {
            return Cow::Borrowed(text);
        }
        // Ordinary text passes without being copied.
        if self.holding.is_none() && self.find(text).is_none() {
            self.pass(text);
            return Cow::Borrowed(text);
        }
        self.held.push_str(text);
        let mut out = String::new();
        while !self.held.is_empty() {
            let Some(place) = self.holding else {
                let found = self.find(&self.held);
                let start = found.map_or(self.held.len(), |(start, _)| start);
                self.release(start, &mut out);
                (self.holding, self.next) = (found.map(|(_, place)| place), 0);
                continue;
            };
            if self.held.len() < self.next {
                break;
            }
            self.work += self.held.len();
            match read(&self.held, Extent::Begun, place, &self.offer) {
                Read::More if self.held.len() <= MOST && self.work <= WORK => {
                    self.next = self.held.len() + (self.held.len() / 8).max(1);
                    break;
                }
                Read::No { after: false } if self.work <= WORK => {
                    // Another call may begin one character later.
                    self.release(self.held.chars().next().map_or(0, char::len_utf8), &mut out);
                    self.holding = None;
                }
                // A call that more text follows is part of the text.
                _ => {
                    self.off = true;
                    out.push_str(&std::mem::take(&mut self.held));
                }
            }
        }
        Cow::Owned(out)
    }

    /// The model thinks, after its text. Returns what was held, so that the text comes first; nothing is looked for
    /// after it.
    pub(crate) fn interrupt(&mut self) -> String {
        // What was not read again yet may be text for certain.
        self.next = 0;
        let passed = self.push("").into_owned();
        if self.held.is_empty() { passed } else { passed + &self.stop() }
    }

    /// Looks for nothing any more. Returns what was held.
    pub(crate) fn stop(&mut self) -> String {
        self.off = true;
        std::mem::take(&mut self.held)
    }

    /// Takes the end of the answer, which the model reached, or was cut off at.
    pub(crate) fn finish(&mut self, done_reason: Option<&str>) -> Rest {
        // The end of what is held was not read again yet: a beginning may be text for certain, with a call behind it.
        self.next = 0;
        let passed = self.push("").into_owned();
        let (off, held) = (self.off, self.stop());
        match self.calls(off, &held, done_reason) {
            Some(calls) => Rest { text: passed, calls },
            None => Rest { text: passed + &held, calls: Vec::new() },
        }
    }

    /// The calls that what was held to the end is.
    fn calls(&self, off: bool, held: &str, done_reason: Option<&str>) -> Option<Vec<Call>> {
        let place = self.holding.filter(|_| !off && !held.is_empty())?;
        if self.spot.any && forms::introduces_an_example(&self.passed) {
            return None;
        }
        if let Read::Calls(calls) = read(held, Extent::Whole, place, &self.offer) {
            return Some(calls);
        }
        let cut = Extent::Cut { stopped: done_reason != Some("length") };
        match read(held, cut, place, &self.offer) {
            // Closers may have been added in the wrong place.
            Read::Calls(calls) if calls.iter().all(|call| self.offer.fits(call)) => Some(calls),
            _ => None,
        }
    }

    /// Where in `text`, which follows what was passed on, a call may begin.
    fn find(&self, text: &str) -> Option<(usize, Place)> {
        let mut spot = self.spot;
        for (at, c) in text.char_indices() {
            if let Some(place) = spot.place() {
                let first = usize::from(text.as_bytes()[at]);
                let possible = match place {
                    Place::Answer => true,
                    Place::Line => STARTS.line[first] || STARTS.anywhere[first],
                    Place::Anywhere => STARTS.anywhere[first],
                };
                if possible && read(&text[at..], Extent::Begun, place, &self.offer) != (Read::No { after: false }) {
                    return Some((at, place));
                }
            }
            spot.pass(c);
        }
        None
    }

    /// Moves the first `bytes` of what is held to `out`.
    fn release(&mut self, bytes: usize, out: &mut String) {
        let rest = self.held.split_off(bytes);
        let passed = std::mem::replace(&mut self.held, rest);
        self.pass(&passed);
        out.push_str(&passed);
    }

    fn pass(&mut self, text: &str) {
        text.chars().for_each(|c| self.spot.pass(c));
        self.passed.push_str(text);
        if self.passed.len() > 4 * REMEMBERED {
            self.passed.drain(..self.passed.ceil_char_boundary(self.passed.len() - REMEMBERED));
        }
    }
}
