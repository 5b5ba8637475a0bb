//! What endpoints share to read a request: its body, the table of parameters, options, content parts, images by URL.

pub(crate) mod content;
pub(crate) mod encoding;
pub(crate) mod image_urls;
pub(crate) mod json;
pub(crate) mod metadata;
pub(crate) mod options;
pub(crate) mod parameters;
pub(crate) mod surrogates;
