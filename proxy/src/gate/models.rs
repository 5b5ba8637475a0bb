//! Which models a key may use, of those that a request names or an answer lists.
//!
//! Judges only keys with a list of models; for all others nothing is read. Where names cannot be read for sure, the
//! request is refused.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, to_bytes},
    extract::Request,
};
use bytes::Bytes;
use http::{Method, Response, header, request::Parts};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

use super::model_names::{self, FormScan, Name, Scan};
use crate::{
    buffered::{Counted, Lease, Share},
    config::{self, Anthropic},
    error::{self, Dialect, Error},
    gate::{held_body::is_encoded, pattern},
    offload,
    ollama::name,
    openai::request::encoding,
    routes::Route,
    text,
    whole_body::{self, Failed},
};

/// A list of models, as patterns: `llama3.2` is every tag of that model, `llama3.2:1b` is one, and a `*` is anything
/// but a slash. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Models(Arc<[String]>);

/// Whether the pattern of a key's list covers `model`.
pub(crate) fn allows(pattern: &str, model: &str) -> bool {
    pattern::fits_segments(&any_tag(pattern), &name::full(model))
}

/// What names stand for on one route, so that an alias is no way around a key's list: the model that runs is what
/// counts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aliases {
    settings: Option<Arc<AliasSettings>>,
    /// Whether Anthropic's names stand for models.
    anthropic: bool,
}

/// The settings that give models other names.
#[derive(Debug)]
pub(crate) struct AliasSettings {
    pub(crate) models: config::Models,
    pub(crate) anthropic: Anthropic,
}

impl Aliases {
    /// Those of `settings` on `route`.
    pub(crate) fn on(route: &Route, settings: &Arc<AliasSettings>) -> Self {
        let anthropic = route.dialect == Dialect::Anthropic && route.translated();
        let own = route.row.is_some_and(|row| row.management);
        Self { settings: (!own).then(|| settings.clone()), anthropic }
    }

    /// The model that a request means by `name`.
    pub(crate) fn behind<'a>(&'a self, name: &'a str) -> &'a str {
        let Some(settings) = &self.settings else { return name };
        settings.models.behind(name, self.anthropic.then_some(&settings.anthropic)).0
    }
}

impl Models {
    pub(crate) fn new(patterns: &[String]) -> Self {
        Self(patterns.iter().map(|pattern| any_tag(pattern)).collect())
    }

    /// Whether the list has `model`. A model without a tag is its `latest`, and case makes no difference, as for
    /// Ollama. A star does not match a slash, because what comes before one may be the host of a registry.
    pub(crate) fn contain(&self, model: &str) -> bool {
        let model = name::full(model);
        self.0.iter().any(|pattern| pattern::fits_segments(pattern, &model))
    }

    /// # Errors
    /// The list does not have `model`.
    pub(crate) fn check(&self, model: &str) -> Result<(), Error> {
        if self.contain(model) {
            return Ok(());
        }
        let slash = if model.contains('/') && self.0.iter().any(|pattern| pattern.contains('*')) {
            " (`*` does not match a slash: write `*/*` for names with a namespace)"
        } else {
            ""
        };
        let (model, known) = (text::name(model), self.0.join(", "));
        Err(Error::Denied { message: format!("this key may not use the model {model:?}; use {known}{slash}") })
    }

