//! A dump looked through while it passes: is it whole, and what is in it? The look runs on a thread of its own and reads
//! what is read, so that an inspector is an ordinary function over a reader.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Rows, keys, files: by name, as the inspector counted them in the stream itself.
pub(super) type Counts = Vec<(String, u64)>;

/// Reads a dump to its end and counts what is in it. The error says what shows that it is not whole.
pub(super) type Inspect = fn(&mut dyn Read) -> Result<Counts, String>;

/// Pieces that may wait for the inspector, of up to a mebibyte each.
const WAITING: usize = 4;

enum Piece {
    Bytes(Vec<u8>),
    /// The stream has come to its end; without it, it was cut.
    End,
}

/// The inspection of one stream.
pub(super) struct Inspection {
    sender: Option<SyncSender<Piece>>,
    thread: Option<JoinHandle<Result<Counts, String>>>,
}

impl Inspection {
    pub(super) fn begin(inspect: Inspect) -> io::Result<Self> {
        let (sender, pieces) = sync_channel(WAITING);
        let look = move || {
            let mut passing = Passing { pieces, current: Vec::new(), at: 0, ended: false };
            let counts = inspect(&mut passing)?;
            // What follows the end of a dump is not part of it, and a dump tool writes nothing there.
            match passing.read(&mut [0; 1]) {
                Ok(0) => Ok(counts),
                Ok(_) => Err("there is more behind the end of the dump".to_owned()),
                Err(error) => Err(error.to_string()),
            }
        };
        let thread = std::thread::Builder::new().name("inspect".to_owned()).spawn(look)?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Hands a piece on. False when the inspector has seen enough to know that the dump is not right.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> bool {
        bytes.is_empty() || self.sender.as_ref().is_some_and(|sender| sender.send(Piece::Bytes(bytes.to_vec())).is_ok())
    }

    /// What the inspector says of the whole stream.
    pub(super) fn end(mut self) -> Result<Counts, String> {
        if let Some(sender) = self.sender.take() {
            let _ = sender.send(Piece::End);
        }
        self.verdict()
    }

    /// What the inspector has against a stream that it stopped reading.
    pub(super) fn verdict(&mut self) -> Result<Counts, String> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(verdict)) => verdict,
            Some(Err(_)) => Err("looking through it panicked, which is a fault in devstack".to_owned()),
            None => Err("it was looked through before".to_owned()),
        }
    }
}

/// The stream as the inspector reads it.
struct Passing {
    pieces: Receiver<Piece>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Read for Passing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() && !self.ended {
            match self.pieces.recv() {
                Ok(Piece::Bytes(bytes)) => (self.current, self.at) = (bytes, 0),
                Ok(Piece::End) => self.ended = true,
                Err(_) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream was cut")),
            }
        }
        let count = buffer.len().min(self.current.len() - self.at);
        buffer[..count].copy_from_slice(&self.current[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Written to while a dump is read back; what the inspector says of it comes at the end.
pub(super) struct InspectingSink {
    inspection: Option<Inspection>,
    verdict: Option<Result<Counts, String>>,
}

impl InspectingSink {
    pub(super) fn begin(inspect: Inspect) -> io::Result<Self> {
        Ok(Self { inspection: Some(Inspection::begin(inspect)?), verdict: None })
    }

    pub(super) fn end(self) -> Result<Counts, String> {
        match (self.verdict, self.inspection) {
            (Some(verdict), _) => verdict,
            (None, Some(inspection)) => inspection.end(),
            (None, None) => Err("it was looked through before".to_owned()),
        }
    }
}

impl Write for InspectingSink {
    /// Takes everything: also of a dump that is known to be wrong the digest is wanted.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(inspection) = &mut self.inspection
            && !inspection.feed(bytes)
        {
            let verdict = inspection.verdict();
            // An inspector that was content before the end has left bytes unread.
            self.verdict = Some(verdict.and_then(|_| Err("there is more behind the end of the dump".to_owned())));
            self.inspection = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads exactly `N` bytes; the error names what was being read.
pub(super) fn exactly<const N: usize>(from: &mut dyn Read, what: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(|error| cut(what, &error))?;
    Ok(bytes)
}

/// Reads `length` bytes and keeps them. For what is bounded by its format.
pub(super) fn kept(from: &mut dyn Read, length: u64, what: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes).map_err(|error| cut(what, &error))?;
    if read as u64 == length { Ok(bytes) } else { Err(format!("it ends within {what}")) }
}

/// Reads `length` bytes and lets them go.
pub(super) fn skip(from: &mut dyn Read, length: u64, what: &str) -> Result<(), String> {
    let skipped = io::copy(&mut from.take(length), &mut io::sink()).map_err(|error| cut(what, &error))?;
    if skipped == length { Ok(()) } else { Err(format!("it ends within {what}")) }
}

pub(super) fn cut(what: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("it ends within {what}"),
        _ => format!("{what} cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three_bytes(from: &mut dyn Read) -> Result<Counts, String> {
        exactly::<3>(from, "the three bytes").map(|_| vec![("bytes".to_owned(), 3)])
    }

    fn verdict(pieces: &[&[u8]]) -> Result<Counts, String> {
        let mut inspection = Inspection::begin(three_bytes).unwrap();
        for piece in pieces {
            if !inspection.feed(piece) {
                return inspection.verdict();
            }
        }
        inspection.end()
    }

    #[test]
    fn a_whole_stream_is_counted_however_it_is_cut_into_pieces() {
        assert_eq!(verdict(&[b"abc"]), Ok(vec![("bytes".to_owned(), 3)]));
        assert_eq!(verdict(&[b"a", b"", b"bc"]), Ok(vec![("bytes".to_owned(), 3)]));
    }

    #[test]
    fn a_stream_that_is_short_or_long_or_cut_is_not_whole() {
        assert_eq!(verdict(&[b"ab"]), Err("it ends within the three bytes".to_owned()));
        assert!(verdict(&[b"abcd"]).is_err());
        let mut cut = Inspection::begin(three_bytes).unwrap();
        cut.feed(b"ab");
        assert!(cut.verdict().is_err());
    }

    #[test]
    fn a_sink_takes_everything_and_says_what_is_wrong() {
        let mut sink = InspectingSink::begin(three_bytes).unwrap();
        for _ in 0..50 {
            sink.write_all(b"abcdefgh").unwrap();
        }
        assert!(sink.end().is_err());
        let mut sink = InspectingSink::begin(three_bytes).unwrap();
        sink.write_all(b"abc").unwrap();
        assert_eq!(sink.end().unwrap().len(), 1);
    }
}
