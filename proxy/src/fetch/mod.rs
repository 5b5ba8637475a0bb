//! Fetches images and documents that callers name by a URL, without becoming their way into networks that they cannot
//! reach themselves.
//!
//! The address that is checked is the one that is connected to, for every redirect anew, so that no name can change its
//! mind in between. Nothing of the caller's request goes along. Knows nothing of JSON, and keeps nothing.

pub(crate) mod address;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::Empty;
use http1_client::Connection;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::Images,
    tls_client::{self, Trust},
    upstream::connect::{self, Cause},
};

/// Most redirects that are followed.
const REDIRECTS: usize = 3;

/// Why there is no image. The text is for callers, so it reveals nothing about the network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// It cannot be fetched at all.
    #[error("not an http(s) URL such as https://example.com/picture.png{0}")]
    Url(&'static str),
    /// The name is unknown, or its address is not public. One text for both: a caller must not learn which names exist
    /// inside.
    #[error("its host has no address on the open Internet (images.allow_private allows others)")]
    NoPublicAddress,
    /// No response.
    #[error("cannot connect: {0}")]
    Connect(Cause),
    /// It is sent on and on.
    #[error("it was redirected more than {REDIRECTS} times")]
    Redirects,
    /// Another answer than 200.
    #[error("the server answered {0}")]
    Status(StatusCode),
    /// The answer broke off.
    #[error("the answer broke off")]
    Broken,
    /// The images are too large.
    #[error("what this request names by URLs is larger than images.max_bytes ({0} bytes)")]
    TooLarge(usize),
    /// What came is something else.
    #[error("the content is not a PNG, JPEG, WebP or GIF")]
    NoImage,
    /// It took too long.
    #[error("it did not come within images.timeout ({})", humantime::format_duration(*.0))]
    TimedOut(Duration),
}

/// Fetches images as the settings say.
pub(crate) struct Fetcher {
    pub(crate) images: Images,
    /// Which addresses may be connected to.
    allowed: fn(IpAddr) -> bool,
    /// Reading the system's certificates takes time and memory, so only those who need them pay.
    tls: OnceLock<Arc<ClientConfig>>,
}

/// How many bytes may still come for one request.
pub(crate) struct Budget(AtomicUsize);

impl Fetcher {
    pub(crate) fn new(images: Images) -> Self {
        let allowed = if images.allow_private { |_| true } else { address::is_public };
        Self { images, allowed, tls: OnceLock::new() }
    }

    /// The budget of one request.
    pub(crate) fn budget(&self) -> Budget {
        Budget(AtomicUsize::new(self.images.max_bytes))
    }

    /// Fetches the image at `url`, and returns its media type. The caller bounds the time.
    ///
    /// # Errors
    /// There is none that may be had.
    pub(crate) async fn image(&self, url: &str, budget: &Budget) -> Result<(&'static str, Bytes), Refused> {
        let bytes = self.fetch(url, Wanted::Image, budget).await?;
        kind(&bytes).map(|kind| (kind, bytes)).ok_or(Refused::NoImage)
    }

    /// Fetches the document at `url`, whatever it is. The caller bounds the time.
    ///
    /// # Errors
    /// Fails if there is no address that may be connected to, no response 200, or no room in the budget.
    pub(crate) async fn document(&self, url: &str, budget: &Budget) -> Result<Bytes, Refused> {
        self.fetch(url, Wanted::Document, budget).await
    }

    async fn fetch(&self, url: &str, wanted: Wanted, budget: &Budget) -> Result<Bytes, Refused> {
        let mut url = read(url)?;
        for _ in 0..=REDIRECTS {
            match self.get(&url, wanted, budget).await? {
                Reply::Here(bytes) => return Ok(bytes),
                Reply::There(location) => url = follow(&url, &location)?,
            }
        }
        Err(Refused::Redirects)
    }

    async fn get(&self, url: &Uri, wanted: Wanted, budget: &Budget) -> Result<Reply, Refused> {
        let host = url.host().ok_or(Refused::Url(""))?.trim_start_matches('[').trim_end_matches(']');
        let secure = url.scheme() == Some(&Scheme::HTTPS);
        let tcp = self.connect(host, url.port_u16().unwrap_or(if secure { 443 } else { 80 })).await?;
        if !secure {
            return self.ask(tcp, url, wanted, budget).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Refused::Url(""))?;
        let connector = TlsConnector::from(self.tls().map_err(|error| Refused::Connect(connect::cause(&error)))?);
        let tls = connector.connect(name, tcp).await.map_err(|error| Refused::Connect(connect::cause(&error)))?;
        self.ask(tls, url, wanted, budget).await
    }

