//! A message's content: a string, or parts of text, images and sound; gathered into the one string and the list of
//! images that Ollama takes. Pure.

use std::{borrow::Cow, fmt, marker::PhantomData};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use crate::{
    error::Error,
    ollama,
    openai::request::{
        document,
        json::{Text, read},
    },
};

/// A string or a list of parts, which are OpenAI's unless another API names its own.
#[derive(Debug)]
pub(crate) enum Content<'a, P = Part<'a>> {
    Text(Text<'a>),
    Parts(Vec<P>),
}

/// One part; which fields are filled depends on `kind`.
#[derive(Debug, Deserialize)]
pub(crate) struct Part<'a> {
    #[serde(borrow, rename = "type")]
    pub(crate) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(crate) text: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) refusal: Option<Text<'a>>,
    /// `{"url", "detail"}`, or the bare URL, as some clients send it.
    #[serde(borrow, default)]
    pub(crate) image_url: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(crate) input_audio: Option<InputAudio<'a>>,
    #[serde(borrow, default)]
    pub(crate) file: Option<File<'a>>,
    // Of an `input_image` or an `input_file`, which have no object within.
    #[serde(borrow, default)]
    pub(crate) file_data: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) file_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) filename: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) file_url: Option<Text<'a>>,
    // Of an image: Ollama has one way to look at it. Of an answer that comes back: nothing that the model can use.
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) detail: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) annotations: Option<&'a RawValue>,
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) logprobs: Option<&'a RawValue>,
}

/// A file inside the request, or the id of one that was uploaded.
#[derive(Debug, Deserialize)]
pub(crate) struct File<'a> {
    #[serde(borrow, default)]
    pub(crate) file_data: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) file_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(crate) filename: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct InputAudio<'a> {
    #[serde(borrow)]
    pub(crate) data: Text<'a>,
    /// Ollama finds the format out by itself.
    #[serde(borrow, default)]
    #[expect(dead_code, reason = "known, so that it does not count as ignored")]
    pub(crate) format: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct ImageUrl<'a> {
    #[serde(borrow)]
    url: Text<'a>,
}

impl<'de: 'a, 'a, P: Deserialize<'de>> Deserialize<'de> for Content<'a, P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<P>(PhantomData<P>);
        impl<'de, P: Deserialize<'de>> de::Visitor<'de> for Visitor<P> {
            type Value = Content<'de, P>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content parts")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Borrowed(text))))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Owned(text.to_owned()))))
            }

            fn visit_borrowed_bytes<E: de::Error>(self, text: &'de [u8]) -> Result<Self::Value, E> {
                Text::deserialize(de::value::BorrowedBytesDeserializer::new(text)).map(Content::Text)
            }

            fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<Self::Value, E> {
                Text::from_wtf8(text).map(Content::Text)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::with_capacity(seq.size_hint().unwrap_or(2));
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        // Asked for bytes, serde_json gives strings (lone surrogates included) and lists alike.
        deserializer.deserialize_bytes(Visitor(PhantomData))
    }
}

/// What Ollama takes of a content.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Gathered<'a> {
    pub(crate) text: Cow<'a, str>,
    /// Bare base64; sound goes this way too.
    pub(crate) images: Vec<Cow<'a, str>>,
}

