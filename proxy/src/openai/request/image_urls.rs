//! Images that a request names by a URL: found in the body, fetched, and put in the place of their URLs as data, before
//! anything is translated.
//!
//! Every other byte of the body stays as it is.

use std::{collections::HashMap, ops::Range};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::value::RawValue;

use crate::{
    app::App,
    error::Error,
    fetch::{Budget, Fetcher, Refused},
    observe::Recorder,
    offload,
    openai::request::{
        json::{Json, Text},
        parts,
    },
    receipt::Receipt,
};

/// Most images that are fetched for one request, so that one request does not become a flood elsewhere.
const MOST: usize = 64;

/// How many images of one request are on their way at a time.
const AT_ONCE: usize = 4;

/// A URL in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where its JSON text stands.
    range: Range<usize>,
    /// The field that it is, such as `messages[0].content[1].image_url`.
    path: String,
    pub(crate) url: String,
}

/// Fetches the images of a body, if the settings say so; else it stays as it is.
///
/// # Errors
/// Fails on an image that cannot be fetched or used.
pub(crate) async fn inline(app: &App, recorder: &Recorder, json: Json) -> Result<Json, Error> {
    let found = if app.fetcher.images.fetch {
        let json = json.clone();
        offload::run(json.bytes().len(), move || find(&json)).await
    } else {
        Vec::new()
    };
    if found.is_empty() {
        return Ok(json);
    }
    let budget = app.fetcher.budget();
    let mut wanted = found.clone();
    // An image that stands there twice is fetched once.
    wanted.sort_by(|a, b| a.url.cmp(&b.url));
    wanted.dedup_by(|a, b| a.url == b.url);
    if let Some(beyond) = wanted.get(MOST) {
        let message = format!("At most {MOST} images are fetched for one request; send the others as data URLs.");
        return Err(Error::Invalid { message, param: Some(beyond.path.clone()), code: Some("too_many_images") });
    }
    let fetching = stream::iter(wanted.into_iter().map(|found| one(&app.fetcher, &budget, found)));
    let fetching = fetching.buffer_unordered(AT_ONCE).try_collect::<HashMap<_, _>>();
    let within = app.fetcher.images.timeout;
    let fetched = tokio::time::timeout(within, fetching).await;
    let by_url = fetched.unwrap_or_else(|_| Err(blame(&found[0].path, &found[0].url, &Refused::TimedOut(within))))?;
    let image = |url: &str| by_url.get(url).map_or("", String::as_str);
    let size = bounded(&found, image, json.bytes().len(), app)?;
    // There already, so they are counted without waiting; the body that they make counts by itself.
    let mut lease = app.buffered.lease();
    lease.add(by_url.values().map(String::len).sum());
    let replacing = move || replace(&json, &found, |url| by_url.get(url).map_or("", String::as_str));
    let inlined = offload::run(size, replacing).await;
    drop(lease);
    let mut lease = app.buffered.lease();
    lease.add(inlined.bytes().len());
    let inlined = inlined.held(lease);
    let mut receipt = Receipt::default();
    receipt.note("image_url", "fetched");
    recorder.receipt(receipt);
    Ok(inlined)
}

/// Returns and checks what the body takes with an image in the place of each of the URLs: an image that is named often
/// is there as often.
///
/// # Errors
/// Fails if the images are larger than `images.max_bytes`, or the body than `limits.body`.
fn bounded<'a>(found: &[Found], image: impl Fn(&str) -> &'a str, body: usize, app: &App) -> Result<usize, Error> {
    let (max, limit) = (app.config.images.max_bytes, app.config.limits.body);
    let (mut images, mut body) = (0, body);
    for Found { path, url, .. } in found {
        let data = image(url);
        // Base64 has four characters for three bytes.
        images += data.len().saturating_sub(data.find(',').map_or(0, |comma| comma + 1)) / 4 * 3;
        body += data.len();
        // What base64 rounds up is no reason to refuse an image that was fetched.
        if images > max.saturating_add(2 * found.len()) {
            return Err(Error::Invalid {
                message: format!(
                    "The images of this request are larger than {max} bytes together, counted at each of the {} places where it names one. \
                     Name fewer or smaller images, or raise images.max_bytes in the settings of farllama.",
                    found.len()
                ),
                param: Some(path.clone()),
                code: Some("image_too_large"),
            });
        }
        if body > limit {
            return Err(Error::TooLarge { limit });
        }
    }
    Ok(body)
}

/// The body with a stand-in for each image that would be fetched, and their URLs: for those who only want to see what
/// it becomes.
pub(crate) fn stand_in(json: &Json) -> (Json, Vec<String>) {
    let found = find(json);
    let replaced = replace(json, &found, |_| "data:image/png;base64,RkVUQ0hFRA==");
    (replaced, found.into_iter().map(|found| found.url).collect())
}

/// A URL, and the image there as a data URL.
async fn one(fetcher: &Fetcher, budget: &Budget, found: Found) -> Result<(String, String), Error> {
    let (kind, content) =
        fetcher.image(&found.url, budget).await.map_err(|refused| blame(&found.path, &found.url, &refused))?;
    let size = content.len();
    let encoding = move || {
        let mut data = format!("data:{kind};base64,");
        STANDARD.encode_string(content, &mut data);
        data
    };
    Ok((found.url, offload::run(size, encoding).await))
}

