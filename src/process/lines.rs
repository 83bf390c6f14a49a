//! Cuts a program's output into lines, within bounds.

/// Longest line handed on, in bytes; the rest of a longer one is left out.
pub const MAX_LINE: usize = 1024;

/// Most lines handed on for one run; later ones are counted.
pub const MAX_LINES: u64 = 200;

/// Collects bytes until a line is complete. Memory stays below [`MAX_LINE`] whatever arrives.
#[derive(Debug, Default)]
pub(super) struct LineCutter {
    line: Vec<u8>,
    /// Bytes of the current line that did not fit.
    cut: bool,
    handed_on: u64,
    dropped: u64,
}

impl LineCutter {
    /// Takes the next bytes and calls `on_line` for each line that they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], on_line: &mut impl FnMut(&str)) {
        while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
            let (head, tail) = bytes.split_at(end);
            self.collect(head);
            self.finish_line(on_line);
            bytes = tail.get(1..).unwrap_or_default();
        }
        self.collect(bytes);
    }

    /// The output ended: a last line without a newline counts too.
    pub(super) fn end(&mut self, on_line: &mut impl FnMut(&str)) {
        if !self.line.is_empty() {
            self.finish_line(on_line);
        }
    }

    /// Lines that were not handed on.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    fn collect(&mut self, bytes: &[u8]) {
        if self.handed_on >= MAX_LINES {
            // Only whether the line is empty matters from here on.
            self.line.extend(bytes.first().filter(|_| self.line.is_empty()));
            return;
        }
        let room = MAX_LINE.saturating_sub(self.line.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.line.extend_from_slice(taken);
        self.cut |= taken.len() < bytes.len();
    }

    fn finish_line(&mut self, on_line: &mut impl FnMut(&str)) {
        if self.handed_on < MAX_LINES {
            self.handed_on += 1;
            on_line(&printable(&self.line, self.cut));
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
        self.line.clear();
        self.cut = false;
    }
}

/// The line as text that cannot move a terminal's cursor or fake another log line.
fn printable(line: &[u8], cut: bool) -> String {
    let text = String::from_utf8_lossy(line);
    let clean = text.trim_end_matches('\r').chars();
    let mut clean: String =
        clean.map(|c| if c.is_control() && c != '\t' { '?' } else { c }).collect();
    if cut {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> (Vec<String>, u64) {
        let mut cutter = LineCutter::default();
        let mut lines = Vec::new();
        for piece in pieces {
            cutter.push(piece, &mut |l| lines.push(l.to_owned()));
        }
        cutter.end(&mut |l| lines.push(l.to_owned()));
        (lines, cutter.dropped())
    }

    #[test]
    fn lines_are_put_together_across_reads() {
        let (lines, dropped) = cut(&[b"on", b"e\ntwo\r\n", b"\nthree"]);
        assert_eq!(lines, ["one", "two", "", "three"]);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn a_long_line_is_cut_and_marked() {
        let (lines, _) = cut(&[&[b'x'; 5000], b"\nnext\n"]);
        assert_eq!(lines[0].len(), MAX_LINE + '…'.len_utf8());
        assert!(lines[0].ends_with('…'));
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn lines_beyond_the_bound_are_counted() {
        let many = b"y\n".repeat(1000);
        let (lines, dropped) = cut(&[&many, b"last without newline"]);
        assert_eq!(lines.len() as u64, MAX_LINES);
        assert_eq!(dropped, 1000 - MAX_LINES + 1);
    }

    #[test]
    fn control_characters_and_broken_utf8_are_defused() {
        let (lines, _) = cut(&[b"\x1b[2Jred\x07 \xff\tok\n"]);
        assert_eq!(lines, ["?[2Jred? \u{fffd}\tok"]);
    }

    #[test]
    fn memory_stays_bounded() {
        let mut cutter = LineCutter::default();
        for _ in 0..1000 {
            cutter.push(&[b'z'; 8192], &mut |_| {});
            assert!(cutter.line.capacity() <= 4 * MAX_LINE);
        }
    }
}
