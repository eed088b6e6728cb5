//! Questions of our own whose answers are read.

use super::{Refusal, Server};
use wire::Step;
use wire::backend::{Fields, Message, Tag};

/// Longer answers than this are to no question of ours.
const ROWS_MAX: usize = 1000;

/// Values as PostgreSQL writes them.
pub(crate) type Row = Vec<Option<Box<[u8]>>>;

impl Server {
    /// Sends what was written, and gives the rows of all that is answered. The first error is the
    /// result.
    pub(crate) async fn rows(&mut self) -> Result<Vec<Row>, Refusal> {
        self.outbox.flush(&mut self.stream).await?;
        let mut rows = Ok(Vec::new());
        while self.mirror.session.unanswered().next().is_some() {
            let step = self.framer.next(self.inbox.unread());
            let step = step.map_err(|_| Refusal::Lost)?;
            let taken = step.taken();
            match step {
                Step::More { buffer_bytes } => {
                    self.inbox.want(buffer_bytes);
                    if self.inbox.fill(&mut self.stream).await? == 0 {
                        return Err(Refusal::Lost);
                    }
                    continue;
                }
                // The rest of a row that is too long for any of ours.
                Step::Part(_) => rows = Err(Refusal::Error("an answer too long".to_owned())),
                Step::Message(frame) => {
                    let session = &mut self.mirror.session;
                    session.received(&frame).map_err(|_| Refusal::Lost)?;
                    match (frame.tag(), &mut rows) {
                        (Tag::ErrorResponse, Ok(_)) => {
                            let text = Fields::beginning(frame.body()).message();
                            let text = text.unwrap_or_default().to_string_lossy();
                            rows = Err(Refusal::Error(text.into_owned()));
                        }
                        (Tag::DataRow, Ok(known)) if known.len() < ROWS_MAX => {
                            if let Ok(Message::DataRow(row)) = frame.message() {
                                let value = |value: Option<&[u8]>| value.map(Into::into);
                                known.push(row.iter().map(value).collect());
                            }
                        }
                        _ => {}
                    }
                }
            }
            self.inbox.drop_unread(taken);
        }
        rows
    }
}