/// The error for a URL at `path` that cannot be fetched.
pub(super) fn blame(path: &str, url: &str, refused: &Refused) -> Error {
    let begin: String = url.chars().take(100).collect();
    Error::Invalid {
        message: format!(
            "Could not fetch '{begin}': {refused}. Send the data itself, as a data URL, if nothing else helps."
        ),
        param: Some(path.to_owned()),
        code: Some("invalid_image_url"),
    }
}

/// Every http(s) URL of an image in the messages or the input of a body. Of what is no such body, there are none.
pub(crate) fn find(json: &Json) -> Vec<Found> {
    let body = json.bytes();
    let mut found = Vec::new();
    // Most bodies have none, and are not read twice.
    if [&b"image_url"[..], b"\"source\""].iter().all(|name| memchr::memmem::find(body, name).is_none()) {
        return found;
    }
    parts::visit(json, &["messages", "input"], |_, fields, path| {
        let url_in = |name| fields.raw(name).and_then(parts::object).and_then(|inner| inner.raw("url"));
        if let Some(raw) = fields.raw("image_url") {
            let url = if raw.get().starts_with('"') { Some(raw) } else { url_in("image_url") };
            found.extend(url.and_then(|url| of(url, format!("{path}.image_url"), body)));
        }
        // Anthropic's: a document has a source, too.
        if fields.raw("type").is_some_and(|kind| kind.get() == "\"image\"") {
            found.extend(url_in("source").and_then(|url| of(url, format!("{path}.source.url"), body)));
        }
    });
    found.sort_by_key(|found| found.range.start);
    found
}

/// The URL that a text of the body is, if it is one to be fetched.
fn of(raw: &RawValue, path: String, body: &Bytes) -> Option<Found> {
    let url: Text<'_> = serde_json::from_str(raw.get()).ok()?;
    let range = parts::place(raw, body).filter(|_| parts::is_web(&url))?;
    Some(Found { range, path, url: url.0.into_owned() })
}

/// The body with other texts in the place of the URLs.
pub(crate) fn replace<'a>(json: &Json, found: &[Found], with: impl Fn(&str) -> &'a str) -> Json {
    splice(json, found.iter().map(|Found { range, url, .. }| (range.clone(), ["\"", with(url), "\""].concat().into())))
}

/// The body with other bytes in the place of some ranges, which are in order.
pub(super) fn splice(json: &Json, parts: impl Iterator<Item = (Range<usize>, Vec<u8>)>) -> Json {
    let body = json.bytes();
    let parts: Vec<_> = parts.collect();
    let mut text = Vec::with_capacity(body.len() + parts.iter().map(|(_, part)| part.len()).sum::<usize>());
    let mut end = 0;
    for (range, part) in parts {
        text.extend_from_slice(&body[end..range.start]);
        text.extend_from_slice(&part);
        end = range.end;
    }
    text.extend_from_slice(&body[end..]);
    json.with_body(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(body: &str) -> Vec<(String, String)> {
        find(&Json::of_test(body.as_bytes().to_vec())).into_iter().map(|found| (found.path, found.url)).collect()
    }

    #[test]
    fn urls_of_images_are_found_wherever_an_endpoint_has_them() {
        let at = |path: &str| vec![(path.to_owned(), "https://a.example/b.png".to_owned())];
        for (body, path) in [
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"https://not.this"},{"type":"image_url","image_url":{"url":"https://a.example/b.png"}}]}]}"#,
                "messages[0].content[1].image_url",
            ),
            (
                r#"{"messages":[{"content":[{"type":"image_url","image_url":"https:\/\/a.example\/b.png"}]}]}"#,
                "messages[0].content[0].image_url",
            ),
            (
                r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"https://a.example/b.png"}]}]}"#,
                "input[0].content[0].image_url",
            ),
            (r#"{"input":[{"type":"image_url","image_url":{"url":"https://a.example/b.png"}}]}"#, "input[0].image_url"),
            (
                r#"{"messages":[{"content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"https://a.example/b.png"}}]}]}]}"#,
                "messages[0].content[0].content[0].source.url",
            ),
        ] {
            assert_eq!(urls(body), at(path), "{body}");
        }
        for body in [
            "",
            "[]",
            r#"{"messages":7,"x":"image_url"}"#,
            r#"{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,QUJD"}}]}]}"#,
            r#"{"tools":[{"image_url":"https://a.example/b.png"}]}"#,
            r#"{"messages":[{"content":[{"type":"document","source":{"type":"url","url":"https://a.example/b.pdf"}}]}]}"#,
            r#"{"messages":[{"content":[{"type":"image","source":{"type":"base64","data":"QUJD"}}]}]}"#,
            r#"{"messages":[{"content":"{\"image_url\":\"https://a.example/b.png\"}"}]}"#,
        ] {
            assert_eq!(urls(body), [], "{body}");
        }
    }

    #[test]
    fn only_the_urls_are_replaced() {
        let body = r#"{ "n": 1.10, "messages": [{"content":[{"image_url":{"url":"http://a/1"}}, {"image_url":"http://b/2"}], "x":"\ufffd"}]}"#;
        let json = Json::of_test(body.as_bytes().to_vec());
        let replaced = replace(&json, &find(&json), |url| if url == "http://a/1" { "one" } else { "two" });
        let expected = r#"{ "n": 1.10, "messages": [{"content":[{"image_url":{"url":"one"}}, {"image_url":"two"}], "x":"\ufffd"}]}"#;
        assert_eq!(replaced.bytes(), expected.as_bytes());
    }
}
