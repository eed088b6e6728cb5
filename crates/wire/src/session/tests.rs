use super::*;
use crate::backend::Message as Said;
use crate::frontend::Message as Asked;
use crate::frontend::{Bind, Parse, Target};
use crate::{List, Stage, Step};
use std::ffi::{CStr, CString};

/// Tells a session a transcript of words: `>` goes to the server, `<` comes from it.
///
/// `>P:name`, `>B:portal:statement`, `>DS:name`, `>DP:name`, `>CS:name`, `>CP:name`, `>E`, `>S`,
/// `>H`, `>Q`, `>F`, `>d`, `>c`, `>f`, `>X`; `<1`, `<2`, `<3`, `<n`, `<s`, `<I`, `<V`, `<t`, `<T`,
/// `<D`, `<G`, `<H`, `<W`, `<d`, `<c`, `<C` or `<C:TAG`, `<E:SEVERITY:SQLSTATE`, `<N`, `<A`,
/// `<S:name:value`, `<Z:I`.
fn tell(session: &mut Session, transcript: &str) -> Result<(), Violation> {
    for word in transcript.split_whitespace() {
        let (way, word) = word.split_at(1);
        let mut parts = word.split(':').map(|it| it.replace('_', " "));
        let mut next = || CString::new(parts.next().unwrap_or_default()).unwrap();
        let (tag, a, b) = (next(), next(), next());
        let tag = tag.to_str().unwrap();
        let mut out = Vec::new();
        if way == ">" {
            asked(tag, &a, &b).encode(&mut out).unwrap();
            let mut framer = crate::frontend::Framer::new(Stage::Conversation, Limits::default());
            let Ok(Step::Message(frame)) = framer.next(&out) else {
                panic!("{word}");
            };
            session.sent(&frame, Origin::Client)?;
        } else {
            said(tag, &a, &b, &mut out);
            let mut framer = crate::backend::Framer::new(Stage::Conversation, Limits::default());
            let Ok(Step::Message(frame)) = framer.next(&out) else {
                panic!("{word}");
            };
            session.received(&frame)?;
        }
    }
    Ok(())
}

fn asked<'a>(tag: &str, a: &'a CStr, b: &'a CStr) -> Asked<'a> {
    match tag {
        "P" => Asked::Parse(Parse {
            name: a,
            query: c"select 1",
            types: List::empty(),
        }),
        "B" => Asked::Bind(Bind {
            portal: a,
            statement: b,
            formats: List::empty(),
            parameters: List::empty(),
            result_formats: List::empty(),
        }),
        "DS" => Asked::Describe(Target::Statement(a)),
        "DP" => Asked::Describe(Target::Portal(a)),
        "CS" => Asked::Close(Target::Statement(a)),
        "CP" => Asked::Close(Target::Portal(a)),
        "E" => Asked::Execute {
            portal: a,
            rows_max: 0,
        },
        "S" => Asked::Sync,
        "H" => Asked::Flush,
        "Q" => Asked::Query(c"select 1"),
        "F" => Asked::FunctionCall(crate::frontend::FunctionCall {
            function: 1,
            formats: List::empty(),
            arguments: List::empty(),
            result_format: 0,
        }),
        "d" => Asked::CopyData(b"1\n"),
        "c" => Asked::CopyDone,
        "f" => Asked::CopyFail(c"no"),
        "X" => Asked::Terminate,
        other => panic!(">{other}"),
    }
}

fn said(tag: &str, a: &CStr, b: &CStr, out: &mut Vec<u8>) {
    let mut room = Vec::new();
    let formats = crate::backend::CopyFormats {
        overall: 0,
        columns: List::empty(),
    };
    let fields = |room| {
        let fields = [(b'V', a), (b'C', b), (b'M', c"no")];
        let fields = fields.map(|(code, text)| crate::backend::Field { code, text });
        crate::backend::Fields(List::write(fields, room))
    };
    let message = match tag {
        "1" => Said::ParseComplete,
        "2" => Said::BindComplete,
        "3" => Said::CloseComplete,
        "n" => Said::NoData,
        "s" => Said::PortalSuspended,
        "I" => Said::EmptyQueryResponse,
        "V" => Said::FunctionCallResponse(None),
        "t" => Said::ParameterDescription(List::empty()),
        "T" => Said::RowDescription(List::empty()),
        "D" => Said::DataRow(List::empty()),
        "G" => Said::CopyInResponse(formats),
        "H" => Said::CopyOutResponse(formats),
        "W" => Said::CopyBothResponse(formats),
        "d" => Said::CopyData(b"1\n"),
        "c" => Said::CopyDone,
        "C" => Said::CommandComplete(a),
        "E" => Said::ErrorResponse(fields(&mut room)),
        "N" => Said::NoticeResponse(fields(&mut room)),
        "A" => Said::NotificationResponse(crate::backend::Notification {
            process_id: 1,
            channel: c"c",
            payload: c"",
        }),
        "S" => Said::ParameterStatus { name: a, value: b },
        "Z" => Said::ReadyForQuery(match a.to_bytes() {
            b"I" => TransactionStatus::Idle,
            b"T" => TransactionStatus::InTransaction,
            _ => TransactionStatus::Failed,
        }),
        other => panic!("<{other}"),
    };
    message.encode(out).unwrap();
}

