//! What the process tests need of the machine: seeded chance, small disks, files nobody may write, a clock to turn.
//!
//! What a machine does not permit is said on the figures' lines, and the part of the test that needs it is left out.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

/// Whether the long forms of the tests run (`tests/run --full`).
pub fn full() -> bool {
    std::env::var("TOLLGATE_TEST_FULL").is_ok_and(|value| value == "1")
}

/// Tells the figures of a test. `tests/run` shows them at its end, which cargo alone does not do for a test that passes.
pub fn figures(line: &str) {
    println!("{line}");
    if let Some(path) = std::env::var_os("TOLLGATE_FIGURES") {
        let file = File::options().create(true).append(true).open(path);
        // One write: tests run side by side.
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the file of the figures");
    }
}

/// Tells one row of the table of hostile input, which many tests fill: what was done, in how many forms, what came of it.
pub fn tell(number: &str, what: &str, forms: usize, outcome: &str) {
    figures(&format!("hostile {number:<4} {what:<58} {forms:>3} forms: {outcome}"));
}

/// Polls `is_so` until it is, at most `limit` long; gives how long that took.
pub fn until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}

/// Seeded chance: SplitMix64 (Steele, Lea and Flood, 2014). The seed is told, and `TOLLGATE_TEST_SEED` sets it.
pub struct Chance {
    pub seed: u64,
    state: u64,
}

impl Chance {
    pub fn new() -> Self {
        let given = std::env::var("TOLLGATE_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) ^ u64::from(std::process::id())
        });
        println!("TOLLGATE_TEST_SEED={seed}");
        Self::seeded(seed)
    }

    /// The same again.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Puts processes or threads on one core, with all threads that a process has by then. `false` where that cannot be done.
pub fn pin(ids: &[String], core: u32) -> bool {
    ids.iter().all(|id| runs("taskset", &["-a", "-c", "-p", &core.to_string(), id]))
}

/// The number of the thread that asks.
pub fn thread_id() -> String {
    let link = std::fs::read_link("/proc/thread-self").expect("a thread");
    link.file_name().expect("a number").to_string_lossy().into_owned()
}

/// A disk of its own, a few megabytes small. Gone when it is dropped.
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// `None` where this user may not mount.
    pub fn mount(mib: u32) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let path = directory.path().to_str().unwrap();
        let size = format!("size={mib}m,mode=0700");
        runs("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path]).then_some(Self { directory })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes every byte that is left, until the value is dropped.
    pub fn fill(&self) -> Filled {
        let path = self.path().join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1024 * 1024, 4096, 1] {
            let bytes = vec![0x5a_u8; size];
            while file.write(&bytes).is_ok_and(|written| written > 0) {}
        }
        Filled { path }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        runs("umount", &["-l", self.path().to_str().unwrap()]);
    }
}

/// A full disk.
pub struct Filled {
    path: PathBuf,
}

impl Drop for Filled {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// Files that nobody may write, root included, until the value is dropped.
pub struct Frozen {
    paths: Vec<PathBuf>,
}

impl Frozen {
    /// `None` where this user or the file system does not permit it.
    pub fn freeze(paths: &[PathBuf]) -> Option<Self> {
        // Tried on a file that is open already, as a ledger is: some file systems look at the flag only when they open.
        let probe = paths[0].with_extension("probe");
        let mut open = File::create(&probe).unwrap();
        let tried = Self { paths: vec![probe.clone()] };
        let works = runs("chattr", &["+i", probe.to_str().unwrap()]) && open.write_all(b"x").is_err();
        drop(tried);
        std::fs::remove_file(&probe).unwrap();
        let frozen = Self { paths: paths.to_vec() };
        (works && paths.iter().all(|path| runs("chattr", &["+i", path.to_str().unwrap()]))).then_some(frozen)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for path in &self.paths {
            runs("chattr", &["-i", path.to_str().unwrap()]);
        }
    }
}

/// A wall clock for one process, turned by hand (libfaketime).
pub struct TurnedClock {
    preload: PathBuf,
    file: PathBuf,
    _directory: TempDir,
}

impl TurnedClock {
    /// `None` where libfaketime is not installed.
    pub fn new() -> Option<Self> {
        let libraries = |lib: &str| std::fs::read_dir(lib).ok();
        let folders = ["/usr/lib", "/usr/lib64"].into_iter().filter_map(libraries).flatten().flatten();
        let mut found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
        let preload = found.find(|path| path.exists())?;
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("clock");
        let clock = Self { preload, file, _directory: directory };
        clock.stop_at("2026-11-15 12:00:00");
        Some(clock)
    }

    /// From now on it is this instant (UTC), and time stands still.
    pub fn stop_at(&self, instant: &str) {
        // Renamed into place: the process may read at any moment.
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{instant}\n")).unwrap();
        std::fs::rename(next, &self.file).unwrap();
    }

    /// What a process that lives by this clock is started with.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.preload.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // A wall clock that is set is what happens to machines; their monotonic clock goes on.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ]
    }
}
