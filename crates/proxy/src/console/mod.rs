//! The administrator's console: a session in a database of its own, spoken to with `psql`, in the
//! words of PgBouncer's.
//!
//! **Invariant:** who is listed for statistics alone changes nothing.

mod show;
mod table;

use crate::errors;
use crate::net::{Inbox, Outbox, Stream};
use crate::session::Shared;
use crate::stats::State;
use std::sync::Arc;
use std::time::Duration;
use wire::backend::{Message, Report, SqlState, TransactionStatus};
use wire::frontend::{Framer, Tag};
use wire::{Limits, Stage, Step};

/// The databases that stand for it.
pub(crate) const DATABASES: [&str; 2] = ["pgbouncer", "standfast"];

/// What changes something.
const ORDERS: [&str; 5] = ["PAUSE", "RESUME", "RECONNECT", "RELOAD", "SHUTDOWN"];

/// Longer statements are none of the console's.
const QUERY_BYTES_MAX: usize = 8 * 1024;
/// For the last words to a client.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often PAUSE looks whether all are done.
const LOOK: Duration = Duration::from_millis(10);

/// How long the files may take to be read.
const RELOADS: Duration = Duration::from_secs(10);
/// As PostgreSQL says of its configuration.
const NOT_RELOADED: SqlState = SqlState(*b"F0000");
const SYNTAX: SqlState = SqlState(*b"42601");
const NOT_ALLOWED: SqlState = SqlState(*b"42501");

/// What a user may do there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Not even to be there.
    Nothing,
    /// SHOW.
    Look,
    Everything,
}

/// Serves an administrator to the end. Anybody else has proved who he is, and is told that it is not enough.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    mut stream: Stream,
    mut inbox: Inbox,
    right: Right,
) {
    if right == Right::Nothing {
        let mut outbox = Outbox::default();
        tell(&not_allowed(), &mut outbox);
        // Who does not listen has not heard it.
        let _ = tokio::time::timeout(FAREWELL, outbox.flush(&mut stream)).await;
        return;
    }
    let limits = Limits {
        held_bytes_max: QUERY_BYTES_MAX,
        query_bytes_max: QUERY_BYTES_MAX,
        ..Limits::default()
    };
    let mut framer = Framer::new(Stage::Conversation, limits);
    let mut outbox = Outbox::default();
    greet(&mut outbox);
    // The rest of a batch that was refused, up to its Sync.
    let mut skipping = false;
    loop {
        if outbox.flush(&mut stream).await.is_err() {
            return;
        }
        let Ok(step) = framer.next(inbox.unread()) else {
            tell(&errors::protocol("invalid message"), &mut outbox);
            // Who does not listen has not heard it.
            let _ = tokio::time::timeout(FAREWELL, outbox.flush(&mut stream)).await;
            return;
        };
        let taken = step.taken();
        let asked = match step {
            Step::More { buffer_bytes } => {
                inbox.want(buffer_bytes);
                match inbox.fill(&mut stream).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => continue,
                }
            }
            Step::Part(_) => None,
            Step::Message(frame) => Some((frame.tag(), frame.body().to_vec())),
        };
        inbox.drop_unread(taken);
        match asked {
            None | Some((Tag::Flush, _)) => {}
            Some((Tag::Terminate, _)) => return,
            Some((Tag::Sync, _)) => {
                skipping = false;
                ready(&mut outbox);
            }
            Some(_) if skipping => {}
            Some((Tag::Query, body)) => {
                let text = body.split_last().map_or(&[][..], |(_, text)| text);
                let text = String::from_utf8_lossy(text).into_owned();
                answer(shared, &text, right, &mut outbox).await;
            }
            Some((tag, _)) => {
                let what = "the console takes simple queries only";
                tell(&Report::error(errors::UNSUPPORTED, what), &mut outbox);
                skipping = tag != Tag::FunctionCall;
                if !skipping {
                    ready(&mut outbox);
                }
            }
        }
    }
}

fn greet(outbox: &mut Outbox) {
    say(
        &Message::Authentication(wire::backend::Authentication::Ok),
        outbox,
    );
    for (name, value) in [
        // Clients read the first number, and choose their own words by it.
        (
            c"server_version",
            concat!(env!("CARGO_PKG_VERSION"), "/standfast\0"),
        ),
        (c"client_encoding", "UTF8\0"),
        (c"server_encoding", "UTF8\0"),
        (c"DateStyle", "ISO\0"),
        (c"TimeZone", "UTC\0"),
        (c"standard_conforming_strings", "on\0"),
        (c"is_superuser", "on\0"),
    ] {
        let value = std::ffi::CStr::from_bytes_until_nul(value.as_bytes()).unwrap_or_default();
        say(&Message::ParameterStatus { name, value }, outbox);
    }
    ready(outbox);
}

