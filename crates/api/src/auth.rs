//! Who may change something: those who know the cluster secret, or the configured user.
//!
//! **Invariant:** comparisons take the same time wherever the difference is; nothing here prints a secret.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;

/// The bearer token of the API: hex of HMAC-SHA-256(cluster secret, [`Token::PURPOSE`]).
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// What is signed with the cluster secret.
    pub const PURPOSE: &'static str = "standfast api";

    /// The token of a cluster, from the bytes of its secret.
    pub fn derive(secret: &[u8]) -> Self {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
            unreachable!("HMAC accepts keys of every length")
        };
        mac.update(Self::PURPOSE.as_bytes());
        Self::from_tag(&mac.finalize().into_bytes())
    }

    /// The token, from the HMAC of [`Token::PURPOSE`] made elsewhere.
    pub fn from_tag(tag: &[u8]) -> Self {
        Self(tag.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What a caller puts into its `Authorization` header.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A user and password of Patroni's kind.
#[derive(Clone)]
pub struct BasicAuth(String);

impl BasicAuth {
    pub fn new(username: &str, password: &str) -> Self {
        Self(base64(format!("{username}:{password}").as_bytes()))
    }

    /// What a caller puts into its `Authorization` header.
    pub fn header(&self) -> String {
        format!("Basic {}", self.0)
    }
}

impl fmt::Debug for BasicAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BasicAuth(..)")
    }
}

/// Why a caller may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It named no credentials.
    Missing,
    /// They are not ours.
    Wrong,
}

/// Whether these headers prove that the caller may change something.
pub(crate) fn check(
    headers: &HeaderMap,
    token: &Token,
    basic: Option<&BasicAuth>,
) -> Result<(), Denied> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(if headers.contains_key(AUTHORIZATION) {
            Denied::Wrong
        } else {
            Denied::Missing
        });
    };
    let value = value.to_str().map_err(|_| Denied::Wrong)?;
    let (scheme, given) = value.split_once(' ').ok_or(Denied::Wrong)?;
    let given = given.trim();
    let right = if scheme.eq_ignore_ascii_case("bearer") {
        same(given, &token.0)
    } else if scheme.eq_ignore_ascii_case("basic") {
        basic.is_some_and(|basic| same(given, &basic.0))
    } else {
        false
    };
    if right { Ok(()) } else { Err(Denied::Wrong) }
}

fn same(given: &str, expected: &str) -> bool {
    given.as_bytes().ct_eq(expected.as_bytes()).into()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            if place <= chunk.len() {
                let index = (group >> (18 - 6 * place) & 63) as usize;
                text.push(char::from(ALPHABET[index]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(value).expect("plain"));
        headers
    }

    #[test]
    fn base64_is_the_one_of_the_rfc() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), text);
        }
    }

    #[test]
    fn a_token_is_the_hmac_of_the_secret() {
        // echo -n "standfast api" | openssl dgst -sha256 -hmac "0123456789abcdef"
        let token = Token::derive(b"0123456789abcdef");
        assert_eq!(token.header().len(), "Bearer ".len() + 64);
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn only_the_token_and_the_configured_user_get_in() {
        let token = Token::derive(b"0123456789abcdef");
        let basic = BasicAuth::new("admin", "secret");
        let ok = |value: &str| check(&headers(value), &token, Some(&basic));
        assert_eq!(ok(&token.header()), Ok(()));
        assert_eq!(ok(&token.header().replace("Bearer", "bearer")), Ok(()));
        assert_eq!(ok("Basic YWRtaW46c2VjcmV0"), Ok(()));
        for bad in [
            "Bearer ",
            "Bearer x",
            "Basic",
            "Basic YWRtaW46c2VjcmV1",
            "Digest x",
            "",
        ] {
            assert_eq!(ok(bad), Err(Denied::Wrong), "{bad:?}");
        }
        assert_eq!(check(&HeaderMap::new(), &token, None), Err(Denied::Missing));
        assert_eq!(
            check(&headers("Basic YWRtaW46c2VjcmV0"), &token, None),
            Err(Denied::Wrong)
        );
        let mut twice = headers(&token.header());
        twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        assert_eq!(check(&twice, &token, None), Err(Denied::Wrong));
    }
}