/// A session that has been told the transcript.
fn after(transcript: &str) -> Session {
    let mut session = Session::ready(Limits::default());
    tell(&mut session, transcript).unwrap_or_else(|why| panic!("{transcript}: {why}"));
    session
}

fn check(transcript: &str, idle: Result<(), Busy>) {
    assert_eq!(after(transcript).idle(), idle, "{transcript}");
}

fn refused(transcript: &str) -> Violation {
    let mut session = Session::ready(Limits::default());
    let Err(violation) = tell(&mut session, transcript) else {
        panic!("{transcript} was taken");
    };
    violation
}

fn names<'a>(all: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    all.map(|it| String::from_utf8_lossy(it).into_owned())
        .collect()
}

fn unanswered(oldest: RequestKind, unanswered: usize) -> Result<(), Busy> {
    Err(Busy::Unanswered { oldest, unanswered })
}

#[test]
fn a_simple_query_is_answered_by_ready_for_query_alone() {
    check(">Q", unanswered(RequestKind::Query, 1));
    check(">Q <T <D <C:SELECT_1", unanswered(RequestKind::Query, 1));
    check(">Q <T <D <C:SELECT_1 <Z:I", Ok(()));
    check(">Q <C:BEGIN <Z:T", Err(Busy::InTransaction));
    check(">Q <E:ERROR:42601 <Z:E", Err(Busy::InFailedTransaction));
    check(">Q <I <Z:I", Ok(()));
}

#[test]
fn queries_may_be_sent_ahead() {
    check(
        ">Q >Q >Q <C <Z:I <E:ERROR:1 <Z:I",
        unanswered(RequestKind::Query, 1),
    );
    check(">Q >Q >Q <C <Z:I <E:ERROR:1 <Z:I <C <Z:I", Ok(()));
}

#[test]
fn a_batch_is_open_until_its_sync_is_answered() {
    check(">P >B >E >H <1 <2 <C", Err(Busy::BatchOpen));
    check(">P >B >E >H <1 <2 <C >S", unanswered(RequestKind::Sync, 1));
    check(">P >B >DP >E >S <1 <2 <T <D <C:SELECT_1 <Z:I", Ok(()));
    check(">P >DS >S <1 <t <n <Z:I", Ok(()));
    check(">P >B >E >S <1 <2 <s <Z:T", Err(Busy::InTransaction));
}

#[test]
fn after_an_error_the_server_skips_to_the_next_sync() {
    check(">P >B >E <E:ERROR:42601", Err(Busy::Skipping));
    check(">P >B <E:ERROR:42601 >Q >P >E", Err(Busy::Skipping));
    check(
        ">P >B <E:ERROR:42601 >Q >S",
        unanswered(RequestKind::Sync, 1),
    );
    check(
        ">P >B >E >S >P >S <E:ERROR:42601 <Z:I",
        unanswered(RequestKind::Parse, 2),
    );
    check(">P >B >E >S >P >S <E:ERROR:42601 <Z:I <1 <Z:I", Ok(()));
    // An error when the transaction is committed skips nothing.
    check(">P >B >E >S <1 <2 <C <E:ERROR:23503 <Z:I", Ok(()));
}

#[test]
fn what_nobody_asked_for_changes_nothing() {
    check("<N <A <S:TimeZone:UTC", Ok(()));
    check(">P <N >S <A <1 <S:a:b <Z:I", Ok(()));
    let session = after("<S:TimeZone:UTC <S:TimeZone:CET <S:b:");
    assert_eq!(session.parameter(b"TimeZone"), Some(&b"CET"[..]));
    assert_eq!(session.parameters().count(), 2);
}

