//! Why there is no connection, and what to change about it: all texts in one place.

use std::{borrow::Cow, error::Error as StdError, io, time::Duration};

use rustls::AlertDescription;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    /// The name has no address.
    #[error("no address is known for that name")]
    NameNotFound,
    /// Nothing listens on that port.
    #[error("connection refused")]
    Refused,
    /// There is no way to the machine, or it does not answer in its network.
    #[error("{0}")]
    Unreachable(String),
    /// No connection within the limit.
    #[error("no connection within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// TCP connected, but nothing answered the TLS handshake within the limit.
    #[error("connected, but no answer to the TLS handshake within {}", humantime::format_duration(*.0))]
    NoHandshake(Duration),
    /// We spoke TLS and were answered in something else.
    #[error("it does not speak TLS on that port")]
    PlainPort,
    /// The certificate's authority is unknown.
    #[error("its certificate is signed by an authority that this machine does not trust")]
    UnknownCa,
    /// The remote rejects the certificate of this client, or the lack of one.
    #[error("it rejects this client's certificate, or requires one (TLS alert {0})")]
    ClientCertificate(String),
    /// TLS failed in another way, in the library's words.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The proxy on the way cannot be reached.
    #[error("the proxy {proxy} cannot be reached: {cause}")]
    NoProxy { proxy: String, cause: Box<Cause> },
    /// The proxy on the way does not connect to the remote.
    #[error("the proxy {proxy} does not connect to it: {answer}")]
    Proxy { proxy: String, answer: String, kind: ProxyRefusal },
    /// SSH does not lead to the machine.
    #[error("{0}")]
    Ssh(SshFailure),
    /// The machine was woken, and still cannot be reached.
    #[error("{cause}, {} after it was woken", humantime::format_duration(*.after))]
    Asleep { cause: Box<Cause>, after: Duration },
    /// Anything else, in the system's words.
    #[error("{0}")]
    Other(String),
}

/// Why a proxy does not connect to the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyRefusal {
    /// It asks for a user and a password, or for others.
    Credentials,
    /// Its rules forbid it.
    Forbidden,
    /// It cannot reach the remote either.
    Unreachable,
    /// It does not speak the protocol.
    Protocol,
}

/// Why SSH does not lead to the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SshFailure {
    /// There is no `ssh`.
    #[error("cannot run ssh: {0}")]
    NoProgram(String),
    /// Its host key is unknown, or another one than before.
    #[error("ssh does not trust the host key of {ssh}: {text}")]
    HostKey { ssh: String, text: String },
    /// It accepts no key of this user.
    #[error("{ssh} accepts no key of this user: {text}")]
    Key { ssh: String, text: String },
    /// The machine cannot be reached.
    #[error("ssh cannot reach {ssh}: {text}")]
    Unreachable { ssh: String, text: String },
    /// The machine was reached, and nothing listens where the remote should be.
    #[error("connected to {ssh}, which cannot reach {target}: {text}")]
    Target { ssh: String, target: String, text: String },
    /// Anything else, in the words of `ssh`.
    #[error("ssh to {ssh} failed: {text}")]
    Other { ssh: String, text: String },
}

