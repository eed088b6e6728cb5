//! sqlx through the proxy: plain use in each mode, and then a life through failovers, as `clients/client.py` has it for
//! Python's drivers. It prints a line of JSON when plain use is done, and another one at its end, which comes when there
//! is a file `over`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgListener, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

const MODES: [(&str, u16); 2] = [("session", 6432), ("transaction", 6433)];
/// Between two rows.
const PACE: Duration = Duration::from_millis(5);
const INSERT: &str = "INSERT INTO seats VALUES ('sqlx', $1, $2)";

fn options(port: u16) -> Result<PgConnectOptions> {
    let host = std::env::var("PGHOST")?;
    let password = std::env::var("PGPASSWORD")?;
    let options = PgConnectOptions::new_without_pgpass();
    let options = options.host(&host).port(port).database("postgres");
    // The program is built without TLS, as many are.
    let options = options.ssl_mode(PgSslMode::Disable);
    Ok(options.username("app").password(&password))
}

async fn connect(port: u16) -> Result<PgConnection> {
    Ok(options(port)?.connect().await?)
}

fn code(error: &sqlx::Error) -> Option<String> {
    let database = error.as_database_error()?;
    let postgres = database.try_downcast_ref::<PgDatabaseError>()?;
    Some(postgres.code().to_owned())
}

fn tell(what: &Value) -> Result<()> {
    writeln!(std::io::stdout(), "{what}")?;
    Ok(std::io::stdout().flush()?)
}

async fn plain(mode: &str, port: u16) -> Result<()> {
    let mut connection = connect(port).await?;
    let row = sqlx::query("SELECT $1::int, $2::text, $3::int[], $4::bytea, $5::text, $6::float8")
        .bind(1_i32)
        .bind("ä €")
        .bind(vec![1_i32, 2])
        .bind(vec![0_u8, 255])
        .bind(None::<String>)
        .bind(1.5_f64)
        .fetch_one(&mut connection)
        .await?;
    ensure!(row.try_get::<i32, _>(0)? == 1 && row.try_get::<String, _>(1)? == "ä €");
    ensure!(row.try_get::<Vec<i32>, _>(2)? == [1, 2] && row.try_get::<Vec<u8>, _>(3)? == [0, 255]);
    ensure!(row.try_get::<Option<String>, _>(4)?.is_none());
    let failed = connection.execute("SELECT 1/0").await;
    ensure!(failed.err().as_ref().and_then(code).as_deref() == Some("22012"));
    let large: String = sqlx::query_scalar("SELECT repeat('x', $1)")
        .bind(3_000_000_i32)
        .fetch_one(&mut connection)
        .await?;
    ensure!(large.len() == 3_000_000);
    // More statements than anybody keeps.
    for round in 0..2 {
        for n in 0..300 {
            let text = format!("SELECT $1::int + {n}");
            let sum: i32 = sqlx::query_scalar(&text)
                .bind(round)
                .fetch_one(&mut connection)
                .await?;
            ensure!(sum == round + n);
        }
    }
    copies(mode, &mut connection).await?;
    let rows = connection
        .fetch_all("SELECT generate_series(1, 5000)")
        .await?;
    ensure!(rows.len() == 5_000);
    // A notification, on a session that waits for it.
    let pool = sqlx::PgPool::connect_with(options(port)?).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen("news_sqlx").await?;
    sqlx::query("NOTIFY news_sqlx, 'it works'")
        .execute(&pool)
        .await?;
    let heard = tokio::time::timeout(Duration::from_secs(30), listener.recv());
    ensure!(heard.await.context("no notification")??.payload() == "it works");
    // A connection that never joined the pool's again would be waited for.
    drop(listener);
    pool.close().await;
    let wrong = options(port)?.password("wrong").connect().await;
    ensure!(wrong.err().as_ref().and_then(code).as_deref() == Some("28P01"));
    Ok(connection.close().await?)
}

