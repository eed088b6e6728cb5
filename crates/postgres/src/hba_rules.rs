//! Whether a line is one that PostgreSQL takes in `pg_hba.conf`.
//!
//! With one line that it does not take, it goes on with the whole file as it was before, ours included, and does not
//! start any more.
//!
//! It does not know whether a database or a user exists; PostgreSQL does not ask that either.
//!
//! **Invariant:** a line that PostgreSQL takes passes. One that can't be told passes too.

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

/// Which of these lines of one file PostgreSQL does not take, by their index, and why.
pub fn not_rules(lines: &[String], major: u32) -> Vec<(usize, String)> {
    refused(lines, |line| check(line, major))
}

/// The same of `pg_ident.conf`.
pub fn not_maps(lines: &[String], major: u32) -> Vec<(usize, String)> {
    refused(lines, |line| check_map(line, major))
}

/// A line that ends with a backslash goes on in the next one: neither is judged.
fn refused(lines: &[String], check: impl Fn(&str) -> Result<(), String>) -> Vec<(usize, String)> {
    let goes_on = |n: usize| n > 0 && lines[n - 1].ends_with('\\');
    let judged = lines.iter().enumerate().filter(|(n, _)| !goes_on(*n));
    judged
        .filter_map(|(n, line)| Some((n, check(line).err()?)))
        .collect()
}

/// What can't be told from the line alone: it goes on below, or a file says the rest.
fn is_beyond_telling(line: &str, fields: &[Field]) -> bool {
    line.ends_with('\\') || fields.iter().any(|field| field.names_a_file)
}

/// Whether it is a line that names another file; `Err`: it is meant to, and does not.
fn is_include(fields: &[Field], major: u32) -> Result<bool, String> {
    let Some(first) = fields.first().filter(|_| major >= 16) else {
        return Ok(false);
    };
    match first.text.as_str() {
        "include" | "include_if_exists" | "include_dir" if fields.len() == 2 => Ok(true),
        kind @ ("include" | "include_if_exists" | "include_dir") => {
            Err(format!("{kind} takes one file name"))
        }
        _ => Ok(false),
    }
}

/// `Err`: why not.
fn check_map(line: &str, major: u32) -> Result<(), String> {
    let fields = fields(line);
    if is_beyond_telling(line, &fields) || is_include(&fields, major)? {
        return Ok(());
    }
    match fields.len() {
        1 | 2 => Err("it takes a map, a system user and a database user".to_owned()),
        _ => Ok(()),
    }
}

/// `Err`: why not.
pub(crate) fn check(line: &str, major: u32) -> Result<(), String> {
    let fields = fields(line);
    if is_beyond_telling(line, &fields) || is_include(&fields, major)? {
        return Ok(());
    }
    let mut rest = fields.iter().map(|field| field.text.as_str());
    let Some(kind) = rest.next() else {
        return Ok(());
    };
    match kind {
        "local" | "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => {}
        other => return Err(format!("{other:?} is no type of connection")),
    }
    let (Some(_database), Some(_user)) = (rest.next(), rest.next()) else {
        return Err("database and user are missing".to_owned());
    };
    let local = kind == "local";
    if !local {
        let address = rest.next().ok_or("the address is missing")?;
        // A number only where there is an interface of that name.
        if address.contains('%') {
            return Ok(());
        }
        if needs_mask(address)? {
            let mask = rest.next().ok_or("the mask is missing")?;
            if !is_number(mask) {
                return Err(format!("{mask:?} is no mask of an address"));
            }
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
    let Some((ip, bits)) = address.split_once('/') else {
        return Ok(is_number(address));
    };
    let most = if ip.contains(':') { 128 } else { 32 };
    match bits.trim().parse::<i64>() {
        Ok(bits) if is_number(ip) && (0..=most).contains(&bits) => Ok(false),
        _ => Err(format!(
            "{address:?} is no address with the length of its mask"
        )),
    }
}

/// Whether an address is one in numbers, in any form that the C library takes: 10.1 is 10.0.0.1.
fn is_number(address: &str) -> bool {
    if address.parse::<IpAddr>().is_ok() {
        return true;
    }
    let parts: Vec<Option<u64>> = address.split('.').map(part).collect();
    let Some((last, before)) = parts.split_last() else {
        return false;
    };
    let room = 1_u64 << (8 * (4_usize.saturating_sub(before.len())));
    before.len() < 4
        && before.iter().all(|part| part.is_some_and(|it| it < 256))
        && last.is_some_and(|it| it < room)
}

/// A part of an IPv4 address, as C writes numbers.
fn part(text: &str) -> Option<u64> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if lower.starts_with('0') => u64::from_str_radix(&lower, 8).ok(),
        None => lower.parse().ok(),
    }
}

