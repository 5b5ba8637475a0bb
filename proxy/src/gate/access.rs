//! What a key may do: the paths that it may ask for, and the models that it may use.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, header};

use crate::{
    config::Token,
    error::Error,
    gate::{models::Models, paths::Paths},
    routes::{self, Match, Names},
};

/// A key's lists. None: everything.
#[derive(Debug)]
pub(crate) struct Access {
    routes: Option<Paths>,
    models: Option<Models>,
}

/// The part of an answer's list that a key is shown.
pub(crate) struct Shown<'a> {
    models: &'a Models,
    list: &'static str,
    names: &'static [&'static str],
}

impl Shown<'_> {
    /// # Errors
    /// The list cannot be read.
    pub(crate) async fn of(&self, response: Response, method: &Method) -> Result<Response, Error> {
        Ok(self.models.filter(response, self.list, self.names, method).await?.into_response())
    }
}

impl Access {
    pub(crate) fn new(token: &Token) -> Self {
        Self { routes: token.routes.as_deref().map(Paths::new), models: token.models.as_deref().map(Models::new) }
    }

    /// Whether nothing is kept from this key.
    pub(crate) fn is_free(&self) -> bool {
        self.routes.is_none() && self.models.is_none()
    }

    /// Judges `request` for `path`, read as [`super::paths::read`] does, where OpenAI's routes stand under `base`. A body is read up to
    /// `limit` bytes, and passes on as it is.
    ///
    /// # Errors
    /// The key may not do this, or it cannot be told whether it may.
    pub(crate) async fn check(
        &self,
        mut request: Request,
        path: &str,
        base: &str,
        limit: usize,
    ) -> Result<(Request, Option<Shown<'_>>), Error> {
        if self.routes.as_ref().is_some_and(|routes| !routes.contain(path)) {
            return Err(Error::Denied { message: format!("this key may not ask for {path}") });
        }
        let Some(models) = &self.models else { return Ok((request, None)) };
        let Some(Match { row, parameter, based }) = routes::find(request.method(), path, base) else {
            return Err(Error::Denied {
                message: format!("this key may use only some models, and {path} is no route whose models are known"),
            });
        };
        match row.names {
            Names::Nowhere => Ok((request, None)),
            Names::Path => {
                let model = parameter.and_then(|at| path.get(at)).unwrap_or_default();
                models.check(model).map(|()| (request, None))
            }
            Names::Listed(list, names) => {
                // A compressed list could not be read.
                request.headers_mut().remove(header::ACCEPT_ENCODING);
                Ok((request, Some(Shown { models, list, names })))
            }
            Names::Body(_) | Names::Form => Ok((models.check_body(request, row.names, limit, based).await?, None)),
        }
    }
}