async fn copies(mode: &str, connection: &mut PgConnection) -> Result<()> {
    let table = format!("copied_{mode}_sqlx");
    let made = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (a int, b text)");
    connection.execute(&*made).await?;
    let lines: String = (0..20_000).map(|n| format!("{n}\tline {n}\n")).collect();
    let statement = format!("COPY {table} FROM STDIN");
    let mut copy = connection.copy_in_raw(&statement).await?;
    copy.send(lines.as_bytes()).await?;
    ensure!(copy.finish().await? == 20_000);
    let count: i64 = sqlx::query_scalar(&format!("SELECT count(*) FROM {table}"))
        .fetch_one(connection)
        .await?;
    ensure!(count == 20_000);
    Ok(())
}

/// In one mode: a session that idles, and one that writes.
struct Life {
    mode: &'static str,
    port: u16,
    idle: PgConnection,
    session: PgConnection,
    acknowledged: Vec<i64>,
    refused: Vec<i64>,
    unknown: Vec<i64>,
}

impl Life {
    async fn begin(mode: &'static str, port: u16) -> Result<Self> {
        let mut idle = connect(port).await?;
        idle.execute("SET app.user_id = '7'").await?;
        idle.execute("SET TimeZone = 'Asia/Tokyo'").await?;
        Ok(Self {
            mode,
            port,
            idle,
            session: connect(port).await?,
            acknowledged: Vec::new(),
            refused: Vec::new(),
            unknown: Vec::new(),
        })
    }

    async fn write(&mut self, n: i64) -> Result<()> {
        let written = match n % 3 {
            0 => self.alone(n).await,
            1 => self.in_transaction(n).await,
            _ => self.in_one_message(n).await,
        };
        let Err(error) = written else {
            self.acknowledged.push(n);
            return Ok(());
        };
        match (code(&error).as_deref(), &error) {
            (Some("40001"), _) => {
                self.refused.push(n);
                // The session goes on, and can be tidied up in it.
                self.session.execute("ROLLBACK").await?;
            }
            // After a FATAL error some requests find the end of the connection first.
            (Some("08007"), _) | (None, sqlx::Error::Io(_)) => {
                self.unknown.push(n);
                self.session = connect(self.port).await?;
            }
            _ => return Err(error.into()),
        }
        Ok(())
    }

    async fn alone(&mut self, n: i64) -> sqlx::Result<()> {
        let insert = sqlx::query(INSERT).bind(self.mode).bind(n);
        insert.execute(&mut self.session).await.map(drop)
    }

    async fn in_transaction(&mut self, n: i64) -> sqlx::Result<()> {
        let mut transaction = self.session.begin().await?;
        let insert = sqlx::query(INSERT).bind(self.mode).bind(n);
        insert.execute(&mut *transaction).await?;
        transaction.commit().await
    }

    async fn in_one_message(&mut self, n: i64) -> sqlx::Result<()> {
        let mode = self.mode;
        let text = format!("BEGIN; INSERT INTO seats VALUES ('sqlx', '{mode}', {n}); COMMIT");
        self.session.execute(&*text).await.map(drop)
    }

    async fn end(mut self) -> Result<Value> {
        for (setting, wanted) in [("app.user_id", "7"), ("TimeZone", "Asia/Tokyo")] {
            let shown: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(&mut self.idle)
                .await?;
            ensure!(shown == wanted, "{setting}: {shown}");
        }
        Ok(json!({
            "acknowledged": self.acknowledged,
            "refused": self.refused,
            "unknown": self.unknown,
        }))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    for (mode, port) in MODES {
        plain(mode, port).await.context(mode)?;
    }
    let mut lives = Vec::new();
    for (mode, port) in MODES {
        lives.push(Life::begin(mode, port).await?);
    }
    tell(&json!({"plain": true}))?;
    let mut n = 0;
    while !Path::new("over").exists() {
        for life in &mut lives {
            life.write(n).await.context(life.mode)?;
        }
        n += 1;
        tokio::time::sleep(PACE).await;
    }
    let mut told = serde_json::Map::new();
    for life in lives {
        told.insert(life.mode.to_owned(), life.end().await?);
    }
    tell(&Value::Object(told))
}
