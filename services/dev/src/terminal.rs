//! Lines for the terminal: each begins with its process's name in a fixed width, in colour where colour is enabled.

use std::io::{IsTerminal, Write};

use millrace_harness::output::Sink;

/// Width of the names in front of the lines.
const NAME_WIDTH: usize = 9;
/// ANSI colours for the names, by their order.
const COLOURS: [u8; 6] = [36, 35, 33, 34, 32, 96];
const DIM: u8 = 2;

/// Standard output, as lines of several processes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    colour: bool,
}

impl Output {
    /// In colour if standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn new() -> Self {
        Self { colour: wants_colour(&std::io::stdout()) }
    }

    /// A sink for the lines of the process `name`; it shows those for which `wanted` returns true.
    #[must_use]
    pub fn sink(self, name: &str, order: usize, wanted: fn(&str) -> bool) -> Sink {
        let prefix = self.prefix(name, COLOURS[order % COLOURS.len()]);
        Sink::new(move |text| {
            if wanted(text) {
                line(&prefix, text);
            }
        })
    }

    /// Prints a line of `dev` itself.
    pub fn say(self, text: &str) {
        line(&self.prefix("dev", DIM), text);
    }

    /// Prints text without a prefix.
    pub fn plain(self, text: &str) {
        line("", text);
    }

    /// `text` in bold.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        if self.colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn prefix(self, name: &str, colour: u8) -> String {
        if self.colour {
            format!("\x1b[{colour}m{name:<NAME_WIDTH$} │\x1b[0m ")
        } else {
            format!("{name:<NAME_WIDTH$} │ ")
        }
    }
}

fn wants_colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// One write for each line, so that lines of several processes do not mix.
fn line(prefix: &str, text: &str) {
    let _ = std::io::stdout().lock().write_all(format!("{prefix}{text}\n").as_bytes());
}
