//! `ctl`: what commands and agents show and believe when they ask a member by HTTPS.

use super::places::absolute_path;
use crate::config::section::Section;
use crate::config::tree::Node;
use api::client::TrustOptions;
use std::path::PathBuf;

/// What `ctl` does not say is as the REST interface has it.
pub(in crate::config) fn trust(root: &Section<'_>) -> TrustOptions {
    let ctl = root.section("ctl");
    let authentication = ctl.section("authentication");
    for key in ["username", "password"] {
        let _ = authentication.text(key);
    }
    authentication.finish(&[]);
    refuse_passphrase(&ctl);
    let said = |key| {
        ctl.is_given(key)
            .then(|| absolute_path(&ctl, key))
            .flatten()
    };
    let usual = |key| of_restapi(root, key);
    let (certificate, key) = match said("certfile") {
        Some(certificate) => (Some(certificate), said("keyfile")),
        None => (usual("certfile"), usual("keyfile")),
    };
    let trust = TrustOptions {
        authority: said("cacert").or_else(|| usual("cafile")),
        // Where only one file is named, it holds both.
        own: certificate.map(|file| (file.clone(), key.unwrap_or(file))),
        insecure: ctl.flag("insecure").unwrap_or(false),
        any_name: false,
    };
    let _ = ctl.is_given("keyfile");
    ctl.finish(&[]);
    trust
}

/// A file that the REST interface names; what is wrong with it is said where that is read.
fn of_restapi(root: &Section<'_>, key: &str) -> Option<PathBuf> {
    let Node::Map(entries) = &root.value("restapi")?.node else {
        return None;
    };
    let entry = entries.iter().find(|entry| entry.key == key)?;
    match &entry.value.node {
        Node::Text(text) => Some(PathBuf::from(text)),
        _ => None,
    }
}

/// It would stand beside the key.
pub(super) fn refuse_passphrase(section: &Section<'_>) {
    if section.is_given("keyfile_password") {
        section.refuse(
            "keyfile_password",
            "keys with a passphrase are not supported: write the key without one, readable by its owner only \
             (openssl pkey -in KEY -out NEW; chmod 600 NEW), and remove this line",
        );
    }
}
