//! Quoting for the five small languages that PostgreSQL's files are written in.
//!
//! **Invariant:** no value, whatever it holds, ends the place it was put into.

/// A value in `postgresql.conf`: single quotes doubled, backslashes doubled (they escape there).
pub(crate) fn conf_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// One `key='value'` of a libpq connection string.
pub(crate) fn conninfo_pair(key: &str, value: &str) -> String {
    format!(
        "{key}='{}'",
        value.replace('\\', "\\\\").replace('\'', "\\'")
    )
}

/// A connection string of several pairs.
pub(crate) fn conninfo<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(k, v)| conninfo_pair(k, v))
        .collect();
    pairs.join(" ")
}

/// One field of a pass file: `:` and `\` are escaped.
pub(crate) fn passfile_field(value: &str) -> String {
    value.replace('\\', "\\\\").replace(':', "\\:")
}

/// A role in SQL.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text constant in SQL, whatever `standard_conforming_strings` says.
pub(crate) fn literal(value: &str) -> String {
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// A role or database in `pg_hba.conf`; quotes take their special meaning from words such as `all`.
pub(crate) fn hba(name: &str) -> String {
    format!("\"{name}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_stay_inside_their_quotes() {
        assert_eq!(conf_value(r"a'b\c"), r"'a''b\\c'");
        assert_eq!(conninfo([("host", r"a' port=1\")]), r"host='a\' port=1\\'");
        assert_eq!(passfile_field(r"a:b\c"), r"a\:b\\c");
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
        assert_eq!(literal(r"a'\"), r"E'a''\\'");
    }
}
