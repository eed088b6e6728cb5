//! The handshake of [`super::auth`] over a stream.
//!
//! **Invariant:** a connection is handed on only when both sides have proved that they know the secret.
//! The caller puts a deadline around it.

use super::auth::{MAGIC, Nonce, Tag, Transcript, same};
use super::frame::{Reader, Receiver, STRANGER_BYTES_MAX, Sender, Writer, receive, send};
use super::tls::{Denial, Wire, denial, is_gibberish};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the connection broke during the handshake: {0}")]
    Broken(io::Error),
    #[error(
        "the other side has another cluster secret: give every node of this cluster the same secret file"
    )]
    OtherSecret,
    #[error(
        "the other side belongs to another cluster: check the cluster's name and the address in the configuration"
    )]
    OtherCluster,
    #[error("the other side does not speak this protocol: check the address and the port")]
    OtherProtocol,
    #[error("TLS: {0}")]
    Tls(Denial),
}

impl HandshakeError {
    /// Whether somebody was there and said no.
    pub(crate) fn is_denial(&self) -> bool {
        matches!(self, Self::OtherSecret | Self::OtherCluster | Self::Tls(_))
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match denial(&error) {
            Some(denial) => Self::Tls(denial),
            None if is_gibberish(&error) => Self::OtherProtocol,
            None => Self::Broken(error),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Hello {
    cluster: String,
    nonce: Nonce,
}

#[derive(Serialize, Deserialize)]
enum Challenge {
    Nonce(Nonce),
    OtherCluster,
    /// The client came without TLS.
    OnlyTls,
}

#[derive(Serialize, Deserialize)]
struct ClientProof(Tag);

#[derive(Serialize, Deserialize)]
enum Welcome {
    ServerProof(Tag),
    OtherSecret,
}

pub(crate) type Connection = (Sender, Receiver);

/// The side that connected. The magic was sent already.
pub(crate) async fn client(
    wire: Wire,
    cluster: &str,
    secret: &Secret,
) -> Result<Connection, HandshakeError> {
    let Wire {
        mut reader,
        mut writer,
        binding,
    } = wire;
    let client_nonce: Nonce = rand::random();
    say(
        &mut writer,
        &Hello {
            cluster: cluster.to_owned(),
            nonce: client_nonce,
        },
    )
    .await?;
    let server_nonce = match hear(&mut reader).await? {
        Challenge::Nonce(nonce) => nonce,
        Challenge::OtherCluster => return Err(HandshakeError::OtherCluster),
        Challenge::OnlyTls => return Err(HandshakeError::Tls(Denial::OnlyTls)),
    };
    let seen = Transcript {
        cluster,
        client_nonce,
        server_nonce,
        binding,
    };
    say(&mut writer, &ClientProof(seen.client_proof(secret))).await?;
    match hear(&mut reader).await? {
        Welcome::ServerProof(proof) if same(&proof, &seen.server_proof(secret)) => {
            let (up, down) = seen.keys(secret);
            Ok((Sender { writer, key: up }, Receiver { reader, key: down }))
        }
        Welcome::ServerProof(_) | Welcome::OtherSecret => Err(HandshakeError::OtherSecret),
    }
}

/// The side that was connected to. The magic was read already.
pub(crate) async fn server(
    wire: Wire,
    cluster: &str,
    secret: &Secret,
) -> Result<Connection, HandshakeError> {
    let Wire {
        mut reader,
        mut writer,
        binding,
    } = wire;
    let hello: Hello = hear(&mut reader).await?;
    if hello.cluster != cluster {
        say(&mut writer, &Challenge::OtherCluster).await?;
        return Err(HandshakeError::OtherCluster);
    }
    let server_nonce: Nonce = rand::random();
    say(&mut writer, &Challenge::Nonce(server_nonce)).await?;
    let seen = Transcript {
        cluster,
        client_nonce: hello.nonce,
        server_nonce,
        binding,
    };
    let ClientProof(proof) = hear(&mut reader).await?;
    if !same(&proof, &seen.client_proof(secret)) {
        say(&mut writer, &Welcome::OtherSecret).await?;
        return Err(HandshakeError::OtherSecret);
    }
    say(
        &mut writer,
        &Welcome::ServerProof(seen.server_proof(secret)),
    )
    .await?;
    let (up, down) = seen.keys(secret);
    Ok((Sender { writer, key: down }, Receiver { reader, key: up }))
}

/// The side that was connected to, where only TLS is taken and the client came without. Says so.
pub(crate) async fn turn_away(wire: Wire) -> HandshakeError {
    let Wire {
        mut reader,
        mut writer,
        ..
    } = wire;
    let turned_away = async {
        let _: Hello = hear(&mut reader).await?;
        say(&mut writer, &Challenge::OnlyTls).await?;
        Ok(())
    };
    match turned_away.await {
        Ok(()) => HandshakeError::Tls(Denial::WithoutTls),
        Err(error) => error,
    }
}

pub(crate) async fn send_magic(writer: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    writer.write_all(&MAGIC).await
}

pub(crate) async fn expect_magic(
    reader: &mut (impl AsyncReadExt + Unpin),
) -> Result<(), HandshakeError> {
    let mut magic = [0; 4];
    reader.read_exact(&mut magic).await?;
    if magic == MAGIC {
        Ok(())
    } else {
        Err(HandshakeError::OtherProtocol)
    }
}

async fn say(writer: &mut Writer, message: &impl Serialize) -> io::Result<()> {
    send(writer, &serde_json::to_vec(message)?).await
}

async fn hear<T: for<'de> Deserialize<'de>>(reader: &mut Reader) -> Result<T, HandshakeError> {
    let Some(bytes) = receive(reader, STRANGER_BYTES_MAX)
        .await
        .map_err(stranger)?
    else {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    };
    serde_json::from_slice(&bytes).map_err(|_| HandshakeError::OtherProtocol)
}

fn stranger(error: io::Error) -> HandshakeError {
    match error.into() {
        HandshakeError::Broken(error) if error.kind() == io::ErrorKind::InvalidData => {
            HandshakeError::OtherProtocol
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).expect("long enough")
    }

    fn wire(stream: tokio::io::DuplexStream) -> Wire {
        let (reader, writer) = tokio::io::split(stream);
        Wire {
            reader: Box::new(reader),
            writer: Box::new(writer),
            binding: None,
        }
    }

    async fn meet(
        client_side: (&str, &str),
        server_side: (&str, &str),
    ) -> (
        Result<Connection, HandshakeError>,
        Result<Connection, HandshakeError>,
    ) {
        let (near, far) = tokio::io::duplex(1 << 16);
        let (ours, theirs) = (secret(client_side.1), secret(server_side.1));
        tokio::join!(
            client(wire(near), client_side.0, &ours),
            server(wire(far), server_side.0, &theirs),
        )
    }

    #[tokio::test]
    async fn members_of_one_cluster_understand_each_other() {
        let secret = "the secret of cluster a";
        let (near, far) = meet(("a", secret), ("a", secret)).await;
        let ((mut to_server, mut from_server), (mut to_client, mut from_client)) =
            (near.expect("welcome"), far.expect("proved"));
        to_server.send(b"ping").await.expect("sent");
        assert_eq!(
            from_client.receive().await.expect("genuine"),
            Some(b"ping".to_vec())
        );
        to_client.send(b"pong").await.expect("sent");
        assert_eq!(
            from_server.receive().await.expect("genuine"),
            Some(b"pong".to_vec())
        );
    }

    #[tokio::test]
    async fn another_secret_is_named_as_such_on_both_sides() {
        let (near, far) = meet(
            ("a", "the secret of cluster a"),
            ("a", "something else altogether"),
        )
        .await;
        assert!(matches!(near, Err(HandshakeError::OtherSecret)));
        assert!(matches!(far, Err(HandshakeError::OtherSecret)));
    }

    #[tokio::test]
    async fn another_cluster_is_named_as_such_on_both_sides() {
        let secret = "one secret for two clusters";
        let (near, far) = meet(("a", secret), ("b", secret)).await;
        assert!(matches!(near, Err(HandshakeError::OtherCluster)));
        assert!(matches!(far, Err(HandshakeError::OtherCluster)));
    }

    #[tokio::test]
    async fn a_server_without_the_secret_is_not_believed() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let impostor = async {
            let Wire {
                mut reader,
                mut writer,
                ..
            } = wire(far);
            let _: Hello = hear(&mut reader).await.expect("a greeting");
            say(&mut writer, &Challenge::Nonce([7; 32]))
                .await
                .expect("sent");
            // Sends the client's own proof back to it.
            let ClientProof(proof) = hear(&mut reader).await.expect("a proof");
            say(&mut writer, &Welcome::ServerProof(proof))
                .await
                .expect("sent");
        };
        let ours = secret("the secret of cluster a");
        let meeting = client(wire(near), "a", &ours);
        let (result, ()) = tokio::join!(meeting, impostor);
        assert!(matches!(result, Err(HandshakeError::OtherSecret)));
    }
}
