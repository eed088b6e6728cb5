//! What a PostgreSQL thinks of parameters, asked without a data directory, before there is one.
//!
//! **Invariant:** nothing is written, and no value is an argument: some hold passwords.

use crate::binaries::Binaries;
use crate::error::PostgresError;
use crate::quote::conf_value;
use crate::shared::{first_words, not_the_users};
use rustix::fs::{MemfdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// It prints a setting and ends, before it looks at any data directory. Root may ask, if this comes first.
const ONLY_ASK: [&str; 2] = ["-C", "port"];

impl Binaries {
    /// Those that PostgreSQL does not take, by name or by value, each with its own words. Those that are Standfast's to
    /// set are passed over.
    pub fn not_taken(
        &self,
        parameters: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, PostgresError> {
        let users = |(name, value): &(&String, &String)| not_the_users(name, value).is_none();
        let lines = parameters.iter().filter(users);
        let lines: Vec<(&String, String)> = lines
            .map(|(name, value)| {
                let lower = name.to_ascii_lowercase();
                (name, format!("{lower} = {}\n", conf_value(value)))
            })
            .collect();
        let mut refused = BTreeMap::new();
        let together: String = lines.iter().map(|(_, line)| line.as_str()).collect();
        // Who objects to an empty file objects to something else.
        if self.objection(&together)?.is_none() || self.objection("")?.is_some() {
            return Ok(refused);
        }
        for (name, line) in lines {
            if let Some(said) = self.objection(&line)? {
                let about = format!("\"{}\"", name.to_ascii_lowercase());
                refused.insert(name.clone(), first_words(&said, &about));
            }
        }
        Ok(refused)
    }

    /// The names of those parameters that people set; PostgreSQL knows more.
    pub fn usual_parameters(&self) -> Result<Vec<String>, PostgresError> {
        let output = self.command().arg("--describe-config").output();
        let output = output.map_err(|source| self.failed(source))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.split('\t').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// What is said against a file with this text; `None`: nothing. It is read more than once, which rules out a pipe.
    fn objection(&self, text: &str) -> Result<Option<String>, PostgresError> {
        let file = in_memory(text).map_err(|source| self.failed(source))?;
        let mut command = self.command();
        command.args(ONLY_ASK);
        command.args(["-D", "/", "-c", "config_file=/dev/stdin"]);
        let output = command.stdin(file).output();
        let output = output.map_err(|source| self.failed(source))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((!output.status.success()).then_some(said))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program("postgres"));
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command.stdin(Stdio::null());
        command
    }

    fn failed(&self, source: io::Error) -> PostgresError {
        PostgresError::Spawn {
            program: self.program("postgres"),
            source,
        }
    }
}

fn in_memory(text: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("parameters", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_says_itself_what_it_does_not_take() {
        let explicit = std::env::var_os("STANDFAST_PG_BIN").map(std::path::PathBuf::from);
        let binaries = Binaries::find(explicit.as_deref(), None).unwrap();
        let pairs = [
            ("max_conections", "100"),
            ("Work_Mem", "16MB"),
            ("zero_damaged_pages", "off"),
            ("pg_stat_statements.max", "5000"),
            ("shared_buffers", "it's much"),
            ("cluster_name", "ours"),
        ];
        let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let refused = binaries.not_taken(&BTreeMap::from(owned)).unwrap();
        let names: Vec<&String> = refused.keys().collect();
        assert_eq!(names, ["max_conections", "shared_buffers"], "{refused:?}");
        assert!(
            refused["max_conections"].contains("unrecognized"),
            "{refused:?}"
        );
        assert!(
            refused["shared_buffers"].contains("invalid value"),
            "{refused:?}"
        );
        let usual = binaries.usual_parameters().unwrap();
        assert!(usual.iter().any(|name| name == "max_connections"));
    }
}
