//! What a client may ask, together with what will come of it.

use proptest::prelude::*;
use std::ffi::CStr;
use wire::List;
use wire::frontend::{Bind, FunctionCall, Message, Parse, Target};

/// What a statement does when it is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Rows,
    Suspends,
    Nothing,
    Fails,
    Dies,
    Begins,
    Commits,
    RollsBack,
    Deallocates,
    CopiesOut,
    /// Fails at this message of data, counted from 1; at 0 before it reads one.
    CopiesIn {
        fails_at: Option<u8>,
    },
}

type Name = &'static CStr;

#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Parse(Name),
    Bind(Name, Name),
    /// A portal if true, else a statement.
    Describe(Name, bool),
    /// Likewise.
    Close(Name, bool),
    Execute(Name, Effect),
    Sync,
    Flush,
    Query(Vec<Effect>),
    Function {
        fails: bool,
    },
    CopyData,
    CopyDone,
    CopyFail,
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        6 => Just(Effect::Rows),
        1 => Just(Effect::Suspends),
        1 => Just(Effect::Nothing),
        2 => Just(Effect::Fails),
        3 => Just(Effect::Begins),
        2 => Just(Effect::Commits),
        1 => Just(Effect::RollsBack),
        1 => Just(Effect::Deallocates),
        1 => Just(Effect::CopiesOut),
        3 => prop::option::of(0_u8..3).prop_map(|fails_at| Effect::CopiesIn { fails_at }),
    ]
}

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![Just(c""), Just(c"a"), Just(c"b")]
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => name().prop_map(Ask::Parse),
        5 => (name(), name()).prop_map(|(portal, statement)| Ask::Bind(portal, statement)),
        2 => (name(), any::<bool>()).prop_map(|(name, portal)| Ask::Describe(name, portal)),
        1 => (name(), any::<bool>()).prop_map(|(name, portal)| Ask::Close(name, portal)),
        6 => (name(), effect()).prop_map(|(portal, effect)| Ask::Execute(portal, effect)),
        6 => Just(Ask::Sync),
        1 => Just(Ask::Flush),
        4 => prop::collection::vec(effect(), 1..3).prop_map(Ask::Query),
        1 => any::<bool>().prop_map(|fails| Ask::Function { fails }),
        3 => Just(Ask::CopyData),
        2 => Just(Ask::CopyDone),
        1 => Just(Ask::CopyFail),
    ]
}

/// What drivers send together, often enough that something succeeds.
fn burst() -> impl Strategy<Value = Vec<Ask>> {
    let prepared = effect().prop_map(|effect| {
        vec![
            Ask::Parse(c""),
            Ask::Bind(c"", c""),
            Ask::Describe(c"", true),
            Ask::Execute(c"", effect),
            Ask::Sync,
        ]
    });
    let copied = (prop::option::of(0_u8..3), any::<bool>()).prop_map(|(fails_at, ahead)| {
        let mut all = vec![
            Ask::Parse(c""),
            Ask::Bind(c"", c""),
            Ask::Execute(c"", Effect::CopiesIn { fails_at }),
        ];
        all.extend(ahead.then_some(Ask::Sync));
        all.extend([Ask::CopyData, Ask::CopyData, Ask::CopyDone, Ask::Sync]);
        all
    });
    prop_oneof![
        8 => ask().prop_map(|ask| vec![ask]),
        4 => prepared,
        2 => copied,
    ]
}

pub(crate) fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let bursts = prop::collection::vec(burst(), 0..20);
    let death = Ask::Query(vec![Effect::Rows, Effect::Dies]);
    let death = prop::option::weighted(0.1, Just(death));
    (bursts, death).prop_map(|(bursts, death)| {
        let mut all: Vec<_> = bursts.concat();
        all.extend(death);
        all
    })
}

impl Ask {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let target = |name, portal: bool| {
            if portal {
                Target::Portal(name)
            } else {
                Target::Statement(name)
            }
        };
        let message = match self {
            Self::Parse(name) => Message::Parse(Parse {
                name,
                query: c"select 1",
                types: List::empty(),
            }),
            Self::Bind(portal, statement) => Message::Bind(Bind {
                portal,
                statement,
                formats: List::empty(),
                parameters: List::empty(),
                result_formats: List::empty(),
            }),
            Self::Describe(name, portal) => Message::Describe(target(*name, *portal)),
            Self::Close(name, portal) => Message::Close(target(*name, *portal)),
            Self::Execute(portal, _) => Message::Execute {
                portal,
                rows_max: 0,
            },
            Self::Sync => Message::Sync,
            Self::Flush => Message::Flush,
            Self::Query(_) => Message::Query(c"select 1"),
            Self::Function { .. } => Message::FunctionCall(FunctionCall {
                function: 1,
                formats: List::empty(),
                arguments: List::empty(),
                result_format: 0,
            }),
            Self::CopyData => Message::CopyData(b"1\n"),
            Self::CopyDone => Message::CopyDone,
            Self::CopyFail => Message::CopyFail(c"no"),
        };
        let mut out = Vec::new();
        message.encode(&mut out).expect("a short message");
        out
    }
}
