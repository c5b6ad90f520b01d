//! A Postgres server of our own for the tests, and fresh databases on it.
//!
//! One server for a test process, started by the first test that needs one. It lies in a directory of its own, listens on
//! a free loopback port, and is stopped however the process ends: a shell outside of it waits for the end of a pipe that
//! only this process holds.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::machine::until;

/// Tries to start the server: somebody else may take the port that was free.
const STARTS_MAX: u32 = 5;

/// The user that owns every database. Connections from this machine need no password.
pub const USER: &str = "tollgate";

/// What a server that is away is waited for: to be gone, or to be there again.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub struct Server {
    pub port: u16,
    directory: PathBuf,
    user: Option<String>,
    /// Closed by whatever ends this process: then the watchdog stops the server.
    pipe: Option<ChildStdin>,
    watchdog: Child,
}

/// A database of its own, dropped with the value.
pub struct Database {
    pub url: String,
    name: String,
}

impl Database {
    /// A fresh one on the server of this process.
    pub fn new() -> Self {
        static SERVER: OnceLock<Server> = OnceLock::new();
        Self::on(SERVER.get_or_init(Server::start))
    }

    /// A fresh one on a server that a test has for itself.
    pub fn on(server: &Server) -> Self {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let name = format!("ledger_{}", NUMBERS.fetch_add(1, Ordering::Relaxed));
        let database = Self { url: server.url(&name), name };
        psql(&server.url("postgres"), &format!("CREATE DATABASE {}", database.name));
        database
    }

    /// The same for what it may refuse: gives its words.
    pub fn try_say(&self, statements: &str) -> Result<String, String> {
        tell(&self.url, statements)
    }

    /// Says something to it, past the gateway.
    pub fn say(&self, statements: &str) -> String {
        psql(&self.url, statements)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, _) = self.url.rsplit_once('/').unwrap();
        // What is left of it goes with the server.
        drop(tell(&format!("{server}/postgres"), &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name)));
    }
}

impl Server {
    /// Starts one.
    pub fn start() -> Self {
        let directory = TempDir::new().unwrap().keep();
        let user = user();
        if let Some(user) = &user {
            run(Command::new("chown").arg(user).arg(&directory));
        }
        let data = directory.join("data");
        let mut initdb = as_user(user.as_deref(), &bin().join("initdb"));
        initdb.args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username", USER, "-D"]);
        run(initdb.arg(&data).current_dir(&directory));
        for _ in 0..STARTS_MAX {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            if run_on(port, &directory, user.as_deref()) {
                return Self::watched(port, directory, user);
            }
        }
        panic!("Postgres does not start: {}", fs::read_to_string(directory.join("log")).unwrap_or_default());
    }

    fn watched(port: u16, directory: PathBuf, user: Option<String>) -> Self {
        let mut stop = as_user(user.as_deref(), Path::new("sh"));
        // It waits for its input to end, then stops the server at once: nobody needs what is in it. Processes that stand still
        // would not hear of it.
        let script = format!(
            "cat >/dev/null; p=$(head -n 1 '{1}/data/postmaster.pid'); \
             kill -CONT $p $(cat /proc/$p/task/*/children) 2>/dev/null; \
             '{0}' stop --mode=immediate --silent -D '{1}/data'; rm -rf '{1}'/*; rmdir '{1}' 2>/dev/null",
            bin().join("pg_ctl").display(),
            directory.display()
        );
        stop.args(["-c", &script]).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: an interrupt at the terminal is meant for the tests.
        let mut watchdog = stop.process_group(0).spawn().unwrap();
        let pipe = watchdog.stdin.take();
        Self { port, directory, user, pipe, watchdog }
    }

    /// All of its processes stand still: connections are open and nothing is answered.
    pub fn pause(&self) {
        signal("STOP", &self.processes());
    }

    /// They go on.
    pub fn go_on(&self) {
        signal("CONT", &self.processes());
    }

    /// `kill -9` of all of its processes.
    pub fn kill(&self) {
        let processes = self.processes();
        signal("KILL", &processes);
        until("Postgres is gone", PATIENCE, || processes.iter().all(|id| is_gone(id)));
    }

    /// Starts it again after [`Server::kill`]: it recovers what was committed.
    pub fn start_again(&self) {
        // It names a process that nobody may have asked for its end yet, which looks as if it ran.
        drop(fs::remove_file(self.directory.join("data/postmaster.pid")));
        assert!(run_on(self.port, &self.directory, self.user.as_deref()), "Postgres does not start again");
    }

    /// The first process and its children, by their numbers.
    pub fn processes(&self) -> Vec<String> {
        let file = fs::read_to_string(self.directory.join("data/postmaster.pid")).expect("a server that runs");
        let first = file.lines().next().expect("a number").trim().to_owned();
        let mut all = vec![first.clone()];
        for task in fs::read_dir(format!("/proc/{first}/task")).into_iter().flatten().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().map(str::to_owned));
        }
        all
    }

    /// The URL of a database on it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.pipe.take());
        drop(self.watchdog.wait());
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// Starts the server of a directory; whether it did.
fn run_on(port: u16, directory: &Path, user: Option<&str>) -> bool {
    let options =
        format!("-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c max_connections=300");
    let mut start = as_user(user, &bin().join("pg_ctl"));
    start.args(["start", "--wait", "--silent", "-o", &options, "-l"]).arg(directory.join("log"));
    start.arg("-D").arg(directory.join("data")).current_dir(directory).stdin(Stdio::null());
    start.status().unwrap().success()
}

fn signal(name: &str, processes: &[String]) {
    let mut kill = Command::new("kill");
    // One of them may have ended by itself: then it says that it failed.
    kill.arg(format!("-{name}")).args(processes).stderr(Stdio::null()).status().expect("kill runs");
}

/// Whether a process has ended, also where nobody asked how.
fn is_gone(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
}

/// Where the server's programs are: the newest version that is installed.
fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
        let newest = versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists());
        newest.max_by_key(|path| version(path)).map(|path| path.join("bin")).unwrap_or_else(|| {
            let mut found = String::new();
            let told = Command::new("pg_config").arg("--bindir").stdout(Stdio::piped()).spawn();
            if let Ok(mut told) = told {
                told.stdout.take().unwrap().read_to_string(&mut found).unwrap();
                drop(told.wait());
            }
            assert!(!found.trim().is_empty(), "these tests need Postgres: apt-get install postgresql");
            PathBuf::from(found.trim())
        })
    })
}

/// Whom the server runs as: it refuses to run as root.
fn user() -> Option<String> {
    let is_root = fs::read_to_string("/proc/self/status").is_ok_and(|status| status.contains("\nUid:\t0\t0\t"));
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let known = |name: &str| users.lines().any(|line| line.starts_with(&format!("{name}:")));
    is_root.then(|| if known("postgres") { "postgres".to_owned() } else { "nobody".to_owned() })
}

fn as_user(user: Option<&str>, program: &Path) -> Command {
    match user {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), "--clear-groups"]).arg(program);
            command
        }
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn tell(url: &str, statements: &str) -> Result<String, String> {
    let mut command = Command::new(bin().join("psql"));
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
    command.env_clear().args(["--command", statements, url]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn psql(url: &str, statements: &str) -> String {
    tell(url, statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
}
