//! `POST /v1/responses` and what is done with a response, over `POST /api/chat`.

mod choice;
mod compact;
mod estimate;
mod events;
mod input;
pub(crate) mod items;
pub(crate) mod kept;
#[cfg(test)]
mod laws;
mod offer;
mod request;
pub(crate) mod store;
mod stream;
mod translate;
#[cfg(test)]
pub(crate) mod vectors;
mod wire;

use std::{borrow::Cow, sync::Arc, time::Instant};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use serde_json::value::RawValue;

use crate::{
    app::App,
    config::Config,
    error::Error,
    gate::Owner,
    observe::Recorder,
    offload,
    ollama::wire::ChatReply,
    openai::{
        request::{
            image_urls,
            json::{Fields, Json, Text, read},
        },
        response::sse::{self, Feed, Frames, Translator},
        tools::repair::Repairs,
        upstream_request::{
            context::{Grown, Policy},
            prepare::hold,
            send::{self, UpstreamRequest},
        },
    },
    receipt::Receipt,
    usage::Usage,
};
pub(crate) use compact::compact;
pub(crate) use estimate::input_tokens;
pub(crate) use kept::{cancel, delete, input_items, retrieve};
use request::{Facts, Request, Terms};
use store::{Store, Stored, StoredItem};
use stream::Answer;

/// A request, ready to be asked.
struct Prepared {
    ask: UpstreamRequest,
    facts: Facts,
    receipt: Receipt,
    /// What was asked, as it will be kept.
    input: Vec<StoredItem>,
}

/// What `prepare` must know besides the body.
struct Around<'a> {
    config: &'a Config,
    grown: &'a Grown,
    kept: &'a Store,
    owner: Owner,
    /// Hex digits that belong to this response alone.
    random: &'a str,
}

impl<'a> Around<'a> {
    fn new(app: &'a App, owner: Owner, random: &'a str) -> Self {
        Self { config: &app.config, grown: app.upstream.grown(), kept: &app.responses, owner, random }
    }

    /// The responses that this one goes on from.
    fn chain(&self, previous: Option<&str>) -> Result<Vec<Arc<Stored>>, Error> {
        let Some(id) = previous else { return Ok(Vec::new()) };
        self.kept.chain(self.owner, id, &self.config.responses, Instant::now()).map_err(|missing| {
            let told =
                if missing == id { String::new() } else { format!(" ('{missing}', which it goes on from, is gone)") };
            Error::Invalid {
                message: format!("Previous response with id '{id}' not found{told}."),
                param: Some("previous_response_id".to_owned()),
                code: Some("previous_response_not_found"),
            }
        })
    }

