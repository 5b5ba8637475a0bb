//! Packets of upstream responses in, frames out. Pure.

use bytes::Bytes;
use http::StatusCode;

use super::{Frames, Saving, Translator};
use crate::{
    error::Error,
    ollama::{
        ndjson::Lines,
        refusal,
        wire::{ErrorLine, Line},
    },
    receipt::Receipt,
    redact::Redactor,
};

/// Packets in, frames out: cuts lines, reads replies, and hands them to the translator. Pure.
pub(crate) struct Feed<T> {
    translator: T,
    /// Of each upstream answer its own.
    lines: Vec<Lines>,
    pub(crate) frames: Frames,
    /// Masks credentials that the remote repeats in an error.
    redactor: Redactor,
}

impl<T: Translator> Feed<T> {
    /// Takes packets of one upstream answer.
    #[cfg(test)]
    pub(crate) fn new(translator: T) -> Self {
        Self::of(translator, 1)
    }

    /// [`Feed::packet_of`] the only upstream answer.
    #[cfg(test)]
    pub(crate) fn packet(&mut self, packet: Bytes) -> Result<(), Error> {
        self.packet_of(0, packet)
    }

    /// [`Feed::eof_of`] the only upstream answer.
    #[cfg(test)]
    pub(crate) fn eof(&mut self) -> Result<(), Error> {
        self.eof_of(0)
    }

    /// Takes packets of `n` upstream answers.
    pub(crate) fn of(translator: T, n: usize) -> Self {
        let lines = std::iter::repeat_with(Lines::default).take(n).collect();
        Self { translator, lines, frames: Frames::default(), redactor: Redactor::default() }
    }

    /// Masks credentials in the errors of the remote.
    pub(crate) fn redacting(self, redactor: &Redactor) -> Self {
        Self { redactor: redactor.clone(), ..self }
    }

    /// Takes the next packet.
    ///
    /// # Errors
    /// What ended the stream before it was done; its frame is written.
    pub(crate) fn packet_of(&mut self, nth: usize, packet: Bytes) -> Result<(), Error> {
        if let Err(error) = self.lines[nth].push(packet) {
            return Err(self.fail(error));
        }
        while let Some(line) = self.lines[nth].next() {
            self.line(nth, &line)?;
        }
        Ok(())
    }

    /// How many bytes of a line of one upstream answer are here that has not ended.
    pub(crate) fn begun(&self, nth: usize) -> usize {
        self.lines[nth].begun()
    }

    /// Takes the end of the packets.
    ///
    /// # Errors
    /// As [`Feed::packet_of`].
    pub(crate) fn eof_of(&mut self, nth: usize) -> Result<(), Error> {
        if let Some(line) = self.lines[nth].rest() {
            self.line(nth, &line)?;
        }
        if self.translator.finished(nth) {
            return Ok(());
        }
        Err(self.fail(Error::unfinished()))
    }

    /// Where everything is recorded.
    pub(crate) fn translator(&self) -> &T {
        &self.translator
    }

    /// Whether the last frame is written.
    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.translator.closed()
    }

    /// Writes a heartbeat.
    pub(crate) fn heartbeat(&mut self) {
        self.translator.heartbeat(&mut self.frames);
    }

    /// Ends the stream with an error; gives it back.
    pub(crate) fn fail(&mut self, error: Error) -> Error {
        self.translator.fail(&error, &mut self.frames);
        error
    }

    /// What has become known of the receipt since this was last asked.
    pub(crate) fn receipt(&mut self) -> Receipt {
        self.translator.receipt()
    }

    /// What has to be stored before the frames go out.
    pub(crate) fn saving(&mut self) -> Option<Saving> {
        self.translator.saving()
    }

    /// Reports what came of [`Self::saving`].
    pub(crate) fn saved(&mut self, receipt: Receipt) {
        self.translator.saved(receipt);
    }

    fn line(&mut self, nth: usize, line: &[u8]) -> Result<(), Error> {
        if self.translator.closed() {
            return Ok(());
        }
        self.translator.source(nth);
        // One look at all of it is cheaper than one at each string. Strings that nothing reads may have other bytes.
        let read: Result<T::Reply<'_>, serde_json::Error> = match std::str::from_utf8(line) {
            Ok(text) => T::Reply::of_token(text).map_or_else(|| serde_json::from_str(text), Ok),
            Err(_) => serde_json::from_slice(line),
        };
        let unreadable = match read {
            Ok(reply) => {
                self.translator.reply(reply, &mut self.frames);
                return self.translator.wrong().map_or(Ok(()), |error| Err(self.fail(error)));
            }
            Err(unreadable) => unreadable,
        };
        let error = match serde_json::from_slice::<ErrorLine<'_>>(line) {
            // Ollama reports an error in mid-stream, where there is no status.
            Ok(line) => refusal::from_text(StatusCode::INTERNAL_SERVER_ERROR, &line.error, &self.redactor).into(),
            Err(_) => {
                Error::Cut { message: format!("the remote sent a line that is not an Ollama response: {unreadable}") }
            }
        };
        Err(self.fail(error))
    }
}
