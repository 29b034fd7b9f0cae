use super::*;

/// A header as tar programs write it.
fn header(name: &str, typeflag: u8, size: u64, target: &str) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut field = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    field(0, name.as_bytes());
    field(100, b"0000640\0");
    field(108, b"0001747\0");
    field(116, b"0001747\0");
    field(124, format!("{size:011o}\0").as_bytes());
    field(136, b"14712345670\0");
    field(156, &[typeflag]);
    field(157, target.as_bytes());
    field(257, b"ustar\x0000");
    summed(&mut block);
    block
}

fn summed(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    [header(name, b'0', data.len() as u64, ""), padded(data)].concat()
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length.to_string().len() + rest != length {
            length = length.to_string().len() + rest;
        }
        lines.extend([length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat());
    }
    [header("pax", b'x', lines.len() as u64, ""), padded(&lines)].concat()
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

/// One of everything, with bytes in names that no text has.
fn everything() -> Vec<u8> {
    [
        header("volume/", b'5', 0, ""),
        file("volume/a", b"content"),
        file("volume/empty", b""),
        pax(&[("path", b"volume/new\nline \xff"), ("mtime", b"-1.5"), ("SCHILY.xattr.security.capability", b"\0\n=")]),
        file("volume/short", &[7; 1025]),
        [header("././@LongLink", b'L', 300, ""), padded(&[b"volume/".as_slice(), &[b'n'; 293]].concat())].concat(),
        header("volume/cut", b'5', 0, ""),
        header("volume/link", b'2', 0, "/elsewhere"),
        header("volume/hard", b'1', 0, "volume/a"),
        header("volume/pipe", b'6', 0, ""),
        sparse(),
        pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.name", b"volume/holes"), ("GNU.sparse.realsize", b"1000000")]),
        file("volume/GNUSparseFile.0/holes", &[1; 600]),
        end(),
    ]
    .concat()
}

/// GNU's own sparse file whose map goes on in a block of its own.
fn sparse() -> Vec<u8> {
    let mut block = header("volume/old holes", b'S', 512, "");
    block[257..265].copy_from_slice(b"ustar  \0");
    block[482] = 1;
    block[483..495].copy_from_slice(b"00000010000\0");
    summed(&mut block);
    [block, vec![0; BLOCK], vec![9; BLOCK]].concat()
}

fn read(archive: &[u8], piece: usize) -> (Result<Tally, String>, Vec<Entry>) {
    let (mut tar, mut entries) = (Tar::new(true), Vec::new());
    for bytes in archive.chunks(piece) {
        if let Err(why) = tar.feed(bytes, &mut |entry| entries.push(entry.clone())) {
            return (Err(why), entries);
        }
    }
    (tar.end(), entries)
}

#[test]
fn everything_is_counted_however_it_comes_in_pieces() {
    let archive = everything();
    let (tally, entries) = read(&archive, archive.len());
    let tally = tally.unwrap();
    let counted = (tally.files, tally.folders, tally.links, tally.hard_links, tally.others);
    assert_eq!(counted, (5, 1, 1, 1, 1));
    assert_eq!(tally.bytes, 7 + 1025 + 4096 + 1_000_000);
    assert_eq!(entries[2].path, b"new\nline \xff");
    assert_eq!((entries[2].mtime, entries[2].mode, entries[2].uid), (-1, 0o640, 999));
    assert_eq!(entries[3].path, [b'n'; 293]);
    assert_eq!(entries[5].target, b"a");
    assert_eq!(entries[7].path, b"old holes");
    assert_eq!(entries[8].path, b"holes");
    for piece in [1, 7, 511, 512, 513, 4096] {
        assert_eq!(read(&archive, piece).0.as_ref(), Ok(&tally), "in pieces of {piece}");
    }
    assert_eq!(inspect(&mut archive.as_slice()).unwrap().last(), Some(&("bytes".to_owned(), tally.bytes)));
}

#[test]
fn cut_anywhere_it_is_not_whole() {
    let archive = everything();
    for length in 0..archive.len() {
        assert!(inspect(&mut &archive[..length]).is_err(), "cut at {length} of {}", archive.len());
    }
}

#[test]
fn a_changed_header_is_seen() {
    let archive = everything();
    for at in (0..BLOCK).filter(|at| !(148..156).contains(at)) {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        assert!(inspect(&mut changed.as_slice()).is_err(), "byte {at}");
    }
}

#[test]
fn the_prints_tell_content_from_attributes_and_know_no_order() {
    let print = |parts: &[Vec<u8>]| {
        let tally = read(&[vec![header("v/", b'5', 0, "")], parts.to_vec(), vec![end()]].concat().concat(), 4096).0;
        let tally = tally.unwrap();
        (tally.content, tally.attributes)
    };
    let (a, b) = (file("v/a", b"1"), file("v/b", b"2"));
    let first = print(&[a.clone(), b.clone()]);
    assert_eq!(print(&[b, a.clone()]), first);
    let other = print(&[a.clone(), file("v/b", b"3")]);
    assert!(other.0 != first.0 && other.1 == first.1);
    let mut owned = file("v/b", b"2");
    owned[108..116].copy_from_slice(b"0000001\0");
    summed(&mut owned[..BLOCK]);
    let owned = print(&[a, owned]);
    assert!(owned.0 == first.0 && owned.1 != first.1);
}

#[test]
fn what_lies_outside_the_folder_is_refused() {
    for bad in [file("w/a", b""), file("v/../a", b""), file("/v/a", b""), header("v/a", b'1', 0, "etc/passwd")] {
        let archive = [header("v/", b'5', 0, ""), bad, end()].concat();
        assert!(inspect(&mut archive.as_slice()).is_err());
    }
    assert!(inspect(&mut [file("v", b""), end()].concat().as_slice()).is_err());
    assert!(inspect(&mut end().as_slice()).is_err());
}

#[test]
fn what_stands_behind_the_end_or_alone_is_no_archive() {
    let folder = header("v/", b'5', 0, "");
    assert!(inspect(&mut [folder.clone(), end(), vec![0; 9000]].concat().as_slice()).is_ok());
    assert!(inspect(&mut [folder.clone(), end(), folder.clone()].concat().as_slice()).is_err());
    assert!(inspect(&mut [folder.clone(), vec![0; BLOCK], folder.clone(), end()].concat().as_slice()).is_err());
    assert!(inspect(&mut [folder, pax(&[("path", b"v/a")]), end()].concat().as_slice()).is_err());
}
