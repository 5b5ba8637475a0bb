//! Bodies of any size stream through the real binary without being kept.

#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
};

const SIZE: u64 = 2 << 30;

/// Most that the resident memory may grow over 2 GiB in each direction.
const GROWTH: u64 = 16 << 20;

struct Proxy {
    child: Child,
    addr: String,
}

impl Proxy {
    fn start(remote: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_farllama"))
            .args([
                "serve",
                "--local-port",
                "0",
                "--admin-enabled=false",
                "--log",
                "json",
                "--remote-host",
                remote,
                "--remote-probe",
                "0s",
            ])
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = loop {
            let line: serde_json::Value = serde_json::from_str(&log.next().unwrap().unwrap()).unwrap();
            if line["message"] == "listening" {
                break line["ollama"].as_str().unwrap().trim_start_matches("http://").to_owned();
            }
        };
        // The pipe must not fill up.
        thread::spawn(move || log.for_each(drop));
        Self { child, addr }
    }

    /// Most resident memory so far, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pattern in which a lost, doubled or moved block would show.
fn block(n: u64) -> Vec<u8> {
    let mut block = vec![0; 1 << 20];
    for (at, word) in block.chunks_mut(8).enumerate() {
        word.copy_from_slice(&(n << 32 | at as u64).to_le_bytes());
    }
    block
}

fn send(stream: &mut TcpStream) {
    for n in 0..SIZE >> 20 {
        stream.write_all(&block(n)).unwrap();
    }
}

fn receive(reader: &mut impl Read) {
    let mut got = vec![0; 1 << 20];
    for n in 0..SIZE >> 20 {
        reader.read_exact(&mut got).unwrap();
        assert!(got == block(n), "block {n} differs");
    }
}

fn head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "the connection ended in the head: {head}");
    }
    head
}

#[test]
fn two_gib_up_and_down_leave_the_memory_as_it_was() {
    let remote = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = remote.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in remote.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::with_capacity(1 << 20, stream.try_clone().unwrap());
            if head(&mut reader).starts_with("POST") {
                receive(&mut reader);
                stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            } else {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n").unwrap();
                send(&mut stream);
            }
        }
    });
    let proxy = Proxy::start(&addr);
    // A small exchange first: what it takes, every exchange takes.
    let mut warm = TcpStream::connect(&proxy.addr).unwrap();
    warm.write_all(b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\r\n").unwrap();
    head(&mut BufReader::new(warm));
    let before = proxy.peak();

    let mut up = TcpStream::connect(&proxy.addr).unwrap();
    write!(up, "POST /api/blobs/sha256:0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
    send(&mut up);
    assert!(head(&mut BufReader::new(up)).starts_with("HTTP/1.1 201"));
    let after_up = proxy.peak();

    let mut down = TcpStream::connect(&proxy.addr).unwrap();
    down.write_all(b"GET /api/blob HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut reader = BufReader::with_capacity(1 << 20, down);
    assert!(head(&mut reader).starts_with("HTTP/1.1 200"));
    receive(&mut reader);
    let after = proxy.peak();

    println!(
        "peak resident memory: {} KiB at first, {} KiB after the upload, {} KiB after both",
        before >> 10,
        after_up >> 10,
        after >> 10
    );
    assert!(after - before < GROWTH, "grew by {} KiB", (after - before) >> 10);
}
