//! Which remotes a request may be sent to, by its route and its model.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderValue, Method};

use super::{Candidates, Remotes, union::Union};
use crate::{
    config::Config,
    error::Error,
    openai::moderations,
    routes::{Names, Route},
};

/// What becomes of a request.
pub(crate) enum Sent {
    /// It is sent to the first of these that responds.
    To(Arc<Candidates>),
    /// All remotes were asked.
    Answered(Response),
}

impl Remotes {
    /// Returns the remotes for a request about `model`, or for one that names its remote.
    ///
    /// # Errors
    /// Fails if there is no such remote, or no remote has the model.
    pub(crate) async fn route<'a>(
        &self,
        route: &Route,
        method: &Method,
        named: Option<HeaderValue>,
        model: Option<&'a str>,
        may_see: impl Fn(&str) -> bool,
        config: &'a Config,
    ) -> Result<Sent, Error> {
        if let Some(named) = named {
            return self.named(&named).map(Sent::To);
        }
        if !self.are_several() {
            return Ok(Sent::To(self.only()));
        }
        // What Ollama does not have under OpenAI's base path, an OpenAI server may.
        let Some(row) = route.row else { return Ok(Sent::To(self.any_of(route.based))) };
        if row.management {
            // What is pulled is there already.
            let there = model.filter(|_| row.name == "api/pull").and_then(|model| self.only_at_openai(model));
            return Ok(Sent::To(there.unwrap_or_else(|| self.managed())));
        }
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if matches!(row.path, "/api/tags" | "/api/ps") && reads {
            let union = Union::of(&self.members, row.path).await?;
            return Ok(Sent::Answered(union.response(method, may_see)));
        }
        let model = match row.names {
            Names::Body(_) | Names::Form | Names::Path => model.filter(|model| !model.is_empty()),
            _ => None,
        };
        let model = match row.name {
            "moderations" if route.translated() => moderations::model(config, model),
            _ => model,
        };
        match model {
            Some(model) => self.with(model, route.dialect, may_see).await.map(Sent::To),
            None => Ok(Sent::To(self.any())),
        }
    }
}