#[test]
fn a_fatal_error_ends_the_connection_and_keeps_what_was_owed() {
    let session = after(">Q <E:FATAL:57P01");
    assert_eq!(session.idle(), Err(Busy::Ended));
    let owed: Vec<_> = session.unanswered().collect();
    assert_eq!(owed, [(RequestKind::Query, Origin::Client)]);
    assert_eq!(
        refused("<E:FATAL:57P01 >Q"),
        Violation::AfterEnd { sent: "Query" }
    );
}

#[test]
fn an_error_without_severity_ends_nothing() {
    check(">Q <E <Z:I", Ok(()));
}

#[test]
fn an_answer_that_does_not_fit_is_an_error() {
    for transcript in [
        "<Z:I",
        "<1",
        "<C",
        ">Q <1",
        ">Q <Z:I",
        ">P <2",
        ">P <Z:I",
        ">S <C",
        ">E <T",
        ">DS <T",
        ">Q <d",
        ">Q <c",
        ">F <C",
        ">F <Z:I",
        ">DP <t",
        ">P <E:ERROR:1 <Z:I",
    ] {
        let violation = refused(transcript);
        assert!(
            matches!(violation, Violation::Unexpected { .. }),
            "{transcript}: {violation}"
        );
    }
    let mut session = Session::ready(Limits::default());
    let _ = tell(&mut session, "<1");
    assert_eq!(session.idle(), Err(Busy::Lost));
}

#[test]
fn a_function_call_is_a_request_of_its_own() {
    check(">F <V", unanswered(RequestKind::FunctionCall, 1));
    check(">F <V <Z:I", Ok(()));
    check(">F <E:ERROR:42501 <Z:I", Ok(()));
}

#[test]
fn copy_from_the_client_reads_until_its_end() {
    check(">Q <G", Err(Busy::Copying(Copying::In)));
    check(">Q <G >d >d >H", Err(Busy::Copying(Copying::In)));
    check(">Q <G >d >c", unanswered(RequestKind::Query, 1));
    check(">Q <G >d >c <C:COPY_1 <Z:I", Ok(()));
    check(">Q <G >d >f <E:ERROR:57014 <Z:I", Ok(()));
    // An error comes while the client still sends.
    check(">Q <G >d <E:ERROR:22P02 >d >d >c <Z:I", Ok(()));
}

#[test]
fn copy_swallows_a_sync_that_was_sent_with_the_request() {
    check(">P >B >E >S <1 <2 <G", Err(Busy::Copying(Copying::In)));
    check(">P >B >E >S <1 <2 <G >d >c <C:COPY_1", Err(Busy::BatchOpen));
    check(">P >B >E >S <1 <2 <G >d >c >S <C:COPY_1 <Z:I", Ok(()));
    // Everything was sent ahead.
    check(">P >B >E >S >d >c >S <1 <2 <G <C:COPY_1 <Z:I", Ok(()));
    // The same messages, and the statement was no COPY.
    check(">P >B >E >S >d >c >S <1 <2 <C <Z:I <Z:I", Ok(()));
}

#[test]
fn a_copy_that_fails_leaves_a_doubt_about_the_sync_that_it_swallowed() {
    let failed = ">P >B >E >S <1 <2 <G >d <E:ERROR:22P02";
    check(failed, Err(Busy::Doubtful));
    let both = format!("{failed} >c >S <Z:I");
    check(&both, Err(Busy::Doubtful));
    // It had read it: the next answer is another.
    check(&format!("{both} >Q <I <Z:I"), Ok(()));
    // It had not: here is the answer.
    check(&format!("{both} <Z:I"), Ok(()));
    check(&format!("{failed} <Z:I"), Ok(()));
    check(
        &format!("{failed} <Z:I >c >S"),
        unanswered(RequestKind::Sync, 1),
    );
    check(&format!("{failed} <Z:I >c >S <Z:I"), Ok(()));
    check(&format!("{both} >Q <Z:I <C <Z:I"), Ok(()));
}

#[test]
fn copy_takes_no_other_message_from_a_client() {
    for word in ["Q", "P", "B", "E", "F", "DS", "CS"] {
        let violation = refused(&format!(">Q <G >{word}"));
        assert!(matches!(violation, Violation::OutOfTurn { .. }), "{word}");
    }
    // When it is too late to refuse it, the server does, and 13 goes on.
    check(">E >P >S <G <E:ERROR:08P01", Err(Busy::Lost));
    check(">Q >P >S <G <E:ERROR:08P01 <Z:I", Err(Busy::Lost));
    check(
        ">E >P >S <G <E:ERROR:08P01 <E:FATAL:08P01",
        Err(Busy::Ended),
    );
}