/// Gathers a content that stands at `at`, such as `messages[2].content`. Texts are joined with a newline: they are
/// parts, not pieces.
///
/// # Errors
/// A part that Ollama cannot be given.
pub(crate) fn gather<'a>(content: Option<Content<'a>>, at: impl Fn() -> String) -> Result<Gathered<'a>, Error> {
    let parts = match content {
        None => return Ok(Gathered::default()),
        Some(Content::Text(text)) => return Ok(Gathered { text: text.0, images: Vec::new() }),
        Some(Content::Parts(parts)) => parts,
    };
    let at = at();
    let mut texts: Vec<Cow<'a, str>> = Vec::with_capacity(parts.len());
    let mut images = Vec::new();
    for (n, part) in parts.into_iter().enumerate() {
        let missing = |field: &str| Error::missing(format!("{at}[{n}].{field}"));
        match &*part.kind {
            "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text" => {
                texts.push(part.text.ok_or_else(|| missing("text"))?.0);
            }
            "refusal" => texts.push(part.refusal.ok_or_else(|| missing("refusal"))?.0),
            "input_image" if part.image_url.is_none() && part.file_id.is_some() => {
                return Err(Error::unsupported(
                    format!("{at}[{n}].file_id"),
                    "The file was not looked up; send the image itself, as a data URL in 'image_url'.",
                ));
            }
            "image_url" | "input_image" => {
                let raw = part.image_url.ok_or_else(|| missing("image_url"))?;
                let path = format!("{at}[{n}].image_url");
                let url =
                    if raw.get().starts_with('"') { read(&path, raw)? } else { read::<ImageUrl<'a>>(&path, raw)?.url };
                images.push(image(url.0, &path)?);
            }
            "input_audio" => {
                let path = format!("{at}[{n}].input_audio.data");
                images.push(bare_base64(part.input_audio.ok_or_else(|| missing("input_audio"))?.data.0, &path)?);
            }
            "file" => {
                texts.push(Cow::Owned(file(part.file.ok_or_else(|| missing("file"))?, &format!("{at}[{n}].file"))?));
            }
            "input_file" if part.file_url.is_some() => {
                return Err(Error::unsupported(
                    format!("{at}[{n}].file_url"),
                    "Files are not fetched unless the setting images.fetch says so; send the file itself, as base64 in 'file_data'.",
                ));
            }
            "input_file" => {
                let given = File { file_data: part.file_data, file_id: part.file_id, filename: part.filename };
                texts.push(Cow::Owned(file(given, &format!("{at}[{n}]"))?));
            }
            other => {
                return Err(Error::unsupported(
                    format!("{at}[{n}].type"),
                    format!(
                        "Content of type '{other}' cannot be given to Ollama; supported are 'text', 'refusal', 'image_url', 'input_audio' and 'file'."
                    ),
                ));
            }
        }
    }
    let text = if texts.len() == 1 { texts.swap_remove(0) } else { Cow::Owned(texts.join("\n")) };
    Ok(Gathered { text, images })
}

/// The base64 of an image that is given as a `data:` URL.
///
/// # Errors
/// Fails if it is not one, or holds what no model can look at.
pub(crate) fn image<'a>(url: Cow<'a, str>, at: &str) -> Result<Cow<'a, str>, Error> {
    match not_an_image(&url) {
        Some(what) => Err(no_image(&what, at)),
        None => data_url(url, at),
    }
}

/// The base64 of an image of the type `media_type`.
///
/// # Errors
/// Fails if it is not base64, or holds what no model can look at.
pub(crate) fn image_of_type<'a>(media_type: &str, data: Cow<'a, str>, at: &str) -> Result<Cow<'a, str>, Error> {
    match unfit(media_type, &data) {
        Some(what) => Err(no_image(&what, at)),
        None => bare_base64(data, at),
    }
}

fn no_image(what: &str, at: &str) -> Error {
    Error::unsupported(
        at,
        format!(
            "Ollama's models accept images as PNG, JPEG or WebP, but this is {what}; convert it, or send its text."
        ),
    )
}

/// Sound as a text: base64, or a `data:` URL with it.
///
/// # Errors
/// It is neither.
pub(crate) fn sound<'a>(text: Cow<'a, str>, at: &str) -> Result<Cow<'a, str>, Error> {
    if text.starts_with("data:") { data_url(text, at) } else { bare_base64(text, at) }
}

/// A file's text, under its name. Ollama has no place for files, but a text is a text.
fn file(file: File<'_>, at: &str) -> Result<String, Error> {
    let Some(data) = file.file_data else {
        let field = if file.file_id.is_some() { "file_id" } else { "file_data" };
        return Err(Error::unsupported(
            format!("{at}.{field}"),
            "The file is not in the request; send the file itself, as base64 in 'file_data', or the 'file_id' of an upload.",
        ));
    };
    let at = format!("{at}.file_data");
    let text = text_of_file(&data.0, &at)?;
    Ok(match file.filename {
        Some(name) => format!("{}:\n{text}", &*name),
        None => text,
    })
}

