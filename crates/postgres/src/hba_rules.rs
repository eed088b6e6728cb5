//! Whether a line is one that PostgreSQL takes in `pg_hba.conf`.
//!
//! With one line that it does not take, it goes on with the whole file as it was before, ours included, and does not
//! start any more.
//!
//! It does not know whether a database or a user exists; PostgreSQL does not ask that either.

use std::net::IpAddr;

const METHODS: &[&str] = &[
    "trust",
    "reject",
    "scram-sha-256",
    "md5",
    "password",
    "gss",
    "sspi",
    "ident",
    "peer",
    "ldap",
    "radius",
    "cert",
    "pam",
    "bsd",
];

/// Why a line is none, in this major version.
pub fn not_a_rule(line: &str, major: u32) -> Option<String> {
    check(line, major).err()
}

/// `Err`: why not.
pub(crate) fn check(line: &str, major: u32) -> Result<(), String> {
    let fields = fields(line)?;
    let mut rest = fields.iter().map(String::as_str);
    let Some(kind) = rest.next() else {
        return Ok(());
    };
    match kind {
        "include" | "include_if_exists" | "include_dir" if major >= 16 => {
            return match (rest.next(), rest.next()) {
                (Some(_), None) => Ok(()),
                _ => Err(format!("{kind} takes one file name")),
            };
        }
        "local" | "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => {}
        other => return Err(format!("{other:?} is no type of connection")),
    }
    let (Some(_database), Some(_user)) = (rest.next(), rest.next()) else {
        return Err("database and user are missing".to_owned());
    };
    let local = kind == "local";
    if !local {
        let address = rest.next().ok_or("the address is missing")?;
        if needs_mask(address)? {
            let mask = rest.next().ok_or("the mask is missing")?;
            mask.parse::<IpAddr>()
                .map_err(|_| format!("{mask:?} is no mask of an address"))?;
        }
    }
    let method = rest.next().ok_or("the method is missing")?;
    let known = METHODS.contains(&method) || (method == "oauth" && major >= 18);
    if !known {
        return Err(format!("{method:?} is no method"));
    }
    match (method, local) {
        ("peer", false) => return Err("peer works on local connections only".to_owned()),
        ("gss" | "sspi" | "cert", true) => {
            return Err(format!("{method} does not work on local connections"));
        }
        ("cert", false) if kind != "hostssl" => {
            return Err("cert works with hostssl only".to_owned());
        }
        _ => {}
    }
    match rest.find(|option| !option.contains('=')) {
        Some(option) => Err(format!("{option:?} is no option, write name=value")),
        None => Ok(()),
    }
}

/// Whether an address is followed by its mask.
fn needs_mask(address: &str) -> Result<bool, String> {
    if let Some((ip, bits)) = address.split_once('/') {
        let bad = || format!("{address:?} is no address with the length of its mask");
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        return match bits.parse::<u8>() {
            Ok(bits) if bits <= most => Ok(false),
            _ => Err(bad()),
        };
    }
    Ok(address.parse::<IpAddr>().is_ok())
}

/// Fields are parted by spaces; a comma binds what follows it, quotes bind what they hold.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields: Vec<String> = Vec::new();
    let (mut open, mut quoted) = (false, false);
    for c in line.chars() {
        match c {
            '#' if !quoted => break,
            '"' => {
                quoted = !quoted;
                if !open {
                    fields.push(String::new());
                }
                open = true;
            }
            c if c.is_ascii_whitespace() && !quoted => {
                open = fields.last().is_some_and(|field| field.ends_with(','));
            }
            c => {
                if !open {
                    fields.push(String::new());
                }
                open = true;
                if let Some(field) = fields.last_mut() {
                    field.push(c);
                }
            }
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_postgres_takes() {
        for line in [
            "host all all 0.0.0.0/0 md5",
            "local all all peer map=x",
            "hostssl a, b \"odd user\" samenet cert clientcert=verify-full",
            "host all +group 10.0.0.0 255.0.0.0 scram-sha-256",
            "host all all ::/0 reject # nobody",
            "host all all .example.org trust",
            "local all all ident",
            "# a comment",
            "",
        ] {
            assert_eq!(check(line, 15), Ok(()), "{line}");
        }
        assert_eq!(check("include other.conf", 16), Ok(()));
    }

    #[test]
    fn lines_that_it_does_not_take() {
        for (line, why) in [
            (
                "hosts all all all md5",
                "\"hosts\" is no type of connection",
            ),
            ("host all all md5", "the method is missing"),
            ("host all all 0.0.0.0/0", "the method is missing"),
            (
                "host all all 10.0.0.1 md5",
                "\"md5\" is no mask of an address",
            ),
            (
                "host all all 10.0.0.0/33 md5",
                "\"10.0.0.0/33\" is no address with the length of its mask",
            ),
            ("host all all all mdd5", "\"mdd5\" is no method"),
            (
                "host all all all peer",
                "peer works on local connections only",
            ),
            ("local all", "database and user are missing"),
            (
                "local all all md5 md5",
                "\"md5\" is no option, write name=value",
            ),
            ("local all \"x md5", "a quote is not closed"),
            ("include other.conf", "\"include\" is no type of connection"),
        ] {
            assert_eq!(check(line, 15), Err(why.to_owned()), "{line}");
        }
    }
}
