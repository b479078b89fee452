//! The way to the server, and how a message is framed on it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

use super::target::{SyslogTarget, Transport};
use crate::tls::{self, Validity};

/// A server that takes nothing for so long is as good as gone.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub(super) enum Connection {
    Datagrams(UdpSocket),
    Stream(Box<dyn Stream>),
}

impl Connection {
    pub(super) async fn open(target: &SyslogTarget, pins: &[[u8; 32]]) -> io::Result<Self> {
        in_time(async {
            match target.transport {
                Transport::Udp => datagrams(target).await.map(Self::Datagrams),
                Transport::Tcp => Ok(Self::Stream(Box::new(connect(target).await?))),
                Transport::Tls => encrypted(target, pins).await,
            }
        })
        .await
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Datagrams(socket) => in_time(async { socket.send(message).await.map(drop) }).await,
            // Octet counting: the message may hold anything.
            Self::Stream(stream) => {
                let mut frame = format!("{} ", message.len()).into_bytes();
                frame.extend_from_slice(message);
                in_time(stream.write_all(&frame)).await
            }
        }
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Datagrams(_) => Ok(()),
            Self::Stream(stream) => in_time(stream.flush()).await,
        }
    }

    /// Waits until the server hangs up; a syslog server says nothing otherwise.
    pub(super) async fn closed(&mut self) -> io::Error {
        let Self::Stream(stream) = self else { return std::future::pending().await };
        let mut unasked = [0; 256];
        loop {
            match stream.read(&mut unasked).await {
                Ok(0) => return io::Error::new(io::ErrorKind::ConnectionAborted, "the server closed the connection"),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no progress for {} s", PATIENCE.as_secs()))),
    }
}

async fn datagrams(target: &SyslogTarget) -> io::Result<UdpSocket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host((target.host.as_str(), target.port)).await? {
        let own = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(own).await?;
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect(target: &SyslogTarget) -> io::Result<TcpStream> {
    TcpStream::connect((target.host.as_str(), target.port)).await
}

/// The server shows the CA that is pinned, as the controller does; nothing else is trusted.
async fn encrypted(target: &SyslogTarget, pins: &[[u8; 32]]) -> io::Result<Connection> {
    let (config, _) = tls::rustls_config(pins, None, Validity::Checked).map_err(io::Error::other)?;
    let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, connect(target).await?).await?;
    Ok(Connection::Stream(Box::new(stream)))
}
