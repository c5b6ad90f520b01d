//! The real binary as a child process: environment in, two listeners out, its log kept.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tempfile::TempDir;

use super::provider::Provider;
use super::wire::{Answer, Request};

/// Keys that must never be seen outside of the call they belong to.
pub const OPENAI_KEY: &str = "sk-planted-openai-5e1f0c9ab7d24836";
pub const GEMINI_KEY: &str = "AIzaPlantedGemini5e1f0c9ab7d24836";
pub const ADMIN_KEY: &str = "planted-admin-key-5e1f0c9ab7d24836-5e1f0c9a";

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// The ledger follows a call within milliseconds; on a loaded machine this is ample.
const BOOKED_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// The binary under test: the one that cargo built, or another that is named, such as a release.
pub fn binary() -> String {
    std::env::var("TOLLGATE_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tollgate").to_owned())
}

/// Whether it is a release, which bounds of time are meant for.
pub fn is_release() -> bool {
    binary().split('/').any(|part| part == "release")
}

/// What a gateway is started with.
pub struct Setup {
    variables: BTreeMap<String, String>,
    arguments: Vec<String>,
    /// The core that it runs on, if it has one of its own.
    core: Option<u32>,
    data: Arc<TempDir>,
}

/// A running gateway. Dropping it ends the process, and prints its log when the test failed.
pub struct Gateway {
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    /// From the start of the process to its ready line.
    pub started_in: Duration,
    child: Child,
    log: Arc<Mutex<String>>,
    data: Arc<TempDir>,
    data_dir: PathBuf,
}

/// What `GET /billing/usage` says. The cost is its text: no digit is lost on the way.
#[derive(Debug, Deserialize)]
pub struct Usage {
    pub requests: u64,
    pub chats: u64,
    pub failed_requests: u64,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    pub reasoning_tokens: u64,
    pub total_tokens: u64,
    #[serde(rename = "estimated_cost_usd")]
    cost: Box<RawValue>,
    pub unpriced_requests: u64,
    pub estimated: Estimated,
    pub providers: BTreeMap<String, Value>,
    pub groups: Vec<Value>,
}

/// The estimated part of the totals.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Estimated {
    pub requests: u64,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

impl Usage {
    /// The cost in pico-dollars.
    pub fn cost(&self) -> u64 {
        pico_usd(self.cost.get())
    }

    /// Calls that are in the ledger.
    pub fn calls(&self) -> u64 {
        self.requests + self.failed_requests
    }

    /// Prompt, completion, total.
    pub fn tokens(&self) -> (u64, u64, u64) {
        (self.prompt_tokens, self.completion_tokens, self.total_tokens)
    }
}

/// Decimal dollars as pico-dollars, exactly.
pub fn pico_usd(text: &str) -> u64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    assert!(fraction.len() <= 12 && !text.contains(['e', 'E', '"']), "{text} is no plain decimal number");
    format!("{whole}{fraction:0<12}").parse().unwrap_or_else(|_| panic!("{text} is no amount"))
}

/// The amount of a parsed JSON document in pico-dollars: of its double, the shortest text, which has all the digits that
/// an amount of these tests has.
pub fn pico_usd_of(value: &Value) -> u64 {
    let text = value.to_string();
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let places = 12 + exponent.parse::<i32>().unwrap() - i32::try_from(fraction.len()).unwrap();
    let zeros = usize::try_from(places).unwrap_or_else(|_| panic!("{text} is finer than a pico-dollar"));
    format!("{whole}{fraction}{}", "0".repeat(zeros)).parse().unwrap_or_else(|_| panic!("{text} is no amount"))
}

impl Setup {
    /// A gateway in dev mode in front of `provider`, which speaks both dialects.
    pub fn new(provider: &Provider) -> Self {
        Self::at(&provider.url())
    }

