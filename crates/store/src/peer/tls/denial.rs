//! What a failed TLS handshake means, in words for whoever has to mend it.
//!
//! It tells apart what a person must see to (a certificate, a setting) from noise on the line.

use super::NO_TLS;
use certs::{before, since};
use std::io;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Somebody was there, and one side did not accept the other.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denial {
    #[error("the other side's certificate expired{}: put a new one in its place there", since(*.0))]
    Expired(Option<u64>),
    #[error("the other side's certificate is not valid{}: check the clocks of both machines", before(*.0))]
    NotValidYet(Option<u64>),
    #[error(
        "the other side's certificate is not of this cluster's authority: give every node certificates of one authority, and ca_file with it"
    )]
    OtherAuthority,
    #[error(
        "the other side's certificate does not name the host that was dialled (it names {0}): its subjectAltName must, or the address in the configuration is wrong"
    )]
    OtherName(String),
    #[error("an address without a host that a certificate could name")]
    NoName,
    #[error("the other side showed no certificate: give it one of this cluster's authority")]
    NoCertificate,
    #[error("the other side's certificate is not accepted: {0}")]
    NotAccepted(CertificateError),
    #[error("the other side does not accept this node's certificate: {}", alert(*.0))]
    Refused(AlertDescription),
    #[error(
        "the other side has no TLS, and this node takes nothing else: give every node of this cluster store.raft.tls, or none"
    )]
    WithoutTls,
    #[error(
        "the other side takes nothing but TLS, and this node has none: give every node of this cluster store.raft.tls, or none"
    )]
    OnlyTls,
}

/// What an error of a TLS stream says about the other side, if it is that.
pub(crate) fn denial(error: &io::Error) -> Option<Denial> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    match error {
        Error::InvalidCertificate(why) => Some(not_accepted(why)),
        Error::NoCertificatesPresented => Some(Denial::NoCertificate),
        Error::AlertReceived(AlertDescription::Unknown(NO_TLS)) => Some(Denial::WithoutTls),
        Error::AlertReceived(alert) if is_about_certificates(*alert) => {
            Some(Denial::Refused(*alert))
        }
        _ => None,
    }
}

/// Whether an error of a TLS stream is that the other side speaks something else.
pub(crate) fn is_gibberish(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(
        inner,
        Some(
            Error::InvalidMessage(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. }
                | Error::PeerIncompatible(_)
                | Error::PeerMisbehaved(_)
                | Error::AlertReceived(_)
        )
    )
}

fn not_accepted(why: &CertificateError) -> Denial {
    match why {
        CertificateError::Expired => Denial::Expired(None),
        CertificateError::ExpiredContext { not_after, .. } => {
            Denial::Expired(Some(not_after.as_secs()))
        }
        CertificateError::NotValidYet => Denial::NotValidYet(None),
        CertificateError::NotValidYetContext { not_before, .. } => {
            Denial::NotValidYet(Some(not_before.as_secs()))
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Denial::OtherAuthority,
        CertificateError::NotValidForName => Denial::OtherName("others".into()),
        CertificateError::NotValidForNameContext { presented, .. } => {
            Denial::OtherName(if presented.is_empty() {
                "none".into()
            } else {
                presented.join(", ")
            })
        }
        other => Denial::NotAccepted(other.clone()),
    }
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::CertificateRequired
    )
}

fn alert(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => {
            "it says expired; look at the certificate here and at the clock there"
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it knows another authority; compare ca_file on both nodes"
        }
        AlertDescription::BadCertificate => {
            "it does not name this node, or is not valid yet by the clock there; its log says which"
        }
        AlertDescription::CertificateRequired => "it saw none",
        _ => "its log says why",
    }
}
