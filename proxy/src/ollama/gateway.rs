//! What a response means that is not Ollama's: a gateway in front of it, or something else at that address. Pure.
//!
//! What a gateway says keeps its meaning: a client must not retry what will not pass (401, 403, 413), must wait as long
//! as it says (429), and the operator of the gateway must learn which hop gave up and which limit to raise (502 to 504,
//! 520 to 527).

use http::{HeaderMap, StatusCode, header};

use crate::{
    error::Error,
    ollama::refusal::{Refusal, Refused},
    redact::Redactor,
};

/// How much of a body is read.
const READ: usize = 4096;

/// Returns the error that a response stands for whose body is not Ollama's; `asked` names the URL for the reader.
pub(crate) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], asked: &str, redactor: &Redactor) -> Error {
    // Masked before it is cut: half a key is half a key.
    let text = redactor.redact(&String::from_utf8_lossy(&body[..body.len().min(READ)]));
    let text = text.trim();
    let server =
        headers.get(header::SERVER).and_then(|server| server.to_str().ok()).map(|server| redactor.redact(server));
    let Some(meaning) = meaning(status, text, server.as_deref().unwrap_or_default()) else {
        return stranger(status, text, asked);
    };
    let server = server.map(|server| format!(" ({})", first(&server, 40))).unwrap_or_default();
    let quoted = quoted(text);
    Refused {
        refusal: Refusal::Gateway,
        retry_after: headers.get(header::RETRY_AFTER).cloned(),
        ..Refused::new(status, format!("the gateway{server} at {asked} {meaning} (status {}{quoted})", status.as_u16()))
    }
    .into()
}

/// What a gateway did, and what to change; `None` if the status is not one by which gateways speak for themselves.
fn meaning(status: StatusCode, text: &str, server: &str) -> Option<String> {
    let read_timeout = || {
        let lower = server.to_ascii_lowercase();
        if lower.contains("nginx") || lower.contains("openresty") {
            "nginx: proxy_read_timeout"
        } else if lower.contains("apache") {
            "Apache: ProxyTimeout"
        } else if lower.contains("awselb") {
            "AWS: the load balancer's idle timeout"
        } else {
            "nginx: proxy_read_timeout; HAProxy: timeout server; Apache: ProxyTimeout; a load balancer: its idle or backend timeout"
        }
    };
    let slow = "a model may still be loading, and streams answer sooner";
    Some(match status.as_u16() {
        401 => "rejects these credentials: set remote.api_key (--remote-api-key), remote.basic_auth or remote.headers"
            .to_owned(),
        403 if text.is_empty() => {
            "refuses this machine without a text, as Ollama refuses a Host name that it does not know: let it listen \
                                   beyond loopback (OLLAMA_HOST=0.0.0.0), or use its IP address as remote.host"
                .to_owned()
        }
        403 => {
            "refuses this machine or these credentials: check remote.api_key (--remote-api-key), remote.basic_auth, \
                remote.headers and the gateway's rules"
                .to_owned()
        }
        413 => "refuses a request body of this size: raise its limit (nginx: client_max_body_size)".to_owned(),
        429 => "limits how often it may be asked: ask again later, or raise its limit".to_owned(),
        502 => "got no valid response from the Ollama behind it: see whether Ollama runs there, and the gateway's log"
            .to_owned(),
        503 => {
            "has no Ollama to pass requests to at the moment: see whether Ollama runs behind it, and the gateway's log"
                .to_owned()
        }
        504 => format!("gave up waiting for the Ollama behind it ({slow}): raise its timeout ({})", read_timeout()),
        520 => {
            "(Cloudflare) got an empty or invalid response from the server behind it: see that server's log".to_owned()
        }
        521 => "(Cloudflare) was refused by the server behind it: see whether it runs, and its firewall".to_owned(),
        522 => "(Cloudflare) got no connection to the server behind it in time: see whether it runs, and its firewall"
            .to_owned(),
        523 => "(Cloudflare) cannot reach the server behind it: check its address and its routes".to_owned(),
        524 => format!(
            "(Cloudflare) gave up waiting for the server behind it, after 100 s by default ({slow}): raise its Proxy Read Timeout, \
             or reach Ollama on another way"
        ),
        525 => "(Cloudflare) failed in the TLS handshake with the server behind it: check that server's certificate"
            .to_owned(),
        526 => "(Cloudflare) got an invalid certificate from the server behind it: check that certificate".to_owned(),
        527 => "(Cloudflare) lost its connection to the server behind it: see that server's log".to_owned(),
        _ => return None,
    })
}

