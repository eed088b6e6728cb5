//! Connections to a machine of etcd's, encrypted where the configuration says so.

use super::options::EtcdTls;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// Unacknowledged bytes for so long mean that the member's machine is gone.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);

/// What is spoken over an encrypted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Http1,
    Http2,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// `address`: `host:port`.
pub(super) async fn tcp(address: &str) -> Result<TcpStream, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(|it| text(&it))?;
    let limit = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    stream
        .set_nodelay(true)
        .and_then(|()| Ok(rustix::net::sockopt::set_tcp_user_timeout(&stream, limit)?))
        .map_err(|it| text(&it))?;
    Ok(stream)
}

/// The same connection, encrypted if there is `tls`.
pub(super) async fn secured(
    stream: TcpStream,
    address: &str,
    tls: Option<&EtcdTls>,
    spoken: Spoken,
) -> Result<Box<dyn Stream>, String> {
    let Some(tls) = tls.cloned() else {
        return Ok(Box::new(stream));
    };
    let text = |error: &dyn std::fmt::Display| error.to_string();
    // Files may hang.
    let config = tokio::task::spawn_blocking(move || tls.load()).await;
    let mut config = config.map_err(|it| text(&it))?.map_err(|it| text(&it))?;
    config.alpn_protocols = match spoken {
        Spoken::Http1 => vec![b"http/1.1".to_vec()],
        Spoken::Http2 => vec![b"h2".to_vec()],
    };
    let name = ServerName::try_from(host(address).to_owned()).map_err(|it| text(&it))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    Ok(Box::new(stream.map_err(|it| text(&it))?))
}

pub(super) fn is_local(address: &str) -> bool {
    let host = host(address);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

/// The host of `host:port`, an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}
