//! `watch`: state and events, drawn again and again.

use super::{Target, events, state};
use crate::exit::ExitCode;
use crate::output;
use rustix::termios::isatty;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(500);
/// The alternate screen, so that the terminal is as before afterwards.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

pub(super) async fn watch(target: &Target, count: u32) -> anyhow::Result<ExitCode> {
    if !isatty(std::io::stdout()) {
        output::print(&screen(target, count).await?);
        return Ok(ExitCode::Ok);
    }
    output::print(ENTER);
    let ended = redraw(target, count).await;
    output::print(LEAVE);
    ended
}

async fn redraw(target: &Target, count: u32) -> anyhow::Result<ExitCode> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        // A cluster that does not answer just now is what one watches for.
        let drawn = match screen(target, count).await {
            Ok(text) => text,
            Err(error) => format!("{error:#}\n"),
        };
        let lines = drawn.replace('\n', &format!("{REST_OF_LINE}\n"));
        output::print(&format!("{HOME}{lines}{REST_OF_SCREEN}"));
        tokio::select! {
            _ = &mut interrupted => return Ok(ExitCode::Ok),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

async fn screen(target: &Target, count: u32) -> anyhow::Result<String> {
    let state = target.state().await?;
    let events = events::fetch(target, count).await?;
    let leader = state
        .leader
        .as_ref()
        .map_or("none", |leader| leader.as_str());
    let title = format!(
        "{}: leader {leader}, epoch {}, {}",
        state.scope, state.epoch, state.sync.text
    );
    Ok(format!(
        "{title}\n\n{}{}",
        state::text(&state),
        events::text(&events, &state)
    ))
}
