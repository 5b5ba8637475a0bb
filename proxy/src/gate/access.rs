//! What a key may do: the paths that it may ask for, and the models that it may use.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{Method, header};

use crate::{
    buffered::Share,
    config::Token,
    error::Error,
    gate::{
        model_names::Scan,
        models::{Aliases, Models},
        paths::Paths,
    },
    routes::{Names, Route},
    text,
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
    aliases: Aliases,
    list: &'static str,
    names: &'static [&'static str],
}

impl Shown<'_> {
    /// # Errors
    /// The list cannot be read.
    pub(crate) async fn of(&self, response: Response, method: &Method) -> Result<Response, Error> {
        Ok(self.models.filter(response, &self.aliases, self.list, self.names, method).await?.into_response())
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

    /// The models that this key may use. None: all.
    pub(crate) fn models(&self) -> Option<&Models> {
        self.models.as_ref()
    }

    /// Judges what the head of a request says: its path, and a model in it. `path` was read by [`super::paths::read`];
    /// `aliases` are names that stand for other models here.
    ///
    /// # Errors
    /// The key may not do this, or it is unknown whether it may.
    pub(crate) fn check(&self, route: &Route, path: &str, aliases: &Aliases) -> Result<(), Error> {
        if self.routes.as_ref().is_some_and(|routes| !routes.contain(path)) {
            return Err(Error::Denied { message: format!("this key may not use {}", text::name(path)) });
        }
        let Some(models) = &self.models else { return Ok(()) };
        match route.row.map(|row| row.names) {
            None => Err(Error::Denied {
                message: format!(
                    "this key may use only some models, and {} is not a route whose models are known",
                    text::name(path)
                ),
            }),
            Some(Names::Weights) => Err(Error::Denied {
                message: "this key may use only some models, and the files of models have no names".to_owned(),
            }),
            Some(Names::Path) => {
                let id = route.id.as_deref().unwrap_or_default();
                models.check(aliases.behind(id))
            }
            Some(_) => Ok(()),
        }
    }

    /// Judges the names in the body of a request whose head was judged. The body may have `limit` bytes; what is held
    /// of it counts for `share`. What comes back besides the request is what its response must be filtered by.
    ///
    /// # Errors
    /// The key may not do this, or it is unknown whether it may.
    pub(crate) async fn check_body(
        &self,
        mut request: Request,
        route: &Route,
        aliases: &Aliases,
        limit: usize,
        share: &Share,
    ) -> Result<(Request, Option<Shown<'_>>), Error> {
        let Some((models, row)) = self.models.as_ref().zip(route.row) else { return Ok((request, None)) };
        let request = match row.names {
            Names::Body(fields) => models.judge(request, Scan::new(fields), aliases, route.based, limit, share).await?,
            Names::Definition(fields) => {
                models.judge(request, Scan::of_definition(fields), aliases, route.based, limit, share).await?
            }
            Names::Form => models.check_form(request, aliases, limit, share).await?,
            Names::Listed(list, names) => {
                // A compressed list could not be read.
                request.headers_mut().remove(header::ACCEPT_ENCODING);
                return Ok((request, Some(Shown { models, aliases: aliases.clone(), list, names })));
            }
            Names::Path | Names::Weights | Names::Nowhere => request,
        };
        Ok((request, None))
    }
}