/// Values that belong together.
#[derive(Debug, Default)]
struct Field {
    text: String,
    /// `@FILE` stands for what is in it.
    names_a_file: bool,
}

/// Fields are parted by blanks; a comma binds what follows it, quotes bind what they hold. As PostgreSQL has it, a
/// quote that is not closed ends with the line.
fn fields(line: &str) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    // Whether the field goes on, whether a value of it has begun, and whether that is inside quotes.
    let (mut open, mut begun, mut quoted) = (false, false, false);
    for c in line.chars() {
        let blank = matches!(c, ' ' | '\t' | '\r' | '\n');
        if !quoted && (c == '#' || (blank && !begun)) {
            if c == '#' {
                break;
            }
            continue;
        }
        if !quoted && blank {
            (open, begun) = (false, false);
            continue;
        }
        if !quoted && c == ',' {
            // Before any value it means nothing.
            if let Some(field) = fields.last_mut().filter(|_| begun) {
                field.text.push(c);
            }
            begun = false;
            continue;
        }
        if !open {
            fields.push(Field::default());
        }
        if let Some(field) = fields.last_mut() {
            field.names_a_file |= c == '@' && !begun && !quoted;
            if c != '"' {
                field.text.push(c);
            }
        }
        (open, begun) = (true, true);
        quoted ^= c == '"';
    }
    fields
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
            "host a ,all 0/0 md5",
            "host \"a,\" all 10.1 255.0.0.0 md5",
            "host all all 010.0x0.1/8 password",
            "host all all fe80::1%eth0/64 md5",
            "host all all ::1/128 md5",
            "host all all ::ffff:10.0.0.1/128 md5",
            "host all @admins all md5",
            "host all all @addresses",
            "host \"all\",@more \"a \"\"b\"\" c\" samehost ldap ldapserver=x \"ldapprefix=cn=a b\"",
            "host all all all \"md5",
            "host all all all md5#as it was",
            "host \"\" \"#x\" all scram-sha-256",
            "hostnogssenc replication all example.org radius radiusservers=\"a,b\"",
            "hostgssenc sameuser,samerole /^a.*$ all gss include_realm=0",
            "host all all \\",
        ] {
            assert_eq!(check(line, 15), Ok(()), "{line}");
        }
        let continued = ["host all all \\", "all md5", "nonsense"].map(str::to_owned);
        let refused = not_rules(&continued, 15);
        assert_eq!(refused.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2]);
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
            ("local all \"x md5", "the method is missing"),
            (
                "host all all 127.0.0.0/99 trust",
                "\"127.0.0.0/99\" is no address with the length of its mask",
            ),
            ("include other.conf", "\"include\" is no type of connection"),
        ] {
            assert_eq!(check(line, 15), Err(why.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_map_has_three_fields() {
        let lines = [
            "m a b",
            "m \"a b\" +c # who",
            "",
            "m /^(.*)@x$ \\1",
            "m a",
            "include x",
        ];
        let refused = not_maps(&lines.map(str::to_owned), 16);
        assert_eq!(refused.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [4]);
    }
}
