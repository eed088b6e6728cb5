//! What the demo prints: plain lines, and one that is written over where there is a terminal.

use crate::output;
use std::cell::Cell;
use std::io::IsTerminal;

/// Where the demo's lines go.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    colour: bool,
    act: Cell<u32>,
    open: Cell<bool>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none();
        Self {
            terminal,
            colour,
            act: Cell::new(0),
            open: Cell::new(false),
        }
    }

    /// The heading of the next act.
    pub(super) fn act(&self, title: &str) {
        self.end_of_line();
        self.act.set(self.act.get() + 1);
        output::line("");
        output::line(&self.bold(&format!("{}. {title}", self.act.get())));
    }

    /// A command as a person would type it.
    pub(super) fn command(&self, words: &str) {
        self.end_of_line();
        output::line(&format!("   $ {words}"));
    }

    pub(super) fn say(&self, sentence: &str) {
        self.end_of_line();
        output::line(&format!("   {sentence}"));
    }

    /// A figure with its name.
    pub(super) fn figure(&self, name: &str, value: impl ToString) {
        output::line(&format!("   {name:<44} {:>10}", value.to_string()));
    }

    /// A moment of the timeline.
    pub(super) fn moment(&self, milliseconds: i128, what: &str) {
        output::line(&format!("   {milliseconds:>+8} ms  {what}"));
    }

    /// The live line. Without a terminal there is nothing to write over, so it is printed only
    /// when it ends.
    pub(super) fn live(&self, text: &str) {
        if self.terminal {
            output::print(&format!("\r\x1b[2K   {text}"));
            self.open.set(true);
        }
    }

    /// Whether live lines are seen at all.
    pub(super) fn is_live(&self) -> bool {
        self.terminal
    }

    pub(super) fn end_of_line(&self) {
        if self.open.replace(false) {
            output::line("");
        }
    }

    fn bold(&self, text: &str) -> String {
        if self.colour {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
