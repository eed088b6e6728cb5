//! Questions of our own whose answers are read.

use super::{Mirror, Refusal, Server};
use wire::backend::{Frame, Message, Tag};

/// Longer answers than this are to no question of ours.
const ROWS_MAX: usize = 1000;

/// Values as PostgreSQL writes them.
pub(crate) type Row = Vec<Option<Box<[u8]>>>;

impl Server {
    /// Sends what was written, and gives the rows of all that is answered. The first error is the
    /// result.
    pub(crate) async fn rows(&mut self) -> Result<Vec<Row>, Refusal> {
        let mut rows = Ok(Vec::new());
        let hear = |_: &mut Mirror, frame: Option<&Frame<'_>>| {
            let Some(frame) = frame else {
                rows = Err(Refusal::Error("an answer too long".to_owned()));
                return;
            };
            match (frame.tag(), &mut rows) {
                (Tag::ErrorResponse, Ok(_)) => rows = Err(Refusal::said(frame)),
                (Tag::DataRow, Ok(known)) if known.len() < ROWS_MAX => {
                    if let Ok(Message::DataRow(row)) = frame.message() {
                        let value = |value: Option<&[u8]>| value.map(Into::into);
                        known.push(row.iter().map(value).collect());
                    }
                }
                _ => {}
            }
        };
        self.answers(hear).await?;
        rows
    }
}
