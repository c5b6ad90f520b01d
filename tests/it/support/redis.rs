//! Redis for tests: processes of their own on free ports, and a cluster of three masters.
//!
//! Beside each process stands a shell that waits on a pipe of ours: it ends the process when the test does, however that
//! ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::machine::until;

/// A process of Redis answers within this, also on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// One command of a test.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Slots of a cluster.
const SLOTS: u16 = 16_384;
const MASTERS: u16 = 3;

/// A process of Redis. Dropping it ends the process.
pub struct RedisServer {
    pub port: u16,
    arguments: Vec<String>,
    directory: TempDir,
    process: Option<Process>,
}

/// What becomes of the data of a process that is started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// What was saved is there again.
    Kept,
    /// It begins empty.
    Lost,
}

/// Three masters that share the slots, and where it was asked for a replica of each.
pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
    pub replicas: Vec<RedisServer>,
}

/// A child and the shell that watches over it.
struct Process {
    child: Child,
    watchdog: Child,
}

/// An answer of Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Number(i64),
    Text(String),
    Error(String),
    List(Vec<Reply>),
}

impl Reply {
    /// The text of an error.
    pub fn error(&self) -> &str {
        match self {
            Self::Error(text) => text,
            other => panic!("no error: {other:?}"),
        }
    }
}

impl RedisServer {
    /// An empty one that saves nothing by itself.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// One that is started with more settings, such as `["--maxmemory", "3mb"]`.
    pub fn with(arguments: &[&str]) -> Self {
        Self::on_port(free_port(), arguments)
    }