    pub fn at(url: &str) -> Self {
        let data = Arc::new(TempDir::new().unwrap());
        Self { variables: BTreeMap::new(), arguments: Vec::new(), core: None, data }
            .set("TOLLGATE_LISTEN", "127.0.0.1:0")
            .set("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0")
            .set("TOLLGATE_OPENAI_URL", url)
            .set("TOLLGATE_GEMINI_URL", url)
            .set("OPENAI_API_KEY", OPENAI_KEY)
            .set("GEMINI_API_KEY", GEMINI_KEY)
            .set("TOLLGATE_ADMIN_KEY", ADMIN_KEY)
            // Scripted providers know objects that nobody made; the tests of isolation leave these to their defaults.
            .set("TOLLGATE_UNKNOWN_OBJECTS", "allow")
            .set("TOLLGATE_OBJECT_LISTS", "allow")
            .set("RUST_LOG", "info")
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Leaves a variable to the configuration file.
    pub fn unset(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    pub fn prod(self) -> Self {
        self.set("TOLLGATE_ENV", "prod")
    }

    /// Gives the gateway a configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        let path = self.data.path().join("tollgate.toml");
        std::fs::write(&path, toml).unwrap();
        self.arguments = vec!["--config".to_owned(), path.display().to_string()];
        self
    }

    /// Keeps the gateway on one core (taskset).
    pub fn on_core(mut self, core: u32) -> Self {
        self.core = Some(core);
        self
    }

    /// Uses the ledger that another gateway left.
    pub fn on_ledger_of(mut self, other: &Gateway) -> Self {
        self.data = Arc::clone(&other.data);
        self
    }

    fn command(&self) -> Command {
        let mut command = match self.core {
            None => Command::new(binary()),
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string(), &binary()]);
                command
            }
        };
        command
            .arg("serve")
            .args(&self.arguments)
            .env_clear()
            .envs(&self.variables)
            .env("TOLLGATE_DATA_DIR", self.data_dir())
            .current_dir(self.data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a gateway that has to refuse to serve; gives what it says.
    pub fn refused(self) -> String {
        let mut child = self.command().spawn().expect("the binary starts");
        let deadline = Instant::now() + START_TIMEOUT;
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => thread::sleep(POLL),
            }
        };
        drop(child.kill());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(status.is_some_and(|status| !status.success()), "{status:?}: not refused: {said}");
        said
    }

    /// The data directory of the gateway.
    pub fn data_dir(&self) -> PathBuf {
        let given = self.variables.get("TOLLGATE_DATA_DIR").map(PathBuf::from);
        given.unwrap_or_else(|| self.data.path().join("data"))
    }

    /// Starts the process and kills it `after` that long, wherever it is by then.
    pub fn start_and_kill(&self, after: Duration) {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn start(self) -> Gateway {
        let began = Instant::now();
        let mut child = self.command().spawn().expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (say_ready, ready) = mpsc::sync_channel(1);
        keep(child.stdout.take().unwrap(), Arc::clone(&log), Some(say_ready));
        keep(child.stderr.take().unwrap(), Arc::clone(&log), None);
        match ready.recv_timeout(START_TIMEOUT) {
            Ok((proxy, admin)) => {
                let (started_in, data_dir) = (began.elapsed(), self.data_dir());
                Gateway { proxy, admin, started_in, child, log, data: self.data, data_dir }
            }
            Err(_) => {
                drop(child.kill());
                drop(child.wait());
                panic!("no ready line; the log:\n{}", log.lock().unwrap())
            }
        }
    }
}

type Listeners = (SocketAddr, SocketAddr);

fn keep(from: impl Read + Send + 'static, log: Arc<Mutex<String>>, mut ready: Option<mpsc::SyncSender<Listeners>>) {
    thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            log.lock().unwrap().push_str(&text);
            if let Some(listeners) = ready_line(&text)
                && let Some(ready) = ready.take()
            {
                ready.send(listeners).ok();
            }
            line.clear();
        }
    });
}

/// `tollgate ready proxy=ADDR admin=ADDR`
fn ready_line(line: &str) -> Option<Listeners> {
    let mut words = line.trim().strip_prefix("tollgate ready ")?.split(' ');
    let proxy = words.next()?.strip_prefix("proxy=")?.parse().ok()?;
    let admin = words.next()?.strip_prefix("admin=")?.parse().ok()?;
    Some((proxy, admin))
}

impl Gateway {
    pub fn send(&self, request: &Request) -> Answer {
        request.send(self.proxy)
    }

    /// Asks the admin listener with the admin key.
    pub fn admin(&self, request: Request) -> Answer {
        request.bearer(ADMIN_KEY).send(self.admin)
    }

    /// A JSON answer of a billing route.
    pub fn json(&self, key: &str, target: &str) -> Value {
        let answer = self.send(&Request::get(target).bearer(key));
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        answer.json()
    }

