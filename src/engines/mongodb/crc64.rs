//! CRC-64/XZ (the ECMA polynomial, reflected), by which an archive of `mongodump` sums up each collection.

const POLYNOMIAL: u64 = 0xC96C_5795_D787_0F42;

/// Eight bytes at a time: a dump passes at the speed of the network, and the sum must not be what it waits for.
const TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        tables[0][byte] = value;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// A sum under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crc64(u64);

impl Crc64 {
    pub(super) fn new() -> Self {
        Self(!0)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        let mut sum = self.0;
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            let mixed = (sum ^ u64::from_le_bytes(*eight)).to_le_bytes();
            sum = mixed.iter().enumerate().fold(0, |sum, (place, byte)| sum ^ TABLES[7 - place][usize::from(*byte)]);
        }
        for byte in rest {
            sum = TABLES[0][usize::from(sum.to_le_bytes()[0] ^ byte)] ^ (sum >> 8);
        }
        self.0 = sum;
    }

    pub(super) fn sum(self) -> u64 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(bytes: &[u8]) -> u64 {
        let mut crc = Crc64::new();
        crc.add(bytes);
        crc.sum()
    }

    #[test]
    fn the_sums_are_those_of_the_catalogues() {
        assert_eq!(sum(b""), 0);
        assert_eq!(sum(b"123456789"), 0x995D_C9BB_DF19_39FA);
    }

    #[test]
    fn a_sum_does_not_depend_on_the_pieces() {
        let bytes: Vec<u8> = (0..1000_u32).flat_map(|number| (number * number).to_le_bytes()).collect();
        for cut in [0, 1, 7, 8, 9, 63, 64, 1000, bytes.len()] {
            let mut crc = Crc64::new();
            crc.add(&bytes[..cut]);
            crc.add(&bytes[cut..]);
            assert_eq!(crc.sum(), sum(&bytes), "cut at {cut}");
        }
    }
}
