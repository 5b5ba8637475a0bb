//! What is measured: the remote itself, nginx and bare hyper as measures, and farllama with everything on that a team
//! uses.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    load::{KEYS, key},
    process::Process,
    work::Api,
};

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Contender {
    /// No proxy.
    Direct,
    /// nginx, which passes everything through.
    Nginx,
    /// Bare hyper on both sides: translates where farllama does.
    Floor,
    /// This repository's proxy: log at info to a file, metrics on, 100 keys with quotas.
    Farllama,
}

impl Contender {
    /// All, in the order in which they are measured and shown.
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::Nginx, Self::Floor, Self::Farllama];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Floor => "floor",
            Self::Farllama => "farllama",
        }
    }
}

/// Where things are.
pub(crate) struct Place {
    /// Certificates, configurations, logs.
    pub(crate) folder: PathBuf,
    /// This program, which is also the remote and the floors.
    pub(crate) own: PathBuf,
    /// The proxy to measure.
    pub(crate) farllama: PathBuf,
    /// The core of what is measured, if there are two.
    pub(crate) core: Option<usize>,
    /// The remote's ports: plain, TLS.
    pub(crate) remote: (u16, u16),
}

/// A contender that runs.
pub(crate) struct Running {
    pub(crate) process: Option<Process>,
    pub(crate) port: u16,
}

/// Starts a contender at `port`, with TLS on both sides if `tls`.
///
/// # Errors
/// It does not start. Its log is in the message.
pub(crate) fn start(contender: Contender, api: Api, tls: bool, port: u16, place: &Place) -> Result<Running> {
    let log = place.folder.join(format!("{}-{port}.log", contender.name()));
    let remote = if tls { place.remote.1 } else { place.remote.0 };
    let mut process = match contender {
        Contender::Direct => return Ok(Running { process: None, port: remote }),
        Contender::Nginx => {
            let file = place.folder.join(format!("nginx-{port}.conf"));
            fs::write(&file, nginx(port, remote, tls, &place.folder))?;
            Process::start(place.core, Path::new("nginx"), &["-c", &file.display().to_string()], &log)?
        }
        Contender::Floor => {
            let kind = if api == Api::Openai { "translate" } else { "pass" };
            let (port, remote) = (port.to_string(), remote.to_string());
            Process::start(place.core, &place.own, &["floor", kind, "--port", &port, "--remote", &remote], &log)?
        }
        Contender::Farllama => {
            let file = place.folder.join(format!("farllama-{port}.toml"));
            fs::write(&file, settings(port, remote, tls, &place.folder)?)?;
            Process::start(place.core, &place.farllama, &["serve", "--config", &file.display().to_string()], &log)?
        }
    };
    process
        .listens(port)
        .with_context(|| format!("{}:\n{}", contender.name(), fs::read_to_string(&log).unwrap_or_default()))?;
    Ok(Running { process: Some(process), port })
}

fn settings(port: u16, remote: u16, tls: bool, folder: &Path) -> Result<String> {
    let folder = folder.display();
    let (own, protocol, trusted) = if tls {
        (
            format!("tls_cert = \"{folder}/cert.pem\"\ntls_key = \"{folder}/key.pem\"\n"),
            "https",
            format!("ca_file = \"{folder}/cert.pem\"\n"),
        )
    } else {
        (String::new(), "http", String::new())
    };
    let mut text = format!(
        "[local]\nport = {port}\n{own}\n[remote]\nprotocol = \"{protocol}\"\nhost = \"127.0.0.1\"\nport = {remote}\n{trusted}\n\
         [admin]\nport = 0\n\n\
         [limits]\nconnections = 16000\nconnections_per_address = 16000\nconnections_per_key = 16000\n\n\
         [auth]\nenabled = true\n"
    );
    for number in 0..KEYS {
        // Far above what a run asks, but counted.
        write!(
            text,
            "\n[[auth.keys]]\nname = \"user-{number}\"\nkey = \"{}\"\nlimit_per_minute = 100000000\n",
            key(number)
        )?;
    }
    Ok(text)
}

fn nginx(port: u16, remote: u16, tls: bool, folder: &Path) -> String {
    let folder = folder.display();
    let (listen, certificate, protocol) = if tls {
        (" ssl", format!("ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;"), "https")
    } else {
        ("", String::new(), "http")
    };
    format!(
        "daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {folder}/nginx-{port}.pid; error_log stderr warn;
         events {{ worker_connections 20000; }}
         http {{
           access_log off; keepalive_requests 1000000000; client_body_buffer_size 2m; client_max_body_size 64m;
           client_body_temp_path {folder}/nginx-{port}-body; proxy_temp_path {folder}/nginx-{port}-proxy;
           fastcgi_temp_path {folder}/nginx-{port}-f; uwsgi_temp_path {folder}/nginx-{port}-u; scgi_temp_path {folder}/nginx-{port}-s;
           upstream remote {{ server 127.0.0.1:{remote}; keepalive 256; keepalive_requests 1000000000; }}
           server {{
             listen 127.0.0.1:{port}{listen} backlog=4096; {certificate}
             location / {{
               proxy_pass {protocol}://remote; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_read_timeout 1h;
               # Words go out as they come, and large bodies are read in large pieces.
               proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;
             }}
           }}
         }}\n"
    )
}
