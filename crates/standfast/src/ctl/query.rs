//! `query`: SQL on a member, by the rules of libpq's environment as to who asks.

use super::cluster::{Cluster, Member};
use super::frame::{self, Column, Named};
use super::reach::Reach;
use super::show::named;
use super::typed::{Format, Query, Role};
use super::{ask, json, timestamp, watching, yaml};
use crate::exit::{ExitCode, Failure};
use crate::output;
use postgres::{BadSslMode, Connector, Tls};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

const CONNECT: Duration = Duration::from_secs(5);

/// Rows with the names of their columns.
struct Answer {
    names: Vec<String>,
    rows: Vec<Vec<Value>>,
}

pub(super) async fn query(reach: &Reach, typed: &Query) -> Result<ExitCode, Failure> {
    let sql = match (&typed.file, &typed.command) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage(
                "--file and --command are mutually exclusive options",
            ));
        }
        (Some(file), None) => std::fs::read_to_string(file)
            .map_err(|error| Failure::error(format!("can't read {}: {error}", file.display())))?,
        (None, Some(command)) => command.clone(),
        (None, None) => {
            return Err(Failure::usage(
                "You need to specify either --command or --file",
            ));
        }
    };
    let password = match typed.password {
        true => Some(ask::secret("Password")?),
        false => std::env::var("PGPASSWORD").ok(),
    };
    let tls = encryption(&reach.ssl).await?;
    let cluster = named(reach, &typed.cluster).await?;
    watching(typed.watch, false, async || {
        match asked(&cluster, typed, &sql, password.as_deref(), &tls).await? {
            Ok(answer) => {
                output::print(&text(&answer, typed));
                Ok(ExitCode::Ok)
            }
            Err(why) => {
                output::line(&format!("{}{}{why}", timestamp(false), typed.delimiter));
                Ok(ExitCode::Error)
            }
        }
    })
    .await
}

/// The environment goes before the configuration, as patronictl leaves both to libpq.
async fn encryption(configured: &BTreeMap<String, String>) -> Result<Connector, Failure> {
    let tls = Tls::meant(|key| {
        let variable = std::env::var(format!("PG{}", key.to_uppercase())).ok();
        let variable = variable.filter(|value| !value.is_empty());
        variable.or_else(|| configured.get(key).cloned())
    });
    let tls = tls.map_err(|bad| Failure::usage(bad.to_string()).hint(BadSslMode::MODES))?;
    let connector = tls.connector().await;
    connector.map_err(|error| Failure::error(format!("TLS to Postgres: {error}")))
}

