//! What certificates are accepted for one's own, and what is said about the others.

#[allow(dead_code, reason = "the integration tests use the rest")]
#[path = "../../../tests/common/certificates.rs"]
mod certificates;

use super::rotation::News;
use super::{Tls, TlsError, TlsOptions, host};
use certificates::{Authority, Files, Pair, replace};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::UnixTime;

const HOST: &str = "10.0.0.1";

struct Node {
    directory: TempDir,
    authority: Authority,
    files: Files,
}

impl Node {
    fn new() -> Self {
        let authority = Authority::new();
        let pair = authority.sign(&["node-1.example", HOST]);
        Self::with(authority, &pair)
    }

    fn with(authority: Authority, pair: &Pair) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let files = Files::write(directory.path(), "node", pair, &authority.pem);
        Self {
            directory,
            authority,
            files,
        }
    }

    fn options(&self) -> TlsOptions {
        TlsOptions {
            certificate: self.files.certificate.clone(),
            key: self.files.key.clone(),
            authority: self.files.authority.clone(),
            host: Some(HOST.into()),
            required: true,
        }
    }

    /// The complaint, with the causes, and without the directory.
    fn complaint(&self) -> String {
        let error = Tls::load(self.options()).expect_err("refused");
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        let directory = format!("{}/", self.directory.path().display());
        text.replace(&directory, "")
    }
}

fn complaint_of(pair: impl FnOnce(&Authority) -> Pair) -> String {
    let authority = Authority::new();
    let pair = pair(&authority);
    Node::with(authority, &pair).complaint()
}

#[test]
fn a_certificate_that_names_the_node_is_taken() {
    let node = Node::new();
    Tls::load(node.options()).expect("by address");
    for host in [Some("node-1.example"), None] {
        let options = TlsOptions {
            host: host.map(str::to_owned),
            ..node.options()
        };
        Tls::load(options).expect("by name, and for one who only dials");
    }
}

#[test]
fn a_certificate_that_the_others_would_refuse_is_refused_here_with_what_to_do() {
    assert_eq!(
        complaint_of(|authority| authority.sign_expired(&[HOST])),
        "the certificate node.crt expired at 2001-02-03T00:00:00Z: put a new one in its place"
    );
    assert_eq!(
        complaint_of(|authority| authority.sign_with(&[HOST], |params| {
            params.not_before = date_time_ymd(2999, 1, 1);
        })),
        "the certificate node.crt is not valid before 2999-01-01T00:00:00Z: check this machine's clock"
    );
    let other_authority = "the certificate node.crt is not of the authority node.ca: have it signed by that, or name the authority that signed it";
    let theirs = Authority::new().sign(&[HOST]);
    assert_eq!(complaint_of(|_| theirs), other_authority);
    // One that was made anew under its old name.
    let pair = Authority::named("twin").sign(&[HOST]);
    let node = Node::with(Authority::named("twin"), &pair);
    assert_eq!(node.complaint(), other_authority);
    assert_eq!(
        complaint_of(|authority| authority.sign(&["10.0.0.2", "node-1.example"])),
        "the certificate node.crt does not name 10.0.0.1, under which the others reach this node: its subjectAltName must"
    );
    for only in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        assert_eq!(
            complaint_of(|authority| authority.sign_with(&[HOST], |params| {
                params.extended_key_usages = vec![only];
            })),
            "the certificate node.crt is not meant for both sides of a connection: its extended key usage must be serverAuth and clientAuth, or left out"
        );
    }
}

#[test]
fn files_that_hold_something_else_are_named() {
    let node = Node::new();
    let other = node.authority.sign(&[HOST]);
    replace(&node.files.key, &other.key);
    assert_eq!(
        node.complaint(),
        "the key node.key does not belong to the certificate node.crt"
    );
    replace(&node.files.key, &other.certificate);
    assert_eq!(node.complaint(), "node.key holds no private key in PEM");
    let foreign = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    replace(&node.files.key, foreign);
    assert_eq!(
        node.complaint(),
        "the key node.key is not usable: an RSA, ECDSA P-256 or P-384, or Ed25519 key is"
    );
    replace(&node.files.certificate, &other.key);
    assert_eq!(node.complaint(), "node.crt holds no certificate in PEM");
    replace(&node.files.certificate, "");
    assert_eq!(node.complaint(), "node.crt holds no certificate in PEM");
    fs::remove_file(&node.files.certificate).expect("removed");
    assert_eq!(
        node.complaint(),
        "cannot read node.crt: No such file or directory (os error 2)"
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let node = Node::new();
    for mode in [0o644, 0o604, 0o660, 0o666] {
        fs::set_permissions(&node.files.key, fs::Permissions::from_mode(mode)).expect("set");
        let error = Tls::load(node.options()).expect_err("too open");
        assert!(
            matches!(error, TlsError::TooOpen { .. }),
            "{mode:o}: {error}"
        );
    }
}

#[test]
fn nothing_of_a_key_is_in_an_error() {
    let node = Node::new();
    let planted = "-----BEGIN PRIVATE KEY-----\nplanted!\n-----END planted\n";
    replace(&node.files.key, planted);
    let error = Tls::load(node.options()).expect_err("no key");
    assert!(!format!("{error} {error:?}").contains("planted"));
}

#[test]
fn the_end_of_a_certificate_is_said_ahead_and_once() {
    let authority = Authority::new();
    let pair = authority.sign_with(&[HOST], |params| {
        params.not_after = date_time_ymd(2999, 1, 1);
    });
    let node = Node::with(authority, &pair);
    let tls = Tls::load(node.options()).expect("in force");
    let end = 32_472_144_000;
    let day = 24 * 3600;
    let look = |at| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        format!("{:?}", tls.shared.look(at))
    };
    assert_eq!(look(end - 8 * day), "[]");
    assert_eq!(look(end - 6 * day), format!("[EndsSoon({end})]"));
    assert_eq!(look(end - 5 * day), "[]");
    assert_eq!(look(end + 1), format!("[Ended({end})]"));
    assert_eq!(look(end + day), "[]");
}

#[test]
fn what_cannot_be_used_does_not_take_the_place_of_what_can() {
    let node = Node::new();
    let tls = Tls::load(node.options()).expect("good");
    let before = tls.credentials();
    replace(&node.files.certificate, "torn");
    tls.reload().expect_err("no certificate");
    let look = || tls.shared.look(UnixTime::now());
    // It may be half written, and is spoken of when it stays so.
    assert!(look().is_empty());
    let said = look();
    assert!(matches!(said.as_slice(), [News::Unusable(_)]), "{said:?}");
    assert!(look().is_empty());
    assert!(std::sync::Arc::ptr_eq(&before, &tls.credentials()));
    node.files.replace(&node.authority.sign(&[HOST]));
    assert!(matches!(look().as_slice(), [News::Renewed]));
    assert!(!std::sync::Arc::ptr_eq(&before, &tls.credentials()));
    let after = tls.credentials();
    assert!(look().is_empty());
    assert!(std::sync::Arc::ptr_eq(&after, &tls.credentials()));
}

#[test]
fn the_host_is_what_stands_before_the_port() {
    for (address, expected) in [
        ("10.0.0.1:8008", "10.0.0.1"),
        ("node-1.example:8008", "node-1.example"),
        ("[::1]:8008", "::1"),
        ("bare", "bare"),
    ] {
        assert_eq!(host(address), expected);
    }
}
