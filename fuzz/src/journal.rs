//! The journal: records, and segments that something changed.

use std::io;
use std::sync::Arc;

use crate::control::Control;

#[path = "../../src/adapters/file_journal/codec.rs"]
mod codec;
#[path = "../../src/adapters/file_journal/disk.rs"]
mod disk;
#[path = "../../src/adapters/file_journal/record.rs"]
mod record;
#[path = "../../src/adapters/file_journal/segment.rs"]
mod segment;

use disk::{Disk, DiskFile};
use record::Kind;

/// What is decoded encodes to what decodes to the same.
pub fn events(data: &[u8]) {
    let Some(event) = codec::decode(data) else { return };
    let mut bytes = Vec::new();
    codec::encode(&event, &mut bytes);
    assert_eq!(codec::decode(&bytes).as_ref(), Some(&event));
    assert_eq!(codec::id(&bytes), Some(event.id));
    let mut again = Vec::new();
    codec::encode(&event, &mut again);
    assert_eq!(bytes, again);
}

/// One file.
struct File(Vec<u8>);

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let length = from.len().min(bytes.len());
        bytes[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for File {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(vec![segment::name(BASE)])
    }

    fn create(&self, _: &str, _: u64) -> io::Result<Arc<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self(self.0.clone())))
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
}

const BASE: u64 = 0x10_0000;

/// A record, where it stands and what it holds.
type Kept = (Kind, std::ops::Range<usize>, Vec<u8>);

/// Records of lengths that the fuzzer chose. Their bytes are not its own: no record is to hide in another.
fn written(control: &mut Control<'_>) -> (Vec<u8>, Vec<Kept>) {
    let mut file = segment::head(BASE);
    let mut records = Vec::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..control.byte() % 24 {
        let kind = control.choose(&[Kind::Admitted, Kind::Settled, Kind::Booked, Kind::Quarantined]);
        let length = control.number() % (record::RECORD_BYTES_MAX - record::HEADER_BYTES + 1);
        let mut bytes = Vec::new();
        record::begin(&mut bytes, kind);
        bytes.extend((0..length).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        }));
        assert!(record::seal(&mut bytes, BASE + file.len() as u64));
        records.push((kind, file.len()..file.len() + bytes.len(), bytes[record::HEADER_BYTES..].to_vec()));
        file.extend_from_slice(&bytes);
    }
    // Room that was set aside.
    file.resize(file.len() + usize::from(control.byte()), 0);
    (file, records)
}

fn found(file: &[u8]) -> Option<(Vec<Kept>, Vec<segment::Damage>)> {
    let found = segment::Found::read(&File(file.to_vec()), BASE, segment::name(BASE)).ok()?;
    let mut records: Vec<Kept> = Vec::new();
    let damages = found.records(|end, record| {
        let end = usize::try_from(end).unwrap();
        assert_eq!(record::read(&file[end - record.bytes()..], BASE + (end - record.bytes()) as u64), Some(record));
        records.push((record.kind, end - record.bytes()..end, record.payload.to_vec()));
    });
    for pair in records.windows(2) {
        assert!(pair[0].1.end <= pair[1].1.start, "records stand apart and in order");
    }
    Some((records, damages))
}

/// Whatever is changed in a segment, every record that was not touched is found again, no other is, and the change is told.
pub fn recovery(data: &[u8]) {
    let mut control = Control(data);
    let (mut file, records) = written(&mut control);
    assert_eq!(found(&file), Some((records.clone(), Vec::new())), "an undamaged segment");
    let whole = file.clone();
    let mut touched = Vec::new();
    let mut is_cut = false;
    for _ in 0..control.byte() % 8 {
        let at = control.number() % file.len();
        match control.byte() {
            0..=15 => {
                file.truncate(at.max(1));
                is_cut = true;
                break;
            }
            change => {
                let length = usize::from(control.byte()).min(file.len() - at);
                for place in at..at + length {
                    file[place] ^= change;
                    touched.push(place);
                }
            }
        }
    }
    touched.retain(|place| file.get(*place) != whole.get(*place));
    // A head that says another version, with the right checksum, is another thing: such files are refused.
    let Some((seen, damages)) = found(&file) else { return };
    let is_touched =
        |range: &std::ops::Range<usize>| range.end > file.len() || touched.iter().any(|place| range.contains(place));
    let expected: Vec<Kept> = records.iter().filter(|(_, range, _)| !is_touched(range)).cloned().collect();
    assert_eq!(seen, expected, "{touched:?} {}", file.len());
    let told = |place: usize| damages.iter().any(|d| (d.offset..d.offset + d.bytes).contains(&(place as u64)));
    for (_, range, _) in records.iter().filter(|(_, range, _)| is_touched(range) && range.start + 8 < file.len()) {
        let has_bytes = file[range.start..range.end.min(file.len())].iter().any(|byte| *byte != 0);
        assert!(!has_bytes || told(range.start) || range.clone().any(told), "{range:?} {damages:?}");
    }
    assert!(is_cut || damages.iter().all(|damage| damage.offset + damage.bytes <= file.len() as u64));
}

/// A file of anything.
pub fn any_segment(data: &[u8]) {
    let (is_headed, body) = data.split_first().map_or((true, data), |(first, rest)| (first % 2 == 0, rest));
    let file = if is_headed { [segment::head(BASE), body.to_vec()].concat() } else { body.to_vec() };
    let Some((records, damages)) = found(&file) else { return };
    let counted: usize = records.iter().map(|(_, range, _)| range.len()).sum();
    let damaged: u64 = damages.iter().map(|damage| damage.bytes).sum();
    assert!(counted as u64 + damaged <= file.len() as u64);
    for (_, range, payload) in records {
        assert!(range.end <= file.len());
        codec::decode(&payload);
    }
}
