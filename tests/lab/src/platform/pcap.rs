//! Writes what was on the wire as a classic pcap file that tcpdump and Wireshark read.
//!
//! Times are nanoseconds since whatever the plug calls zero. Format: draft-ietf-opsawg-pcap.

use std::io::{self, Write};
use std::time::Duration;

/// Marks a file with nanosecond times, in the byte order of the writer.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const VERSION: (u16, u16) = (2, 4);
const SNAP_LENGTH: u32 = 0x0004_0000;
const LINKTYPE_ETHERNET: u32 = 1;

/// A pcap file being written.
pub struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Starts a file.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC_NANOSECONDS.to_le_bytes())?;
        out.write_all(&VERSION.0.to_le_bytes())?;
        out.write_all(&VERSION.1.to_le_bytes())?;
        out.write_all(&[0; 8])?;
        out.write_all(&SNAP_LENGTH.to_le_bytes())?;
        out.write_all(&LINKTYPE_ETHERNET.to_le_bytes())?;
        Ok(Self { out })
    }

    /// Adds one frame, which was on the wire at `at`.
    pub fn frame(&mut self, at: Duration, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let captured = length.min(SNAP_LENGTH);
        self.out.write_all(&(at.as_secs() as u32).to_le_bytes())?;
        self.out.write_all(&at.subsec_nanos().to_le_bytes())?;
        self.out.write_all(&captured.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&frame[..captured as usize])?;
        // A reader may look at any moment, and a test may be killed at any moment.
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_header_and_one_record_for_each_frame() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file).unwrap();
        writer.frame(Duration::new(3, 5), b"abc").unwrap();
        assert_eq!(file.len(), 24 + 16 + 3);
        assert_eq!(file[..4], [0x4d, 0x3c, 0xb2, 0xa1]);
        assert_eq!(file[20..24], [1, 0, 0, 0]);
        assert_eq!(
            file[24..40],
            [3, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0]
        );
        assert_eq!(&file[40..], b"abc");
    }
}
