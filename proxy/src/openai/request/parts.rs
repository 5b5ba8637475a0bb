//! The objects that the content of a body is made of, wherever an endpoint has them, and where each stands. Pure.

use std::ops::Range;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::json::{Fields, Json};

/// How deep an image or a file may lie below `messages` or `input`.
const DEPTH: usize = 6;

/// Calls `visit` with each object below the fields `names` of a body, with the object's fields, and with its path.
pub(super) fn visit<'a>(json: &'a Json, names: &[&str], mut visit: impl FnMut(&'a RawValue, &Fields<'a>, &str)) {
    let Ok(fields) = json.fields() else { return };
    for name in names {
        if let Some(raw) = fields.raw(name) {
            walk(raw, name, DEPTH, &mut visit);
        }
    }
}

fn walk<'a>(raw: &'a RawValue, path: &str, depth: usize, visit: &mut impl FnMut(&'a RawValue, &Fields<'a>, &str)) {
    let Some(depth) = depth.checked_sub(1) else { return };
    if raw.get().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
        for (n, item) in items.into_iter().enumerate() {
            walk(item, &format!("{path}[{n}]"), depth, visit);
        }
    } else if let Some(fields) = object(raw) {
        visit(raw, &fields, path);
        for (name, value) in fields.left() {
            if matches!(&*name, "content" | "output" | "item") {
                walk(value, &format!("{path}.{name}"), depth, visit);
            }
        }
    }
}

/// The fields of an object.
pub(super) fn object(raw: &RawValue) -> Option<Fields<'_>> {
    raw.get().starts_with('{').then(|| serde_json::from_str(raw.get()).ok())?
}

/// Where a part of `body` stands in it.
pub(super) fn place(raw: &RawValue, body: &Bytes) -> Option<Range<usize>> {
    // The raw text is a piece of the body.
    let start = (raw.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    Some(start..start + raw.get().len())
}

/// Whether a URL is one to fetch from.
pub(super) fn is_web(url: &str) -> bool {
    let has = |scheme: &str| url.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme));
    has("http://") || has("https://")
}