impl Cause {
    /// Whether the remote's machine may be asleep.
    pub(super) fn may_be_asleep(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Unreachable(_) => true,
            Self::Proxy { kind, .. } => *kind == ProxyRefusal::Unreachable,
            Self::Ssh(failure) => matches!(failure, SshFailure::Unreachable { .. }),
            _ => false,
        }
    }

    /// Whether a machine that has just been woken may still start: it boots, or its services do.
    pub(super) fn may_pass(&self) -> bool {
        self.may_be_asleep()
            || matches!(self, Self::Refused | Self::NoHandshake(_) | Self::Ssh(SshFailure::Target { .. }))
    }

    /// Whether waiting longer might have helped.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::NoHandshake(_) => true,
            Self::Asleep { cause, .. } => cause.is_timeout(),
            _ => false,
        }
    }

    /// What to change.
    pub(crate) fn advice(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::NameNotFound => "check the spelling of remote.host (--remote-host), and this machine's DNS",
            Self::Refused => {
                "is Ollama running there, on that port (--remote-port)? A remote Ollama listens on loopback only, \
                 unless OLLAMA_HOST says otherwise (OLLAMA_HOST=0.0.0.0 ollama serve)"
            }
            Self::Timeout(_) => {
                "the machine is off or a firewall drops the packets: check --remote-host and --remote-port, \
                 or raise timeouts.connect"
            }
            Self::NoHandshake(_) => {
                "does that port speak TLS? If not, set remote.protocol to http (--remote-protocol http)"
            }
            Self::PlainPort => "set remote.protocol to http (--remote-protocol http), or name the port that speaks TLS",
            Self::UnknownCa => "name that authority's PEM file in remote.ca_file",
            Self::ClientCertificate(_) => {
                "set remote.client_cert and remote.client_key to a certificate that the remote's authority has signed"
            }
            Self::Tls(_) => "check the certificate, and that remote.host is the name that it is made out to",
            Self::NoProxy { .. } => {
                "check remote.proxy (or HTTP_PROXY, HTTPS_PROXY and ALL_PROXY); \"none\" connects without one"
            }
            Self::Proxy { kind: ProxyRefusal::Credentials, .. } => {
                "give its user and password in remote.proxy: http://user:pass@proxy:port"
            }
            Self::Proxy { kind: ProxyRefusal::Forbidden, .. } => {
                "allow CONNECT to that host and port there, name the host in NO_PROXY, or set remote.proxy to \"none\""
            }
            Self::Proxy { kind: ProxyRefusal::Unreachable, .. } => {
                "check --remote-host and --remote-port as that proxy sees them, or set remote.proxy to \"none\""
            }
            Self::Proxy { kind: ProxyRefusal::Protocol, .. } => "check the protocol and the port in remote.proxy",
            Self::Ssh(failure) => return failure.advice(),
            Self::Asleep { cause, .. } => return cause.advice(),
            Self::Unreachable(_) | Self::Other(_) => "check --remote-host and --remote-port",
        })
    }
}

impl SshFailure {
    fn advice(&self) -> Cow<'static, str> {
        match self {
            Self::NoProgram(_) => Cow::Borrowed("install OpenSSH's client"),
            Self::HostKey { ssh, .. } => Cow::Owned(format!(
                "connect once by hand (ssh {ssh}) and compare its key; if the machine was installed anew, remove the old key \
                 with ssh-keygen -R"
            )),
            Self::Key { ssh, .. } => Cow::Owned(format!(
                "farllama cannot type a password: copy a key there (ssh-copy-id), load it into an agent if it has a \
                 passphrase, and try: ssh -o BatchMode=yes {ssh} true"
            )),
            Self::Unreachable { .. } => Cow::Borrowed("check the host and the port, and the configuration of ssh"),
            Self::Target { .. } => Cow::Borrowed(
                "is Ollama running there, on that port (--remote-port)? Does sshd allow it (AllowTcpForwarding)?",
            ),
            Self::Other { ssh, .. } => Cow::Owned(format!("try it by hand: ssh -v -o BatchMode=yes {ssh} true")),
        }
    }
}

/// Finds the cause in an error and its sources.
pub(crate) fn cause(error: &(dyn StdError + 'static)) -> Cause {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<Cause>() {
            return cause.clone();
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return tls_cause(tls);
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return Cause::Refused,
                io::ErrorKind::TimedOut => return Cause::Other("the connection timed out".to_owned()),
                io::ErrorKind::HostUnreachable => return Cause::Unreachable("no route to that machine".to_owned()),
                io::ErrorKind::NetworkUnreachable => return Cause::Unreachable("network unreachable".to_owned()),
                _ => {}
            }
            // `io::Error::source` skips the error that it wraps itself.
            next = io.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or_else(|| io.source());
            if next.is_none() {
                return Cause::Other(io.to_string());
            }
            continue;
        }
        match error.source() {
            None => return Cause::Other(error.to_string()),
            inner => next = inner,
        }
    }
    Cause::Other(error.to_string())
}

fn tls_cause(error: &rustls::Error) -> Cause {
    match error {
        rustls::Error::InvalidMessage(_) => Cause::PlainPort,
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => Cause::UnknownCa,
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::CertificateRequired
            | AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied),
        ) => Cause::ClientCertificate(format!("{alert:?}")),
        other => Cause::Tls(other.to_string()),
    }
}