/// Something answered that is not Ollama: says what it looks like and what to change.
fn stranger(status: StatusCode, text: &str, asked: &str) -> Error {
    let lower = text.to_ascii_lowercase();
    let (what, change) =
        if lower.contains("http request to an https server") || lower.contains("http request was sent to https port") {
            ("a port that speaks TLS", "set remote.protocol to https (--remote-protocol https)")
        } else if status.is_redirection() {
            ("a redirect", "point the remote at the address that it names (--remote-host)")
        } else if status == StatusCode::NOT_FOUND {
            ("a server that has no such path", "check remote.base_path (--remote-base-path), the host and the port")
        } else if is_markup(text) {
            ("an HTML page", "check the host, the port and remote.base_path: a web server answers there")
        } else {
            ("something that does not answer as Ollama does", "check the host, the port and remote.base_path")
        };
    let (status, quoted) = (status.as_u16(), quoted(text));
    Error::NotOllama {
        message: format!("not an Ollama at {asked}: {what} answered with status {status}{quoted}; {change}"),
    }
}

fn is_markup(text: &str) -> bool {
    text.starts_with('<')
}

/// What to quote of a body: its first line, or the title of a page; never markup.
fn quoted(text: &str) -> String {
    let text = if is_markup(text) { title(text) } else { text };
    if text.is_empty() { String::new() } else { format!(": `{}`", first(text, 200)) }
}

/// The title of an HTML page.
fn title(page: &str) -> &str {
    // Lowercase ASCII has the same length.
    let lower = page.to_ascii_lowercase();
    let begin = lower.find("<title").and_then(|at| Some(at + lower[at..].find('>')? + 1));
    let title = begin.and_then(|begin| Some(&page[begin..begin + lower[begin..].find('<')?]));
    title.unwrap_or_default().trim()
}

/// At most `n` characters of the first line.
fn first(text: &str, n: usize) -> String {
    text.lines().next().unwrap_or_default().chars().take(n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Error {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        read(status, &map, body.as_bytes(), "http://gpu-box:11434/api/chat", &Redactor::default())
    }

    #[test]
    fn what_is_not_ollama_is_named_with_what_to_change() {
        for (status, body, text) in [
            (200, "<!DOCTYPE html><title>Router</title>", "an HTML page"),
            (404, "404 page not found", "remote.base_path"),
            (400, "Client sent an HTTP request to an HTTPS server.\n", "remote.protocol to https"),
            (302, "", "a redirect"),
        ] {
            let error = answered(status, &[], body);
            assert_eq!((error.row().status.as_u16(), error.row().code), (502, Some("not_ollama")), "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn what_a_gateway_says_keeps_its_meaning() {
        let page =
            |title: &str| format!("<html>\r\n<head><TITLE>{title}</TITLE></head>\r\n<body>\r\n<center>nginx</center>");
        for (status, body, text, kind) in [
            (401, "Unauthorized".to_owned(), "remote.api_key", "invalid_request_error"),
            (403, "Forbidden".to_owned(), "refuses this machine or these credentials", "invalid_request_error"),
            (403, String::new(), "Host name", "invalid_request_error"),
            (413, page("413 Request Entity Too Large"), "client_max_body_size", "invalid_request_error"),
            (429, page("429 Too Many Requests"), "ask again later", "requests"),
            (502, page("502 Bad Gateway"), "see whether Ollama runs there", "server_error"),
            (503, page("503 Service Unavailable"), "has no Ollama to pass requests to", "server_error"),
            (504, page("504 Gateway Time-out"), "proxy_read_timeout", "server_error"),
            (520, page("520"), "Cloudflare", "server_error"),
            (521, page("521"), "was refused", "server_error"),
            (522, page("522"), "no connection", "server_error"),
            (523, page("523"), "cannot reach", "server_error"),
            (524, page("A timeout occurred"), "Proxy Read Timeout", "server_error"),
            (525, page("525"), "TLS handshake", "server_error"),
            (526, page("526"), "invalid certificate", "server_error"),
            (527, page("527"), "lost its connection", "server_error"),
        ] {
            let error = answered(status, &[("server", "nginx/1.22")], &body);
            assert_eq!((error.row().status.as_u16(), error.row().kind), (status, kind), "{error}");
            let message = error.to_string();
            assert!(message.contains(text) && message.contains("gpu-box") && message.contains("nginx"), "{message}");
            assert!(!message.contains('<') && !message.contains("center"), "{message}");
        }
        assert!(answered(504, &[], &page("504 Gateway Time-out")).to_string().contains("`504 Gateway Time-out`"));
    }

    #[test]
    fn retry_after_is_kept() {
        let Error::Refused(refused) = answered(429, &[("retry-after", "17")], "slow down") else { panic!("a refusal") };
        assert_eq!(refused.retry_after.unwrap(), "17");
    }

    #[test]
    fn markup_is_never_quoted() {
        for (page, expected) in [
            ("<!doctype html><TITLE>No</title>", ": `No`"),
            ("<html><title lang=\"en\">\n 504 \n</title>", ": `504`"),
            ("<html><body>no title", ""),
            ("<html><title>unfinished", ""),
            ("plain\ntext", ": `plain`"),
            ("", ""),
        ] {
            assert_eq!(quoted(page), expected, "{page}");
        }
    }
}
