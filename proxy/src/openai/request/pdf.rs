//! The text of a PDF. Pure, and bounded: a small PDF can hold streams that inflate to gigabytes.

use std::collections::BTreeMap;

use lopdf::{Document, LoadOptions};

/// Maximum size of a PDF.
const MAX_BYTES: usize = 16 << 20;
/// Maximum number of pages. Anthropic's own is 600.
const MAX_PAGES: usize = 600;
/// Maximum size of what all of its compressed objects inflate to while it is read, and of what all of its pages inflate
/// to.
const MAX_INFLATED: usize = 32 << 20;
/// No limit for one stream is smaller: usual ones hold a few kilobytes.
const LEAST: usize = 8 << 10;

/// Returns the text of all pages, one after the other. `stop` is asked before each page.
///
/// # Errors
/// Fails if it has no text, exceeds a bound, or is stopped; says why.
pub(super) fn text(pdf: &[u8], stop: impl Fn() -> bool) -> Result<String, String> {
    if pdf.len() > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    // Reading inflates every object stream, each within a limit. Any stream may be one.
    let streams = memchr::memmem::find_iter(pdf, b"stream").count() / 2;
    let each = MAX_INFLATED / streams.max(1);
    if each < LEAST {
        return Err(format!("it has more than {} streams", MAX_INFLATED / LEAST));
    }
    let read = Document::load_mem_with_options(pdf, LoadOptions::with_max_decompressed_size(each));
    let document = read.map_err(|error| format!("it cannot be read: {error}"))?;
    if document.is_encrypted() {
        return Err("it is encrypted".to_owned());
    }
    let pages: BTreeMap<u32, _> = document.get_pages();
    if pages.len() > MAX_PAGES {
        return Err(format!("it has more than {MAX_PAGES} pages"));
    }
    let count = pages.len();
    let (mut texts, mut left) = (Vec::with_capacity(pages.len()), MAX_INFLATED);
    for (number, id) in pages {
        if stop() {
            return Err(format!("page {number} of {count} was not reached in time"));
        }
        let too_long = |error| format!("page {number} cannot be read: {error}");
        left -= document.get_page_content_with_limit(id, left).map_err(too_long)?.len();
        let text = document.extract_text_with_limit(&[number], MAX_INFLATED).map_err(too_long)?;
        texts.extend(Some(text.trim().to_owned()).filter(|text| !text.is_empty()));
    }
    match texts.len() {
        0 => Err("it has no text, only images".to_owned()),
        _ => Ok(texts.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use lopdf::{
        Object, Stream,
        content::{Content, Operation},
        dictionary,
    };

    use super::*;

    fn read(pdf: &[u8]) -> Result<String, String> {
        text(pdf, || false)
    }

    /// A PDF with a page for each of `pages`.
    fn pdf(pages: &[&[u8]], compressed: bool) -> Vec<u8> {
        let mut document = Document::with_version("1.5");
        let tree = document.new_object_id();
        let font = document.add_object(dictionary! { "Type" => "Font", "Subtype" => "Type1", "BaseFont" => "Courier" });
        let resources = document.add_object(dictionary! { "Font" => dictionary! { "F1" => font } });
        let kids: Vec<Object> = pages
            .iter()
            .map(|content| {
                let mut stream = Stream::new(dictionary! {}, content.to_vec());
                if compressed {
                    stream.compress().unwrap();
                }
                let content = document.add_object(stream);
                let page =
                    dictionary! { "Type" => "Page", "Parent" => tree, "Contents" => content, "Resources" => resources };
                document.add_object(page).into()
            })
            .collect();
        let count = i64::try_from(kids.len()).unwrap();
        document.objects.insert(tree, dictionary! { "Type" => "Pages", "Kids" => kids, "Count" => count }.into());
        let catalog = document.add_object(dictionary! { "Type" => "Catalog", "Pages" => tree });
        document.trailer.set("Root", catalog);
        let mut bytes = Vec::new();
        document.save_to(&mut bytes).unwrap();
        bytes
    }

    fn saying(text: &str) -> Vec<u8> {
        let operations = vec![
            Operation::new("BT", vec![]),
            Operation::new("Tf", vec!["F1".into(), 12.into()]),
            Operation::new("Td", vec![100.into(), 600.into()]),
            Operation::new("Tj", vec![Object::string_literal(text)]),
            Operation::new("ET", vec![]),
        ];
        Content { operations }.encode().unwrap()
    }

    #[test]
    fn the_text_of_all_pages_is_found() {
        for compressed in [false, true] {
            let pdf = pdf(&[&saying("The first."), &saying("The second.")], compressed);
            assert_eq!(read(&pdf).unwrap(), "The first.\nThe second.");
        }
    }

    #[test]
    fn a_pdf_without_text_says_so_and_none_makes_a_panic() {
        assert!(read(&pdf(&[b""], false)).unwrap_err().contains("no text"));
        let whole = pdf(&[&saying("Text.")], true);
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
        }
        for at in (0..whole.len()).step_by(3) {
            let mut broken = whole.clone();
            broken[at] ^= 0x15;
            let _ = read(&broken);
        }
        assert!(read(b"%PDF-1.7").is_err());
    }

    #[test]
    fn what_inflates_without_end_is_refused() {
        // Spaces deflate to a thousandth.
        let page = vec![b' '; MAX_INFLATED / 4];
        let bomb = pdf(&[&page, &page, &page, &page, &page], true);
        assert!(bomb.len() < 1 << 20, "{}", bomb.len());
        assert!(read(&bomb).is_err());
        assert!(read(&vec![b' '; MAX_BYTES + 1]).unwrap_err().contains("larger"));
        assert!(read(&b"stream ".repeat(2 * (MAX_INFLATED / LEAST + 1))).unwrap_err().contains("streams"));
    }

    #[test]
    fn reading_stops_before_a_page_when_it_is_to() {
        let pages = pdf(&[&saying("One."), &saying("Two."), &saying("Three.")], true);
        let asked = std::cell::Cell::new(0);
        let why = text(&pages, || asked.replace(asked.get() + 1) == 2).unwrap_err();
        assert_eq!(why, "page 3 of 3 was not reached in time");
    }
}
