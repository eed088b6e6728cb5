//! Whether the postmaster still takes connections: those that are open go on answering while it hangs.
//!
//! **Invariant:** any answer at all counts, be it that there is no room. It takes no slot from anybody.

use crate::error::PostgresError;
use crate::instance::Instance;
use crate::sql::Host;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// SSLRequest of the PostgreSQL protocol (v3, "Message Formats"). It is answered by one byte, before anybody has to
/// say who he is, and whoever leaves after it is not complained of in the log.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// While the queue of its socket is full.
const AGAIN: Duration = Duration::from_millis(50);

impl Instance {
    /// Returns when the postmaster has answered a new connection, or refuses to be connected to: however long that
    /// takes. An error says why it could not even be tried.
    pub async fn knock(&self) -> Result<(), PostgresError> {
        let address = self.address()?;
        loop {
            let knocked = match &address.host {
                Host::Socket(directory) => {
                    let path = directory.join(format!(".s.PGSQL.{}", address.port));
                    match UnixStream::connect(&path).await {
                        Ok(stream) => answered(stream).await,
                        Err(error) => Err(error),
                    }
                }
                Host::Tcp(host) => match TcpStream::connect((host.as_str(), address.port)).await {
                    Ok(stream) => answered(stream).await,
                    Err(error) => Err(error),
                },
            };
            match knocked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(AGAIN).await;
                }
                // A connection that it ends was taken, too.
                Ok(()) | Err(_) => return Ok(()),
            }
        }
    }
}

async fn answered(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    stream.write_all(&SSL_REQUEST).await?;
    stream.read(&mut [0]).await.map(drop)
}
