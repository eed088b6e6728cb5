//! The log: standard error, as `HH:MM:SS.mmm pid LEVEL message key=value`, in Patroni's form, or as JSON.
//!
//! **Invariant:** nothing of the log ever reaches standard output.

use crate::config::{Log, LogFormat, LogLevel};
use std::fmt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, Layer};
use tracing_subscriber::layer::{Layer as _, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Libraries whose information is our debugging.
const TALKATIVE: &[&str] = &[
    "openraft",
    "hyper",
    "hyper_util",
    "h2",
    "reqwest",
    "tokio_postgres",
];

/// Starts logging; a second call changes nothing.
pub(crate) fn start(log: Log) {
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
    if !log.phrases {
        targets = targets.with_target(agent::PHRASES, LevelFilter::OFF);
    }
    let registry = tracing_subscriber::registry();
    let _already_started = match log.format {
        LogFormat::Own => {
            let layer = Layer::new().with_writer(std::io::stderr).with_ansi(false);
            registry
                .with(layer.event_format(Own).with_filter(targets))
                .try_init()
        }
        LogFormat::Patroni => {
            let layer = Layer::new().with_writer(std::io::stderr).with_ansi(false);
            registry
                .with(layer.event_format(Patroni).with_filter(targets))
                .try_init()
        }
        LogFormat::Json => {
            let layer = Layer::new()
                .with_writer(std::io::stderr)
                .with_ansi(false)
                .json();
            registry
                .with(layer.flatten_event(true).with_filter(targets))
                .try_init()
        }
    };
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
struct Patroni;

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
        let level = match *event.metadata().level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARNING",
            Level::INFO => "INFO",
            Level::DEBUG | Level::TRACE => "DEBUG",
        };
        let time = jiff::Zoned::now();
        let time = time.strftime("%Y-%m-%d %H:%M:%S,%3f");
        write!(writer, "{time} {level}: ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
