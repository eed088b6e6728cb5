//! What a server asks for before it lets a client in.

use crate::List;
use crate::reader::{Flaw, Malformed, Reader};
use crate::writer::{self, Unwritable};
use std::ffi::CStr;

/// A message of type `R`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication<'a> {
    Ok,
    /// Gone from PostgreSQL since 9.0.
    KerberosV5,
    CleartextPassword,
    Md5Password {
        salt: [u8; 4],
    },
    Gss,
    GssContinue(&'a [u8]),
    Sspi,
    /// The mechanisms that the server offers, its favourite first.
    Sasl(List<'a, &'a CStr>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
}

impl<'a> Authentication<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match reader.u32()? {
            0 => Self::Ok,
            2 => Self::KerberosV5,
            3 => Self::CleartextPassword,
            5 => Self::Md5Password {
                salt: reader.array()?,
            },
            7 => Self::Gss,
            8 => Self::GssContinue(reader.rest()),
            9 => Self::Sspi,
            10 => Self::Sasl(reader.until_zero()?),
            11 => Self::SaslContinue(reader.rest()),
            12 => Self::SaslFinal(reader.rest()),
            _ => return Err(reader.flaw(Flaw::Value("the method"))),
        })
    }

    pub(super) fn body(&self, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        let code: u32 = match self {
            Self::Ok => 0,
            Self::KerberosV5 => 2,
            Self::CleartextPassword => 3,
            Self::Md5Password { .. } => 5,
            Self::Gss => 7,
            Self::GssContinue(_) => 8,
            Self::Sspi => 9,
            Self::Sasl(_) => 10,
            Self::SaslContinue(_) => 11,
            Self::SaslFinal(_) => 12,
        };
        out.extend_from_slice(&code.to_be_bytes());
        match self {
            Self::Md5Password { salt } => out.extend_from_slice(salt),
            Self::Sasl(mechanisms) => writer::until_zero(out, *mechanisms)?,
            Self::GssContinue(bytes) | Self::SaslContinue(bytes) | Self::SaslFinal(bytes) => {
                out.extend_from_slice(bytes);
            }
            Self::Ok | Self::KerberosV5 | Self::CleartextPassword | Self::Gss | Self::Sspi => {}
        }
        Ok(())
    }
}