#[test]
fn copy_to_the_client_ends_by_the_server() {
    check(">Q <H <d", Err(Busy::Copying(Copying::Out)));
    check(">Q <H <d <c", unanswered(RequestKind::Query, 1));
    check(">Q <H <d <c <C:COPY_1 <Z:I", Ok(()));
    check(">Q >Q <H <d <E:ERROR:57014 <Z:I <C <Z:I", Ok(()));
    check(">E >S <H <d <c <C:COPY_1 <Z:I", Ok(()));
}

#[test]
fn copy_both_ends_on_either_side() {
    let both = |client_done| Err(Busy::Copying(Copying::Both { client_done }));
    check(">Q <W <d >d", both(false));
    check(">Q <W <d >c <d", both(true));
    check(">Q <W <d >c <d <c", unanswered(RequestKind::Query, 1));
    check(">Q <W <d <c >d", Err(Busy::Copying(Copying::In)));
    check(">Q <W <d <c >c <T <D <C <Z:I", Ok(()));
}

#[test]
fn ends_of_a_copy_that_is_none_are_thrown_away() {
    check(">c >f >d", Ok(()));
    check(">Q >c >f >c <C <Z:I", Ok(()));
    check(">E >c >S <C <Z:I", Ok(()));
}

#[test]
fn statements_are_those_that_the_server_has_confirmed() {
    let session = after(">P:a >P:b >P >S <1");
    assert_eq!(names(session.statements()), ["a"]);
    let session = after(">P:a >P:b >P >S <1 <1 <1 <Z:I");
    assert_eq!(names(session.statements()), ["", "a", "b"]);
    let session = after(">P:a >P:b >CS:a >S <1 <1 <3 <Z:I >P:c >S <E:ERROR:42601 <Z:I");
    assert_eq!(names(session.statements()), ["b"]);
}

#[test]
fn the_unnamed_statement_goes_with_the_next_query_or_text() {
    for transcript in [
        ">P >S <1 <Z:I >Q <E:ERROR:42601",
        ">P >S <1 <Z:I >Q <I",
        ">P >S <1 <Z:I >P >S <E:ERROR:42601",
        ">P >S <1 <Z:I >CS: >S <3",
    ] {
        assert_eq!(after(transcript).statements().count(), 0, "{transcript}");
    }
}

#[test]
fn tags_tell_when_all_statements_are_gone() {
    for tag in ["DEALLOCATE_ALL", "DISCARD_ALL"] {
        let session = after(&format!(">P:a >P >S <1 <1 <Z:I >B >E >S <2 <C:{tag} <Z:I"));
        assert_eq!(names(session.statements()), [""], "{tag}");
    }
}

#[test]
fn portals_last_as_long_as_their_transaction() {
    let open = ">Q <C:BEGIN <Z:T >P:s >B:p:s >B:q:s >S <1 <2 <2 <Z:T";
    let session = after(open);
    assert_eq!(names(session.portals().map(|it| it.name)), ["p", "q"]);
    assert_eq!(session.portals().next().unwrap().statement, b"s");
    let session = after(&format!("{open} >CP:p >S <3 <Z:T"));
    assert_eq!(names(session.portals().map(|it| it.name)), ["q"]);
    let session = after(&format!("{open} >Q <C:COMMIT <Z:I"));
    assert_eq!(session.portals().count(), 0);
}

#[test]
fn an_error_that_strikes_an_idle_server_is_followed_by_ready() {
    check(">P >H <1 <E:ERROR:57014", Err(Busy::Doubtful));
    check(">P >H <1 <E:ERROR:57014 <Z:I", Ok(()));
    check(">P >H <1 <E:ERROR:57014 <Z:I >B >E >S <2 <C <Z:I", Ok(()));
}

#[test]
fn a_timeout_within_a_batch_may_have_come_before_the_request_was_read() {
    let struck = ">P >B >H <1 <2 >E >S <E:ERROR:57014 <Z:I";
    check(struck, Err(Busy::Doubtful));
    check(&format!("{struck} >Q <I <Z:I"), Ok(()));
    // Rows show that it was read.
    check(">P >B >E >S <1 <2 <D <E:ERROR:57014 <Z:I", Ok(()));
    // There is no batch that a timeout could end.
    check(">Q <E:ERROR:57014 <Z:I", Ok(()));
    check(">P >H <1 >S <E:ERROR:57014 <Z:I <Z:I", Ok(()));
}

