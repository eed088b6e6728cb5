//! Certificates for the store's members and the REST ports of a story, made on the spot.

use anyhow::{Context, Result};
use lab::{Cluster, Lab, Shape};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// What the cluster's configuration says about them.
pub(crate) fn shape(lab: &Lab) -> Shape {
    let at = directory(lab).display().to_string();
    Shape {
        raft: format!(
            "tls: {{cert_file: {at}/NAME.crt, key_file: {at}/NAME.key, ca_file: {at}/ca.crt}}"
        ),
        restapi: format!(
            "certfile: {at}/NAME.crt, keyfile: {at}/NAME.key, cafile: {at}/ca.crt, verify_client: optional"
        ),
        authority: Some(directory(lab).join("ca.crt")),
        parameters: parameters(&at),
        ..Shape::default()
    }
}

fn parameters(at: &str) -> String {
    format!(
        "max_connections: 100, ssl: on, ssl_cert_file: {at}/NAME.crt, ssl_key_file: {at}/NAME.key"
    )
}

/// Nobody is answered without a certificate, members of the cluster neither, and no server is believed without one.
pub(crate) fn between_agents(lab: &Lab) -> Shape {
    let at = directory(lab).display().to_string();
    Shape {
        restapi: format!(
            "certfile: {at}/NAME.crt, keyfile: {at}/NAME.key, cafile: {at}/ca.crt, verify_client: required"
        ),
        authority: Some(directory(lab).join("ca.crt")),
        libpq: format!("sslmode: verify-ca, sslrootcert: {at}/ca.crt"),
        parameters: parameters(&at),
        ..Shape::default()
    }
}

/// A new authority and, of it, a new certificate for each node. The authorities before stay believed: nodes read
/// their files one after the other.
pub(crate) fn renew(lab: &Lab, cluster: &Cluster) -> Result<()> {
    let directory = directory(lab);
    fs::create_dir_all(&directory)?;
    lab.identity().own(&directory)?;
    let before = fs::read_to_string(directory.join("ca.crt")).unwrap_or_default();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let name = format!("authority {}", before.matches("BEGIN").count());
    params.distinguished_name.push(DnType::CommonName, name);
    let believed = before + &params.self_signed(&key)?.pem();
    let authority = Issuer::new(params, key);
    place(lab, "ca.crt", &believed)?;
    for node in &cluster.nodes {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([node.host.address().to_owned()])?;
        let certificate = params.signed_by(&key, &authority)?;
        place(lab, &format!("{}.crt", node.name), &certificate.pem())?;
        place(lab, &format!("{}.key", node.name), &key.serialize_pem())?;
    }
    Ok(())
}

/// Whole, or not at all.
fn place(lab: &Lab, name: &str, text: &str) -> Result<()> {
    let (file, new) = (directory(lab).join(name), directory(lab).join("new"));
    fs::write(&new, text)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
    lab.identity().own(&new)?;
    fs::rename(&new, &file).with_context(|| format!("put {} in its place", file.display()))
}

pub(crate) fn directory(lab: &Lab) -> PathBuf {
    lab.path().join("tls")
}
