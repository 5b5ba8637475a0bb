//! A layer between two ends: passes every exchange on as it comes, and lets one mutant break it on the way.
//!
//! Without a mutant it changes nothing that a scenario can see, which is what the control run shows.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use super::{
    Mutation,
    frame::{Act, Frames, Tamper},
    message::{Body, Framing, Head, Message},
};

/// Between whom a layer stands.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// Between client and proxy. The other address is that of a proxy that admits every request.
    Client(Option<SocketAddr>),
    /// Between proxy and Ollama.
    Ollama,
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
    /// A layer before the server at `to`, on a free port.
    ///
    /// # Errors
    /// There is no port.
    pub async fn before(to: SocketAddr, side: Side, mutation: Mutation) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut exchanges = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mutation = mutation.clone();
                // An exchange that fails has ended for the client as it did for the layer: with its connection.
                exchanges.spawn(async move { self::exchanges(client, to, side, &mutation).await.unwrap_or_default() });
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

/// One exchange after the other, until either end leaves.
async fn exchanges(client: TcpStream, to: SocketAddr, side: Side, mutation: &Mutation) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (read, mut client) = client.into_split();
    let mut read = BufReader::new(read);
    while let Some(head) = Head::read(&mut read).await? {
        let mut request = Message { head, body: Vec::new() };
        Body::new(Framing::of_request(&request.head)).rest(&mut read, &mut request.body).await?;
        let left = async {
            gone(&mut read).await;
            if matches!(side, Side::Ollama) && mutation.outlives() {
                mutation.touch();
                std::future::pending::<()>().await;
            }
        };
        let stays = tokio::select! {
            stays = exchange(request, &mut client, to, side, mutation) => stays?,
            // The other end hears of it when its connection is dropped.
            () = left => false,
        };
        if !stays {
            break;
        }
    }
    Ok(())
}

/// One exchange. Whether there may be another on this connection.
async fn exchange(
    request: Message,
    client: &mut OwnedWriteHalf,
    to: SocketAddr,
    side: Side,
    mutation: &Mutation,
) -> io::Result<bool> {
    match side {
        Side::Client(open) => {
            let request = mutation.request(request);
            let mut asked = Asked::ask(to, &request).await?;
            if let Some(open) = open.filter(|_| mutation.admits(&asked.head)) {
                mutation.touch();
                asked = Asked::ask(open, &request).await?;
            }
            asked.answer(&request.head, client, mutation).await.map(|()| false)
        }
        Side::Ollama => {
            let request = mutation.upstream(request);
            Asked::ask(to, &request).await?.relay(&request.head, client, mutation).await
        }
    }
}

/// Returns when the client has left.
async fn gone(client: &mut BufReader<OwnedReadHalf>) {
    // Its next request stays where it is.
    if let Ok([_, ..]) = client.fill_buf().await {
        std::future::pending::<()>().await;
    }
}

/// An answer that has begun.
struct Asked {
    head: Head,
    from: BufReader<OwnedReadHalf>,
    // Dropped with the answer, not before: to a server, a half that is closed is a client that leaves.
    _to: OwnedWriteHalf,
}

impl Asked {
    async fn ask(addr: SocketAddr, request: &Message) -> io::Result<Self> {
        let connection = TcpStream::connect(addr).await?;
        connection.set_nodelay(true)?;
        let (from, mut to) = connection.into_split();
        let mut from = BufReader::new(from);
        let mut head = request.head.clone();
        if Framing::of_request(&head) != Framing::Empty {
            head.remove("transfer-encoding");
            head.set("content-length", request.body.len().to_string());
        }
        head.set("connection", "close");
        to.write_all(&[head.bytes(), request.body.clone()].concat()).await?;
        let head = Head::read(&mut from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Self { head, from, _to: to })
    }

