//! `GET /v1/models` and `GET /v1/models/{id}` for clients of Anthropic's API, over `GET /api/tags` and `POST
//! /api/show`.

use std::borrow::Cow;

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};

use futures_util::future::join;

use super::wire::{Capabilities, Model, ModelPage};
use crate::{
    app::App,
    error::Error,
    observe::Recorder,
    ollama::{
        listing::Listing,
        models,
        wire::{Show, Tags},
    },
    openai::models::{explained, note_places},
    routes::Id,
};

/// One page of the remote's models, in its order. Without `limit` it has all of them.
pub(crate) async fn list(
    State(app): State<App>,
    Query(query): Query<Vec<(String, String)>>,
    recorder: Recorder,
) -> Result<Response, Error> {
    let (reply, loaded) = join(models::tags(&app.upstream), models::loaded(&app.upstream)).await;
    let reply = reply?;
    note_places(&app, &recorder);
    let tags: Tags<'_> = app.upstream.read("/api/tags", &reply)?;
    let loaded = loaded.as_ref().and_then(|reply| app.upstream.read("/api/ps", reply).ok());
    let entries = Listing { config: &app.config, loaded: loaded.as_ref() }.entries(&tags);
    let listed = entries.iter().filter(|entry| app.may_see(&entry.tag.name)).map(|entry| Model {
        max_input_tokens: entry.context,
        capabilities: entry.tag.capabilities.as_deref().map(Capabilities::of),
        ..model(&entry.name, &entry.tag.modified_at)
    });
    Ok(axum::Json(page(listed.collect(), &query)?).into_response())
}

/// One model. Anthropic's names stand for the models in the settings.
pub(crate) async fn retrieve(State(app): State<App>, recorder: Recorder, Id(id): Id) -> Result<Response, Error> {
    let resolved = app.config.resolve(&id, true);
    let target = app.target.as_ref().and_then(|target| target.model.as_deref()).unwrap_or(&resolved);
    let name = &*target.model;
    recorder.model(name);
    let (reply, loaded) = join(models::show(&app.upstream, name), models::loaded(&app.upstream)).await;
    let reply = explained(&app, name, reply).await?;
    let loaded = loaded.as_ref().and_then(|reply| app.upstream.read("/api/ps", reply).ok());
    let listing = Listing { config: &app.config, loaded: loaded.as_ref() };
    let show: Show<'_> = app.upstream.read("/api/show", &reply)?;
    let model = Model {
        display_name: Cow::Borrowed(name),
        max_input_tokens: listing.shown(&id, name, &show),
        capabilities: show.capabilities.as_deref().map(Capabilities::of),
        ..model(&id, &show.modified_at)
    };
    Ok(axum::Json(model).into_response())
}

fn model<'a>(name: &'a str, modified_at: &str) -> Model<'a> {
    let created = modified_at.parse::<jiff::Timestamp>().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    // Ollama's zero date is long before the epoch.
    let created = created.max(jiff::Timestamp::UNIX_EPOCH);
    Model {
        r#type: "model",
        id: Cow::Borrowed(name),
        display_name: Cow::Borrowed(name),
        created_at: jiff::Timestamp::from_second(created.as_second()).unwrap_or_default().to_string(),
        deprecated_at: None,
        lifecycle: "active",
        line: None,
        max_input_tokens: None,
        max_tokens: None,
        retires_at: None,
        capabilities: None,
    }
}

/// The models after `after_id` or before `before_id`, `limit` at most.
///
/// # Errors
/// Fails on a limit that is not a number from 1 to 1000, and on an id that is not in the list.
fn page<'a>(mut models: Vec<Model<'a>>, query: &[(String, String)]) -> Result<ModelPage<'a>, Error> {
    let value = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
    let place = |models: &[Model<'_>], field: &str, id: &str| {
        let unknown = || Error::invalid(field, format!("No model with the id '{id}' is in the list."));
        models.iter().position(|model| model.id == id).ok_or_else(unknown)
    };
    let limit = value("limit").map(|limit| {
        let number = limit.parse::<usize>().ok().filter(|limit| (1..=1000).contains(limit));
        number
            .ok_or_else(|| Error::invalid("limit", format!("Invalid 'limit': expected 1 to 1000, but got '{limit}'.")))
    });
    let limit = limit.transpose()?.unwrap_or(usize::MAX);
    let has_more;
    match (value("after_id"), value("before_id")) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid("before_id", "'before_id' cannot be used together with 'after_id'."));
        }
        (None, Some(id)) => {
            models.truncate(place(&models, "before_id", id)?);
            let left = models.len().saturating_sub(limit);
            has_more = left > 0;
            models.drain(..left);
        }
        (after, None) => {
            if let Some(id) = after {
                models.drain(..=place(&models, "after_id", id)?);
            }
            has_more = models.len() > limit;
            models.truncate(limit);
        }
    }
    let id = |model: Option<&Model<'a>>| model.map(|model| model.id.clone());
    let (first_id, last_id) = (id(models.first()), id(models.last()));
    Ok(ModelPage { data: models, has_more, first_id, last_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_in_both_directions() {
        let all = || ["a", "b", "c", "d"].map(|name| model(name, "2025-05-04T17:37:44.706015396-07:00")).into();
        let ids = |query: &[(&str, &str)]| {
            let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let page = page(all(), &query)?;
            Ok::<_, Error>((page.data.iter().map(|model| &*model.id).collect::<String>(), page.has_more))
        };
        assert_eq!(ids(&[]).unwrap(), ("abcd".to_owned(), false));
        assert_eq!(ids(&[("limit", "2")]).unwrap(), ("ab".to_owned(), true));
        assert_eq!(ids(&[("limit", "2"), ("after_id", "b")]).unwrap(), ("cd".to_owned(), false));
        assert_eq!(ids(&[("limit", "2"), ("before_id", "d")]).unwrap(), ("bc".to_owned(), true));
        assert_eq!(ids(&[("after_id", "d")]).unwrap(), (String::new(), false));
        for wrong in [&[("limit", "0")][..], &[("after_id", "x")], &[("after_id", "a"), ("before_id", "b")]] {
            assert_eq!(ids(wrong).unwrap_err().row().status, 400, "{wrong:?}");
        }
        assert_eq!(model("a", "2025-05-04T17:37:44.706015396-07:00").created_at, "2025-05-05T00:37:44Z");
        assert_eq!(model("a", "0001-01-01T00:00:00Z").created_at, "1970-01-01T00:00:00Z");
    }
}
