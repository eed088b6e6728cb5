//! Random requests to a real server: what the session believes is what the server says of itself.

use crate::line::Line;
use crate::server::Server;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use wire::backend::TransactionStatus;
use wire::frontend::{Bind, Message, Parse, Target};
use wire::{Busy, List};

/// Tables with and without a trigger that fails before COPY has read anything.
const TABLES: &str = "
create table good (a int);
create table bad (a int);
create function fail() returns trigger language plpgsql as
    $$ begin raise exception 'no'; end $$;
create trigger fail before insert on bad for each statement execute function fail();
";

const STATEMENTS: [&CStr; 12] = [
    c"select 1",
    c"select generate_series(1, 3)",
    c"",
    c"selec",
    c"select 1/0",
    c"begin",
    c"commit",
    c"rollback",
    c"copy good from stdin",
    c"copy bad from stdin",
    c"copy good to stdout",
    c"deallocate all",
];

const NAMES: [&CStr; 3] = [c"", c"a", c"b"];

/// Small, and the same numbers for the same seed everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % count
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn parse(name: &'static CStr, query: &'static CStr) -> Message<'static> {
    Message::Parse(Parse {
        name,
        query,
        types: List::empty(),
    })
}

fn bind(portal: &'static CStr, statement: &'static CStr) -> Message<'static> {
    Message::Bind(Bind {
        portal,
        statement,
        formats: List::empty(),
        parameters: List::empty(),
        result_formats: List::empty(),
    })
}

fn execute(portal: &'static CStr, rows_max: i32) -> Message<'static> {
    Message::Execute { portal, rows_max }
}

/// What a client sends next: one message, or what drivers send together.
fn burst(random: &mut Random) -> Vec<Message<'static>> {
    let (name, other) = (random.one(&NAMES), random.one(&NAMES));
    let query = random.one(&STATEMENTS);
    match random.below(13) {
        0 => vec![parse(name, query)],
        1 => vec![bind(name, other)],
        2 => vec![Message::Describe(Target::Statement(name))],
        3 => vec![Message::Describe(Target::Portal(name))],
        4 => vec![Message::Close(Target::Statement(name))],
        5 => vec![execute(name, 2)],
        6 | 7 => vec![Message::Sync],
        8 => vec![Message::Query(query)],
        9 => vec![Message::CopyData(b"1\n")],
        10 => vec![Message::CopyData(b"x\n"), Message::CopyDone],
        11 => vec![Message::CopyDone],
        _ => vec![
            parse(c"", query),
            bind(c"", c""),
            execute(c"", 0),
            Message::Sync,
        ],
    }
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// The session knew everything.
    Sure,
    /// It said that it did not, and an answer made it sure, or nothing could.
    Doubted,
    /// It said that it could not follow, after a COPY that failed before or while it read what
    /// was behind it.
    Lost,
    /// The server has ended the connection, and the session knew.
    Closed,
}

/// Talks at random, comes to rest, and compares.
fn talk(server: &Server, seed: u64) -> Result<End> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut line = Line::trusted(server)?;
    let mut copied = false;
    let talked = converse(&mut line, &mut random, &mut copied);
    if line.session.idle() == Err(Busy::Lost) {
        ensure!(copied, "{talked:?}");
        // The server may be about to end the connection, or have nothing more to say.
        let _ = line.send(&Message::Terminate)?;
        line.drain();
        return Ok(if line.session.has_ended() {
            End::Closed
        } else {
            End::Lost
        });
    }
    talked?;
    if line.session.has_ended() {
        line.ended()?;
        return Ok(End::Closed);
    }
    let doubted = line.session.idle() == Err(Busy::Doubtful);
    // An answer that is neither an error nor ReadyForQuery ends most doubts.
    line.send(&Message::Query(c""))??;
    let answered = line.until("an answer to nothing", at_rest);
    if line.session.idle() == Err(Busy::Lost) {
        ensure!(doubted && copied, "{answered:?}");
        return Ok(End::Lost);
    }
    answered?;
    if line.session.idle() != Err(Busy::Doubtful) {
        compare(&mut line)?;
        line.end()?;
    }
    Ok(if doubted { End::Doubted } else { End::Sure })
}

fn at_rest(line: &Line) -> bool {
    let over = line.session.has_ended() || line.session.idle() == Err(Busy::Lost);
    over || line.session.unanswered().next().is_none()
}

/// Sends, and now and then waits for an answer; at the end for all of them.
fn converse(line: &mut Line, random: &mut Random, copied: &mut bool) -> Result<()> {
    for _ in 0..random.below(25) {
        for message in burst(random) {
            let copies = |text: &CStr| text.to_bytes().ends_with(b"from stdin");
            *copied |= match &message {
                Message::Query(text) => copies(text),
                Message::Parse(parse) => copies(parse.query),
                _ => false,
            };
            // What is refused is not sent.
            let _ = line.send(&message)?;
        }
        // The server keeps answers back until it is asked for them; while it reads the data of a
        // COPY there are none.
        if random.below(3) == 0 && line.session.copying().is_none() && !at_rest(line) {
            let _ = line.send(&Message::Flush)?;
            line.receive(|_| {})?;
        }
        if line.session.has_ended() {
            return Ok(());
        }
    }
    // Ends a COPY that goes on, or turns out to; then what is left of a batch.
    let _ = line.send(&Message::CopyDone)?;
    let _ = line.send(&Message::Sync)?;
    line.until("an answer to everything", at_rest)
}

fn compare(line: &mut Line) -> Result<()> {
    if line.session.transaction_status() == TransactionStatus::Failed {
        line.ask("rollback")?;
    }
    let known = |line: &Line| -> BTreeSet<Vec<u8>> {
        let named = line.session.statements().filter(|name| !name.is_empty());
        named.map(<[u8]>::to_vec).collect()
    };
    let before = known(line);
    let there = line.ask("select name from pg_prepared_statements where not from_sql")?;
    let there: BTreeSet<_> = there.into_iter().collect();
    ensure!(before == there, "{before:?} are known, {there:?} are there");
    let portals: BTreeSet<_> = line.session.portals().map(|it| it.name.to_vec()).collect();
    for name in line.ask("select name from pg_cursors where name <> ''")? {
        ensure!(
            portals.contains(&name),
            "{portals:?} are known, {name:?} is there"
        );
    }
    line.ask("rollback")?;
    ensure!(line.session.idle().is_ok(), "{:?}", line.session.idle());
    ensure!(line.session.portals().next().is_none());
    Ok(())
}

#[test]
fn the_session_believes_what_the_server_says_of_itself() -> Result<()> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let mut ends = BTreeMap::new();
    for seed in 1..=600 {
        let end = talk(&server, seed).with_context(|| format!("seed {seed}"))?;
        *ends.entry(end).or_insert(0) += 1;
    }
    let count = |end| ends.get(&end).copied().unwrap_or(0);
    ensure!(count(End::Sure) > 300, "{ends:?}");
    ensure!(count(End::Doubted) > 0, "{ends:?}");
    // PostgreSQL 13 goes on after a message that does not belong into a COPY.
    let major = server.psql("show server_version_num")?.parse::<u32>()? / 10_000;
    ensure!(major < 14 || count(End::Closed) > 5, "{ends:?}");
    ensure!(count(End::Lost) < 60, "{ends:?}");
    Ok(())
}
