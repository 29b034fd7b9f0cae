//! SQL text as a client of these servers reads it: bytes at hand, lines, comments that nobody executes and those that servers
//! do.

use std::io::Read;

use crate::engines::inspect::cut;

const PIECE: usize = 256 * 1024;

pub(super) enum Comment {
    Line,
    Block,
}

/// The text, read piece by piece.
pub(super) struct Text<'a> {
    from: &'a mut dyn Read,
    buffer: Vec<u8>,
    pub(super) at: usize,
    end: usize,
}

impl<'a> Text<'a> {
    pub(super) fn new(from: &'a mut dyn Read) -> Self {
        Self { from, buffer: vec![0; PIECE], at: 0, end: 0 }
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer[self.at..self.end]
    }

    /// Reads on; false at the end of the stream.
    #[cold]
    pub(super) fn fill(&mut self) -> Result<bool, String> {
        self.buffer.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        let count = self.from.read(&mut self.buffer[self.end..]).map_err(|error| cut("the dump", &error))?;
        self.end += count;
        Ok(count > 0)
    }

    /// Has `length` bytes at hand, or all that there are.
    pub(super) fn ensure(&mut self, length: usize) -> Result<(), String> {
        while self.end - self.at < length && self.fill()? {}
        Ok(())
    }

    pub(super) fn peek(&mut self) -> Result<Option<u8>, String> {
        self.ensure(1)?;
        Ok(self.rest().first().copied())
    }

    pub(super) fn next(&mut self, what: &str) -> Result<u8, String> {
        if self.at == self.end && !self.fill()? {
            return Err(format!("it ends within {what}"));
        }
        self.at += 1;
        Ok(self.buffer[self.at - 1])
    }

    pub(super) fn begins_with(&mut self, what: &[u8]) -> Result<bool, String> {
        if self.at < self.end && self.buffer[self.at] != what[0] {
            return Ok(false);
        }
        self.ensure(what.len())?;
        Ok(self.rest().starts_with(what))
    }

    pub(super) fn begins_with_word(&mut self, word: &[u8]) -> Result<bool, String> {
        self.ensure(word.len() + 1)?;
        let rest = self.rest();
        Ok(rest.len() > word.len()
            && rest[..word.len()].eq_ignore_ascii_case(word)
            && rest[word.len()].is_ascii_whitespace())
    }

    /// Whether a comment that nobody executes begins here; a comment of a line is then at its text.
    pub(super) fn comment(&mut self) -> Result<Option<Comment>, String> {
        let Some(first) = self.peek()? else { return Ok(None) };
        if !matches!(first, b'-' | b'#' | b'/') {
            return Ok(None);
        }
        self.ensure(6)?;
        let (comment, length) = match self.rest() {
            [b'#', ..] => (Comment::Line, 1),
            [b'-', b'-', after, ..] if after.is_ascii_whitespace() || after.is_ascii_control() => (Comment::Line, 2),
            // A version that no server has: a word for the client alone.
            [b'/', b'*', b'M', b'!', b'9', b'9', ..] => (Comment::Block, 2),
            [b'/', b'*', b'!', ..] | [b'/', b'*', b'M', b'!', ..] => return Ok(None),
            [b'/', b'*', ..] => (Comment::Block, 2),
            _ => return Ok(None),
        };
        self.at += length;
        Ok(Some(comment))
    }

    /// Skips the opening of a conditional comment, whose text is executed; whether there was one.
    pub(super) fn conditional(&mut self) -> Result<bool, String> {
        if self.peek()? != Some(b'/') {
            return Ok(false);
        }
        self.ensure(4)?;
        self.at += match self.rest() {
            [b'/', b'*', b'!', ..] => 3,
            [b'/', b'*', b'M', b'!', ..] => 4,
            _ => return Ok(false),
        };
        while self.peek()?.is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(true)
    }

    /// Reads a line to behind its newline, and keeps up to `kept` bytes of it.
    pub(super) fn line(&mut self, kept: usize) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            match self.next("a line")? {
                b'\n' => return Ok(line),
                byte if line.len() < kept => line.push(byte),
                _ => {}
            }
        }
    }

    pub(super) fn past_block(&mut self) -> Result<(), String> {
        let mut star = false;
        loop {
            let byte = self.next("a comment")?;
            if star && byte == b'/' {
                return Ok(());
            }
            star = byte == b'*';
        }
    }
}
