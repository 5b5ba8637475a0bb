//! A stored response as a state machine again, and its events once more. Pure.

use serde::Deserialize;

use super::{Answer, State, Status};
use crate::{
    error::Error,
    openai::{
        response::sse::Frames,
        responses::{
            request::Facts,
            stored::{Stored, unreadable},
            wire::{Echo, Failure, Item, Part, ResponseUsage},
        },
    },
    stamp::Stamp,
};

impl Answer {
    /// The response that is stored, as far as its events need it.
    ///
    /// # Errors
    /// As [`Stored::read`].
    pub(crate) fn restore(stored: &Stored) -> Result<Self, Error> {
        /// What the object has besides what it repeats of its request.
        #[derive(Deserialize)]
        struct Object {
            id: String,
            created_at: u64,
            completed_at: Option<u64>,
            status: String,
            error: Option<Failure>,
            model: String,
            output: Vec<Item>,
            usage: Option<ResponseUsage>,
        }
        let json = stored.response.get();
        let object: Object = serde_json::from_str(json).map_err(|error| unreadable("response", &error))?;
        let echo: Echo = serde_json::from_str(json).map_err(|error| unreadable("response", &error))?;
        let stamp = Stamp { id: object.id, random: stored.random.clone(), created: object.created_at };
        let status = match (object.error, &*object.status) {
            (Some(failure), _) => Status::Failed(failure),
            (None, "completed") => Status::Completed,
            (None, "incomplete") => Status::Incomplete,
            (None, "cancelled") => Status::Canceled,
            (None, _) => Status::InProgress,
        };
        Ok(Self {
            ended: object.completed_at.unwrap_or(object.created_at),
            begun: !echo.background || object.usage.is_some() || !object.output.is_empty(),
            state: State::Closed,
            status,
            output: object.output,
            usage: object.usage.map(Into::into),
            ..Self::new(stamp, Facts::stored(object.model, stored.sealed, echo))
        })
    }

    /// Ends one that was restored before it had ended: the process that ran it is gone.
    pub(crate) fn abandon(&mut self, error: &Error) {
        self.status = Status::Failed(Failure::from(error));
    }

    /// The events of this response once more, from after the one with the number `after`; each text comes whole.
    pub(crate) fn replay(&self, after: Option<u64>) -> Frames {
        let mut out = Frames::default();
        let mut again = Self::new(self.stamp.clone(), Facts { stream: true, ..self.facts.clone() });
        again.events.known_to(after);
        again.queue(&mut out);
        if self.begun {
            again.begin(&mut out);
        }
        for item in &self.output {
            let words = |parts: &Option<Vec<Part>>| parts.iter().flatten().next().map(|part| part.text.clone());
            match item.r#type {
                "reasoning" => again.think(&words(&item.summary).unwrap_or_default(), &mut out),
                "message" => {
                    let tokens = item.content.iter().flatten().filter_map(|part| part.logprobs.clone()).flatten();
                    again.speak(&words(&item.content).unwrap_or_default(), tokens.collect(), &mut out);
                }
                _ => again.called(item.clone(), &mut out),
            }
        }
        (again.usage, again.ended) = (self.usage, self.ended);
        again.end(self.status.clone(), &mut out);
        out
    }
}
