//! How handlers open: a body becomes upstream requests, by a pure function of each endpoint, and what it becomes is
//! recorded.

use bytes::Bytes;

use crate::{
    app::App,
    buffered::Share,
    config::{Config, Tools},
    error::Error,
    observe::Recorder,
    offload,
    openai::{
        request::{
            inline_all,
            json::{Fields, Json, Text},
            options::Native,
        },
        upstream_request::{
            context::{Grown, Policy},
            send::UpstreamRequest,
        },
    },
    receipt::Receipt,
    resolve::{self, Target},
};

/// What translating a request needs besides its body.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) grown: &'a Grown,
    pub(crate) recorder: &'a Recorder,
    /// The models that the request names, where they were looked for.
    pub(crate) target: Option<&'a Target>,
}

impl<'a> Context<'a> {
    pub(crate) fn of(app: &'a App, recorder: &'a Recorder) -> Self {
        Self { config: &app.config, grown: app.upstream.grown(), recorder, target: app.target.as_deref() }
    }

    /// Puts the remote's model in the place of `model`, which is recorded as the model of the exchange, adds its preset
    /// to `native`, and returns its policy.
    ///
    /// # Errors
    /// Fails on a field without effect if the settings are strict.
    pub(crate) fn policy<'b>(
        &self,
        model: &mut Text<'b>,
        native: &mut Native<'b>,
        receipt: &mut Receipt,
    ) -> Result<Policy, Error>
    where
        'a: 'b,
    {
        let preset = resolve::replace(self.config, self.target, model, receipt);
        if let Some(preset) = preset {
            native.fill(preset);
        }
        self.recorder.model(model);
        receipt.enforce_strict(self.config)?;
        Ok(Policy::of(self.config, preset, self.grown.of(model), model, native, receipt))
    }

    /// The settings of tools for the model that `fields` name.
    pub(crate) fn tools(&self, fields: &Fields<'_>) -> Tools {
        resolve::tools(self.config, self.target, fields)
    }
}

/// A request, ready to be sent.
pub(crate) struct Prepared<F> {
    /// One upstream request for each answer.
    pub(crate) asks: Vec<UpstreamRequest>,
    /// What the response depends on.
    pub(crate) facts: F,
    pub(crate) receipt: Receipt,
}

/// Takes a body apart with the endpoint's `prepare`.
///
/// # Errors
/// Those of `prepare`.
pub(crate) async fn take<F: Send + 'static>(
    app: &App,
    recorder: &Recorder,
    json: Json,
    prepare: fn(&Json, &Context<'_>) -> Result<Prepared<F>, Error>,
) -> Result<(Vec<UpstreamRequest>, F), Error> {
    recorder.payload("request", json.bytes());
    let size = json.bytes().len();
    prepared(app, recorder, json, size, prepare).await
}

/// Takes a body apart with the endpoint's `prepare`, once the files and images that it names are in their places.
///
/// # Errors
/// Those of `prepare`; fails on a file or an image that cannot be fetched or used.
pub(crate) async fn take_with_images<F: Send + 'static>(
    app: &App,
    recorder: &Recorder,
    json: Json,
    prepare: fn(&Json, &Context<'_>) -> Result<Prepared<F>, Error>,
) -> Result<(Vec<UpstreamRequest>, F), Error> {
    recorder.payload("request", json.bytes());
    let json = inline_all(app, recorder, json).await?;
    let size = json.bytes().len();
    prepared(app, recorder, json, size, prepare).await
}

/// Off the event loop if the body is large, which is dropped before the remote is asked.
async fn prepared<F: Send + 'static>(
    app: &App,
    recorder: &Recorder,
    json: Json,
    size: usize,
    prepare: fn(&Json, &Context<'_>) -> Result<Prepared<F>, Error>,
) -> Result<(Vec<UpstreamRequest>, F), Error> {
    let (state, notes) = (app.clone(), recorder.clone());
    let working = app.buffered.working(json.bytes()).await?;
    let translating = move || {
        let _working = working;
        prepare(&json, &Context::of(&state, &notes))
    };
    let prepared = offload::run(size, translating).await;
    let Prepared { mut asks, facts, receipt } = prepared?;
    recorder.receipt(receipt);
    hold(&mut asks, &app.buffered);
    Ok((asks, facts))
}

/// Counts the bodies of upstream requests against the budget until they are dropped. Those that share one body count
/// once.
pub(crate) fn hold(asks: &mut [UpstreamRequest], share: &Share) {
    let mut last: Option<(*const u8, usize, Bytes)> = None;
    for ask in asks {
        let (start, length) = (ask.body.as_ptr(), ask.body.len());
        ask.body = match &last {
            Some((other, same, held)) if (*other, *same) == (start, length) => held.clone(),
            _ => share.hold(std::mem::take(&mut ask.body)),
        };
        last = Some((start, length, ask.body.clone()));
    }
}