/// The text of a file that is given as base64, or as a data URL.
///
/// # Errors
/// Fails if it has no text.
pub(crate) fn text_of_file(data: &str, at: &str) -> Result<String, Error> {
    let bytes = decoded(data, at)?;
    // PDFs of requests are read before, within a time.
    let text = document::text(&bytes, || false).map_err(|why| Error::unsupported(at, why))?;
    Ok(text.into_owned())
}

/// The bytes of a file that is given as base64, or as a data URL.
///
/// # Errors
/// Fails if it is neither.
pub(crate) fn decoded(data: &str, at: &str) -> Result<Vec<u8>, Error> {
    let is_url = data.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    let encoded = if is_url { data_url(data.into(), at)? } else { bare_base64(data.into(), at)? };
    ollama::BASE64.decode(&*encoded).map_err(|error| Error::invalid(at, format!("The data is not base64: {error}.")))
}

/// What a data URL holds, by its media type or its first bytes, where no model can look at it. Ollama fails on such
/// data late and vaguely.
fn not_an_image(url: &str) -> Option<String> {
    let rest = url.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")).and(url.get(5..))?;
    let (head, payload) = rest.split_once(',')?;
    unfit(head.split(';').next().unwrap_or_default(), payload)
}

/// What data of the type `media_type` is, where no model can look at it.
fn unfit(media_type: &str, payload: &str) -> Option<String> {
    // %PDF-, <svg and <?xml, in base64.
    const BEGINNINGS: [(&str, &str); 3] =
        [("JVBERi", "a PDF document"), ("PHN2Z", "an SVG drawing"), ("PD94bWwg", "an XML document")];
    let kind = media_type.trim().to_ascii_lowercase();
    match &*kind {
        "application/pdf" => Some("a PDF document".to_owned()),
        "image/svg+xml" => Some("an SVG drawing".to_owned()),
        // Some clients name no type, or not the right one. Sound goes the same way as images.
        "" | "application/octet-stream" | "binary/octet-stream" => None,
        kind if ["image/", "audio/", "video/"].iter().any(|family| kind.starts_with(family)) => None,
        kind => Some(format!("'{kind}'")),
    }
    .or_else(|| BEGINNINGS.iter().find(|(begin, _)| payload.starts_with(begin)).map(|(_, what)| (*what).to_owned()))
}

/// The base64 inside a `data:` URL.
fn data_url<'a>(url: Cow<'a, str>, at: &str) -> Result<Cow<'a, str>, Error> {
    let is = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if is("http:") || is("https:") {
        return Err(Error::unsupported(
            at,
            "Image URLs are not fetched unless the setting images.fetch says so; send the image itself, as a data URL (data:image/png;base64,…).",
        ));
    }
    let invalid = || {
        let begin: String = url.chars().take(40).collect();
        Error::invalid(at, format!("Expected a base64 data URL (data:image/png;base64,…), but got '{begin}'."))
    };
    if !is("data:") {
        return Err(invalid());
    }
    let comma = url.find(',').ok_or_else(invalid)?;
    let based = url[..comma].rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64"));
    if !based {
        return Err(invalid());
    }
    let payload = match url {
        Cow::Borrowed(url) => Cow::Borrowed(&url[comma + 1..]),
        Cow::Owned(url) => Cow::Owned(url[comma + 1..].to_owned()),
    };
    bare_base64(payload, at)
}

