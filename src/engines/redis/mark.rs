//! The mark behind an RDB that comes over a socket: a server that does not know the length beforehand ends the RDB with
//! forty random digits, and `redis-cli` leaves them in what it writes to a pipe.

use std::io::{self, Read};

/// Its length: hexadecimal digits.
const MARK: usize = 40;

const PIECE: usize = 64 * 1024;

/// A stream without the mark at its end, where it has one. The last bytes of an RDB itself can't be taken for one: nine
/// bytes before its end there is an `0xff`.
pub(super) struct WithoutMark<R> {
    inner: R,
    piece: Vec<u8>,
    held: Vec<u8>,
    at: usize,
    ended: bool,
}

impl<R: Read> WithoutMark<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, piece: vec![0; PIECE], held: Vec::new(), at: 0, ended: false }
    }

    /// What may go on: all but the last bytes, as long as more may come.
    fn free(&self) -> usize {
        let held = self.held.len() - self.at;
        if self.ended { held } else { held.saturating_sub(MARK) }
    }
}

impl<R: Read> Read for WithoutMark<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.free() == 0 && !self.ended {
            self.held.drain(..self.at);
            self.at = 0;
            let count = self.inner.read(&mut self.piece)?;
            self.held.extend_from_slice(&self.piece[..count]);
            if count == 0 {
                self.ended = true;
                let mark = self.held.len().checked_sub(MARK).filter(|at| self.held[*at..].iter().all(is_digit));
                self.held.truncate(mark.unwrap_or(self.held.len()));
            }
        }
        let count = buffer.len().min(self.free());
        buffer[..count].copy_from_slice(&self.held[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, as a socket may.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn without(bytes: &[u8], at_a_time: usize) -> Vec<u8> {
        let mut rest = Vec::new();
        WithoutMark::new(Slow(bytes, at_a_time)).read_to_end(&mut rest).unwrap();
        rest
    }

    #[test]
    fn the_mark_goes_and_everything_else_stays() {
        let mark = b"9392e903cfab19078881ce05b2fd9bbc80c00e64";
        let long = vec![b'a'; 200_000];
        for rdb in [&b"REDIS0007\xff12345678"[..], b"", &long, b"\xff0123456789"] {
            let rdb = [rdb, b"\xff\0\0\0\0\0\0\0\0"].concat();
            for at_a_time in [1, 7, 39, 40, 41, 65_536, 300_000] {
                assert!(without(&[&rdb[..], mark].concat(), at_a_time) == rdb, "{at_a_time} at a time");
                assert!(without(&rdb, at_a_time) == rdb, "{at_a_time} at a time, without a mark");
            }
        }
        assert_eq!(without(b"short", 3), b"short");
        assert_eq!(without(mark, 9), b"");
    }
}