    fn on_port(port: u16, arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { port, arguments, directory, process: None };
        server.run();
        server
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The number of its process.
    pub fn process_id(&self) -> String {
        self.process.as_ref().expect("a process that runs").child.id().to_string()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// The process stands still: connections are open and nothing is answered.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// The process goes on.
    pub fn cont(&self) {
        self.signal("CONT");
    }

    /// Ends the process, if it runs, and starts another on the same port.
    pub fn restart(&mut self, data: Data) {
        self.kill();
        if data == Data::Lost {
            for entry in std::fs::read_dir(self.directory.path()).unwrap() {
                let path = entry.unwrap().path();
                // A cluster's node keeps its place in the cluster.
                if path.is_file() && !path.ends_with("nodes.conf") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
        self.run();
    }

    /// What Redis answers to one command, on a connection of its own.
    pub fn ask(&self, command: &[&str]) -> Reply {
        self.try_ask(command).unwrap_or_else(|| panic!("Redis on {} does not answer", self.port))
    }

    /// The text that it answers.
    pub fn text(&self, command: &[&str]) -> String {
        match self.ask(command) {
            Reply::Text(text) => text,
            other => panic!("{command:?}: {other:?}"),
        }
    }

    /// Demands that a command is done.
    pub fn done(&self, command: &[&str]) {
        assert_eq!(self.text(command), "OK", "{command:?}");
    }

    pub fn flush(&self) {
        self.done(&["FLUSHALL"]);
    }

    pub fn config(&self, name: &str, value: &str) {
        self.done(&["CONFIG", "SET", name, value]);
    }

    /// A line of `INFO`.
    pub fn info(&self, name: &str) -> String {
        let all = self.text(&["INFO", "everything"]);
        let line = all.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name} in INFO")).to_owned()
    }

    /// How often commands of a kind were called, such as `evalsha`.
    pub fn calls(&self, command: &str) -> u64 {
        let all = self.text(&["INFO", "commandstats"]);
        let prefix = format!("cmdstat_{command}:calls=");
        let line = all.lines().find_map(|line| line.strip_prefix(&prefix)?.split(',').next());
        line.map_or(0, |calls| calls.parse().unwrap())
    }

    fn run(&mut self) {
        assert!(self.process.is_none());
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--daemonize", "no", "--logfile", "redis.log", "--enable-debug-command", "local"])
            .arg("--dir")
            .arg(self.directory.path())
            .args(&self.arguments)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed (apt-get install redis-server; tests/run does it)");
        self.process = Some(Process::watched(child));
        let answers = || {
            self.try_ask(&["PING"])
                .is_some_and(|reply| !matches!(&reply, Reply::Error(text) if text.starts_with("LOADING")))
        };
        until("Redis answers", START_TIMEOUT, answers);
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("a process that runs");
        signal(&process.child, name);
    }

    fn try_ask(&self, command: &[&str]) -> Option<Reply> {
        let mut stream = TcpStream::connect_timeout(&self.address(), COMMAND_TIMEOUT).ok()?;
        stream.set_read_timeout(Some(COMMAND_TIMEOUT)).unwrap();
        let mut request = format!("*{}\r\n", command.len());
        for argument in command {
            request.push_str(&format!("${}\r\n{argument}\r\n", argument.len()));
        }
        stream.write_all(request.as_bytes()).ok()?;
        read_reply(&mut stream)
    }
}

impl RedisCluster {
    pub fn start() -> Self {
        Self::with_replicas(false)
    }

    /// Three masters; with a replica each, a failover can be provoked.
    pub fn with_replicas(replicas: bool) -> Self {
        let count = if replicas { MASTERS * 2 } else { MASTERS };
        let settings =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"];
        let mut servers: Vec<_> = (0..count).map(|_| RedisServer::on_port(free_cluster_port(), &settings)).collect();
        let replicas = servers.split_off(usize::from(MASTERS));
        let cluster = Self { masters: servers, replicas };
        cluster.join_together();
        cluster
    }

    /// Names every master.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.masters.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Every process that runs.
    pub fn servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    /// The process that has the slot of `key`.
    pub fn owner(&self, key: &str) -> &RedisServer {
        let Reply::Number(slot) = self.masters[0].ask(&["CLUSTER", "KEYSLOT", key]) else { panic!("a slot") };
        &self.masters[usize::from(master_of(u16::try_from(slot).unwrap()))]
    }

    fn join_together(&self) {
        for (at, server) in (0_u16..).zip(&self.masters) {
            let (first, last) = slots_of(at);
            server.done(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            server.done(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        let first = self.masters[0].port.to_string();
        for server in self.servers().skip(1) {
            server.done(&["CLUSTER", "MEET", "127.0.0.1", &first]);
        }
        let known = self.servers().count().to_string();
        for server in self.servers() {
            let knows_all = || server.text(&["CLUSTER", "INFO"]).contains(&format!("cluster_known_nodes:{known}\r"));
            until("all know each other", START_TIMEOUT, knows_all);
        }
        for (replica, master) in self.replicas.iter().zip(&self.masters) {
            replica.done(&["CLUSTER", "REPLICATE", &master.text(&["CLUSTER", "MYID"])]);
        }
        for server in self.servers() {
            let is_ok = || server.text(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
            until("the cluster is whole", START_TIMEOUT, is_ok);
        }
        for replica in &self.replicas {
            until("replicas follow", START_TIMEOUT, || replica.info("master_link_status") == "up");
        }
    }
}

fn slots_of(master: u16) -> (u16, u16) {
    let part = SLOTS / MASTERS;
    (master * part, if master + 1 == MASTERS { SLOTS - 1 } else { (master + 1) * part - 1 })
}

fn master_of(slot: u16) -> u16 {
    (slot / (SLOTS / MASTERS)).min(MASTERS - 1)
}

impl Process {
    /// A shell ends the child when its standard input ends: at the latest when this process is gone.
    pub fn watched(child: Child) -> Self {
        let script = format!("cat >/dev/null; kill -9 {}", child.id());
        let watchdog = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, watchdog }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The shell goes first: once the child is reaped its number may be another process's.
        drop(self.watchdog.kill());
        drop(self.watchdog.wait());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.unwrap().success(), "kill -{name}");
}

/// A port that nothing listens on. The system gives a port twice only after many others.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Below 55,536, as a cluster's node also listens on the port that is 10,000 higher. Ports of their own, outside of those
/// that the system gives.
fn free_cluster_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 1_000).unwrap() * 10;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        assert!(Instant::now() < deadline, "no two free ports");
        let port = 12_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

fn read_line(stream: &mut TcpStream) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0_u8];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    line.truncate(line.len() - 2);
    Some(String::from_utf8_lossy(&line).into_owned())
}

fn read_reply(stream: &mut TcpStream) -> Option<Reply> {
    let line = read_line(stream)?;
    let (kind, rest) = line.split_at(1);
    let number = || rest.parse::<i64>().unwrap();
    Some(match kind {
        "+" => Reply::Text(rest.to_owned()),
        "-" => Reply::Error(rest.to_owned()),
        ":" => Reply::Number(number()),
        "$" if number() < 0 => Reply::Nil,
        "$" => {
            let mut bytes = vec![0_u8; usize::try_from(number()).unwrap() + 2];
            stream.read_exact(&mut bytes).ok()?;
            bytes.truncate(bytes.len() - 2);
            Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
        }
        "*" if number() < 0 => Reply::Nil,
        "*" => Reply::List((0..number()).map(|_| read_reply(stream)).collect::<Option<_>>()?),
        other => panic!("no reply begins with {other}"),
    })
}