async fn answer(shared: &Arc<Shared>, text: &str, right: Right, outbox: &mut Outbox) {
    let text = text.trim().trim_end_matches(';').trim();
    let words: Vec<_> = text.split_whitespace().map(str::to_uppercase).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => say(&Message::EmptyQueryResponse, outbox),
        ["SHOW", what] => match show::table(shared, what) {
            Some(table) => table.write(outbox.room()),
            None => tell(&unknown(&format!("SHOW {what}"), &show::kinds()), outbox),
        },
        ["SET", setting, ..] if show::is_own(shared, &name_of(setting)) => {
            let what = format!("{} can't be set here", name_of(setting));
            let report = Report::error(errors::UNSUPPORTED, &what);
            let hint = "Change it in the proxy's file, and RELOAD.";
            tell(&report.hint(hint), outbox);
        }
        // Drivers say things like these on their own.
        ["SET", ..] | ["BEGIN"] | ["COMMIT"] | ["ROLLBACK"] => complete(c"SET", outbox),
        [command] if ORDERS.contains(command) => match right {
            Right::Everything => order(shared, command, outbox).await,
            Right::Look | Right::Nothing => {
                let what = "admin access needed";
                tell(&Report::error(NOT_ALLOWED, what), outbox);
            }
        },
        [command, _] if ORDERS.contains(command) => {
            let what = format!("{command} takes no database: it is for all of them");
            tell(&Report::error(errors::UNSUPPORTED, &what), outbox);
        }
        _ => tell(&unknown(text, &commands()), outbox),
    }
    ready(outbox);
}

/// Of `NAME=VALUE`, `NAME =` or `NAME`.
fn name_of(word: &str) -> String {
    let name = word.split('=').next().unwrap_or_default();
    name.to_ascii_lowercase()
}

/// In PgBouncer's words, and what there is.
fn unknown(text: &str, known: &str) -> Report {
    let what = format!("invalid command '{text}', use SHOW HELP;");
    Report::error(SYNTAX, &what).hint(&format!("There is {known}."))
}

fn commands() -> String {
    format!("{}, {}", show::kinds(), ORDERS.join(", "))
}

/// As PgBouncer refuses its console, with what would help.
fn not_allowed() -> Report {
    Report::fatal(NOT_ALLOWED, "not allowed")
        .hint("This database is the proxy's console, for users in admin_users or stats_users.")
}

async fn order(shared: &Arc<Shared>, command: &str, outbox: &mut Outbox) {
    tracing::info!(command, "the console was given a command");
    match command {
        "PAUSE" => {
            shared.pause.set(true);
            // Those who are within a transaction finish it, and who has not seen the pause yet may be about to begin one.
            loop {
                tokio::time::sleep(LOOK).await;
                if !shared.pause.is_on() || !is_busy(shared) {
                    break;
                }
            }
            // Whoever pauses may want the server, or a database of it, for himself.
            if shared.pause.is_on() {
                shared.pools.reconnect();
            }
            complete(c"PAUSE", outbox);
        }
        "RESUME" => {
            shared.pause.set(false);
            complete(c"RESUME", outbox);
        }
        "RECONNECT" => {
            shared.pools.reconnect();
            complete(c"RECONNECT", outbox);
        }
        "RELOAD" => match reload(shared).await {
            Ok(()) => complete(c"RELOAD", outbox),
            Err(why) => tell(&Report::error(NOT_RELOADED, &why), outbox),
        },
        _ => {
            shared.wishes.stop.notify_one();
            complete(c"SHUTDOWN", outbox);
        }
    }
}

async fn reload(shared: &Arc<Shared>) -> Result<(), String> {
    let mut reloads = shared.wishes.reloads.subscribe();
    let before = reloads.borrow_and_update().count;
    shared.wishes.reload.notify_one();
    let after = tokio::time::timeout(RELOADS, reloads.wait_for(|it| it.count > before)).await;
    match after {
        Ok(Ok(after)) => after.refused.clone().map_or(Ok(()), Err),
        _ => Err(format!(
            "the configuration was not read again within {} s: the log says why",
            RELOADS.as_secs()
        )),
    }
}

/// Whether a session is within a transaction, or waits for its server's answer.
fn is_busy(shared: &Shared) -> bool {
    let cards = shared.roster.all();
    cards.iter().any(|card| card.state() == State::Active)
}

fn complete(tag: &std::ffi::CStr, outbox: &mut Outbox) {
    say(&Message::CommandComplete(tag), outbox);
}

fn ready(outbox: &mut Outbox) {
    say(&Message::ReadyForQuery(TransactionStatus::Idle), outbox);
}

fn say(message: &Message<'_>, outbox: &mut Outbox) {
    // None of these has a part that could be too long.
    let _ = message.encode(outbox.room());
}

fn tell(report: &Report, outbox: &mut Outbox) {
    // The texts are short.
    let _ = report.encode(outbox.room());
}