    /// Passes it on as it comes. Whether the connection outlives it: the proxy keeps in mind what it learned of an
    /// Ollama for as long as they are connected.
    async fn relay(mut self, request: &Head, client: &mut OwnedWriteHalf, mutation: &Mutation) -> io::Result<bool> {
        let framing = Framing::of_answer(&self.head, request.method());
        self.head.remove("connection");
        let mut writer = Writer { client, chunked: framing == Framing::Chunked };
        // Ollama's response is read to its end, with or without a client.
        let heard = |written: io::Result<()>| if mutation.outlives() { Ok(()) } else { written };
        heard(writer.client.write_all(&self.head.bytes()).await)?;
        let mut body = Body::new(framing);
        while let Some(piece) = body.next(&mut self.from).await? {
            heard(writer.write(&piece).await)?;
        }
        writer.end().await?;
        Ok(framing != Framing::Close)
    }

    /// Passes on what becomes of it.
    async fn answer(mut self, request: &Head, client: &mut OwnedWriteHalf, mutation: &Mutation) -> io::Result<()> {
        let (mut head, from) = (self.head, &mut self.from);
        let framing = Framing::of_answer(&head, request.method());
        let mut body = Body::new(framing);
        head.set("connection", "close");
        if let Some(frames) = Frames::of(head.media_type()) {
            let head = mutation.head(request, head);
            client.write_all(&head.bytes()).await?;
            let tamper = mutation.tamper(request, head.media_type());
            let mut writer = Writer { client, chunked: framing == Framing::Chunked };
            stream(frames, &mut body, from, tamper, &mut writer, mutation).await?;
            return client.shutdown().await;
        }
        let mut before = Message { head, body: Vec::new() };
        if let Err(error) = body.rest(from, &mut before.body).await {
            if mutation.hides_cuts() {
                mutation.touch();
                before.head.remove("transfer-encoding");
                before.head.set("content-length", before.body.len().to_string());
            }
            // The body breaks off; so does what is sent on.
            client.write_all(&[before.head.bytes(), before.body].concat()).await?;
            return Err(error);
        }
        let mut after = mutation.answer(request, before.clone());
        if after.body != before.body && after.head.header("content-length") == before.head.header("content-length") {
            after.head.remove("transfer-encoding");
            after.head.set("content-length", after.body.len().to_string());
        } else if framing == Framing::Chunked {
            after.head.remove("transfer-encoding");
        }
        client.write_all(&[after.head.bytes(), after.body].concat()).await?;
        client.shutdown().await
    }
}

/// Passes a stream on, frame by frame.
async fn stream(
    mut frames: Frames,
    body: &mut Body,
    from: &mut BufReader<OwnedReadHalf>,
    mut tamper: Option<Tamper>,
    writer: &mut Writer<'_>,
    mutation: &Mutation,
) -> io::Result<()> {
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    loop {
        let piece = match body.next(from).await {
            Ok(piece) => piece,
            Err(error) => {
                // What came before the break is passed on too.
                writer.write(&frames.rest()).await?;
                if mutation.hides_cuts() {
                    mutation.touch();
                    return writer.end().await;
                }
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
                Act::Write(bytes) => {
                    sent.extend_from_slice(&bytes);
                    writer.write(&bytes).await?;
                }
                Act::Wait(time) => {
                    mutation.touch();
                    tokio::time::sleep(time).await;
                }
                Act::Touched => mutation.touch(),
                Act::End => {
                    mutation.touch();
                    return writer.end().await;
                }
            }
        }
        if !received.starts_with(&sent) || ended && sent != received {
            mutation.touch();
        }
        if ended {
            return writer.end().await;
        }
    }
}

/// Writes a body as its head says.
struct Writer<'a> {
    client: &'a mut OwnedWriteHalf,
    chunked: bool,
}

impl Writer<'_> {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.chunked {
            let head = format!("{:x}\r\n", bytes.len());
            self.client.write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).await
        } else {
            self.client.write_all(bytes).await
        }
    }

    async fn end(&mut self) -> io::Result<()> {
        if self.chunked { self.client.write_all(b"0\r\n\r\n").await } else { Ok(()) }
    }
}
