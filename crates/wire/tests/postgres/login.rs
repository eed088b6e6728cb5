//! The server's side of SCRAM against libpq, and logging in with what it learnt.

use crate::line::{Line, Proof};
use crate::server::{PASSWORD, Server};
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use wire::backend::{Authentication, Message as Said, Report, SqlState};
use wire::frontend::{Framer, Message as Asked, SaslInitialResponse};
use wire::scram::{Keys, Offer, SCRAM_SHA_256, Server as Exchange, Verifier};
use wire::startup::{First, Opening, Version};
use wire::{Hidden, Limits, List, Stage, Step};

/// Reads one message of authentication.
fn password(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut framer = Framer::new(Stage::Authentication, Limits::default());
    let mut buffer = Vec::new();
    loop {
        if let Step::Message(frame) = framer.next(&buffer)? {
            let Asked::Password(Hidden(bytes)) = frame.message()? else {
                bail!("no password");
            };
            return Ok(bytes.to_vec());
        }
        let mut chunk = [0; 512];
        let read = stream.read(&mut chunk)?;
        ensure!(read > 0, "the client has gone");
        buffer.extend_from_slice(&chunk[..read]);
    }
}

/// Verifies one client, and sends it away with an error.
fn serve(listener: &TcpListener, verifier: Verifier) -> Result<Keys> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = Vec::new();
    loop {
        match Opening::new().next(&buffer)? {
            First::Startup(startup, _) => {
                ensure!(startup.user() == Some(c"scram"));
                break;
            }
            First::More { .. } => {}
            other => bail!("{other:?}"),
        }
        let mut chunk = [0; 512];
        let read = stream.read(&mut chunk)?;
        ensure!(read > 0, "the client has gone");
        buffer.extend_from_slice(&chunk[..read]);
    }
    let say = |message: Authentication<'_>| -> Result<()> {
        let mut out = Vec::new();
        Said::Authentication(message).encode(&mut out)?;
        Ok((&stream).write_all(&out)?)
    };
    let mut room = Vec::new();
    say(Authentication::Sasl(List::write(
        [SCRAM_SHA_256],
        &mut room,
    )))?;
    let mut reading = stream.try_clone()?;
    let first = password(&mut reading)?;
    let first = SaslInitialResponse::parse(Hidden(&first))?;
    ensure!(first.mechanism == SCRAM_SHA_256);
    let Hidden(response) = first.response.context("a first message")?;
    let (challenge, exchange) =
        Exchange::begin(response, Offer::Plain, verifier, "3rfcNHYJY1ZVvWVs7j")?;
    say(Authentication::SaslContinue(&challenge))?;
    let accepted = exchange.finish(&password(&mut reading)?)?;
    say(Authentication::SaslFinal(&accepted.message))?;
    say(Authentication::Ok)?;
    let mut out = Vec::new();
    let report = Report::fatal(SqlState(*b"57P01"), "that was all").hint("there is no more");
    report.encode(&mut out)?;
    stream.write_all(&out)?;
    Ok(accepted.keys)
}

#[test]
fn the_keys_learnt_from_a_client_let_us_in_at_the_server() -> Result<()> {
    let server = Server::start()?;
    let stored = server.psql("select rolpassword from pg_authid where rolname = 'scram'")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port().to_string();
    let verifier = Verifier::parse(&stored)?;
    let serving = std::thread::spawn(move || serve(&listener, verifier));
    let output = server
        .program("psql")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-XU",
            "scram",
            "-c",
            "select 1",
            "postgres",
        ])
        .env("PGPASSWORD", PASSWORD)
        .env("PGSSLMODE", "disable")
        .env("PGGSSENCMODE", "disable")
        .output()?;
    let keys = serving.join().map_err(|_| anyhow::anyhow!("panicked"))??;
    // libpq has believed our signature, and shows our error.
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("FATAL:  that was all"), "{said}");
    ensure!(said.contains("HINT:  there is no more"), "{said}");
    let mut line = Line::open(&server, c"scram", &Proof::Keys(keys), Version::V3_0, &[])?;
    ensure!(line.ask("select current_user")? == [b"scram".to_vec()]);
    line.end()
}
