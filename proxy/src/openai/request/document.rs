//! Documents that a request brings along, and the text in them. Pure.

use std::borrow::Cow;

use super::pdf;

/// What a PDF begins with.
const PDF: &[u8] = b"%PDF";

/// What a ZIP archive begins with, which may be valid UTF-8.
const ZIP: &[u8] = b"PK\x03\x04";

/// Whether these bytes are a PDF.
pub(crate) fn is_pdf(bytes: &[u8]) -> bool {
    bytes.starts_with(PDF)
}

/// Returns the text of a document: that of a PDF, or a text in UTF-8, or in UTF-16 with a byte order mark. `stop` is
/// asked between pages.
///
/// # Errors
/// Fails if it has no text; says why, and what to send instead.
pub(crate) fn text(bytes: &[u8], stop: impl Fn() -> bool) -> Result<Cow<'_, str>, String> {
    if is_pdf(bytes) {
        return match pdf::text(bytes, stop) {
            Ok(text) => Ok(Cow::Owned(text)),
            Err(why) => Err(unreadable_pdf(&why)),
        };
    }
    let plain = match bytes {
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes).map(Cow::Owned),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes).map(Cow::Owned),
        [0xEF, 0xBB, 0xBF, rest @ ..] => std::str::from_utf8(rest).ok().map(Cow::Borrowed),
        all => std::str::from_utf8(all).ok().map(Cow::Borrowed),
    };
    plain.filter(|text| !text.contains('\0') && !bytes.starts_with(ZIP)).ok_or_else(|| {
        format!("Only files with text (UTF-8) and PDFs can be given to Ollama, but this is {}.", what(bytes))
    })
}

/// The error for a PDF that cannot be read because of `why`.
pub(crate) fn unreadable_pdf(why: &str) -> String {
    format!("The PDF cannot be given to Ollama as text: {why}. Send its text, or its pages as images.")
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
    String::from_utf16(&units).ok()
}

/// What a file without text is, and what to send instead.
fn what(bytes: &[u8]) -> &'static str {
    const KINDS: [(&[u8], &str); 7] = [
        (ZIP, "a ZIP archive, such as a Word, Excel or PowerPoint file; send its text, or save it as a PDF"),
        (b"\xD0\xCF\x11\xE0", "an old Word, Excel or PowerPoint file; send its text, or save it as a PDF"),
        (b"\x89PNG", "an image; send it as an image"),
        (b"\xFF\xD8\xFF", "an image; send it as an image"),
        (b"GIF8", "an image; send it as an image"),
        (b"RIFF", "an image or a recording; send it as such"),
        (b"\x1F\x8B", "compressed with gzip; send it uncompressed"),
    ];
    let kind = KINDS.iter().find(|(begin, _)| bytes.starts_with(begin));
    kind.map_or("neither; send its text, as UTF-8", |(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Cow<'_, str>, String> {
        text(bytes, || false)
    }

    #[test]
    fn texts_are_read_in_the_encodings_that_say_what_they_are() {
        assert_eq!(read("é,1\n".as_bytes()).unwrap(), "é,1\n");
        assert_eq!(read(b"\xEF\xBB\xBF{}").unwrap(), "{}");
        assert_eq!(read(b"\xFF\xFEh\0i\0").unwrap(), "hi");
        assert_eq!(read(b"\xFE\xFF\0h\0i").unwrap(), "hi");
    }

    #[test]
    fn a_file_without_text_is_refused_and_named() {
        for (bytes, what) in [
            (&b"PK\x03\x04docx"[..], "Word"),
            (b"\xD0\xCF\x11\xE0", "old Word"),
            (b"\x89PNG\r\n", "an image"),
            (b"\x1F\x8B\x08", "gzip"),
            (b"caf\xE9", "neither"),
            (b"a\0b", "neither"),
            (b"\xFF\xFEh", "neither"),
            (b"%PDF-1.4", "The PDF"),
        ] {
            let why = read(bytes).unwrap_err();
            assert!(why.contains(what), "{why}");
        }
    }
}
