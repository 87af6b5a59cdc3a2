//! The sectors of a disc while it is written, and the numbers in them.
//!
//! ECMA-167 is little-endian throughout; ECMA-119 is little-endian, big-endian or both.

/// The bytes of one sector on every optical disc for data.
pub(super) const SECTOR: usize = 2048;

/// Is a run of sectors that holds so many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) sector: u32,
    pub(super) bytes: u32,
}

impl Extent {
    pub(super) fn sectors(self) -> u32 {
        sectors(self.bytes as usize)
    }
}

/// Counts the sectors that so many bytes take.
pub(super) fn sectors(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(SECTOR)).expect("no disc is this large")
}

/// Is a disc that grows as it is written to.
pub(super) struct Image(Vec<u8>);

impl Image {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Puts bytes at the start of a sector and zeros behind them up to the next.
    pub(super) fn write(&mut self, sector: u32, bytes: &[u8]) {
        let start = sector as usize * SECTOR;
        let end = start + bytes.len();
        if self.0.len() < end {
            self.0.resize(end.next_multiple_of(SECTOR), 0);
        }
        self.0[start..end].copy_from_slice(bytes);
    }

    /// Gives the disc its length.
    pub(super) fn finish(mut self, sectors: u32) -> Vec<u8> {
        assert!(
            self.0.len() <= sectors as usize * SECTOR,
            "nothing lies behind the end"
        );
        self.0.resize(sectors as usize * SECTOR, 0);
        self.0
    }
}

/// Is a structure of a fixed length, filled in at the offsets that the documents give.
pub(super) struct Fields(pub(super) Vec<u8>);

impl Fields {
    pub(super) fn new(length: usize) -> Self {
        Self(vec![0; length])
    }

    pub(super) fn bytes(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn u8(&mut self, at: usize, value: u8) -> &mut Self {
        self.bytes(at, &[value])
    }

    pub(super) fn u16(&mut self, at: usize, value: u16) -> &mut Self {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.bytes(at, &value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.bytes(at, &value.to_le_bytes())
    }

    /// ECMA-119 7.2.3: little-endian, then big-endian.
    pub(super) fn both16(&mut self, at: usize, value: u16) -> &mut Self {
        self.u16(at, value).bytes(at + 2, &value.to_be_bytes())
    }

    /// ECMA-119 7.3.3: little-endian, then big-endian.
    pub(super) fn both32(&mut self, at: usize, value: u32) -> &mut Self {
        self.u32(at, value).bytes(at + 4, &value.to_be_bytes())
    }

    /// Text of a fixed length with blanks behind it.
    pub(super) fn padded(
        &mut self,
        at: usize,
        length: usize,
        text: &[u8],
        pad: &[u8],
    ) -> &mut Self {
        assert!(
            text.len() <= length,
            "{} is too long",
            String::from_utf8_lossy(text)
        );
        for (index, byte) in self.0[at..at + length].iter_mut().enumerate() {
            *byte = *text.get(index).unwrap_or(&pad[index % pad.len()]);
        }
        self
    }
}
