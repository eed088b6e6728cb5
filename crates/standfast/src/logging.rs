//! The log: standard error or a file, as `HH:MM:SS.mmm pid LEVEL message key=value`, in Patroni's form, or as JSON.
//!
//! **Invariant:** nothing of the log ever reaches standard output.

mod file;
mod pattern;

use crate::config::{Form, Log, LogFormat, LogLevel};
pub(crate) use file::Ending;
pub(crate) use pattern::Pattern;
use pattern::{Piece, Value};
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, Layer};
use tracing_subscriber::layer::{Layer as _, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries whose information is our debugging.
const TALKATIVE: &[&str] = &["openraft", "hyper", "hyper_util", "h2", "tokio_postgres"];

/// Starts logging; a second call changes nothing. What it gives is to be kept to the end.
pub(crate) fn start(log: &Log) -> Option<Ending> {
    let level = filter(log.level);
    let mut targets = Targets::new().with_default(level);
    for library in TALKATIVE {
        let quieter = if log.level == LogLevel::Trace {
            level
        } else {
            quietest(library).min(level)
        };
        targets = targets.with_target(*library, quieter);
    }
    for (part, level) in &log.levels {
        targets = targets.with_target(part, filter(*level));
    }
    if !log.phrases {
        targets = targets.with_target(agent::PHRASES, LevelFilter::OFF);
    }
    let opened = log.to.as_ref().map(|to| (to, file::start(to)));
    let (writer, ending, failed) = match opened {
        None => (BoxMakeWriter::new(std::io::stderr), None, None),
        Some((_, Ok((lines, ending)))) => (BoxMakeWriter::new(lines), Some(ending), None),
        Some((to, Err(error))) => (
            BoxMakeWriter::new(std::io::stderr),
            None,
            Some((to.dir.display().to_string(), error)),
        ),
    };
    let registry = tracing_subscriber::registry();
    let layer = Layer::new().with_writer(writer).with_ansi(false);
    let _already_started = match log.format {
        LogFormat::Own => registry
            .with(layer.event_format(Own).with_filter(targets))
            .try_init(),
        LogFormat::Patroni => {
            let form = Patroni {
                form: log.form.clone(),
            };
            registry
                .with(layer.event_format(form).with_filter(targets))
                .try_init()
        }
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_filter(targets))
            .try_init(),
    };
    if let Some((dir, error)) = failed {
        tracing::error!(dir, %error, "log.dir can't be written: the log goes to standard error");
    }
    ending
}

/// openraft reports, as errors, every message to a peer that is away, and warns of those that it rightly drops. What a
/// person must know of it our store says itself, once.
fn quietest(library: &str) -> LevelFilter {
    if library == "openraft" {
        LevelFilter::OFF
    } else {
        LevelFilter::WARN
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// pg_autoctl's line.
struct Own;

impl<S, N> FormatEvent<S, N> for Own
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let now = jiff::Zoned::now();
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            Level::INFO => "INFO",
            Level::DEBUG => "DEBUG",
            Level::TRACE => "TRACE",
        };
        let time = now.strftime("%H:%M:%S%.3f");
        write!(writer, "{time} {} {level:<5} ", std::process::id())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Patroni's line, with what more there is to say behind its text.
struct Patroni {
    form: Form,
}

impl<S, N> FormatEvent<S, N> for Patroni
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let level = match *metadata.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        let time = jiff::Zoned::now();
        let date = self.form.date.as_deref().unwrap_or("%Y-%m-%d %H:%M:%S,%3f");
        let Some(pattern) = &self.form.pattern else {
            write!(writer, "{} {level}: ", time.strftime(date))?;
            context.format_fields(writer.by_ref(), event)?;
            return writeln!(writer);
        };
        for piece in &pattern.0 {
            let (value, width, left) = match piece {
                Piece::Text(text) => {
                    writer.write_str(text)?;
                    continue;
                }
                Piece::Value(value, width, left) => (value, *width, *left),
            };
            let text = match value {
                Value::Message => {
                    context.format_fields(writer.by_ref(), event)?;
                    continue;
                }
                Value::Time => time.strftime(date).to_string(),
                Value::Level => level.to_owned(),
                Value::Name => metadata.target().to_owned(),
                Value::Process => std::process::id().to_string(),
                Value::File => metadata.file().unwrap_or_default().to_owned(),
                Value::Line => metadata.line().unwrap_or_default().to_string(),
            };
            match left {
                true => write!(writer, "{text:<width$}")?,
                false => write!(writer, "{text:>width$}")?,
            }
        }
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_form_that_was_asked_for() {
        let form = Form {
            pattern: Some("%(levelname)-8s|%(asctime)s|%(message)s".parse().unwrap()),
            date: Some("year %Y".to_owned()),
        };
        let page = Page::default();
        let writer = page.clone();
        let layer = Layer::new()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer.event_format(Patroni { form }));
        tracing::subscriber::with_default(subscriber, || tracing::warn!(node = "b", "it is late"));
        let said = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        let year = jiff::Zoned::now().year();
        assert_eq!(
            said,
            format!("WARNING |year {year}|it is late node=\"b\"\n")
        );
    }
}