#[test]
fn too_many_requests_are_refused_until_answers_come() {
    let limits = Limits {
        unanswered_max: 3,
        ..Limits::default()
    };
    let mut session = Session::ready(limits);
    tell(&mut session, ">S >S >S >H >d").unwrap();
    assert!(!session.has_room());
    assert_eq!(tell(&mut session, ">S"), Err(Violation::Full));
    tell(&mut session, "<Z:I >S <Z:I <Z:I <Z:I").unwrap();
    assert_eq!(session.idle(), Ok(()));
}

#[test]
fn what_does_not_fit_is_forgotten_and_said_to_be() {
    let limits = Limits {
        remembered_bytes_max: 100,
        ..Limits::default()
    };
    let mut session = Session::ready(limits);
    tell(&mut session, ">P:a >S <1 <Z:I").unwrap();
    assert!(!session.has_forgotten());
    tell(&mut session, ">P:b >S <1 <Z:I").unwrap();
    assert!(session.has_forgotten());
    assert_eq!(names(session.statements()), ["a"]);
    let long = "x".repeat(100);
    let storm = tell(&mut session, &format!("<S:c:d <S:{long}:b"));
    assert_eq!(storm, Err(Violation::TooManyParameters));
}

#[test]
fn a_long_text_is_a_statement_like_any_other() {
    let limits = Limits {
        held_bytes_max: 16,
        ..Limits::default()
    };
    let mut out = Vec::new();
    let message = Asked::Parse(Parse {
        name: c"a",
        query: c"select 'something long'",
        types: List::empty(),
    });
    message.encode(&mut out).unwrap();
    let mut framer = crate::frontend::Framer::new(Stage::Conversation, limits);
    let Ok(Step::Message(frame)) = framer.next(&out) else {
        panic!("no frame");
    };
    assert!(!frame.is_whole());
    let mut session = Session::ready(limits);
    session.sent(&frame, Origin::Client).unwrap();
    tell(&mut session, "<1 >S <Z:I").unwrap();
    assert_eq!(names(session.statements()), ["a"]);
}

#[test]
fn a_connection_starts_with_its_first_ready_for_query() {
    let mut session = Session::starting(Limits::default());
    assert_eq!(session.idle(), Err(Busy::Starting));
    tell(&mut session, "<S:TimeZone:UTC <Z:I").unwrap();
    assert_eq!(session.idle(), Ok(()));
}

#[test]
fn answers_name_who_asked() {
    let mut session = Session::ready(Limits::default());
    let mut framed = Vec::new();
    Asked::Query(c"select 1").encode(&mut framed).unwrap();
    let mut framer = crate::frontend::Framer::new(Stage::Conversation, Limits::default());
    let Ok(Step::Message(query)) = framer.next(&framed) else {
        panic!("no frame");
    };
    session.sent(&query, Origin::Proxy).unwrap();
    session.sent(&query, Origin::Client).unwrap();
    let mut heard = Vec::new();
    for tag in ["C", "N", "A", "Z", "C", "Z"] {
        let mut out = Vec::new();
        said(tag, c"I", c"", &mut out);
        let mut framer = crate::backend::Framer::new(Stage::Conversation, Limits::default());
        let Ok(Step::Message(frame)) = framer.next(&out) else {
            panic!("{tag}");
        };
        let reply = session.received(&frame).unwrap();
        heard.push((tag, reply.request.map(|it| it.1), reply.completes));
    }
    let (ours, theirs) = (Some(Origin::Proxy), Some(Origin::Client));
    assert_eq!(
        heard,
        [
            ("C", ours, false),
            ("N", ours, false),
            ("A", None, false),
            ("Z", ours, true),
            ("C", theirs, false),
            ("Z", theirs, true),
        ]
    );
}

#[test]
fn whether_the_server_throws_away_what_comes_is_certain_or_not() {
    let skips = |transcript: &str| {
        let mut session = Session::ready(Limits::default());
        tell(&mut session, transcript).unwrap();
        (session.is_skipping(), session.skips_certainly())
    };
    assert_eq!(skips(">P >H"), (false, false));
    assert_eq!(skips(">P >H <E:ERROR:42601"), (true, true));
    assert_eq!(skips(">P >B >E <1 <E:ERROR:42601 >P >Q"), (true, true));
    // A Sync that was sent ends it.
    assert_eq!(skips(">P >S <E:ERROR:42601"), (false, false));
    assert_eq!(skips(">P >H <E:ERROR:42601 >P >S"), (false, false));
    // A timeout may have struck before the request was read.
    assert_eq!(skips(">P >H <1 >B <E:ERROR:57014"), (true, false));
}
