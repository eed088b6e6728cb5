//! Versions and ways to log in, as the server has them.

use crate::line::{Line, Proof};
use crate::server::{PASSWORD, Server};
use anyhow::{Result, ensure};
use wire::startup::Version;

#[test]
fn versions_are_agreed_on_and_every_way_in_is_known() -> Result<()> {
    let server = Server::start()?;
    let major: u32 = server.psql("show server_version_num")?.parse::<u32>()? / 10_000;
    let newest = if major >= 18 {
        Version::V3_2
    } else {
        Version::V3_0
    };
    let trusted = Proof::Password("");
    for (wanted, agreed) in [
        (Version::V3_0, Version::V3_0),
        (Version::V3_2, newest),
        (Version::new(3, 9999), newest),
    ] {
        let option = [(c"_pq_.unknown", c"1")];
        for more in [&option[..0], &option[..]] {
            let line = Line::open(&server, c"postgres", &trusted, wanted, more)?;
            ensure!(line.version == agreed, "{wanted}: {}", line.version);
            let short = line.version.has_short_cancel_keys();
            ensure!(
                short == (line.secret_bytes == 4),
                "{wanted}: {}",
                line.secret_bytes
            );
            ensure!(line.session.idle().is_ok());
            ensure!(line.session.parameter(b"server_encoding") == Some(&b"UTF8"[..]));
            line.end()?;
        }
    }
    for user in [c"scram", c"clear"] {
        let proof = Proof::Password(PASSWORD);
        let mut line = Line::open(&server, user, &proof, Version::V3_0, &[])?;
        ensure!(line.ask("select current_user")? == [user.to_bytes().to_vec()]);
        line.end()?;
        let wrong = Proof::Password("wrong");
        ensure!(Line::open(&server, user, &wrong, Version::V3_0, &[]).is_err());
    }
    Ok(())
}
