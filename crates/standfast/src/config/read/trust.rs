//! `ctl`: what commands and agents show and believe when they ask a member by HTTPS.

use super::places::absolute_path;
use crate::config::section::Section;
use crate::config::tree::Node;
use api::client::TrustOptions;
use certs::Passphrase;
use std::path::PathBuf;

/// What `ctl` does not say is as the REST interface has it.
pub(in crate::config) fn trust(root: &Section<'_>) -> TrustOptions {
    let ctl = root.section("ctl");
    let authentication = ctl.section("authentication");
    for key in ["username", "password"] {
        let _ = authentication.text(key);
    }
    authentication.finish(&[]);
    let said = |key| {
        ctl.is_given(key)
            .then(|| absolute_path(&ctl, key))
            .flatten()
    };
    let usual = |key| of_restapi(root, key);
    let (certificate, key) = match said("certfile") {
        Some(certificate) => (Some(certificate), said("keyfile")),
        None => (
            usual("certfile").map(PathBuf::from),
            usual("keyfile").map(PathBuf::from),
        ),
    };
    let passphrase = match ctl.is_given("certfile") {
        true => passphrase(&ctl),
        false => {
            let _ = ctl.is_given("keyfile_password");
            of_restapi(root, "keyfile_password").map(Passphrase::new)
        }
    };
    let trust = TrustOptions {
        passphrase,
        authority: said("cacert").or_else(|| usual("cafile").map(PathBuf::from)),
        // Where only one file is named, it holds both.
        own: certificate.map(|file| (file.clone(), key.unwrap_or(file))),
        insecure: ctl.flag("insecure").unwrap_or(false),
        any_name: false,
    };
    let _ = ctl.is_given("keyfile");
    ctl.finish(&[]);
    trust
}

/// What the REST interface says; what is wrong with it is said where that is read.
fn of_restapi(root: &Section<'_>, key: &str) -> Option<String> {
    let Node::Map(entries) = &root.value("restapi")?.node else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key == key)?;
    match &entry.value.node {
        Node::Text(text) => Some(text.clone()),
        Node::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Of a key in the same section.
pub(super) fn passphrase(section: &Section<'_>) -> Option<Passphrase> {
    let given = section.text("keyfile_password")?;
    if given.value.contains(['\n', '\r', '\0']) {
        section.error(given.line, "keyfile_password", "must not hold line breaks");
        return None;
    }
    Some(Passphrase::new(given.value))
}
