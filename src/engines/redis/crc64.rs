//! The checksum behind an RDB: CRC-64 with Jones' polynomial, least bit first, from zero.

/// Jones' polynomial, its bits turned round.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;

/// `TABLES[n][b]`: what the byte `b` comes to with `n` bytes behind it. Eight at once keep up with a stream.
static TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u64, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let value = tables[behind - 1][byte];
            tables[behind][byte] = value >> 8 ^ tables[0][(value & 0xff) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

/// The checksum of what `crc` is that of, followed by `bytes`.
pub(super) fn add(mut crc: u64, bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let word = (crc ^ u64::from_le_bytes(*eight)).to_le_bytes();
        crc = 0;
        for (place, byte) in word.iter().enumerate() {
            crc ^= TABLES[7 - place][usize::from(*byte)];
        }
    }
    for byte in rest {
        crc = crc >> 8 ^ TABLES[0][usize::from(crc.to_le_bytes()[0] ^ byte)];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digits_have_the_checksum_that_redis_gives_them() {
        assert_eq!(add(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let text = b"what is added in pieces comes to the same as what is added at once";
        let whole = add(0, text);
        for cut in 0..text.len() {
            assert_eq!(add(add(0, &text[..cut]), &text[cut..]), whole);
        }
    }
}