    /// Reads the names in the JSON body of `request`, which passes on unchanged. Mostly they are all read before
    /// anything passes; of a long body they are read while it passes, and what refuses it breaks it off.
    ///
    /// On a `translated` route farllama alone reads the body, by exact names, so every spelling of a name counts, and
    /// one must be there; Ollama takes the last.
    ///
    /// # Errors
    /// One of the models is not in the list, the names cannot be read for sure, or the body says that it is larger than
    /// `limit`.
    pub(crate) async fn judge(
        &self,
        request: Request,
        scan: Scan,
        aliases: &Aliases,
        translated: bool,
        limit: usize,
        share: &Share,
    ) -> Result<Request, Error> {
        if request.body().size_hint().lower() > limit as u64 {
            return Err(Error::TooLarge { limit });
        }
        let (mut parts, mut body) = request.into_parts();
        if is_encoded(&parts.headers) {
            if !translated {
                return Err(refused("the names in a compressed body cannot be read; send it uncompressed"));
            }
            body = Body::from(read_whole(&mut parts, body, limit, share).await?);
        }
        let mut judging = Judging {
            scan,
            models: self.clone(),
            aliases: aliases.clone(),
            translated,
            strict: translated,
            checked: 0,
            ended: false,
        };
        let (mut first, mut size, mut lease) = (VecDeque::new(), 0, share.lease());
        while !judging.ended && size < HELD {
            let Some(frame) = body.frame().await else {
                judging.end()?;
                break;
            };
            let frame = frame.map_err(|error| {
                error::own(&error).unwrap_or_else(|| refused("the names in a body that is broken off cannot be read"))
            })?;
            if let Ok(part) = frame.into_data() {
                judging.read(&part, body.is_end_stream())?;
                size += part.len();
                if !(first.is_empty() && body.is_end_stream()) {
                    lease.grow(part.len()).await?;
                }
                first.push_back(part);
            }
        }
        if !judging.ended {
            // What has passed cannot be taken back by a later name.
            judging.strict = true;
            judging.check_new()?;
        }
        let body = match first.pop_front() {
            Some(only) if first.is_empty() && body.is_end_stream() => Body::from(only),
            Some(part) => {
                first.push_front(part);
                Body::new(Judged { first, lease: Some(lease), body, judging })
            }
            None => body,
        };
        Ok(Request::from_parts(parts, body))
    }

    /// Reads the names in a form, which passes on whole: what may not pass is refused as soon as its name is there.
    ///
    /// # Errors
    /// One of the models is not in the list, or the names cannot be read for sure.
    pub(crate) async fn check_form(
        &self,
        request: Request,
        aliases: &Aliases,
        limit: usize,
        share: &Share,
    ) -> Result<Request, Error> {
        let (mut parts, body) = request.into_parts();
        if is_encoded(&parts.headers) {
            let body = read_whole(&mut parts, body, limit, share).await?;
            let (form, headers) = (body.clone(), parts.headers.clone());
            let found = offload::run(body.len(), move || model_names::in_form(form, &headers)).await;
            self.check_all(&found.map_err(|error| refused(&error.to_string()))?, aliases)?;
            return Ok(Request::from_parts(parts, Body::from(body)));
        }
        let (mut scan, mut checked, mut lease) = (FormScan::new(&parts.headers), 0, share.lease());
        let watch = |part: &Bytes| {
            scan.push(part.clone()).map_err(|error| refused(&error.to_string()))?;
            let new = scan.found_after(checked);
            checked += new.len();
            self.check_each(&new, aliases)
        };
        let body = whole_body::read_watched(body, limit, &mut lease, watch).await;
        let body = body.map_err(|failed| unread(failed, limit))?;
        scan.end().map_err(|error| refused(&error.to_string()))?;
        self.check_all(&scan.found_after(0), aliases)?;
        // The handler need not count it again.
        parts.extensions.insert(Counted);
        Ok(Request::from_parts(parts, Body::from(lease.hold(body))))
    }

    /// The names of a whole translated request.
    fn check_all(&self, found: &[Name], aliases: &Aliases) -> Result<(), Error> {
        if found.is_empty() {
            // Without a name the proxy might choose a model of its own.
            return Err(refused("this request names none; say which"));
        }
        self.check_each(found, aliases)
    }

    fn check_each(&self, found: &[Name], aliases: &Aliases) -> Result<(), Error> {
        let named = found.iter().filter(|found| !found.name.is_empty());
        named.map(|found| aliases.behind(&found.name)).try_for_each(|name| self.check(name))
    }

    /// The JSON of `body` without what stands in its `list` and is not in this one. None if it cannot be read.
    fn filtered(&self, body: &[u8], aliases: &Aliases, list: &str, names: &[&str]) -> Option<Vec<u8>> {
        let mut whole: serde_json::Value = serde_json::from_slice(body).ok()?;
        if let Some(models) = whole.get_mut(list).filter(|models| !models.is_null()) {
            let shown = |model: &serde_json::Value| {
                let mut reported = names.iter().filter_map(|name| model.get(name)?.as_str()).peekable();
                reported.peek().is_some() && reported.all(|name| self.contain(aliases.behind(name)))
            };
            models.as_array_mut()?.retain(shown);
        }
        serde_json::to_vec(&whole).ok()
    }

