//! Files that a request names or brings along: those with a `file_id` come from the store, those with a URL are fetched
//! if the settings say so, and PDFs become their text. All of it is put into the body before anything is translated;
//! every other byte stays the same.

use std::{
    borrow::Cow,
    ops::Range,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use memchr::memmem::{self, Finder};
use serde_json::{Map, Value, value::RawValue};
use tokio::sync::Semaphore;

use super::{
    content, document,
    image_urls::{blame, splice},
    json::{Fields, Json, Text},
    parts,
};
use crate::{
    app::App,
    error::Error,
    fetch::{self, Refused},
    observe::Recorder,
    offload,
    openai::files::stored,
    receipt::Receipt,
};

/// Maximum number of files of one request that are looked up, fetched or read.
const MOST: usize = 64;

/// Maximum time to read the PDFs of one request, in which they also wait for those of others.
const READING: Duration = Duration::from_secs(20);

/// PDFs that are read at the same time. One for the process, as the cores are; apart from other work, which no PDF may
/// hold up.
static READERS: Semaphore = Semaphore::const_new(1);

/// Where a file stands in a body.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// An `input_image` of a response.
    Image,
    /// An `input_file` of a response, or the `file` of a chat's part.
    File,
    /// The `source` of a document in Anthropic's API.
    Source,
}

/// Where a file is.
#[derive(Clone, Debug, PartialEq)]
enum From {
    /// In the store, under this id.
    Id(String),
    Url(String),
    /// In the body: base64, or a data URL.
    Data(String),
}

/// A file in a body.
#[derive(Clone, Debug, PartialEq)]
struct Found {
    /// Where the JSON text of its object stands.
    range: Range<usize>,
    /// The field that says where it is, such as `input[0].content[1].file_id`.
    path: String,
    place: Place,
    from: From,
    name: Option<String>,
}

/// Puts the files of a body in their places.
///
/// # Errors
/// Fails on a file that does not exist, cannot be fetched or cannot be read, or if they make the body too large.
pub(crate) async fn inline(app: &App, recorder: &Recorder, json: Json) -> Result<Json, Error> {
    if !may_have(json.bytes()) {
        return Ok(json);
    }
    Box::pin(inline_found(app, recorder, json)).await
}

async fn inline_found(app: &App, recorder: &Recorder, json: Json) -> Result<Json, Error> {
    let body = json.clone();
    let mut found = offload::run(json.bytes().len(), move || find(&body)).await;
    if !app.fetcher.images.fetch {
        // Translating refuses them.
        found.retain(|file| !matches!(file.from, From::Url(_)));
    }
    if found.is_empty() {
        return Ok(json);
    }
    if let Some(beyond) = found.get(MOST) {
        let message = format!("A request can have at most {MOST} files with a 'file_id' or a URL, and PDFs.");
        return Err(Error::Invalid { message, param: Some(beyond.path.clone()), code: Some("too_many_files") });
    }
    let (mut receipt, mut lease) = (Receipt::default(), app.buffered.lease());
    let (mut size, limit) = (json.bytes().len(), app.config.limits.body);
    let budget = app.fetcher.budget();
    let end = tokio::time::Instant::now() + READING;
    let mut replacements = Vec::with_capacity(found.len());
    for file in found {
        let (name, bytes) = match &file.from {
            From::Id(id) => {
                let stored = stored::get(app, app.owner, id).await?;
                let (object, content) = stored.ok_or_else(|| stored::missing(id, &file.path))?;
                (Some(object.filename), content)
            }
            From::Url(url) => {
                let within = app.fetcher.images.timeout;
                let fetching = tokio::time::timeout(within, app.fetcher.document(url, &budget)).await;
                let fetched = fetching.unwrap_or(Err(Refused::TimedOut(within)));
                receipt.note("file_url", "fetched");
                (name_in(url), fetched.map_err(|why| blame(&file.path, url, &why))?)
            }
            From::Data(data) => (None, content::decoded(data, &file.path)?.into()),
        };
        let (name, length) = (file.name.clone().or(name), bytes.len());
        let replacement = match file.place {
            Place::Image => image(&name.unwrap_or_default(), &bytes, &file.path)?,
            place => {
                let text = if document::is_pdf(&bytes) {
                    receipt.note("file", "text-of-pdf");
                    pdf(bytes, &file.path, end).await?
                } else {
                    let reading = move || document::text(&bytes, || false).map(Cow::into_owned);
                    let text = offload::run(length, reading).await;
                    text.map_err(|why| Error::unsupported(&*file.path, why))?
                };
                given(place, name, text.into())
            }
        };
        size = size.saturating_add(replacement.iter().map(|(_, text)| text.len() * 4 / 3).sum());
        if size > limit {
            return Err(Error::TooLarge { limit });
        }
        lease.add(replacement.iter().map(|(_, text)| text.len()).sum());
        replacements.push((file.range, replacement));
    }
    let inlined = offload::run(size, move || {
        let parts = replacements.into_iter().map(|(range, fields)| {
            let object = replaced(&json.bytes()[range.clone()], fields);
            (range, object)
        });
        splice(&json, parts)
    });
    let inlined = inlined.await;
    drop(lease);
    let mut lease = app.buffered.lease();
    lease.add(inlined.bytes().len());
    recorder.receipt(receipt);
    Ok(inlined.held(lease))
}