    /// Looks a name up once, and connects to what was found and checked, and to nothing else.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Refused> {
        let found = tokio::net::lookup_host((host, port)).await.map_err(|_| Refused::NoPublicAddress)?;
        let allowed: Vec<SocketAddr> = found.filter(|address| (self.allowed)(address.ip())).collect();
        if allowed.is_empty() {
            return Err(Refused::NoPublicAddress);
        }
        TcpStream::connect(&*allowed).await.map_err(|error| Refused::Connect(connect::cause(&error)))
    }

    fn tls(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let tls = Arc::new(tls_client::config(Trust::System { ca_file: None }, None)?);
        Ok(self.tls.get_or_init(|| tls).clone())
    }

    /// One exchange, after which the connection is closed.
    async fn ask(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin,
        url: &Uri,
        wanted: Wanted,
        budget: &Budget,
    ) -> Result<Reply, Refused> {
        let (parts, ()) = request(url, wanted)?.into_parts();
        let mut connection = Connection::<_, Empty<Bytes>>::new(io);
        let head = connection.send(&http1_client::encode(&parts, None), None).await.map_err(|_| Refused::Broken)?;
        if matches!(head.status.as_u16(), 301 | 302 | 303 | 307 | 308)
            && let Some(location) = head.headers.get(header::LOCATION)
        {
            return Ok(Reply::There(location.clone()));
        }
        if head.status != StatusCode::OK {
            return Err(Refused::Status(head.status));
        }
        let mut framing = head.framing;
        let mut bytes = Vec::new();
        while let Some(frame) = connection.frame(&mut framing).await {
            let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else { continue };
            let left = budget.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(data.len()));
            if left.is_err() {
                return Err(Refused::TooLarge(self.images.max_bytes));
            }
            bytes.extend_from_slice(&data);
            // A server of something else is not read to the end.
            if wanted == Wanted::Image && bytes.len() >= MAGIC && kind(&bytes).is_none() {
                return Err(Refused::NoImage);
            }
        }
        Ok(Reply::Here(bytes.into()))
    }
}

/// What is fetched.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    Image,
    Document,
}

/// What a server answers.
enum Reply {
    Here(Bytes),
    There(HeaderValue),
}

/// Reads a URL that may be fetched.
fn read(url: &str) -> Result<Uri, Refused> {
    let uri: Uri = url.parse().map_err(|_| Refused::Url(" (other characters than ASCII must be percent-encoded)"))?;
    let authority = uri.authority().ok_or(Refused::Url(""))?;
    if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
        return Err(Refused::Url(""));
    }
    if authority.as_str().contains('@') {
        return Err(Refused::Url(", or it holds credentials"));
    }
    Ok(uri)
}

/// Where a redirect leads: a whole URL, or one that begins at the scheme, at the root or at the folder of the old one.
fn follow(from: &Uri, location: &HeaderValue) -> Result<Uri, Refused> {
    let location = location.to_str().map_err(|_| Refused::Url(""))?;
    if location.contains("://") && !location.starts_with('/') {
        return read(location);
    }
    let (scheme, authority) = (from.scheme_str().unwrap_or("http"), from.authority().map_or("", |host| host.as_str()));
    if location.starts_with("//") {
        return read(&format!("{scheme}:{location}"));
    }
    if location.starts_with('/') {
        return read(&format!("{scheme}://{authority}{location}"));
    }
    let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    read(&format!("{scheme}://{authority}{folder}/{location}"))
}

fn request(url: &Uri, wanted: Wanted) -> Result<Request<()>, Refused> {
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    Request::get(target)
        .header(header::HOST, url.authority().map_or("", |host| host.as_str()))
        .header(header::USER_AGENT, concat!("farllama/", env!("CARGO_PKG_VERSION")))
        .header(
            header::ACCEPT,
            match wanted {
                Wanted::Image => "image/png, image/jpeg, image/webp, image/gif",
                Wanted::Document => "application/pdf, text/*, application/json;q=0.9, */*;q=0.5",
            },
        )
        .body(())
        .map_err(|_| Refused::Url(""))
}

/// Bytes that identify an image.
const MAGIC: usize = 12;

/// The media type of an image by its first bytes, whatever the server calls it.
pub(crate) fn kind(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        Some("image/gif")
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
