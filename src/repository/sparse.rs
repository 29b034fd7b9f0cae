//! Writing a file with holes where its content has runs of zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file system keeps holes in whole blocks; shorter runs of zeros are written.
const BLOCK: usize = 4096;

/// Writes from front to back into an empty file.
pub(super) struct SparseFile<'a> {
    file: &'a File,
    at: u64,
}

impl<'a> SparseFile<'a> {
    pub fn new(file: &'a File) -> Self {
        Self { file, at: 0 }
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let data = bytes.chunks(BLOCK).take_while(|block| !is_hole(block)).map(<[u8]>::len).sum::<usize>();
            self.file.write_all_at(&bytes[..data], self.at)?;
            let rest = &bytes[data..];
            let hole = rest.chunks(BLOCK).take_while(|block| is_hole(block)).map(<[u8]>::len).sum::<usize>();
            self.at += (data + hole) as u64;
            bytes = &rest[hole..];
        }
        Ok(())
    }

    /// Gives the file its length: a hole at its end is written by nothing else.
    pub fn finish(self) -> io::Result<()> {
        self.file.set_len(self.at)
    }
}

fn is_hole(block: &[u8]) -> bool {
    block.len() == BLOCK && block.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn runs_of_zeros_become_holes_and_read_back_as_zeros() {
        let mut content = vec![0_u8; 3 << 20];
        content[1 << 20..(1 << 20) + 10_000].fill(7);
        content[5] = 1;
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut sparse = SparseFile::new(file.as_file());
        for piece in content.chunks(777_777) {
            sparse.write(piece).unwrap();
        }
        sparse.finish().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), content);
        assert!(file.as_file().metadata().unwrap().blocks() * 512 < 1 << 20);
    }
}
