//! Typed configuration from flags and environment. A flag wins over its variable; an empty variable counts as unset.
//!
//! All errors are reported at once, with a separate exit code; the values of secrets are never printed.

use std::{fmt::Display, process::ExitCode, str::FromStr};

use clap::{Arg, ArgMatches, Command};

/// The exit code of a process that cannot use its configuration (`EX_CONFIG` of sysexits).
pub const EXIT_CONFIG: u8 = 78;

/// One configurable value.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The flag without its dashes, like `nats-url`; its variable is `MILLRACE_NATS_URL`.
    pub flag: &'static str,
    /// The value's name in `--help`.
    pub value_name: &'static str,
    /// Used if neither flag nor variable is set.
    pub default: Option<&'static str>,
    /// One or two sentences.
    pub help: &'static str,
    /// Never printed, not even in an error.
    pub secret: bool,
}

impl Setting {
    /// A setting with a default.
    #[must_use]
    pub const fn new(flag: &'static str, value_name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { flag, value_name, default: Some(default), help, secret: false }
    }

    /// A setting that may stay unset.
    #[must_use]
    pub const fn optional(flag: &'static str, value_name: &'static str, help: &'static str) -> Self {
        Self { flag, value_name, default: None, help, secret: false }
    }

    /// The environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("MILLRACE_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }
}

/// The source of raw values; tests provide their own instead of changing the environment.
pub trait Source {
    /// The raw value, and the name under which the user set it.
    fn raw(&self, setting: &Setting) -> Option<(String, String)>;
}

impl<F: Fn(&Setting) -> Option<String>> Source for F {
    fn raw(&self, setting: &Setting) -> Option<(String, String)> {
        self(setting).map(|value| (value, format!("--{}", setting.flag)))
    }
}

/// Reads settings and collects the errors in them.
pub struct Reader<'a> {
    source: &'a dyn Source,
    errors: Vec<String>,
}

impl<'a> Reader<'a> {
    /// A reader without errors yet.
    pub fn new(source: &'a dyn Source) -> Self {
        Self { source, errors: Vec::new() }
    }

    /// The value of a setting with a default; `None` after an error, which [`Reader::finish`] returns.
    pub fn value<T: FromStr<Err: Display>>(&mut self, setting: &Setting) -> Option<T> {
        self.parsed(setting, str::parse)
    }

    /// Like [`Reader::value`], with a parser.
    pub fn parsed<T, E: Display>(&mut self, setting: &Setting, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let (raw, name) = match (self.source.raw(setting), setting.default) {
            (Some(given), _) => given,
            (None, Some(default)) => (default.to_owned(), format!("--{}", setting.flag)),
            (None, None) => {
                self.errors.push(format!(
                    "--{} (or {}) must be set: {}",
                    setting.flag,
                    setting.variable(),
                    setting.help
                ));
                return None;
            }
        };
        match parse(&raw) {
            Ok(value) => Some(value),
            Err(error) if setting.secret => {
                self.errors.push(format!("{name}: {error}"));
                None
            }
            Err(error) => {
                self.errors.push(format!("{name}: {raw:?} cannot be used: {error}"));
                None
            }
        }
    }

    /// The value of a setting that may stay unset: the outer `None` after an error.
    #[allow(clippy::option_option)]
    pub fn optional<T: FromStr<Err: Display>>(&mut self, setting: &Setting) -> Option<Option<T>> {
        if self.source.raw(setting).is_none() { Some(None) } else { self.value(setting).map(Some) }
    }

    /// Adds an error that does not belong to a single value.
    pub fn error(&mut self, error: String) {
        self.errors.push(error);
    }

    /// The configuration, or all errors in it.
    ///
    /// # Errors
    /// One sentence for each value that cannot be used.
    pub fn finish<C>(self, config: Option<C>) -> Result<C, Vec<String>> {
        match config {
            Some(config) if self.errors.is_empty() => Ok(config),
            _ => Err(self.errors),
        }
    }
}

struct FlagsAndEnvironment(ArgMatches);

impl Source for FlagsAndEnvironment {
    fn raw(&self, setting: &Setting) -> Option<(String, String)> {
        if let Some(value) = self.0.get_one::<String>(setting.flag) {
            return Some((value.clone(), format!("--{}", setting.flag)));
        }
        let variable = setting.variable();
        std::env::var(&variable).ok().filter(|value| !value.is_empty()).map(|value| (value, variable))
    }
}

/// Reads the configuration of the process from its flags and environment.
///
/// # Errors
/// The exit code of the process, after all errors have been printed to stderr.
pub fn load<C>(
    name: &'static str,
    about: &'static str,
    settings: &[&'static Setting],
    read: impl FnOnce(&mut Reader<'_>) -> Option<C>,
) -> Result<C, ExitCode> {
    let mut command = Command::new(name).about(about).version(env!("CARGO_PKG_VERSION"));
    for setting in settings {
        let default = setting.default.map_or(String::new(), |default| format!("; default {default:?}"));
        command = command.arg(Arg::new(setting.flag).long(setting.flag).value_name(setting.value_name).help(format!(
            "{} [{}{default}]",
            setting.help,
            setting.variable()
        )));
    }
    let source = FlagsAndEnvironment(command.get_matches());
    let mut reader = Reader::new(&source);
    let config = read(&mut reader);
    reader.finish(config).map_err(|errors| {
        eprintln!("{name}: the configuration cannot be used:");
        for error in errors {
            eprintln!("  - {error}");
        }
        eprintln!("`{name} --help` explains each setting.");
        ExitCode::from(EXIT_CONFIG)
    })
}

/// Parses a whole number of seconds.
///
/// # Errors
/// When the text is not a whole number up to 86,400.
pub fn seconds(text: &str) -> Result<std::time::Duration, String> {
    match text.parse() {
        Ok(seconds @ 0..=86_400) => Ok(std::time::Duration::from_secs(seconds)),
        _ => Err("give a whole number of seconds, a day (86400) at most".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: Setting = Setting::new("port", "PORT", "3001", "The port.");
    const KEY: Setting = Setting { secret: true, ..Setting::optional("key", "KEY", "The key.") };
    const NEEDED: Setting = Setting::optional("needed", "X", "Something needed.");

    #[test]
    fn all_errors_are_reported_at_once_and_secrets_are_not_printed() {
        let source = |setting: &Setting| match setting.flag {
            "port" => Some("many".to_owned()),
            "key" => Some("hunter2".to_owned()),
            _ => None,
        };
        let mut reader = Reader::new(&source);
        let port = reader.value::<u16>(&PORT);
        let key = reader.value::<u64>(&KEY);
        let needed = reader.value::<String>(&NEEDED);
        let errors = reader.finish(port.zip(key).zip(needed)).unwrap_err();
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].contains("--port") && errors[0].contains("many"), "{errors:?}");
        assert!(!errors[1].contains("hunter2"), "{errors:?}");
        assert!(errors[2].contains("MILLRACE_NEEDED"), "{errors:?}");
    }

    #[test]
    fn a_default_is_taken_when_nothing_is_set() {
        let source = |_: &Setting| None;
        let mut reader = Reader::new(&source);
        let port = reader.value::<u16>(&PORT);
        let key = reader.optional::<String>(&KEY);
        assert_eq!(reader.finish(port.zip(key)), Ok((3001, None)));
    }
}
