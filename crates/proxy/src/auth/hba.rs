//! Rules of access, in the form of `pg_hba.conf`: the first line that fits decides, and where none
//! fits nobody gets in.
//!
//! **Invariant:** a line that is not understood to its end is an error, never passed over: whoever
//! wrote it meant somebody by it.
//!
//! It knows no roles and no interfaces of the machine: rules by group, `samehost` and `samenet` are
//! refused, as are host names.

use super::peer::Peer;
use crate::options::AuthMethod;
use std::net::IpAddr;

/// The lines of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hba {
    rules: Vec<Rule>,
}

/// A line that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct BadRule {
    pub line: usize,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    from: From,
    databases: Vec<Name>,
    users: Vec<Name>,
    method: AuthMethod,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Local,
    Network {
        /// `None`: with TLS and without.
        encrypted: Option<bool>,
        /// `None`: from everywhere.
        of: Option<(IpAddr, u128)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    All,
    SameUser,
    Is(String),
}

/// A field, and whether it was in quotes: then it is nothing but a name.
type Field = (String, bool);

impl Hba {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is no rule.
    pub fn parse(text: &str) -> Result<Self, BadRule> {
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line_number = number + 1;
            let bad = |why| BadRule {
                line: line_number,
                why,
            };
            let fields = fields(line).map_err(bad)?;
            if !fields.is_empty() {
                rules.push(rule(&fields).map_err(bad)?);
            }
        }
        Ok(Self { rules })
    }

    /// How a client must prove who it is; `None`: no line is for it.
    pub(crate) fn method(&self, peer: &Peer, user: &str, database: &str) -> Option<AuthMethod> {
        let fits = |names: &[Name], is: &str| {
            names.iter().any(|name| match name {
                Name::All => true,
                Name::SameUser => user == database,
                Name::Is(name) => name == is,
            })
        };
        let mut rules = self.rules.iter();
        let rule = rules.find(|rule| {
            rule.from.fits(peer) && fits(&rule.databases, database) && fits(&rule.users, user)
        });
        rule.map(|rule| rule.method)
    }
}

impl From {
    fn fits(&self, peer: &Peer) -> bool {
        match self {
            Self::Local => peer.address.is_none(),
            Self::Network { encrypted, of } => {
                let Some(address) = peer.address else {
                    return false;
                };
                encrypted.is_none_or(|wanted| wanted == peer.is_encrypted)
                    && of.is_none_or(|(network, mask)| within(address, network, mask))
            }
        }
    }
}

fn within(address: IpAddr, network: IpAddr, mask: u128) -> bool {
    address.is_ipv4() == network.is_ipv4() && (bits(address) ^ bits(network)) & mask == 0
}

/// An address of version 4 in the upper bits: the length of a mask means the same for both.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn rule(fields: &[Field]) -> Result<Rule, String> {
    let mut rest = fields.iter();
    let mut next = |what: &str| rest.next().ok_or_else(|| format!("{what} is missing"));
    let (kind, _) = next("the type")?;
    let network = |encrypted| From::Network {
        encrypted,
        of: None,
    };
    let mut from = match kind.as_str() {
        "local" => From::Local,
        // Nothing comes by GSSAPI's encryption here.
        "host" | "hostnogssenc" => network(None),
        "hostssl" => network(Some(true)),
        "hostnossl" => network(Some(false)),
        other => return Err(format!("{other:?} is no type of connection here")),
    };
    let databases = names(next("the database")?, true)?;
    let users = names(next("the user")?, false)?;
    if let From::Network { of, .. } = &mut from {
        let (address, _) = next("the address")?;
        *of = match (address.as_str(), address.split_once('/')) {
            ("all", _) => None,
            (_, Some((ip, length))) => Some(network_of(ip, length)?),
            (_, None) => {
                let ip: IpAddr = parse(address)?;
                let mask: IpAddr = parse(&next("the mask")?.0)?;
                if ip.is_ipv4() != mask.is_ipv4() {
                    return Err(format!("{mask} is no mask of {ip}"));
                }
                Some((ip, bits(mask)))
            }
        };
    }
    let (method, _) = next("the method")?;
    let method = match (method.as_str(), &from) {
        ("trust", _) => AuthMethod::Trust,
        ("reject", _) => AuthMethod::Reject,
        ("scram-sha-256", _) => AuthMethod::Scram,
        ("md5", _) => AuthMethod::Md5,
        ("peer", From::Local) => AuthMethod::Peer,
        ("peer", _) => return Err("peer works on local connections only".to_owned()),
        (
            "cert",
            From::Network {
                encrypted: Some(true),
                ..
            },
        ) => AuthMethod::Cert,
        ("cert", _) => return Err("cert works with hostssl only".to_owned()),
        (other, _) => return Err(format!("{other:?} is no method here")),
    };
    match rest.next() {
        Some((option, _)) => Err(format!("options such as {option:?} are not supported")),
        None => Ok(Rule {
            from,
            databases,
            users,
            method,
        }),
    }
}

fn parse(address: &str) -> Result<IpAddr, String> {
    let why = || format!("{address:?} is no address: write one with its mask, or all");
    address.parse().map_err(|_| why())
}

fn network_of(ip: &str, length: &str) -> Result<(IpAddr, u128), String> {
    let ip = parse(ip)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match length.parse::<u32>() {
        Ok(0) => Ok((ip, 0)),
        Ok(length) if length <= most => Ok((ip, u128::MAX << (128 - length))),
        _ => Err(format!("{length:?} is no length of a mask of {ip}")),
    }
}