    /// Takes out of the list in `response` what is not in this one.
    ///
    /// # Errors
    /// The list cannot be read, so it is not shown.
    pub(crate) async fn filter(
        &self,
        response: Response<Body>,
        aliases: &Aliases,
        list: &'static str,
        names: &'static [&'static str],
        method: &Method,
    ) -> Result<Response<Body>, Error> {
        /// More than any list of models takes.
        const BOUND: usize = 64 << 20;
        if !response.status().is_success() {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(header::CONTENT_LENGTH);
        if method == Method::HEAD {
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let unreadable = || Error::NotOllama {
            message: "the remote's list of models cannot be read, so it is not shown".to_owned(),
        };
        let body = to_bytes(body, BOUND).await.map_err(|_| unreadable())?;
        let (models, aliases) = (self.clone(), aliases.clone());
        let filtered = offload::run(body.len(), move || models.filtered(&body, &aliases, list, names)).await;
        let body = filtered.ok_or_else(unreadable)?;
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}

/// A pattern in lower case. Without a tag and without a `*` it stands for every tag.
fn any_tag(pattern: &str) -> String {
    let name = pattern.rsplit('/').next().unwrap_or_default();
    let tag = if name.contains([':', '*']) { "" } else { ":*" };
    format!("{}{tag}", pattern.to_ascii_lowercase())
}

/// Reads a body of a translated route, and decompresses it.
async fn read_whole(parts: &mut Parts, body: Body, limit: usize, share: &Share) -> Result<Bytes, Error> {
    let headers = &mut parts.headers;
    let mut lease = share.lease();
    let body = whole_body::read_leased(body, limit, &mut lease).await.map_err(|failed| unread(failed, limit))?;
    // The handler need not count it again.
    parts.extensions.insert(Counted);
    if !is_encoded(headers) {
        return Ok(lease.hold(body));
    }
    let coded = headers.clone();
    // Text grows to many times its compressed size.
    let size = body.len().saturating_mul(20);
    let decoded = offload::run(size, move || encoding::decode(&coded, body, limit)).await?;
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
    lease.add(decoded.len());
    Ok(lease.hold(decoded))
}

/// The error for a body that could not be read whole.
fn unread(failed: Failed, limit: usize) -> Error {
    match failed {
        Failed::Refused(error) => error,
        Failed::TooLarge => Error::TooLarge { limit },
        Failed::Broken(error) => {
            error::own(&*error).unwrap_or_else(|| refused("the names in a body that is broken off cannot be read"))
        }
    }
}

fn refused(why: &str) -> Error {
    Error::Denied { message: format!("this key may use only some models, and {why}") }
}

/// How much of a body is held back, at least, while its names are read.
const HELD: usize = 64 << 10;

/// What is known of the names in a body.
struct Judging {
    scan: Scan,
    models: Models,
    /// Names that stand for other models.
    aliases: Aliases,
    translated: bool,
    /// Whether every name counts, and not the last one alone.
    strict: bool,
    /// How many of the names that were found were checked.
    checked: usize,
    /// Whether all names were found and checked.
    ended: bool,
}

impl Judging {
    /// Reads a part, which may be the last.
    fn read(&mut self, part: &[u8], last: bool) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        self.scan.push(part).map_err(|error| refused(&error.to_string()))?;
        if self.strict {
            self.check_new()?;
        }
        if last || self.scan.closed() { self.end() } else { Ok(()) }
    }

    fn check_new(&mut self) -> Result<(), Error> {
        let new = self.scan.found().get(self.checked..).unwrap_or_default();
        let names = new.iter().map(|found| self.aliases.behind(&found.name));
        names.filter(|name| !name.is_empty()).try_for_each(|name| self.models.check(name))?;
        self.checked = self.scan.found().len();
        Ok(())
    }

    /// No further name can come.
    fn end(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        self.scan.end().map_err(|error| refused(&error.to_string()))?;
        if self.translated {
            return self.models.check_all(self.scan.found(), &self.aliases);
        }
        let last: HashMap<_, _> = self.scan.found().iter().map(|found| (found.field, &found.name)).collect();
        let names = last.into_values().map(|name| self.aliases.behind(name));
        names.filter(|name| !name.is_empty()).try_for_each(|name| self.models.check(name))
    }
}

/// A body whose first parts are here already, and the rest of which is judged while it passes.
struct Judged {
    first: VecDeque<Bytes>,
    lease: Option<Lease>,
    body: Body,
    judging: Judging,
}

impl HttpBody for Judged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Some(part) = this.first.pop_front() {
            if this.first.is_empty() {
                this.lease = None;
            }
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let judged = match &frame {
            Some(Ok(frame)) => {
                let last = this.body.is_end_stream();
                frame.data_ref().map_or(Ok(()), |part| this.judging.read(part, last))
            }
            Some(Err(_)) => Ok(()),
            None => this.judging.end(),
        };
        Poll::Ready(match judged {
            Ok(()) => frame,
            Err(error) => Some(Err(axum::Error::new(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.judging.ended && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (first, rest) = (self.first.iter().map(|part| part.len() as u64).sum::<u64>(), self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn list(models: &[&str]) -> Models {
        Models::new(&models.iter().map(|&model| model.to_owned()).collect::<Vec<_>>())
    }

    /// Whether a body passes whole, cut into parts of `step` bytes; and how many bytes of one that is refused have
    /// passed.
    fn passed(
        models: &[&str],
        fields: &'static [&'static str],
        body: &str,
        translated: bool,
        step: usize,
    ) -> Result<(), usize> {
        let parts: Vec<_> = body.as_bytes().chunks(step).map(|part| Ok::<_, Error>(part.to_vec())).collect();
        let request = Request::new(Body::from_stream(futures_util::stream::iter(parts)));
        let judged = list(models)
            .judge(request, Scan::new(fields), &Aliases::default(), translated, 1 << 20, &Share::default())
            .now_or_never()
            .unwrap();
        let mut body_that_passes = judged.map_err(|_| 0_usize)?.into_body();
        let mut read = 0;
        loop {
            match body_that_passes.frame().now_or_never().unwrap() {
                None => {
                    assert_eq!(read, body.len(), "unchanged");
                    return Ok(());
                }
                Some(Ok(frame)) => read += frame.into_data().unwrap().len(),
                Some(Err(_)) => return Err(read),
            }
        }
    }

    fn check(models: &[&str], fields: &'static [&'static str], body: &str, translated: bool) -> bool {
        let whole = passed(models, fields, body, translated, 10_000).is_ok();
        assert_eq!(passed(models, fields, body, translated, 1).is_ok(), whole, "{body}");
        whole
    }

    #[test]
    fn a_form_is_refused_as_soon_as_its_model_is_there() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        use futures_util::StreamExt;
        let part = |name: &str| format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        // Whether a form passes, and how many of its parts were read.
        let checked = |parts: Vec<String>| {
            let (read, size) = (Arc::new(AtomicUsize::new(0)), parts.concat().len() as u64);
            let count = read.clone();
            let parts = futures_util::stream::iter(parts).map(move |part| {
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Error>(part)
            });
            let mut request = Request::new(Body::from_stream(parts));
            let kind = http::HeaderValue::from_static("multipart/form-data; boundary=x");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
            let (allowed, aliases, share) = (list(&["m"]), Aliases::default(), Share::default());
            let checked = allowed.check_form(request, &aliases, 1 << 20, &share).now_or_never().unwrap();
            assert!(
                checked.as_ref().is_ok_and(|request| request.body().size_hint().exact() == Some(size))
                    || checked.is_err()
            );
            (checked.is_ok(), read.load(Ordering::Relaxed))
        };
        let form = |model: &str| {
            let first = part("model") + model + "\r\n" + &part("file");
            let file = std::iter::repeat_n("a".repeat(1000), 20);
            std::iter::once(first).chain(file).chain(["\r\n--x--\r\n".to_owned()]).collect::<Vec<_>>()
        };
        assert_eq!(checked(form("m")), (true, 22));
        assert_eq!(checked(form("other")), (false, 1));
        let last = [part("file") + "a\r\n", part("model") + "m\r\n", part("model") + "other\r\n--x--\r\n"];
        assert!(!checked(last.to_vec()).0, "every name counts");
        assert!(!checked(vec![part("file") + "a\r\n--x--\r\n"]).0, "it names none");
    }

    #[test]
    fn a_model_is_known_by_its_whole_name_whatever_its_case() {
        let models = list(&["llama3.2", "qwen3:*", "ns/m:7b", "hf.co/*/*", "smol*"]);
        for (model, there) in [
            ("llama3.2", true),
            ("LLama3.2:latest", true),
            ("llama3.2:1b", true),
            ("llama3.2x", false),
            ("llama3", false),
            ("qwen3", true),
            ("qwen3:0.6b", true),
            ("qwen35", false),
            ("ns/m:7b", true),
            ("ns/m:8b", false),
            ("ns/m", false),
            ("m:7b", false),
            ("registry.example/ns/m:7b", false),
            ("hf.co/org/m:q4", true),
            ("hf.co/org/sub/m", false),
            ("smollm2:135m", true),
            ("smollm2:11434/library/x", false),
            ("smol.evil.example/a/b", false),
        ] {
            assert_eq!(models.contain(model), there, "{model}");
        }
    }

    #[test]
    fn names_are_read_as_go_reads_them() {
        for (body, passes) in [
            (r#"{"model":"m"}"#, true),
            (r#"{"model":"x"}"#, false),
            (r#"{"MODEL":"x"}"#, false),
            (r#"{"model":"x","Model":"m"}"#, true),
            (r#"{"model":"m","Model":"x"}"#, false),
            (r#"{"model":"x","model":null}"#, false),
            (r#"{"mod\u0065l":"x"}"#, false),
            (r#"{"name":"x"}"#, false),
            (r#"{"model":"m","name":"x"}"#, false),
            (r#"{"model":"m"} {"model":"x"}"#, true),
            (r#"{"model":5}"#, false),
            (r#"{"model":"m""#, false),
            (r#"["m"]"#, false),
            ("", true),
            ("{}", true),
        ] {
            assert_eq!(check(&["m"], &["model", "name"], body, false), passes, "{body}");
        }
        assert!(!check(&["m"], &["source", "destination"], "{\"\u{17f}ource\":\"x\"}", false));
        assert!(!check(&["m"], &["model"], r#"{"model":"m","modelfile":"FROM x"}"#, false));
    }

    #[test]
    fn on_a_translated_route_every_spelling_counts() {
        assert!(!check(&["m"], &["model"], r#"{"model":"x","Model":"m"}"#, true));
        assert!(check(&["m"], &["model"], r#"{"model":"m"}"#, true));
        assert!(!check(&["m"], &["model"], "{}", true));
        assert!(!check(&["m"], &["model"], "", true));
    }

    #[test]
    fn a_model_is_refused_before_anything_passes_and_in_a_long_body_before_its_end_does() {
        let long = "a".repeat(200 << 10);
        for translated in [true, false] {
            let refused = |body: &str| passed(&["m"], &["model"], body, translated, 1 << 10);
            assert_eq!(refused(r#"{"model":"x"}"#), Err(0));
            assert_eq!(refused(&format!(r#"{{"model":"x","a":"{long}"}}"#)), Err(0));
            assert_eq!(refused(&format!(r#"{{"model":"x","a":"{long}","model":"m"}}"#)), Err(0), "too late");
            let read = refused(&format!(r#"{{"a":"{long}","model":"x"}}"#)).unwrap_err();
            assert!((HELD..=long.len() + 20).contains(&read), "{read}");
            assert!(refused(&format!(r#"{{"a":"{long}""#)).is_err(), "it breaks off");
            assert!(refused(&format!(r#"{{"a":"{long}"}}"#)).is_err() == translated, "it names none");
            assert_eq!(refused(&format!(r#"{{"a":"{long}","model":"m"}}"#)), Ok(()));
            assert_eq!(refused(&format!(r#"{{"model":"m","a":"{long}"}}"#)), Ok(()));
        }
    }

    #[test]
    fn a_refusal_is_short_whatever_the_name() {
        let error = list(&["m*"]).check(&format!("x/{}", "y".repeat(20 << 20))).unwrap_err();
        let message = error.to_string();
        assert!(message.len() < 500 && message.contains("does not match a slash"), "{message}");
    }
}
