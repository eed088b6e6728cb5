//! A moment of the calendar, as a request names it.

use crate::errand::Schedule;
use crate::error::Refusal;
use crate::v1::Code;
use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::Value;
use std::time::SystemTime;

/// `None`: now. Absent, `null` and the empty text all mean that.
pub(super) fn read(value: Option<&Value>) -> Result<Option<Schedule>, Refusal> {
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.trim(),
        Some(_) => return Err(unclear()),
    };
    if text.is_empty() || text == "now" {
        return Ok(None);
    }
    let at: Timestamp = match text.parse() {
        Ok(at) => at,
        Err(_) if text.parse::<DateTime>().is_ok() => {
            return Err(Refusal::bad_request(
                "a scheduled time needs its time zone, such as 2026-11-22T20:00:00+00:00",
            ));
        }
        Err(_) => return Err(unclear()),
    };
    if at <= Timestamp::now() {
        let error = format!("{text} is over: nothing can be scheduled in the past");
        return Err(Refusal::new(Code::Invalid, error));
    }
    Ok(Some(Schedule {
        at: SystemTime::from(at),
        text: text.to_owned(),
    }))
}

fn unclear() -> Refusal {
    Refusal::new(
        Code::Invalid,
        "the scheduled time can't be read: write it as 2026-11-22T20:00:00+00:00",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn code(value: &Value) -> Option<Code> {
        read(Some(value)).err().map(|refusal| refusal.code)
    }

    #[test]
    fn a_moment_needs_its_zone_and_lies_ahead() {
        for now in [json!(null), json!(""), json!("now")] {
            assert_eq!(read(Some(&now)), Ok(None), "{now}");
        }
        for (text, expected) in [
            ("2999-01-01T00:00:00+00:00", None),
            ("2999-01-01T00:00+01:00", None),
            ("2999-01-01 00:00:00Z", None),
            ("2999-01-01T00:00:00", Some(Code::BadRequest)),
            ("2999-01-01 00:00", Some(Code::BadRequest)),
            ("1999-01-01T00:00:00Z", Some(Code::Invalid)),
            ("tomorrow", Some(Code::Invalid)),
        ] {
            assert_eq!(code(&json!(text)), expected, "{text}");
        }
        assert_eq!(code(&json!(5)), Some(Code::Invalid));
    }
}
