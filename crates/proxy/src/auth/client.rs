//! A client proves who it is.

use super::hba::Hba;
use super::peer::{Accounts, Peer};
use super::{Broken, Credential, NoRandom, md5, next_message, nonce, random};
use crate::net::{Inbox, Stream};
use crate::options::{AuthMethod, AuthQuery};
use crate::swap::Swap;
use crate::users::{Secret, Users};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use subtle::ConstantTimeEq as _;
use wire::backend::{Authentication, Message};
use wire::frontend::{Frontend, SaslInitialResponse};
use wire::scram::{Keys, Offer, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, Server, Verifier};
use wire::{Framer, Hidden, Limits, List, Stage};

/// As many as PostgreSQL makes for a verifier of its own.
const ITERATIONS: u32 = 4096;
/// PostgreSQL's bound for what a client says of SASL.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Knows the users.
#[derive(Debug)]
pub(crate) struct Gatekeeper {
    rules: Swap<Rules>,
    accounts: Accounts,
    /// Made from passwords, which are with them, once each: it takes a while.
    verifiers: Mutex<HashMap<String, (Secret, Verifier)>>,
    /// What unknown users' salts are made from, so that they stay the same.
    seed: [u8; 32],
}

/// Who may come in, and how they must prove who they are.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) users: Users,
    pub(crate) method: AuthMethod,
    pub(crate) hba: Option<Hba>,
    pub(crate) auth_query: Option<AuthQuery>,
}

