//! Two things that a certificate says: whose it is, and by which hash it is known in SCRAM.
//!
//! **Invariant:** of bytes that are no certificate nothing is said, whatever they are.
//!
//! It does not verify anything: that is done before.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// The data of `tls-server-end-point` (RFC 5929).
pub(crate) type EndPoint = Box<[u8]>;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const CONTEXT_0: u8 = 0xa0;
/// UTF8String, PrintableString, T61String, IA5String: one byte or more a sign, no two-byte signs.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// `2.5.4.3`
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// `1.2.840.113549.1.1.`, behind which the number of an RSA signature stands.
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// `1.2.840.10045.4.`, likewise for ECDSA with SHA-1 (1) and SHA-2 (3.n).
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];

/// The hash of a certificate by its own signature's algorithm, SHA-256 in place of what is weaker.
/// `None` where the algorithm names none, as with Ed25519: then there is no channel binding.
pub(crate) fn end_point(certificate: &[u8]) -> Option<EndPoint> {
    let whole = Der(certificate).of_kind(SEQUENCE)?.0;
    let (_, behind) = whole.next()?;
    let algorithm = behind.of_kind(SEQUENCE)?.0.of_kind(OBJECT)?.0;
    let hash = |bits: u16| -> EndPoint {
        match bits {
            384 => Sha384::digest(certificate).as_slice().into(),
            512 => Sha512::digest(certificate).as_slice().into(),
            _ => Sha256::digest(certificate).as_slice().into(),
        }
    };
    if let Some(number) = algorithm.0.strip_prefix(RSA) {
        return match number {
            [4 | 5 | 11] => Some(hash(256)),
            [12] => Some(hash(384)),
            [13] => Some(hash(512)),
            _ => None,
        };
    }
    match algorithm.0.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(hash(256)),
        [3, 3] => Some(hash(384)),
        [3, 4] => Some(hash(512)),
        _ => None,
    }
}

/// The first common name of the subject.
pub(crate) fn common_name(certificate: &[u8]) -> Option<String> {
    let body = Der(certificate).of_kind(SEQUENCE)?.0.of_kind(SEQUENCE)?.0;
    // The version may be missing; then serial number, algorithm, issuer, validity, subject.
    let mut rest = body;
    if let Some((_, behind)) = body.of_kind(CONTEXT_0) {
        rest = behind;
    }
    for _ in 0..4 {
        rest = rest.next()?.1;
    }
    let mut names = rest.of_kind(SEQUENCE)?.0;
    while let Some((mut set, behind)) = names.of_kind(SET) {
        while let Some((pair, more)) = set.of_kind(SEQUENCE) {
            let (kind, value) = pair.of_kind(OBJECT)?;
            if kind.0 == COMMON_NAME {
                return value.text();
            }
            set = more;
        }
        names = behind;
    }
    None
}

/// A stretch of DER.
#[derive(Clone, Copy)]
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the first element, and what is behind it.
    fn next(self) -> Option<(Self, Self)> {
        let (_, content, behind) = self.split()?;
        Some((content, behind))
    }

    /// The same if it is of this kind.
    fn of_kind(self, kind: u8) -> Option<(Self, Self)> {
        let (is, content, behind) = self.split()?;
        (is == kind).then_some((content, behind))
    }

    fn split(self) -> Option<(u8, Self, Self)> {
        let [kind, length, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match *length {
            short @ 0..=0x7f => (usize::from(short), rest),
            // No certificate is longer than four bytes can say.
            long @ 0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                let length = digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                (length, rest)
            }
            _ => return None,
        };
        let (content, behind) = rest.split_at_checked(length)?;
        Some((*kind, Self(content), Self(behind)))
    }

    fn text(self) -> Option<String> {
        let (kind, content, _) = self.split()?;
        if !TEXTS.contains(&kind) || content.0.contains(&0) {
            return None;
        }
        String::from_utf8(content.0.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm, name: &str) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "o");
        params.distinguished_name.push(DnType::CommonName, name);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_tells_its_name_and_its_hash() {
        let it = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, "app");
        assert_eq!(common_name(&it).as_deref(), Some("app"));
        assert_eq!(end_point(&it).unwrap()[..], Sha256::digest(&it)[..]);
        let it = certificate(&rcgen::PKCS_ECDSA_P384_SHA384, "ümlaut");
        assert_eq!(common_name(&it).as_deref(), Some("ümlaut"));
        assert_eq!(end_point(&it).unwrap()[..], Sha384::digest(&it)[..]);
        let it = certificate(&rcgen::PKCS_ED25519, "app");
        assert_eq!(end_point(&it), None);
    }

    #[test]
    fn half_a_certificate_tells_nothing() {
        let whole = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, "app");
        for length in 0..whole.len() {
            assert_eq!(end_point(&whole[..length]), None);
            assert_eq!(common_name(&whole[..length]), None);
        }
    }
}
