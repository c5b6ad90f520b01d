//! Where to look that is no file: the tables of Postgres, the keys of Redis, the memory of a process.

use super::*;

/// The most that is read of memory at once; pieces overlap, so that nothing lies between two.
const PIECE_BYTES: usize = 4 << 20;

const PAGE_BYTES: u64 = 4096;

/// Every row of every table, as text; gives how many tables there are, and the text.
pub fn in_postgres(database: &Database, mut see: impl FnMut(&str, &[u8])) -> (usize, String) {
    let tables = database.say("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'");
    let (mut count, mut all) = (0, String::new());
    for table in tables.lines().map(str::trim).filter(|table| !table.is_empty()) {
        let rows = database.say(&format!("SELECT t::text FROM \"{table}\" AS t"));
        see(&format!("table {table}"), rows.as_bytes());
        all.push_str(&rows);
        count += 1;
    }
    (count, all)
}

/// Every key with its value, as it is dumped; gives how many there are.
pub fn in_redis(redis: &RedisServer, mut see: impl FnMut(&str, &[u8])) -> usize {
    let Reply::List(keys) = redis.ask(&["KEYS", "*"]) else { panic!("no list of keys") };
    for key in &keys {
        let Reply::Text(key) = key else { panic!("no key: {key:?}") };
        let kind = redis.text(&["TYPE", key]);
        let value = match kind.as_str() {
            "string" => redis.ask(&["GET", key]),
            "hash" => redis.ask(&["HGETALL", key]),
            "list" => redis.ask(&["LRANGE", key, "0", "-1"]),
            "set" => redis.ask(&["SMEMBERS", key]),
            "zset" => redis.ask(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
            other => panic!("a key of type {other}"),
        };
        see("a key of Redis", key.as_bytes());
        see("a value of Redis", format!("{value:?}").as_bytes());
    }
    keys.len()
}

/// How often each thing is in memory that a process can write, as far as it is there (proc(5): `maps`, `pagemap`, `mem`).
pub fn in_memory(process: &str, planted: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, usize> {
    let mut count = Count::of(planted);
    let open = |name: &str| File::open(format!("/proc/{process}/{name}")).unwrap();
    let (mut memory, mut pages) = (open("mem"), open("pagemap"));
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|text| u64::from_str_radix(text, 16).unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        // Room that was set aside and never touched is most of it: it is not read.
        let mut told = vec![0; usize::try_from((to - from) / PAGE_BYTES * 8).unwrap()];
        if pages.seek(SeekFrom::Start(from / PAGE_BYTES * 8)).and_then(|_| pages.read_exact(&mut told)).is_err() {
            continue;
        }
        let (entries, _) = told.as_chunks::<8>();
        let is_there = |entry: &[u8; 8]| u64::from_le_bytes(*entry) >> 63 == 1;
        let mut at = from;
        for run in entries.chunk_by(|one, other| is_there(one) == is_there(other)) {
            let end = at + run.len() as u64 * PAGE_BYTES;
            if run.first().is_some_and(is_there) {
                count.look_through(&mut memory, at, end);
            }
            at = end;
        }
    }
    count.copies
}

/// A count of what is found.
struct Count<'a> {
    /// By their first bytes, of which there are few kinds: memory is searched once for each.
    by_begin: BTreeMap<[u8; 8], Vec<(&'a String, &'a Vec<u8>)>>,
    longest: usize,
    copies: BTreeMap<String, usize>,
}

impl<'a> Count<'a> {
    fn of(planted: &'a BTreeMap<String, Vec<u8>>) -> Self {
        let mut by_begin: BTreeMap<[u8; 8], Vec<_>> = BTreeMap::new();
        for (what, value) in planted {
            by_begin.entry(*value.first_chunk().unwrap()).or_default().push((what, value));
        }
        let longest = planted.values().map(Vec::len).max().unwrap_or(0);
        Self { by_begin, longest, copies: planted.keys().map(|what| (what.clone(), 0)).collect() }
    }

    fn look_through(&mut self, memory: &mut File, from: u64, to: u64) {
        let (mut at, mut kept) = (from, Vec::new());
        while at < to {
            let length = usize::try_from(to - at).unwrap().min(PIECE_BYTES);
            let begun = kept.len();
            kept.resize(begun + length, 0);
            // What was given back meanwhile is passed over.
            let read = memory.seek(SeekFrom::Start(at)).and_then(|_| memory.read_exact(&mut kept[begun..]));
            at += length as u64;
            if read.is_err() {
                kept.clear();
                continue;
            }
            for (begin, values) in &self.by_begin {
                for found in memchr::memmem::find_iter(&kept, begin) {
                    for (what, value) in values {
                        // Counted is what ends in this piece.
                        if kept[found..].starts_with(value) && found + value.len() > begun {
                            *self.copies.get_mut(*what).unwrap() += 1;
                        }
                    }
                }
            }
            kept.drain(..kept.len().saturating_sub(self.longest - 1));
        }
    }
}
