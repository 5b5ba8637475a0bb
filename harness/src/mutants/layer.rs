//! The layer between client and proxy: passes every exchange on as it comes, and lets one mutant break it on the way.
//!
//! Without a mutant it changes nothing that a scenario can see, which is what the control run shows.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use super::{
    Mutation,
    frame::{Act, Frames, Tamper},
    message::{Body, Framing, Head},
};

/// A request or an answer with its whole body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) head: Head,
    pub(super) body: Vec<u8>,
}

/// A layer that listens until it is dropped.
#[derive(Debug)]
pub struct Layer {
    addr: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Layer {
    /// A layer before the proxy at `proxy`, on a free port.
    ///
    /// # Errors
    /// There is no port.
    pub async fn before(proxy: SocketAddr, mutation: Mutation) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut exchanges = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mutation = mutation.clone();
                // An exchange that fails has ended for the client as it did for the layer: with its connection.
                exchanges.spawn(async move { exchange(client, proxy, &mutation).await.unwrap_or_default() });
                while exchanges.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

async fn exchange(client: TcpStream, proxy: SocketAddr, mutation: &Mutation) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (read, mut client) = client.into_split();
    let mut read = BufReader::new(read);
    let Some(head) = Head::read(&mut read).await? else { return Ok(()) };
    let mut request = Message { head, body: Vec::new() };
    Body::new(Framing::of_request(&request.head)).rest(&mut read, &mut request.body).await?;
    let request = mutation.request(request);

    let proxy = TcpStream::connect(proxy).await?;
    proxy.set_nodelay(true)?;
    let (from_proxy, mut to_proxy) = proxy.into_split();
    let mut from_proxy = BufReader::new(from_proxy);
    let mut head = request.head.clone();
    if Framing::of_request(&head) != Framing::Empty {
        head.remove("transfer-encoding");
        head.set("content-length", request.body.len().to_string());
    }
    head.set("connection", "close");
    to_proxy.write_all(&[head.bytes(), request.body.clone()].concat()).await?;

    tokio::select! {
        answered = answer(&request, &mut from_proxy, &mut client, mutation) => answered,
        // The proxy hears of it when its connection is dropped.
        () = gone(&mut read) => Ok(()),
    }
}

/// Returns when the client has left.
async fn gone(client: &mut BufReader<OwnedReadHalf>) {
    let mut byte = [0];
    while let Ok(1..) = client.read(&mut byte).await {}
}

async fn answer(
    request: &Message,
    proxy: &mut BufReader<OwnedReadHalf>,
    client: &mut OwnedWriteHalf,
    mutation: &Mutation,
) -> io::Result<()> {
    let Some(mut head) = Head::read(proxy).await? else { return Ok(()) };
    let framing = Framing::of_answer(&head, request.head.method());
    let mut body = Body::new(framing);
    head.set("connection", "close");
    if let Some(frames) = Frames::of(head.media_type()) {
        let head = mutation.head(head);
        client.write_all(&head.bytes()).await?;
        let tamper = mutation.tamper(head.media_type());
        let mut writer = Writer { client, chunked: framing == Framing::Chunked, sent: Vec::new(), mutation };
        return stream(frames, &mut body, proxy, tamper, &mut writer).await;
    }
    let mut before = Message { head, body: Vec::new() };
    if let Err(error) = body.rest(proxy, &mut before.body).await {
        // The body breaks off; so does what is sent on.
        client.write_all(&[before.head.bytes(), before.body].concat()).await?;
        return Err(error);
    }
    let mut after = mutation.answer(before.clone());
    if after.body != before.body && after.head.header("content-length") == before.head.header("content-length") {
        after.head.remove("transfer-encoding");
        after.head.set("content-length", after.body.len().to_string());
    } else if framing == Framing::Chunked {
        after.head.remove("transfer-encoding");
    }
    client.write_all(&[after.head.bytes(), after.body].concat()).await?;
    client.shutdown().await
}

/// Passes a stream on, frame by frame.
async fn stream(
    mut frames: Frames,
    body: &mut Body,
    proxy: &mut BufReader<OwnedReadHalf>,
    mut tamper: Option<Tamper>,
    writer: &mut Writer<'_>,
) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let piece = match body.next(proxy).await {
            Ok(piece) => piece,
            Err(error) => {
                // What came before the break is passed on too.
                writer.write(&frames.rest()).await?;
                return Err(error);
            }
        };
        let Some(tamper) = &mut tamper else {
            match piece {
                Some(piece) => writer.write(&piece).await?,
                None => return writer.end().await,
            }
            continue;
        };
        let ended = piece.is_none();
        received.extend_from_slice(piece.as_deref().unwrap_or_default());
        let mut acts = Vec::new();
        for frame in frames.add(piece.as_deref().unwrap_or_default()) {
            acts.extend(tamper(Some(frame)));
        }
        if ended {
            acts.extend(tamper(None));
            acts.push(Act::Write(frames.rest()));
        }
        for act in acts {
            match act {
                Act::Write(bytes) => writer.write(&bytes).await?,
                Act::Wait(time) => {
                    writer.mutation.touch();
                    tokio::time::sleep(time).await;
                }
                Act::Touched => writer.mutation.touch(),
                Act::End => {
                    writer.mutation.touch();
                    return writer.end().await;
                }
            }
        }
        if ended {
            if writer.sent != received {
                writer.mutation.touch();
            }
            return writer.end().await;
        }
        if !received.starts_with(&writer.sent) {
            writer.mutation.touch();
        }
    }
}

/// Writes a body as its head says.
struct Writer<'a> {
    client: &'a mut OwnedWriteHalf,
    chunked: bool,
    /// All that was sent.
    sent: Vec<u8>,
    mutation: &'a Mutation,
}

impl Writer<'_> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.sent.extend_from_slice(bytes);
        if self.chunked {
            let head = format!("{:x}\r\n", bytes.len());
            self.client.write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).await
        } else {
            self.client.write_all(bytes).await
        }
    }

    async fn end(&mut self) -> io::Result<()> {
        if self.chunked {
            self.client.write_all(b"0\r\n\r\n").await?;
        }
        self.client.shutdown().await
    }
}

/// Whether a mutant changed anything.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched(Arc<AtomicBool>);

impl Touched {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
