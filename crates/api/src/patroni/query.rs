//! The query of a health check.

/// Names and values in their order, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// `tag_<name>=<value>`.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("tag_")?, value.as_str())))
    }

    /// `lag=<bytes>`, with an optional unit. One that can't be read limits nothing, as in Patroni.
    pub(crate) fn lag(&self) -> Option<u64> {
        bytes(self.value("lag")?)
    }
}

/// `1048576`, `16kB`, `64MB`, `1 GB`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        "TB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => match hex(tail) {
                Some(byte) => {
                    bytes.push(byte);
                    rest = &tail[2..];
                }
                None => bytes.push(b'%'),
            },
            other => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_patroni_reads_them() {
        for (text, expected) in [
            ("10", Some(10)),
            ("16kB", Some(16 << 10)),
            ("64MB", Some(64 << 20)),
            ("1 GB", Some(1 << 30)),
            ("1mb", None),
            ("", None),
            ("-1", None),
            ("99999999999999999999", None),
            ("99999999999TB", None),
            ("é", None),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn names_and_values_are_decoded() {
        let query = Query::parse("lag=16kB&tag_zone=a%20b+c&x&tag_bad=%zz%4&tag_%C3=%ff");
        assert_eq!(query.lag(), Some(16 << 10));
        let tags: Vec<_> = query.tags().collect();
        assert_eq!(
            tags,
            [
                ("zone", "a b c"),
                ("bad", "%zz%4"),
                ("\u{fffd}", "\u{fffd}")
            ]
        );
        assert_eq!(query.value("x"), Some(""));
    }
}