/// Who wants to come in.
#[derive(Debug)]
pub(crate) struct Applicant<'a> {
    pub(crate) user: &'a str,
    pub(crate) database: &'a str,
    pub(crate) peer: Peer,
    /// What a server knows of a user that is not listed.
    pub(crate) found: Option<Secret>,
    /// Of our certificate, where the client can bind SCRAM to it.
    pub(crate) end_point: Option<&'a [u8]>,
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotLetIn {
    #[error(transparent)]
    Broken(#[from] Broken),
    /// Unknown, or wrong: the client can't tell which.
    #[error("the password is wrong")]
    Wrong,
    /// Before any password: the rules have no place for it.
    #[error("no rule lets it in")]
    NoRule,
    #[error("a rule turns it away")]
    Rejected,
    #[error("its certificate or its account is somebody else's")]
    SomebodyElse(&'static str),
    #[error("what the client said is no answer")]
    Nonsense,
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// What is asked of one user.
enum Asked {
    Nothing,
    Scram(Verifier, Option<String>),
    Md5 {
        stored: Option<String>,
        password: Option<String>,
    },
}

impl Gatekeeper {
    pub(crate) fn new(rules: Rules) -> Result<Self, NoRandom> {
        let mut seed = [0; 32];
        random(&mut seed)?;
        Ok(Self {
            rules: Swap::new(rules),
            accounts: Accounts::default(),
            verifiers: Mutex::default(),
            seed,
        })
    }

    /// Other rules from now on. Who is in stays.
    pub(crate) fn reload(&self, rules: Rules) {
        self.rules.store(rules);
        // They were made of passwords that may have changed.
        self.known(HashMap::clear);
    }

    /// How to look for a user that is not listed, and as whom.
    pub(crate) fn lookup(&self, user: &str) -> Option<(AuthQuery, Credential)> {
        let rules = self.rules.load();
        let query = rules.auth_query.clone()?;
        if rules.users.secret(user).is_some() {
            return None;
        }
        let credential = rules.users.secret(&query.user).map(Credential::of);
        Some((query, credential.unwrap_or(Credential::Nothing)))
    }

    /// Asks, hears and judges. The caller says AuthenticationOk.
    pub(crate) async fn verify(
        &self,
        applicant: &Applicant<'_>,
        stream: &mut Stream,
        inbox: &mut Inbox,
    ) -> Result<Credential, NotLetIn> {
        let limits = Limits {
            password_bytes_max: PASSWORD_BYTES_MAX,
            ..Limits::default()
        };
        let framer = Framer::new(Stage::Authentication, limits);
        let mut talk = Talk {
            stream,
            inbox,
            framer,
        };
        let rules = self.rules.load();
        let user = applicant.user;
        let method = match &rules.hba {
            None => rules.method,
            Some(hba) => {
                let method = hba.method(&applicant.peer, user, applicant.database);
                method.ok_or(NotLetIn::NoRule)?
            }
        };
        let secret = rules.users.secret(user).or(applicant.found.as_ref());
        match self.ask(applicant, method, secret).await? {
            Asked::Nothing => Ok(match secret {
                Some(secret) => Credential::of(secret),
                None => return Err(NotLetIn::Wrong),
            }),
            Asked::Scram(verifier, password) => {
                let keys = scram(&mut talk, verifier, applicant.end_point).await?;
                // With a password other verifiers than ours can be met too.
                Ok(password.map_or(Credential::Keys(keys), Credential::Password))
            }
            Asked::Md5 { stored, password } => {
                let stored = by_md5(&mut talk, stored).await?;
                Ok(password.map_or(Credential::Md5(stored), Credential::Password))
            }
        }
    }

    async fn ask(
        &self,
        applicant: &Applicant<'_>,
        method: AuthMethod,
        secret: Option<&Secret>,
    ) -> Result<Asked, NotLetIn> {
        let user = applicant.user;
        let by_password = match method {
            AuthMethod::Reject => return Err(NotLetIn::Rejected),
            AuthMethod::Trust => return Ok(Asked::Nothing),
            AuthMethod::Cert if applicant.peer.common_name.as_deref() == Some(user) => {
                return Ok(Asked::Nothing);
            }
            AuthMethod::Cert => return Err(NotLetIn::SomebodyElse("certificate")),
            AuthMethod::Peer => {
                let account = match applicant.peer.uid {
                    Some(uid) => self.accounts.name(uid).await,
                    None => None,
                };
                return match account.is_some_and(|account| account == user) {
                    true => Ok(Asked::Nothing),
                    false => Err(NotLetIn::SomebodyElse("peer")),
                };
            }
            AuthMethod::Scram | AuthMethod::Md5 => method,
        };
        // Nobody has an empty password: PostgreSQL lets none in by it.
        let secret = secret.filter(|secret| !secret.is_empty());
        Ok(match (secret, by_password) {
            (Some(Secret::Scram(verifier)), _) => Asked::Scram(verifier.clone(), None),
            (Some(Secret::Md5(stored)), _) => Asked::Md5 {
                stored: Some(stored.clone()),
                password: None,
            },
            (Some(Secret::Password(password)), AuthMethod::Md5) => Asked::Md5 {
                stored: Some(md5::stored(password, user)),
                password: Some(password.clone()),
            },
            (Some(Secret::Password(password)), _) => {
                let verifier = self.verifier(user, password).await?;
                Asked::Scram(verifier, Some(password.clone()))
            }
            (None, AuthMethod::Md5) => Asked::Md5 {
                stored: None,
                password: None,
            },
            (None, _) => Asked::Scram(self.made_up(user)?, None),
        })
    }

    /// Thousands of hashes are no work for a thread that others wait for.
    async fn verifier(&self, user: &str, password: &str) -> Result<Verifier, NotLetIn> {
        let is_its = |(made_of, _): &&(Secret, Verifier)| matches!(made_of, Secret::Password(text) if text == password);
        let known = self.known(|known| known.get(user).filter(is_its).cloned());
        if let Some((_, verifier)) = known {
            return Ok(verifier);
        }
        let mut salt = vec![0; 16];
        random(&mut salt)?;
        let text = password.to_owned();
        let made = tokio::task::spawn_blocking(move || {
            let keys = Keys::derive(text.as_bytes(), &salt, ITERATIONS);
            Verifier::of(&keys, salt, ITERATIONS)
        });
        // It can only fail when the runtime ends.
        let verifier = made.await.map_err(|_| Broken::Ended)?;
        Ok(self.known(|known| match known.get(user).filter(is_its) {
            // The first one stays: an exchange that runs may have shown its salt already.
            Some((_, first)) => first.clone(),
            None => {
                let new = (Secret::Password(password.to_owned()), verifier.clone());
                known.insert(user.to_owned(), new);
                verifier
            }
        }))
    }

    fn known<T>(&self, look: impl FnOnce(&mut HashMap<String, (Secret, Verifier)>) -> T) -> T {
        let mut known = self
            .verifiers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        look(&mut known)
    }

    /// Nobody's: the exchange goes as with a wrong password.
    fn made_up(&self, user: &str) -> Result<Verifier, NoRandom> {
        let mut digest = Sha256::new();
        digest.update(self.seed);
        digest.update(user);
        let mut stored_key = [0; 32];
        random(&mut stored_key)?;
        Ok(Verifier {
            iterations: ITERATIONS,
            salt: digest.finalize()[..16].to_vec(),
            stored_key,
            server_key: stored_key,
        })
    }
}

struct Talk<'a> {
    stream: &'a mut Stream,
    inbox: &'a mut Inbox,
    framer: Framer<Frontend>,
}

impl Talk<'_> {
    async fn say(&mut self, asked: Authentication<'_>) -> Result<(), NotLetIn> {
        let mut bytes = Vec::new();
        let message = Message::Authentication(asked);
        message.encode(&mut bytes).map_err(|_| NotLetIn::Nonsense)?;
        let written = self.stream.write_all(&bytes).await;
        Ok(written.map_err(Broken::Io)?)
    }

    /// The body of what the client answers.
    async fn hear(&mut self) -> Result<Vec<u8>, NotLetIn> {
        let (_, bytes) = next_message(self.stream, self.inbox, &mut self.framer).await?;
        Ok(bytes[5..].to_vec())
    }
}

/// With `end_point` the client may bind the exchange to the TLS connection.
async fn scram(
    talk: &mut Talk<'_>,
    verifier: Verifier,
    end_point: Option<&[u8]>,
) -> Result<Keys, NotLetIn> {
    let mut room = Vec::new();
    let mechanisms = [SCRAM_SHA_256_PLUS, SCRAM_SHA_256];
    let first_offered = usize::from(end_point.is_none());
    let offered = List::write(mechanisms[first_offered..].iter().copied(), &mut room);
    talk.say(Authentication::Sasl(offered)).await?;
    let body = talk.hear().await?;
    let first = SaslInitialResponse::parse(Hidden(&body)).map_err(|_| NotLetIn::Nonsense)?;
    let offer = match end_point {
        Some(hash) if first.mechanism == SCRAM_SHA_256_PLUS => Offer::Chosen(hash),
        Some(_) if first.mechanism == SCRAM_SHA_256 => Offer::Declined,
        None if first.mechanism == SCRAM_SHA_256 => Offer::Plain,
        _ => return Err(NotLetIn::Nonsense),
    };
    let empty;
    let response = match first.response {
        Some(Hidden(response)) => response.to_vec(),
        None => {
            talk.say(Authentication::SaslContinue(b"")).await?;
            empty = talk.hear().await?;
            empty
        }
    };
    let nonce = nonce()?;
    let begun = Server::begin(&response, offer, verifier, &nonce);
    let (challenge, server) = begun.map_err(|_| NotLetIn::Nonsense)?;
    talk.say(Authentication::SaslContinue(&challenge)).await?;
    let last = talk.hear().await?;
    let accepted = server.finish(&last).map_err(|_| NotLetIn::Wrong)?;
    talk.say(Authentication::SaslFinal(&accepted.message))
        .await?;
    Ok(accepted.keys)
}

async fn by_md5(talk: &mut Talk<'_>, stored: Option<String>) -> Result<String, NotLetIn> {
    let mut salt = [0; 4];
    random(&mut salt)?;
    talk.say(Authentication::Md5Password { salt }).await?;
    let body = talk.hear().await?;
    let said = wire::frontend::Message::password(Hidden(&body));
    let Hidden(said) = said.map_err(|_| NotLetIn::Nonsense)?;
    // Of an unknown user nothing is right.
    let known = stored.clone().unwrap_or_default();
    let wanted = md5::answer(&known, salt);
    let right = bool::from(said.ct_eq(wanted.as_bytes()));
    stored.filter(|_| right).ok_or(NotLetIn::Wrong)
}
