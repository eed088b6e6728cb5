//! Every message that there is, with random fields.

use proptest::prelude::*;
use std::ffi::{CStr, CString};
use wire::backend::{
    Authentication, CancelKey, Column, CopyFormats, Field, Fields, Message as Said, Notification,
    TransactionStatus,
};
use wire::frontend::{Bind, FunctionCall, Message as Asked, Parse, Target};
use wire::startup::Version;
use wire::{Hidden, List, Stage};

/// A message of either side, in parts that it can be made of.
#[derive(Debug, Clone)]
pub(crate) enum Sample {
    Asked(Parts<0>),
    Said(Parts<1>),
}

/// Which message it is, and more fields than it needs.
#[derive(Debug, Clone)]
pub(crate) struct Parts<const SIDE: u8> {
    kind: usize,
    texts: Vec<CString>,
    codes: Vec<u8>,
    shorts: Vec<u16>,
    numbers: Vec<u32>,
    values: Vec<Option<Vec<u8>>>,
    bytes: Vec<u8>,
}

const ASKED: usize = 18;
const SAID: usize = 37;

fn parts<const SIDE: u8>(kinds: usize) -> impl Strategy<Value = Parts<SIDE>> {
    let text = "[^\0]{0,8}".prop_map(|text| CString::new(text).expect("no NUL"));
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    (
        0..kinds,
        prop::collection::vec(text, 4..8),
        prop::collection::vec(1_u8.., 8),
        prop::collection::vec(any::<u16>(), 4..8),
        prop::collection::vec(any::<u32>(), 4..8),
        prop::collection::vec(prop::option::of(bytes()), 0..6),
        bytes(),
    )
        .prop_map(
            |(kind, texts, codes, shorts, numbers, values, bytes)| Parts {
                kind,
                texts,
                codes,
                shorts,
                numbers,
                values,
                bytes,
            },
        )
}

pub(crate) fn asked() -> impl Strategy<Value = Sample> {
    parts(ASKED).prop_map(Sample::Asked)
}

pub(crate) fn said() -> impl Strategy<Value = Sample> {
    parts(SAID).prop_map(Sample::Said)
}

impl Sample {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Asked(parts) => parts.with(|message| message.encode(out)),
            Self::Said(parts) => parts.with(|message| message.encode(out)),
        }
        .expect("a short message");
    }

    /// When it may be sent.
    pub(crate) fn stage(&self) -> Stage {
        let opening = match self {
            Self::Asked(parts) => parts.with(|message| matches!(message, Asked::Password(_))),
            Self::Said(parts) => parts.with(|message| {
                matches!(
                    message,
                    Said::Authentication(_) | Said::NegotiateProtocolVersion { .. }
                )
            }),
        };
        if opening {
            Stage::Authentication
        } else {
            Stage::Conversation
        }
    }
}

impl<const SIDE: u8> Parts<SIDE> {
    fn text(&self, place: usize) -> &CStr {
        &self.texts[place]
    }

    fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.values.iter().map(Option::as_deref)
    }

    /// Names that are not empty, as lists need them that end by an empty one.
    fn names(&self) -> impl Iterator<Item = &CStr> {
        let all = self.texts.iter().map(CString::as_c_str);
        all.filter(|name| !name.is_empty())
    }
}

