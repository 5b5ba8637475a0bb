//! The parts of a request in `multipart/form-data`, found by hand (RFC 7578): a field may stand in several, and as
//! `name[]`.

use super::message::Message;

/// The names of a form's fields, in order; none of what is no form.
pub(super) fn names(request: &Message) -> Vec<String> {
    let parts = parts(request).unwrap_or_default();
    parts.into_iter().filter_map(|part| name(&part)).collect()
}

/// Takes the parts of this name off.
pub(super) fn drop_part(request: &mut Message, dropped: &str) {
    let (Some(mark), Some(parts)) = (mark(request), parts(request)) else { return };
    let left = parts.iter().filter(|part| name(part).as_deref() != Some(dropped));
    let mut body: Vec<u8> = left.flat_map(|part| [mark.as_bytes(), part].concat()).collect();
    body.extend_from_slice(format!("{mark}--\r\n").as_bytes());
    if names(request).iter().any(|name| name == dropped) {
        request.body = body;
    }
}

/// What stands before each part.
fn mark(request: &Message) -> Option<String> {
    let kind = request.head.header("content-type")?;
    let boundary = kind.strip_prefix("multipart/form-data")?.split_once("boundary=")?.1;
    Some(format!("--{}", boundary.split(';').next().unwrap_or_default().trim_matches('"')))
}

/// Each part with its headers and the line breaks around it.
fn parts(request: &Message) -> Option<Vec<Vec<u8>>> {
    let mark = mark(request)?;
    let mut starts: Vec<usize> = Vec::new();
    let windows = request.body.windows(mark.len()).enumerate();
    starts.extend(windows.filter(|(_, window)| *window == mark.as_bytes()).map(|(at, _)| at));
    let part = |pair: &[usize]| request.body[pair[0] + mark.len()..pair[1]].to_vec();
    Some(starts.windows(2).map(part).collect())
}

/// The field that a part is of.
fn name(part: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(part);
    let name = text.split("\r\n\r\n").next()?.split_once("; name=\"")?.1.split('"').next()?;
    Some(name.strip_suffix("[]").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::message::Head, *};

    const FORM: &str = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n\
                        --b\r\nContent-Disposition: form-data; name=\"include[]\"\r\n\r\na\r\n\
                        --b\r\nContent-Disposition: form-data; name=\"include[]\"\r\n\r\nb\r\n--b--\r\n";

    fn form() -> Message {
        let headers = vec![("content-type".to_owned(), "multipart/form-data; boundary=b".to_owned())];
        Message { head: Head { first: String::new(), headers }, body: FORM.as_bytes().to_vec() }
    }

    #[test]
    fn all_parts_of_a_name_are_taken_off() {
        let mut request = form();
        assert_eq!(names(&request), ["model", "include", "include"]);
        drop_part(&mut request, "include");
        let left = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b--\r\n";
        assert_eq!(String::from_utf8(request.body).unwrap(), left);
    }

    #[test]
    fn what_is_not_there_changes_nothing() {
        let mut request = form();
        drop_part(&mut request, "file");
        assert_eq!(request, form());
        assert_eq!(names(&Message::default()), [""; 0]);
    }
}