    /// Month's usage of the tenant of `key`.
    pub fn usage(&self, key: &str) -> Usage {
        let answer = self.send(&Request::get("/billing/usage?range=month").bearer(key));
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error} in {}", answer.text()))
    }

    /// Usage as soon as `calls` calls of the tenant are in the ledger, and no more than those.
    pub fn booked(&self, key: &str, calls: u64) -> Usage {
        let deadline = Instant::now() + BOOKED_TIMEOUT;
        loop {
            let usage = self.usage(key);
            assert!(usage.calls() <= calls, "{} calls booked, not {calls}", usage.calls());
            if usage.calls() == calls {
                return usage;
            }
            assert!(Instant::now() < deadline, "{} of {calls} calls booked: {usage:?}", usage.calls());
            thread::sleep(POLL);
        }
    }

    /// Where counters are shared, a machine that is busy may be late to ask them, which is told with 503.
    pub fn limits(&self, key: &str) -> Value {
        let deadline = Instant::now() + BOOKED_TIMEOUT;
        loop {
            let answer = self.send(&Request::get("/billing/limits").bearer(key));
            if answer.status == 200 {
                return answer.json();
            }
            assert!(answer.status == 503 && Instant::now() < deadline, "{}: {}", answer.status, answer.text());
            thread::sleep(POLL);
        }
    }

    /// Used and remaining chats of the month, once nothing is held.
    pub fn chats(&self, key: &str) -> (u64, i64) {
        let deadline = Instant::now() + BOOKED_TIMEOUT;
        loop {
            let limits = self.limits(key);
            if limits["held"] == 0 {
                return (limits["used"].as_u64().unwrap(), limits["remaining"].as_i64().unwrap());
            }
            assert!(Instant::now() < deadline, "a hold is never settled: {limits}");
            thread::sleep(POLL);
        }
    }

    /// The line items of the tenant of `key`, oldest first.
    pub fn events(&self, key: &str) -> Vec<Value> {
        self.json(key, "/billing/events")["events"].as_array().expect("events").clone()
    }

    /// The one line item of a tenant that made one call.
    pub fn event(&self, key: &str) -> Value {
        self.booked(key, 1);
        let events = self.events(key);
        assert_eq!(events.len(), 1, "{events:?}");
        events[0].clone()
    }

    /// A tenant in prod mode, and a key of it.
    pub fn issue(&self, tenant: &str, plan: &str) -> String {
        let body = serde_json::json!({"id": tenant, "name": tenant, "plan": plan}).to_string();
        let made = self.admin(Request::post("/admin/tenants", body));
        assert_eq!(made.status, 201, "{}", made.text());
        self.issue_key(tenant, serde_json::json!({"name": "test"}))["key"].as_str().unwrap().to_owned()
    }

    pub fn issue_key(&self, tenant: &str, body: Value) -> Value {
        let key = self.admin(Request::post(format!("/admin/tenants/{tenant}/keys"), body.to_string()));
        assert_eq!(key.status, 201, "{}", key.text());
        key.json()
    }

    /// The number of its process.
    pub fn process_id(&self) -> String {
        self.child.id().to_string()
    }

    /// Resident memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most that it ever was, or was since [`Gateway::forget_memory_peak`].
    pub fn memory_peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// From here on the most that it was is measured anew (proc(5): `clear_refs`).
    pub fn forget_memory_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("the process is ours");
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The file of its ledger.
    pub fn ledger_file(&self) -> PathBuf {
        self.data_dir.join("billing").join("billing.db")
    }

    /// Ends it as a power switch would: nothing of it runs any more when this returns.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What `/readyz` says on the admin listener.
    pub fn ready(&self) -> Value {
        Request::get("/readyz").send(self.admin).json()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The configuration file that [`Setup::config`] wrote.
    pub fn config_file(&self) -> PathBuf {
        self.data.path().join("tollgate.toml")
    }

    /// Everything below the data directory.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(self.data.path(), &mut files);
        files
    }

    pub fn signal(&self, name: &str) {
        // The shell's own kill: no unsafe code here, and no package needed for /bin/kill.
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(status.expect("a shell").success());
    }

    /// Waits until the process has ended.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running");
            thread::sleep(POLL);
        }
    }

    /// Ends it in order and demands a clean exit.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let status = self.ended();
        assert!(status.success(), "{status}");
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        let log = self.log();
        if thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            println!("--- the gateway's log (its last 100 lines)");
            println!("{}", lines[lines.len().saturating_sub(100)..].join("\n"));
        } else {
            assert!(!log.contains("panicked"), "the gateway panicked:\n{log}");
        }
    }
}