impl Parts<0> {
    pub(crate) fn with<T>(&self, look: impl FnOnce(Asked<'_>) -> T) -> T {
        let (mut one, mut two, mut three) = (Vec::new(), Vec::new(), Vec::new());
        let formats = List::write(self.shorts.iter().copied(), &mut one);
        let values = List::write(self.values(), &mut two);
        let types = List::write(self.numbers.iter().copied(), &mut three);
        let (a, b) = (self.text(0), self.text(1));
        look(match self.kind {
            0 | 1 => Asked::Bind(Bind {
                portal: a,
                statement: b,
                formats,
                parameters: values,
                result_formats: formats,
            }),
            2 => Asked::Close(Target::Statement(a)),
            3 => Asked::Close(Target::Portal(a)),
            4 => Asked::CopyData(&self.bytes),
            5 => Asked::CopyDone,
            6 => Asked::CopyFail(a),
            7 => Asked::Describe(Target::Statement(a)),
            8 => Asked::Describe(Target::Portal(a)),
            9 => Asked::Execute {
                portal: a,
                rows_max: self.numbers[0].cast_signed(),
            },
            10 => Asked::Flush,
            11 => Asked::FunctionCall(FunctionCall {
                function: self.numbers[0],
                formats,
                arguments: values,
                result_format: self.shorts[0],
            }),
            12 | 13 => Asked::Parse(Parse {
                name: a,
                query: b,
                types,
            }),
            14 => Asked::Password(Hidden(&self.bytes)),
            15 => Asked::Query(a),
            16 => Asked::Sync,
            _ => Asked::Terminate,
        })
    }
}

impl Parts<1> {
    pub(crate) fn with<T>(&self, look: impl FnOnce(Said<'_>) -> T) -> T {
        let mut rooms: [Vec<u8>; 6] = std::array::from_fn(|_| Vec::new());
        let [one, two, three, four, five, six] = &mut rooms;
        let formats = CopyFormats {
            overall: self.codes[0],
            columns: List::write(self.shorts.iter().copied(), one),
        };
        let values = List::write(self.values(), two);
        let fields = self.texts.iter().zip(&self.codes);
        let fields = fields.map(|(text, code)| Field { code: *code, text });
        let fields = Fields(List::write(fields, three));
        let columns = self.texts.iter().map(|name| Column {
            name,
            table: self.numbers[0],
            attribute: self.shorts[0],
            data_type: self.numbers[1],
            type_len: self.shorts[1],
            type_modifier: self.numbers[2],
            format: self.shorts[2],
        });
        let columns = List::write(columns, four);
        let names = List::write(self.names(), five);
        let types = List::write(self.numbers.iter().copied(), six);
        let number = self.numbers[0];
        look(match self.kind {
            0..10 => Said::Authentication(self.asks(names)),
            10 => Said::BackendKeyData(CancelKey {
                process_id: number,
                secret: Hidden(&self.codes),
            }),
            11 => Said::BindComplete,
            12 => Said::CloseComplete,
            13 => Said::CommandComplete(self.text(0)),
            14 => Said::CopyBothResponse(formats),
            15 => Said::CopyData(&self.bytes),
            16 => Said::CopyDone,
            17 => Said::CopyInResponse(formats),
            18 => Said::CopyOutResponse(formats),
            19 => Said::DataRow(values),
            20 => Said::EmptyQueryResponse,
            21 | 22 => Said::ErrorResponse(fields),
            23 => Said::FunctionCallResponse(self.values().next().flatten()),
            24 => Said::NegotiateProtocolVersion {
                newest: Version(number),
                unknown: names,
            },
            25 => Said::NoData,
            26 => Said::NoticeResponse(fields),
            27 => Said::NotificationResponse(Notification {
                process_id: number,
                channel: self.text(0),
                payload: self.text(1),
            }),
            28 => Said::ParameterDescription(types),
            29 => Said::ParameterStatus {
                name: self.text(0),
                value: self.text(1),
            },
            30 => Said::ParseComplete,
            31 => Said::PortalSuspended,
            32..35 => Said::ReadyForQuery(match number % 3 {
                0 => TransactionStatus::Idle,
                1 => TransactionStatus::InTransaction,
                _ => TransactionStatus::Failed,
            }),
            _ => Said::RowDescription(columns),
        })
    }

    fn asks<'a>(&'a self, mechanisms: List<'a, &'a CStr>) -> Authentication<'a> {
        match self.kind {
            0 => Authentication::Ok,
            1 => Authentication::KerberosV5,
            2 => Authentication::CleartextPassword,
            3 => Authentication::Md5Password {
                salt: self.numbers[0].to_be_bytes(),
            },
            4 => Authentication::Gss,
            5 => Authentication::GssContinue(&self.bytes),
            6 => Authentication::Sspi,
            7 => Authentication::Sasl(mechanisms),
            8 => Authentication::SaslContinue(&self.bytes),
            _ => Authentication::SaslFinal(&self.bytes),
        }
    }
}