/// The inner error is what there is to show in place of rows.
async fn asked(
    cluster: &Cluster,
    typed: &Query,
    sql: &str,
    password: Option<&str>,
    tls: &Connector,
) -> Result<Result<Answer, String>, Failure> {
    let Some(member) = cluster.one(typed.role, typed.member.as_deref())? else {
        return Ok(Err("No connection is available".to_owned()));
    };
    let answer = match connect(member, typed, password, tls).await {
        Ok(client) => match is_what_it_should_be(&client, typed.role).await {
            Ok(true) => rows(&client, sql).await,
            Ok(false) => return Ok(Err("No connection is available".to_owned())),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    Ok(answer.map_err(|error| {
        let why = match error.as_db_error() {
            // Patroni's line has the code alone; what PostgreSQL says to it stands beside.
            Some(said) => {
                output::note(&format!("{}: {}", said.severity(), said.message()));
                said.code().code().to_owned()
            }
            None => why(&error),
        };
        if wants_password(&error) {
            output::note(match password {
                None => "hint: no password was given: set PGPASSWORD, or be asked for it with --password",
                Some(_) => "hint: PGPASSWORD or --password, and -U, must be those of a role of the cluster",
            });
        }
        format!("ERROR, SQLSTATE: {why}")
    }))
}

/// The member wants one that it was not given, or not this one.
fn wants_password(error: &tokio_postgres::Error) -> bool {
    // The driver has no other word for it.
    let is_missing = |source: &dyn std::error::Error| source.to_string() == "password missing";
    error.code() == Some(&SqlState::INVALID_PASSWORD)
        || std::error::Error::source(error).is_some_and(is_missing)
}

/// With its cause: what of TLS went wrong is said there.
fn why(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

async fn connect(
    member: &Member,
    typed: &Query,
    password: Option<&str>,
    tls: &Connector,
) -> Result<Client, tokio_postgres::Error> {
    let own = |variable: &str| std::env::var(variable).ok().filter(|it| !it.is_empty());
    let user = typed.username.clone().or_else(|| own("PGUSER"));
    let user = user
        .or_else(|| own("USER"))
        .unwrap_or_else(|| "postgres".to_owned());
    let database = typed.dbname.clone().or_else(|| own("PGDATABASE"));
    let mut config = tokio_postgres::Config::new();
    config
        .host(&member.host)
        .port(member.port)
        .user(&user)
        .dbname(database.unwrap_or_else(|| user.clone()))
        .application_name("Patroni ctl")
        .connect_timeout(CONNECT);
    if let Some(password) = password {
        config.password(password);
    }
    let (client, connection) = tls.connect(&config).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The record of a member may be older than what it is now.
async fn is_what_it_should_be(
    client: &Client,
    role: Option<Role>,
) -> Result<bool, tokio_postgres::Error> {
    let standby = match role {
        None | Some(Role::Any | Role::Leader) => return Ok(true),
        Some(Role::Replica | Role::Standby | Role::StandbyLeader) => true,
        Some(Role::Primary) => false,
    };
    let row = client
        .query_one("SELECT pg_catalog.pg_is_in_recovery()", &[])
        .await?;
    Ok(row.get::<_, bool>(0) == standby)
}

async fn rows(client: &Client, sql: &str) -> Result<Answer, tokio_postgres::Error> {
    // Types are known of one statement only; of several, everything is text.
    let types: Vec<Type> = match client.prepare(sql).await {
        Ok(statement) => statement
            .columns()
            .iter()
            .map(|column| column.type_().clone())
            .collect(),
        Err(_) => Vec::new(),
    };
    let mut answer = Answer {
        names: Vec::new(),
        rows: Vec::new(),
    };
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                answer.names = columns.iter().map(|it| it.name().to_owned()).collect();
                answer.rows.clear();
            }
            SimpleQueryMessage::Row(row) => {
                let value = |index| typed_value(row.get(index), types.get(index));
                answer.rows.push((0..row.len()).map(value).collect());
            }
            _ => {}
        }
    }
    Ok(answer)
}

fn typed_value(text: Option<&str>, kind: Option<&Type>) -> Value {
    let Some(text) = text else {
        return Value::Null;
    };
    match kind {
        Some(kind) if *kind == Type::BOOL => Value::Bool(text == "t"),
        Some(kind) if [Type::INT2, Type::INT4, Type::INT8, Type::OID].contains(kind) => text
            .parse::<i64>()
            .map_or_else(|_| text.into(), Value::from),
        Some(kind) if [Type::FLOAT4, Type::FLOAT8].contains(kind) => text
            .parse::<f64>()
            .map_or_else(|_| text.into(), Value::from),
        _ => text.into(),
    }
}

fn text(answer: &Answer, typed: &Query) -> String {
    let named = || -> Vec<Named> {
        let row = |row: &Vec<Value>| {
            Named(
                answer
                    .names
                    .iter()
                    .cloned()
                    .zip(row.iter().cloned())
                    .collect(),
            )
        };
        answer.rows.iter().map(row).collect()
    };
    let plain = || -> Vec<Vec<String>> {
        let row = |row: &Vec<Value>| row.iter().map(frame::plain).collect();
        answer.rows.iter().map(row).collect()
    };
    match typed.format {
        Format::Json => json(&named()) + "\n",
        Format::Yaml => yaml::block(&named().iter().map(Named::to_value).collect()) + "\n",
        Format::Tsv => {
            let names = (!answer.names.is_empty()).then_some(answer.names.as_slice());
            frame::separated(names, &plain(), &typed.delimiter)
        }
        Format::Pretty => {
            let columns: Vec<Column> = answer.names.iter().map(Column::left).collect();
            frame::pretty("", &columns, &plain())
        }
    }
}