fn names((text, quoted): &Field, databases: bool) -> Result<Vec<Name>, String> {
    if *quoted {
        return Ok(vec![Name::Is(text.clone())]);
    }
    let name = |name: &str| match name {
        "" => Err("an empty name".to_owned()),
        "all" => Ok(Name::All),
        "sameuser" if databases => Ok(Name::SameUser),
        "samerole" | "samegroup" if databases => {
            Err(format!("{name} is not supported: roles are not known here"))
        }
        _ if name.starts_with(['+', '@', '/']) => Err(format!(
            "{name:?}: groups, files and patterns are not supported"
        )),
        _ => Ok(Name::Is(name.to_owned())),
    };
    text.split(',').map(|part| name(part.trim())).collect()
}

/// Fields are parted by spaces; a comma binds what follows it.
fn fields(line: &str) -> Result<Vec<Field>, String> {
    let mut fields: Vec<Field> = Vec::new();
    let (mut open, mut in_quotes) = (false, false);
    for c in line.chars() {
        match c {
            '#' if !in_quotes => break,
            '"' => {
                in_quotes = !in_quotes;
                match fields.last_mut().filter(|_| open) {
                    // `a,"b"` would need to know which of them was quoted.
                    Some((text, quoted)) if in_quotes || !*quoted => {
                        return Err(format!("a quote within {text:?} is not supported"));
                    }
                    Some(_) => {}
                    None => fields.push((String::new(), true)),
                }
                open = true;
            }
            c if c.is_ascii_whitespace() && !in_quotes => {
                open = fields
                    .last()
                    .is_some_and(|(text, quoted)| !quoted && text.ends_with(','));
            }
            c => {
                match fields.last_mut().filter(|_| open) {
                    Some((text, quoted)) if in_quotes || !*quoted => text.push(c),
                    Some(_) => return Err("something directly behind a quote".to_owned()),
                    None => fields.push((c.to_string(), false)),
                }
                open = true;
            }
        }
    }
    match in_quotes {
        true => Err("a quote is not closed".to_owned()),
        false => Ok(fields),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: Option<&str>, is_encrypted: bool) -> Peer {
        Peer {
            address: address.map(|address| address.parse().unwrap()),
            is_encrypted,
            ..Peer::default()
        }
    }

    #[test]
    fn the_first_line_that_fits_decides() {
        let hba = Hba::parse(
            "# a comment\n\
             local all all peer\n\
             host all bad all reject\n\
             hostssl all all 10.0.0.0/8 cert\n\
             host a, b \"all\" 192.168.0.0 255.255.0.0 md5\n\
             host sameuser all ::1/128 trust # ours\n\
             hostnossl all eve,bob 0.0.0.0/0 scram-sha-256\n",
        )
        .unwrap();
        let ask = |from, tls, user, database| hba.method(&peer(from, tls), user, database);
        assert_eq!(ask(None, false, "x", "y"), Some(AuthMethod::Peer));
        assert_eq!(
            ask(Some("10.9.9.9"), true, "bad", "y"),
            Some(AuthMethod::Reject)
        );
        assert_eq!(
            ask(Some("10.9.9.9"), true, "x", "y"),
            Some(AuthMethod::Cert)
        );
        assert_eq!(ask(Some("10.9.9.9"), false, "x", "y"), None);
        assert_eq!(ask(Some("11.9.9.9"), true, "x", "y"), None);
        assert_eq!(
            ask(Some("192.168.3.4"), true, "all", "b"),
            Some(AuthMethod::Md5)
        );
        assert_eq!(ask(Some("192.168.3.4"), true, "x", "b"), None);
        assert_eq!(ask(Some("::1"), false, "x", "x"), Some(AuthMethod::Trust));
        assert_eq!(ask(Some("::1"), false, "x", "y"), None);
        assert_eq!(
            ask(Some("8.8.8.8"), false, "bob", "y"),
            Some(AuthMethod::Scram)
        );
        assert_eq!(ask(Some("8.8.8.8"), true, "bob", "y"), None);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (line, why) in [
            (
                "hosts all all all md5",
                "\"hosts\" is no type of connection here",
            ),
            ("host all all all ldap", "\"ldap\" is no method here"),
            ("host all all all", "the method is missing"),
            (
                "host all +staff all md5",
                "\"+staff\": groups, files and patterns are not supported",
            ),
            (
                "host all all samenet md5",
                "\"samenet\" is no address: write one with its mask, or all",
            ),
            (
                "host all all 10.0.0.0/33 md5",
                "\"33\" is no length of a mask of 10.0.0.0",
            ),
            ("host all all all cert", "cert works with hostssl only"),
            (
                "host all all all peer",
                "peer works on local connections only",
            ),
            (
                "local all all peer map=x",
                "options such as \"map=x\" are not supported",
            ),
            ("local all \"x trust", "a quote is not closed"),
            (
                "local all \"x\"y trust",
                "something directly behind a quote",
            ),
            (
                "local all a,\"y\" trust",
                "a quote within \"a,\" is not supported",
            ),
        ] {
            let bad = Hba::parse(&format!("\n{line}")).unwrap_err();
            assert_eq!((bad.line, bad.why.as_str()), (2, why), "{line}");
        }
    }
}
