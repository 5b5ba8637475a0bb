//! The mock in a Rust test, as docs/mock.md shows it.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use mock_ollama::{Mock, Script};

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mock = Mock::start(Script::on("/api/chat").nth(1).status(503)).await?;

    let body =
        r#"{"model": "smollm2:135m", "messages": [{"role": "user", "content": "Say meadow."}], "stream": false}"#;
    for expected in ["HTTP/1.0 503", "HTTP/1.0 200"] {
        let mut socket = TcpStream::connect(mock.addr())?;
        write!(socket, "POST /api/chat HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut response = String::new();
        socket.read_to_string(&mut response)?;
        assert!(response.starts_with(expected), "{response}");
    }

    // What it was asked.
    let asked = mock.journal().entries();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].path(), "/api/chat");
    println!("ok");
    Ok(())
}