    /// Puts items in the place of references to them.
    fn resolve(&self, input: &mut [Cow<'_, RawValue>]) -> Result<(), Error> {
        for (n, item) in input.iter_mut().enumerate() {
            let at = format!("input[{n}]");
            if let Some(id) = input::reference(item, &at)? {
                let found = self.kept.item(self.owner, &id).ok_or_else(|| Error::NotFound {
                    message: format!(
                        "Item with id '{id}' not found. Items are not kept when `store` is set to false, or once they are too old or too many; send the item itself."
                    ),
                    param: Some(at),
                    code: "item_not_found",
                })?;
                *item = Cow::Owned(found.json);
            }
        }
        Ok(())
    }
}

/// Translates a body. `more` are items that go after those of the input.
///
/// # Errors
/// What the client got wrong, and what cannot be had here.
fn prepare(json: &Json, more: Option<&RawValue>, around: &Around<'_>, recorder: &Recorder) -> Result<Prepared, Error> {
    let config = around.config;
    let mut receipt = Receipt::default();
    let mut fields: Fields<'_> = json.fields()?;
    let model: Text<'_> = fields.need("model", &mut Vec::new())?;
    recorder.model(&model);
    let terms = Terms {
        hosted: config.responses.hosted_tools,
        keeps: config.responses.max_bytes > 0 && config.responses.max_count > 0,
        tools: config.tools,
    };
    let mut input = request::input(&mut fields)?;
    around.resolve(&mut input)?;
    let previous = fields.raw("previous_response_id").map(|raw| read::<Text<'_>>("previous_response_id", raw));
    let before = around.chain(previous.transpose()?.as_deref())?;
    let earlier = || before.iter().flat_map(|stored| stored.items()).map(|item| &*item.json);
    let brought = input::brought(earlier(), &input)?;
    let request = Request::read(model.clone(), fields, &brought, terms, &mut receipt)?;
    if input.is_empty() && before.is_empty() && more.is_none() {
        return Err(Error::Invalid {
            message: "One of 'input' or 'previous_response_id' must be provided.".to_owned(),
            param: Some("input".to_owned()),
            code: Some("missing_required_parameter"),
        });
    }
    let policy = Policy::of(config, around.grown.of(&model), &model, &request.native, &mut receipt);
    let wish = more.map(Cow::Borrowed);
    let input: Vec<_> = input.iter().map(|item| Cow::Borrowed(&**item)).chain(wish).collect();
    let (ask, facts) = translate::ask(request, earlier(), &input, policy, &mut receipt)?;
    receipt.enforce_strict(config)?;
    let input = if facts.echo.store { items::asked(&input, around.random)? } else { Vec::new() };
    Ok(Prepared { ask, facts, receipt, input })
}

/// Translates a body for those who only want to see what it becomes: nothing has grown, and nothing is kept that it could go on from.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn explain(json: &Json, config: &Config) -> Result<(Vec<UpstreamRequest>, Receipt, Repairs), Error> {
    let (grown, kept) = (Grown::default(), Store::default());
    let around = Around { config, grown: &grown, kept: &kept, owner: Owner::default(), random: "" };
    prepare(json, None, &around, &Recorder::default())
        .map(|prepared| (vec![prepared.ask], prepared.receipt, prepared.facts.repairs))
}

/// One response, streamed or not.
pub(crate) async fn create(
    State(app): State<App>,
    recorder: Recorder,
    owner: Owner,
    json: Json,
) -> Result<Response, Error> {
    recorder.payload("request", json.bytes());
    let json = image_urls::inline(&app, &recorder, json).await?;
    let stamp = app.stamp("resp_");
    let Prepared { ask, facts, receipt, input } =
        take(&app, &recorder, owner, json, None, stamp.random.clone()).await?;
    recorder.receipt(receipt);
    let stream = facts.stream;
    let kept =
        Keeping { answer: Answer::new(stamp, facts), app: app.clone(), owner, input, receipt: Receipt::default() };
    if stream {
        let openings = send::openings(&app, vec![ask], &recorder);
        return sse::respond(openings, kept, &app.config.heartbeat, recorder).await;
    }
    let body = send::whole(&app, ask, &recorder).await?;
    offload::run(body.len(), move || {
        let mut feed = Feed::of(kept, 1).redacting(app.upstream.redactor());
        let fed = feed.packet_of(0, body).and_then(|()| feed.eof_of(0));
        recorder.receipt(feed.receipt());
        let kept = feed.translator();
        if let Some(usage) = kept.usage() {
            recorder.usage(usage);
        }
        fed?;
        Ok(axum::Json(kept.answer.response()).into_response())
    })
    .await
}

/// Calls [`prepare`], off the event loop if the body is large.
async fn take(
    app: &App,
    recorder: &Recorder,
    owner: Owner,
    json: Json,
    more: Option<Box<RawValue>>,
    random: String,
) -> Result<Prepared, Error> {
    let (state, recorder) = (app.clone(), recorder.clone());
    let prepared = offload::run(json.bytes().len(), move || {
        prepare(&json, more.as_deref(), &Around::new(&state, owner, &random), &recorder)
    });
    let mut prepared = prepared.await?;
    hold(std::slice::from_mut(&mut prepared.ask), &app.buffered);
    Ok(prepared)
}

/// A response that is kept once it is whole, if it is to be.
struct Keeping {
    answer: Answer,
    app: App,
    owner: Owner,
    input: Vec<StoredItem>,
    receipt: Receipt,
}

impl Keeping {
    fn keep(&mut self) {
        let echo = &self.answer.facts().echo;
        if !self.answer.closed() || !echo.store {
            return;
        }
        let input = std::mem::take(&mut self.input);
        let kept = Stored::new(self.owner, self.answer.clone(), input)
            .is_ok_and(|stored| self.app.responses.put(stored, &self.app.config.responses, Instant::now()));
        if !kept {
            self.receipt.note("store", "too-big");
        }
    }
}

impl Translator for Keeping {
    type Reply<'a> = ChatReply<'a>;

    fn reply(&mut self, reply: ChatReply<'_>, out: &mut Frames) {
        if reply.done {
            self.answer.at(self.app.now());
        }
        let open = !self.answer.closed();
        self.answer.reply(reply, out);
        if open {
            self.keep();
        }
    }

    fn fail(&mut self, error: &Error, out: &mut Frames) {
        let open = !self.answer.closed();
        self.answer.fail(error, out);
        // Nobody has the id of an unstreamed one.
        if open && self.answer.facts().stream {
            self.keep();
        }
    }

    fn closed(&self) -> bool {
        self.answer.closed()
    }

    fn usage(&self) -> Option<Usage> {
        self.answer.usage()
    }

    fn receipt(&mut self) -> Receipt {
        let mut receipt = self.answer.receipt();
        receipt.add(std::mem::take(&mut self.receipt));
        receipt
    }

    fn wrong(&mut self) -> Option<Error> {
        self.answer.wrong()
    }
}