/// Base64 as Ollama takes it: the standard alphabet, padded. What differs only in form is put right.
pub(crate) fn bare_base64<'a>(text: Cow<'a, str>, at: &str) -> Result<Cow<'a, str>, Error> {
    let bytes = text.as_bytes();
    let body = bytes.strip_suffix(b"==").or_else(|| bytes.strip_suffix(b"=")).unwrap_or(bytes);
    let plain = body.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
    if plain && bytes.len().is_multiple_of(4) && !bytes.is_empty() {
        return Ok(text);
    }
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let tidy: String = text
        .replace("%2B", "+")
        .replace("%2F", "/")
        .replace("%3D", "=")
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    match GeneralPurpose::new(&alphabet::STANDARD, lenient).decode(&tidy) {
        Ok(data) if !data.is_empty() => Ok(Cow::Owned(STANDARD.encode(data))),
        Ok(_) => Err(Error::invalid(at, "The data is empty.")),
        Err(error) => Err(Error::invalid(at, format!("The data is not base64: {error}."))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(json: &str) -> Result<Gathered<'_>, Error> {
        gather(serde_json::from_str(json).unwrap(), || "messages[0].content".to_owned())
    }

    #[test]
    fn parts_become_one_text_and_bare_images() {
        let json = r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,QUJD"}},
            {"type":"text","text":"b"},{"type":"image_url","image_url":"DATA:;charset=x;base64,QUI"},
            {"type":"input_audio","input_audio":{"data":"QQ==","format":"wav"}}]"#;
        let expected = Gathered { text: "a\nb".into(), images: vec!["QUJD".into(), "QUI=".into(), "QQ==".into()] };
        assert_eq!(gathered(json).unwrap(), expected);
    }

    #[test]
    fn what_cannot_be_given_to_ollama_is_refused_with_its_path() {
        let refused = |json: &str| gathered(json).unwrap_err().param().unwrap().to_owned();
        assert_eq!(refused(r#"[{"type":"text"}]"#), "messages[0].content[0].text");
        assert_eq!(refused(r#"[{"type":"video_url"}]"#), "messages[0].content[0].type");
        assert_eq!(
            refused(
                r#"[{"type":"text","text":""},{"type":"image_url","image_url":{"url":"https://x.example/a.png"}}]"#
            ),
            "messages[0].content[1].image_url"
        );
        for url in ["data:image/png,abc", "data:image/png;base64,", "data:image/png;base64,@@@@", "abc", "déjà"] {
            let json = format!(r#"[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]"#);
            assert_eq!(refused(&json), "messages[0].content[0].image_url", "{url}");
        }
    }

    #[test]
    fn what_no_model_can_look_at_is_refused_as_an_image() {
        for url in [
            "data:application/pdf;base64,QUJD",
            "data:image/svg+xml;base64,QUJD",
            "DATA:image/svg+xml;charset=utf-8;base64,QUJD",
            "data:text/plain;base64,QUJD",
            "data:image/png;base64,JVBERi0xLjQ=",
            "data:;base64,PHN2Zz4=",
        ] {
            let json = format!(r#"[{{"type":"image_url","image_url":{{"url":"{url}"}}}}]"#);
            let error = gathered(&json).unwrap_err();
            assert_eq!(error.param(), Some("messages[0].content[0].image_url"), "{url}");
            assert!(error.to_string().contains("PNG, JPEG or WebP"), "{error}");
        }
        let webp = r#"[{"type":"image_url","image_url":"data:image/webp;base64,UklGRg=="}]"#;
        assert_eq!(gathered(webp).unwrap().images, ["UklGRg=="]);
    }

    #[test]
    fn a_file_with_text_is_its_text_and_other_files_are_refused() {
        let part = |data: &str| format!(r#"[{{"type":"file","file":{{"filename":"a.txt","file_data":"{data}"}}}}]"#);
        for data in ["data:text/plain;base64,aGkh", "aGkh"] {
            assert_eq!(gathered(&part(data)).unwrap().text, "a.txt:\nhi!");
        }
        // The unused bits of the last character are not zero.
        assert_eq!(gathered(&part("aGkhYR==")).unwrap().text, "a.txt:\nhi!a");
        let refused = |json: &str| gathered(json).unwrap_err().param().unwrap().to_owned();
        // %PDF-1.4, and bytes that are no text
        assert_eq!(refused(&part("JVBERi0xLjQ=")), "messages[0].content[0].file.file_data");
        assert_eq!(refused(&part("/9j/4A==")), "messages[0].content[0].file.file_data");
        assert_eq!(refused(r#"[{"type":"file","file":{"file_id":"file-1"}}]"#), "messages[0].content[0].file.file_id");
    }

    #[test]
    fn a_string_with_a_lone_surrogate_is_a_text() {
        assert_eq!(gathered(r#""a\ud83d""#).unwrap().text, "a\u{fffd}");
    }
}
