//! Reading the keys of one table, each with its line.

use std::fmt::Display;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::schema::{Table, nearest};

/// A value and the line it stands in.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// Where errors are collected, and what turns a position into a line.
pub(super) struct Sink<'a> {
    text: &'a str,
    pub(super) errors: Vec<ConfigError>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(text: &'a str) -> Sink<'a> {
        Sink { text, errors: Vec::new() }
    }

    /// The line of a byte position, from 1.
    pub(super) fn line(&self, position: usize) -> usize {
        let before = self.text.as_bytes().get(..position).unwrap_or(self.text.as_bytes());
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Notes an error at a line.
    pub(super) fn at(&mut self, line: usize, key: impl Into<String>, message: impl Into<String>) {
        self.errors.push(ConfigError::new(Some(line), key, message));
    }

    /// Notes an error that is no single line's.
    pub(super) fn whole(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.errors.push(ConfigError::new(None, key, message));
    }
}

/// One table of the file. The getters return `None` both for a key that is absent and for one that
/// is wrong: a wrong one has been noted, so that its default does no harm.
pub(super) struct Section<'a> {
    pub(super) schema: &'static Table,
    pub(super) line: usize,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// The table, after its keys were compared with the schema.
    pub(super) fn new(
        sink: &mut Sink<'_>,
        schema: &'static Table,
        table: &'a DeTable<'a>,
        line: usize,
    ) -> Section<'a> {
        let section = Section { schema, line, table };
        for key in table.keys() {
            let (name, line) = (key.get_ref().as_ref(), sink.line(key.span().start));
            if schema.keys.contains(&name) {
                continue;
            }
            let message = unknown("key", name, schema.keys.iter().copied());
            sink.at(line, section.key(name), message);
        }
        section
    }

    /// `key` as errors name it.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{} {key}", self.schema.header())
    }

    /// The value of `key`, whatever its type.
    pub(super) fn get(&self, sink: &Sink<'_>, key: &str) -> Option<At<&'a DeValue<'a>>> {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in the schema");
        self.table.get(key).map(|value| at(sink, value))
    }

    /// Notes that `key` has a value of another type than `expected`.
    pub(super) fn mistyped(
        &self,
        sink: &mut Sink<'_>,
        key: &str,
        v: &At<&DeValue<'_>>,
        expected: &str,
    ) {
        let found = shown(v.value);
        sink.at(v.line, self.key(key), format!("expected {expected}, found {found}"));
    }

    /// A string that `parse` makes a `T` of. The error of `parse` says what was expected.
    pub(super) fn text<T>(
        &self,
        sink: &mut Sink<'_>,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let v = self.get(sink, key)?;
        let Some(text) = v.value.as_str() else {
            self.mistyped(sink, key, &v, expected);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(At { line: v.line, value }),
            Err(message) => {
                sink.at(v.line, self.key(key), message);
                None
            }
        }
    }

    /// As [`text`](Section::text), for a key that must be there.
    pub(super) fn required<T>(
        &self,
        sink: &mut Sink<'_>,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        if self.get(sink, key).is_none() {
            self.missing(sink, key, expected);
        }
        self.text(sink, key, expected, parse)
    }

    /// Notes that `key` must be there.
    pub(super) fn missing(&self, sink: &mut Sink<'_>, key: &str, expected: &str) {
        sink.at(self.line, self.key(key), format!("missing; expected {expected}"));
    }

    /// An integer of `low..=high`.
    pub(super) fn integer<N>(&self, sink: &mut Sink<'_>, key: &str, low: N, high: N) -> Option<N>
    where
        N: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        let v = self.get(sink, key)?;
        let number = v
            .value
            .as_integer()
            .and_then(|i| i64::from_str_radix(i.as_str(), i.radix()).ok())
            .and_then(|i| N::try_from(i).ok());
        match number {
            Some(n) if (low..=high).contains(&n) => Some(n),
            _ => {
                self.mistyped(sink, key, &v, &format!("a whole number of {low} to {high}"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, sink: &mut Sink<'_>, key: &str) -> Option<At<bool>> {
        let v = self.get(sink, key)?;
        match v.value.as_bool() {
            Some(value) => Some(At { line: v.line, value }),
            None => {
                self.mistyped(sink, key, &v, "true or false");
                None
            }
        }
    }

    /// An array, its elements with their lines.
    pub(super) fn array(
        &self,
        sink: &mut Sink<'_>,
        key: &str,
        expected: &str,
    ) -> Option<At<Vec<At<&'a DeValue<'a>>>>> {
        let v = self.get(sink, key)?;
        let Some(array) = v.value.as_array() else {
            self.mistyped(sink, key, &v, expected);
            return None;
        };
        let value = array.iter().map(|element| at(sink, element)).collect();
        Some(At { line: v.line, value })
    }

    /// An array of strings, each made a `T` by `parse`.
    pub(super) fn texts<T>(
        &self,
        sink: &mut Sink<'_>,
        key: &str,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<At<Vec<At<T>>>> {
        let array = self.array(sink, key, expected)?;
        let mut value = Vec::new();
        for element in array.value {
            match element.value.as_str().map(&parse) {
                Some(Ok(parsed)) => value.push(At { line: element.line, value: parsed }),
                Some(Err(message)) => sink.at(element.line, self.key(key), message),
                None => self.mistyped(sink, key, &element, expected),
            }
        }
        Some(At { line: array.line, value })
    }
}

/// `unknown key "hartbeat"; did you mean "heartbeat"?`
pub(super) fn unknown(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'static str> + Clone,
) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("unknown {kind} {name:?}; did you mean {near:?}?"),
        None => {
            let known: Vec<_> = known.collect();
            format!("unknown {kind} {name:?}; expected one of {}", known.join(", "))
        }
    }
}

fn at<'a>(sink: &Sink<'_>, value: &'a Spanned<DeValue<'a>>) -> At<&'a DeValue<'a>> {
    At { line: sink.line(value.span().start), value: value.get_ref() }
}

/// The value as an error shows it: short ones as they are, others by their type.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 80 => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        other => format!("a value of type {}", other.type_str()),
    }
}
