//! We prove to a server that we may be whom we serve.
//!
//! **Invariant:** a server may ask for a bounded amount of work, and a password in clear is never
//! sent over a connection that others can read.

use super::{Credential, NoRandom, md5, nonce};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use wire::Hidden;
use wire::backend::Authentication;
use wire::frontend::{Message, SaslInitialResponse};
use wire::scram::{self, Binding, Client, Keys, SCRAM_SHA_256, SCRAM_SHA_256_PLUS};

/// A server that wants more is not obeyed.
const ITERATIONS_MAX: u32 = 100_000;
/// What a server may say of SASL at a time, in bytes, as for libpq.
const CHALLENGE_BYTES_MAX: usize = 2_000;

/// Why we can't log in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("the server asks for {0}, and what is known of the user is not enough for it")]
    NotEnough(&'static str),
    #[error("the server asks for {0}, which is not supported")]
    Unsupported(&'static str),
    #[error("the server's side of SCRAM is wrong")]
    Scram(#[from] scram::ScramError),
    #[error("the server's side of SCRAM is {0} bytes long")]
    TooLong(usize),
    #[error("the server asks for what it cannot ask for now")]
    OutOfTurn,
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
    #[error("the answer can't be written")]
    Unwritable(#[from] wire::Unwritable),
    #[error("the runtime ends")]
    Ending,
}

/// Where a login stands.
#[derive(Debug, Default)]
pub(crate) enum Answers {
    #[default]
    Nothing,
    Begun(Client),
    Proved(scram::Answer),
    /// The server has shown that it knows the verifier.
    Known,
}

/// What a password came to last: all servers of a cluster have the same salt for a user, and making
/// keys takes a while.
#[derive(Debug, Default)]
pub(crate) struct KeyCache(Mutex<Option<Derived>>);

struct Derived {
    password: String,
    salt: Vec<u8>,
    iterations: u32,
    keys: Keys,
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Derived(..)")
    }
}

/// Whose login it is, and over what.
#[derive(Debug)]
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) credential: &'a Credential,
    pub(crate) cache: &'a KeyCache,
    /// Of the server's certificate, if SCRAM can be bound to it.
    pub(crate) end_point: Option<&'a [u8]>,
}

/// Answers what the server asks; `true`: it has let us in.
pub(crate) async fn login(
    asked: Authentication<'_>,
    of: &Login<'_>,
    state: &mut Answers,
    out: &mut Vec<u8>,
) -> Result<bool, LoginError> {
    let Login {
        user,
        credential,
        cache,
        end_point,
    } = *of;
    match asked {
        Authentication::Ok => match state {
            Answers::Nothing | Answers::Known => return Ok(true),
            Answers::Begun(_) | Answers::Proved(_) => return Err(LoginError::OutOfTurn),
        },
        Authentication::Md5Password { salt } => {
            let stored = match credential {
                Credential::Password(password) => md5::stored(password, user),
                Credential::Md5(stored) => stored.clone(),
                Credential::Keys(_) | Credential::Nothing => {
                    return Err(LoginError::NotEnough("an MD5 hash"));
                }
            };
            let mut answer = md5::answer(&stored, salt).into_bytes();
            answer.push(0);
            Message::Password(Hidden(&answer)).encode(out)?;
        }
        Authentication::Sasl(offered) => {
            let has = |mechanism| offered.iter().any(|name| name == mechanism);
            let (mechanism, binding) = match end_point {
                Some(hash) if has(SCRAM_SHA_256_PLUS) => {
                    (SCRAM_SHA_256_PLUS, Binding::EndPoint(hash))
                }
                // The server hears of it, and refuses if it did offer: then somebody took it away.
                Some(_) => (SCRAM_SHA_256, Binding::NotOffered),
                None => (SCRAM_SHA_256, Binding::Impossible),
            };
            if !has(mechanism) {
                return Err(LoginError::Unsupported("another mechanism of SASL"));
            }
            if matches!(credential, Credential::Md5(_) | Credential::Nothing) {
                return Err(LoginError::NotEnough("SCRAM"));
            }
            let client = Client::begin(binding, &nonce()?)?;
            let response = SaslInitialResponse {
                mechanism,
                response: Some(Hidden(&client.first())),
            };
            response.encode(out)?;
            *state = Answers::Begun(client);
        }
        Authentication::SaslContinue(challenge) => {
            let Answers::Begun(client) = std::mem::take(state) else {
                return Err(LoginError::OutOfTurn);
            };
            if challenge.len() > CHALLENGE_BYTES_MAX {
                return Err(LoginError::TooLong(challenge.len()));
            }
            let challenge = client.challenged(challenge, ITERATIONS_MAX)?;
            let keys = keys(credential, cache, challenge.salt(), challenge.iterations()).await?;
            let answer = challenge.answer(&keys);
            Message::Password(Hidden(&answer.message)).encode(out)?;
            *state = Answers::Proved(answer);
        }
        Authentication::SaslFinal(data) => {
            let Answers::Proved(answer) = std::mem::take(state) else {
                return Err(LoginError::OutOfTurn);
            };
            answer.check(data)?;
            *state = Answers::Known;
        }
        Authentication::CleartextPassword => {
            return Err(LoginError::Unsupported("a password in clear"));
        }
        Authentication::Gss | Authentication::GssContinue(_) => {
            return Err(LoginError::Unsupported("GSSAPI"));
        }
        Authentication::Sspi => return Err(LoginError::Unsupported("SSPI")),
        Authentication::KerberosV5 => return Err(LoginError::Unsupported("Kerberos")),
    }
    Ok(false)
}

async fn keys(
    credential: &Credential,
    cache: &KeyCache,
    salt: &[u8],
    iterations: u32,
) -> Result<Keys, LoginError> {
    let password = match credential {
        Credential::Keys(keys) => return Ok(keys.clone()),
        Credential::Password(password) => password.clone(),
        Credential::Md5(_) | Credential::Nothing => return Err(LoginError::NotEnough("SCRAM")),
    };
    let lock = || cache.0.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = &*lock()
        && known.password == password
        && known.salt == salt
        && known.iterations == iterations
    {
        return Ok(known.keys.clone());
    }
    let salt = salt.to_vec();
    let derive = move || Derived {
        keys: Keys::derive(password.as_bytes(), &salt, iterations),
        password,
        salt,
        iterations,
    };
    let derived = tokio::task::spawn_blocking(derive).await;
    let derived = derived.map_err(|_| LoginError::Ending)?;
    let keys = derived.keys.clone();
    *lock() = Some(derived);
    Ok(keys)
}