/// The body with a stand-in for each file that would be looked up or fetched, and how they are named: for those who
/// only want to see what it becomes. PDFs are read when the body is translated.
pub(crate) fn stand_in(json: &Json, fetches: bool) -> (Json, Vec<String>) {
    if !may_have(json.bytes()) {
        return (json.clone(), Vec::new());
    }
    let mut named = Vec::new();
    let parts: Vec<_> = find(json)
        .into_iter()
        .filter_map(|file| {
            let name = match file.from {
                From::Id(id) => id,
                From::Url(url) if fetches => url,
                From::Url(_) | From::Data(_) => return None,
            };
            let fields = match file.place {
                Place::Image => vec![("image_url", Bytes::from_static(b"data:image/png;base64,RkVUQ0hFRA=="))],
                place => {
                    given(place, file.name.or_else(|| Some(name.clone())), b"(the content of the file)"[..].into())
                }
            };
            let object = replaced(&json.bytes()[file.range.clone()], fields);
            named.push(name);
            Some((file.range, object))
        })
        .collect();
    (splice(json, parts.into_iter()), named)
}

/// Fields that go into the object of a file.
type Given = Vec<(&'static str, Bytes)>;

/// A document as text or other bytes, in the fields of its place.
fn given(place: Place, name: Option<String>, bytes: Bytes) -> Given {
    match place {
        Place::Source => vec![("type", Bytes::from_static(b"text")), ("data", bytes)],
        _ => {
            let name = name.map(|name| ("filename", Bytes::from(name)));
            name.into_iter().chain([("file_data", bytes)]).collect()
        }
    }
}

fn image(name: &str, bytes: &Bytes, path: &str) -> Result<Given, Error> {
    let Some(kind) = fetch::kind(bytes) else {
        return Err(Error::unsupported(path, format!("The file '{name}' is not a PNG, JPEG, WebP or GIF image.")));
    };
    let mut url = format!("data:{kind};base64,");
    STANDARD.encode_string(bytes, &mut url);
    Ok(vec![("image_url", url.into())])
}

/// The text of a PDF, read on another thread, which stops at the next page when the time is over or the request is
/// gone.
async fn pdf(bytes: Bytes, path: &str, end: tokio::time::Instant) -> Result<String, Error> {
    /// Stops reading when it is dropped.
    struct Stop(Arc<AtomicBool>);
    impl Drop for Stop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = Stop(Arc::default());
    let stopped = stop.0.clone();
    let reading = offload::apart(&READERS, move || {
        document::text(&bytes, || stopped.load(Ordering::Relaxed)).map(Cow::into_owned)
    });
    let read = tokio::time::timeout_at(end, reading).await;
    let late = || format!("reading it takes longer than {} s", READING.as_secs());
    let text = read.unwrap_or_else(|_| Err(document::unreadable_pdf(&late())));
    text.map_err(|why| Error::unsupported(path, why))
}

/// The last part of a URL's path.
fn name_in(url: &str) -> Option<String> {
    let path = url.split(['?', '#']).next()?.split_once("://")?.1;
    let (_, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The object `old` with other fields in the place of those that say where its file is.
fn replaced(old: &[u8], fields: Given) -> Vec<u8> {
    let mut object: Map<String, Value> = serde_json::from_slice(old).unwrap_or_default();
    for name in ["file_id", "file_url", "file_data", "url", "data", "media_type"] {
        object.remove(name);
    }
    for (name, value) in fields {
        let value = match name {
            "file_data" => format!("data:text/plain;base64,{}", STANDARD.encode(&value)),
            _ => String::from_utf8_lossy(&value).into_owned(),
        };
        object.insert(name.to_owned(), value.into());
    }
    serde_json::to_vec(&object).unwrap_or_default()
}

/// Whether a body may have files. Most have none, and are not read twice. A name may hide behind escaped letters.
fn may_have(body: &Bytes) -> bool {
    // Made once: every request is searched.
    static NAMES: LazyLock<[Finder<'static>; 3]> =
        LazyLock::new(|| [Finder::new(b"\"file_"), Finder::new(b"\"document\""), Finder::new(b"\\u00")]);
    const LETTERS: [&[u8]; 4] = [b"\\u005f", b"\\u005F", b"\\u006", b"\\u007"];
    let [file, document, escaped] = &*NAMES;
    let has = |name: &Finder<'_>| name.find(body).is_some();
    has(file) || has(document) || has(escaped) && LETTERS.iter().any(|letter| memmem::find(body, letter).is_some())
}

/// The files in the messages, the input or the items of a body that are somewhere else, or are PDFs.
fn find(json: &Json) -> Vec<Found> {
    let (mut found, body) = (Vec::new(), json.bytes());
    parts::visit(json, &["messages", "input", "items"], |raw, fields, path| {
        let inner = |name: &str, place| {
            let raw = fields.raw(name)?;
            of(raw, &format!("{path}.{name}"), place, &parts::object(raw)?, body)
        };
        found.extend(match &*text(fields, "type").unwrap_or_default() {
            "input_image" if fields.raw("image_url").is_none() => of(raw, path, Place::Image, fields, body),
            "input_file" => of(raw, path, Place::File, fields, body),
            "file" => inner("file", Place::File),
            "document" => inner("source", Place::Source),
            _ => None,
        });
    });
    found.sort_by_key(|file| file.range.start);
    found
}

fn text(fields: &Fields<'_>, name: &str) -> Option<String> {
    let text: Text<'_> = serde_json::from_str(fields.raw(name)?.get()).ok()?;
    Some(text.0.into_owned())
}

/// The file that the object `raw` stands for, if it is somewhere else or a PDF.
fn of(raw: &RawValue, path: &str, place: Place, fields: &Fields<'_>, body: &Bytes) -> Option<Found> {
    let range = parts::place(raw, body)?;
    let name = text(fields, "filename").filter(|name| !name.is_empty());
    let found = |field: &str, from| Found { range: range.clone(), path: format!("{path}.{field}"), place, from, name };
    let web = |url: &String| parts::is_web(url);
    if place == Place::Source {
        return match &*text(fields, "type")? {
            "url" => text(fields, "url").filter(web).map(|url| found("url", From::Url(url))),
            "base64" => text(fields, "data").filter(|data| pdf_in(data)).map(|data| found("data", From::Data(data))),
            _ => None,
        };
    }
    if let Some(data) = text(fields, "file_data") {
        return pdf_in(&data).then(|| found("file_data", From::Data(data)));
    }
    if let Some(id) = text(fields, "file_id") {
        return Some(found("file_id", From::Id(id)));
    }
    text(fields, "file_url").filter(web).map(|url| found("file_url", From::Url(url)))
}

/// Whether base64, or a data URL, is a PDF.
fn pdf_in(data: &str) -> bool {
    let payload = data.find(',').map_or(data, |comma| &data[comma + 1..]);
    payload.chars().filter(|c| !c.is_ascii_whitespace()).take(5).eq("JVBER".chars())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn files(body: &Value) -> Vec<(String, From)> {
        find(&Json::of_test(body.to_string().into_bytes())).into_iter().map(|file| (file.path, file.from)).collect()
    }

    #[test]
    fn files_are_found_wherever_an_endpoint_has_them() {
        let id = |path: &str| vec![(path.to_owned(), From::Id("file-1".to_owned()))];
        for (body, found) in [
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}),
                id("input[0].content[0].file_id"),
            ),
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1", "detail": "auto"}]}]}),
                id("input[0].content[0].file_id"),
            ),
            (
                json!({"input": [{"type": "function_call_output", "output": [{"type": "input_file", "file_id": "file-1"}]}]}),
                id("input[0].output[0].file_id"),
            ),
            (
                json!({"messages": [{"content": [{"type": "text", "text": ""}, {"type": "file", "file": {"file_id": "file-1"}}]}]}),
                id("messages[0].content[1].file.file_id"),
            ),
            (
                json!({"messages": [{"content": [{"type": "document", "source": {"type": "url", "url": "https://a.example/b.pdf"}}]}]}),
                vec![("messages[0].content[0].source.url".to_owned(), From::Url("https://a.example/b.pdf".to_owned()))],
            ),
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0="}]}]}),
                vec![(
                    "input[0].content[0].file_data".to_owned(),
                    From::Data("data:application/pdf;base64,JVBERi0=".to_owned()),
                )],
            ),
            // Given whole, or with a scheme that is not fetched: translating deals with these.
            (
                json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "aGkh"}]}]}),
                Vec::new(),
            ),
            (json!({"input": [{"content": [{"type": "input_file", "file_url": "file:///etc/passwd"}]}]}), Vec::new()),
            (json!({"input": [{"type": "function_call", "arguments": "{\"file_id\":\"file-1\"}"}]}), Vec::new()),
            (json!({"input": "\"file_id\""}), Vec::new()),
        ] {
            assert_eq!(files(&body), found, "{body}");
            assert!(found.is_empty() || may_have(&body.to_string().into()), "{body}");
        }
        let hidden = r#"{"input":[{"type":"input_file","f\u0069le_data":"JVBE\nRi0="}]}"#;
        assert!(may_have(&hidden.into()) && find(&Json::of_test(hidden.into())).len() == 1);
        assert!(!may_have(&r#"{"input":"\u001b[1m \u003c \u00e9"}"#.into()));
    }

    #[test]
    fn an_object_has_its_file_and_all_other_fields() {
        let old = br#"{"type":"input_file","file_id":"file-1","detail":"low"}"#;
        let new = replaced(old, given(Place::File, Some("a.txt".to_owned()), "hi!".into()));
        let new: Value = serde_json::from_slice(&new).unwrap();
        let expected = json!({"type": "input_file", "detail": "low", "filename": "a.txt", "file_data": "data:text/plain;base64,aGkh"});
        assert_eq!(new, expected);
        let old = br#"{"type":"base64","media_type":"application/pdf","data":"JVBERi0="}"#;
        let new: Value = serde_json::from_slice(&replaced(old, given(Place::Source, None, "hi!".into()))).unwrap();
        assert_eq!(new, json!({"type": "text", "data": "hi!"}));
        assert_eq!(name_in("https://a.example/b/c.pdf?x=1/2").as_deref(), Some("c.pdf"));
        assert_eq!((name_in("https://a.example"), name_in("https://a.example/")), (None, None));
    }

    #[tokio::test]
    async fn reading_a_pdf_ends_in_time() {
        let held = READERS.acquire().await.unwrap();
        let end = tokio::time::Instant::now() + Duration::from_millis(20);
        let late = pdf(Bytes::from_static(b"%PDF-1.4"), "input[0]", end).await.unwrap_err();
        assert!(late.to_string().contains("longer than"), "{late}");
        drop(held);
        let end = tokio::time::Instant::now() + READING;
        let broken = pdf(Bytes::from_static(b"%PDF-1.4"), "input[0]", end).await.unwrap_err();
        assert!(broken.to_string().contains("cannot be read"), "{broken}");
    }
}
