//! Start, reload of a ledger, shutdown, and what must never be written anywhere.

use std::fs::{File, read_to_string};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::support::bodies::*;
use super::support::gateway::{ADMIN_KEY, GEMINI_KEY, OPENAI_KEY};
use super::support::*;

const PROMPT: &str = "promptmarker5e1f0c9a";
const COMPLETION: &str = "completionmarker5e1f0c9a";

#[test]
fn a_shutdown_lets_answers_finish_and_the_ledger_stands_after_a_restart() {
    let gate = Gate::default();
    let waits = gate.clone();
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).start();
    use_up(&gateway, "acme", 5);
    // One stream is under way when the signal comes.
    let mut script = Script::open(&[("Content-Type", "text/event-stream")]);
    for (at, event) in chat_events(10).iter().enumerate() {
        if at == 3 {
            script = script.then(Step::Wait(waits.clone(), 1));
        }
        script = script.then(Step::Send(wire::chunk(event)));
    }
    let script = script.then(Step::Send(wire::LAST_CHUNK.to_vec()));
    provider.now_does(move |_| script.clone());
    let mut wire = Wire::open(gateway.proxy);
    wire.send(&chat_with("acme", CHAT_USAGE_REQUEST).bytes());
    assert_eq!(wire.head_of_answer("POST").unwrap().status(), 200);
    let mut body = match wire.piece() {
        Piece::Bytes(bytes) => bytes,
        end => panic!("{end:?}"),
    };
    gateway.signal("TERM");
    // The signal is taken when nobody is served any more: refused at the door, or told so.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let Ok(stream) = std::net::TcpStream::connect(gateway.proxy) else { break };
        let mut late = Wire::over(stream);
        drop(late.try_send(&Request::get("/readyz").bytes()));
        match late.answer() {
            Some(answer) if answer.status == 200 => {}
            _ => break,
        }
        assert!(Instant::now() < deadline, "the signal is not taken");
        thread::sleep(Duration::from_millis(10));
    }
    gate.pass();
    assert!(wire.rest(&mut body), "the stream under way ends whole");
    assert_eq!(body, whole(&chat_events(10)));
    let status = gateway.ended();
    assert!(status.success(), "{status}");

    let again = Setup::new(&provider).on_ledger_of(&gateway).start();
    let usage = again.usage("acme");
    assert_eq!((usage.requests, usage.chats, usage.tokens()), (6, 6, (66, 42, 108)));
    assert_eq!(usage.cost(), 6 * CHAT_PICO_USD);
    assert_eq!(again.chats("acme"), (6, 494), "what was used is used after a restart");
    assert_eq!(again.events("acme").len(), 6);
}

#[test]
fn a_limit_that_is_used_up_stays_so_after_a_restart() {
    let provider = Provider::start(honest);
    let plans = "[plans.starter]\nchats_per_month = 4\n";
    let mut gateway = Setup::new(&provider).config(plans).start();
    use_up(&gateway, "acme", 4);
    assert_eq!(gateway.send(&chat("acme")).status, 402);
    gateway.stop();
    let again = Setup::new(&provider).on_ledger_of(&gateway).config(plans).start();
    assert_eq!(again.send(&chat("acme")).status, 402);
    assert_eq!(provider.count(), 4);
    assert_eq!(again.chats("acme"), (4, 0));
}

#[test]
fn keys_and_plans_stand_after_a_restart() {
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).prod().start();
    let key = gateway.issue("acme", "growth");
    let gone = gateway.issue_key("acme", serde_json::json!({"name": "gone"}));
    let target = format!("/admin/tenants/acme/keys/{}", gone["id"].as_str().unwrap());
    gateway.admin(Request::get(target).method("DELETE"));
    gateway.stop();
    let again = Setup::new(&provider).prod().on_ledger_of(&gateway).start();
    assert_eq!(again.send(&chat(&key)).status, 200);
    assert_eq!(again.send(&chat(gone["key"].as_str().unwrap())).status, 401);
    assert_eq!(again.chats(&key), (1, 4999));
}

#[test]
fn no_prompt_completion_or_key_is_written_anywhere() {
    let provider = Provider::start(|seen| {
        let answer = |text: &str| text.replace("One, two, three.", COMPLETION);
        let stream = |events: Vec<Vec<u8>>| {
            let text = String::from_utf8(whole(&events)).unwrap().replace("word1", COMPLETION);
            Script::pieces("text/event-stream", &[text.into_bytes()])
        };
        match seen.target.as_str() {
            GEMINI_SSE => stream(gemini_events(3)),
            GEMINI => Script::json(200, answer(GEMINI_ANSWER)),
            _ if seen.method == "GET" => Script::json(404, "{}"),
            _ if seen.json()["stream"] == true => stream(chat_events(3)),
            // Usage that cannot be believed makes the gateway look at the text for an estimate.
            _ if seen.json()["user"] == "lie" => Script::json(200, answer(CHAT_ANSWER).replace("11", "-1")),
            _ if seen.json()["user"] == "fail" => Script::json(400, format!(r#"{{"error":{{"message":"{PROMPT}"}}}}"#)),
            _ if seen.json()["user"] == "cut" => {
                Script::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{COMPLETION}")).then(Step::Close)
            }
            _ => Script::json(200, answer(CHAT_ANSWER)),
        }
    });
    let mut gateway = Setup::new(&provider).prod().set("RUST_LOG", "trace").start();
    let key = gateway.issue("acme", "starter");
    let with_prompt = |text: &str| text.replace("Count to three.", PROMPT);
    let user = |name: &str| with_prompt(CHAT_REQUEST).replacen('{', &format!(r#"{{"user":"{name}","#), 1);
    for request in [
        chat_with(&key, with_prompt(CHAT_REQUEST)),
        chat_with(&key, with_prompt(CHAT_STREAM_REQUEST)),
        chat_with(&key, with_prompt(CHAT_USAGE_REQUEST)),
        Request::post(GEMINI, with_prompt(GEMINI_REQUEST)).google(&key),
        Request::post(format!("{GEMINI_SSE}&key={key}"), with_prompt(GEMINI_REQUEST)),
        chat_with(&key, user("lie")),
        chat_with(&key, user("fail")),
        chat_with(&key, user("cut")),
    ] {
        let mut wire = Wire::open(gateway.proxy);
        wire.send(&request.bytes());
        let answer = wire.answer();
        assert!(answer.is_none_or(|answer| answer.status == 200 || answer.status == 400));
    }
    gateway.booked(&key, 8);
    // What is refused is not written down either.
    gateway.send(&chat_with(&key, format!("{PROMPT}{{")));
    gateway.send(&chat(&format!("{key}x")));
    gateway.send(&chat("sk-someone-s-real-key-5e1f0c9a"));
    gateway.send(&Request::get(format!("/v1/{PROMPT}?key={key}")));
    let metrics = Request::get("/metrics").send(gateway.admin).text();
    let answers =
        format!("{}{}", gateway.json(&key, "/billing/events"), gateway.json(&key, "/billing/usage?range=month"));
    gateway.stop();
    let log = gateway.log();
    assert!(log.lines().count() >= 8, "a trace says something:\n{log}");
    let mut places = vec![("log".to_owned(), log.into_bytes())];
    places.push(("metrics".to_owned(), metrics.into_bytes()));
    places.push(("answers".to_owned(), answers.into_bytes()));
    for file in gateway.files() {
        places.push((file.display().to_string(), std::fs::read(&file).unwrap()));
    }
    assert!(places.len() > 3, "the ledger is a file");
    for (place, bytes) in places {
        demand_no_secret(&place, &bytes, &key);
    }
}

fn demand_no_secret(place: &str, bytes: &[u8], key: &str) {
    let secrets = [
        ("prompt", PROMPT),
        ("completion", COMPLETION),
        ("tenant key", key),
        ("OpenAI key", OPENAI_KEY),
        ("Gemini key", GEMINI_KEY),
        ("admin key", ADMIN_KEY),
        ("unknown key", "sk-someone-s-real-key-5e1f0c9a"),
    ];
    for (name, secret) in secrets {
        let at = bytes.windows(secret.len()).position(|window| window == secret.as_bytes());
        let near = at.map(|at| String::from_utf8_lossy(&bytes[at.saturating_sub(200)..at]).into_owned());
        assert_eq!(near, None, "{name} stands in {place}");
    }
}

/// A core has the keys of providers and what was said: none is left behind.
#[test]
fn a_gateway_that_dies_leaves_no_core() {
    let provider = Provider::start(honest);
    let gateway = Setup::new(&provider).start();
    let limits = read_to_string(format!("/proc/{}/limits", gateway.process_id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let bounds: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(bounds, ["0", "0"], "{core}");
}

#[test]
fn each_call_is_one_log_line() {
    let provider = Provider::start(honest);
    let mut gateway = Setup::new(&provider).set("TOLLGATE_LOG_FORMAT", "json").start();
    let answer = gateway.send(&chat("acme"));
    let id = answer.header("x-tollgate-request-id").unwrap();
    gateway.booked("acme", 1);
    gateway.stop();
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(&id)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}\n{log}");
    let line: serde_json::Value = serde_json::from_str(lines[0]).expect("a JSON line");
    let text = line.to_string();
    for word in ["acme", "gpt-4o-mini", "200"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

/// Runs the binary to its end with this environment only: exit code, standard output, standard error.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let directory = tempfile::TempDir::new().unwrap();
    let (out, err) = (directory.path().join("out"), directory.path().join("err"));
    let mut child = Command::new(binary())
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    (code, read_to_string(out).unwrap(), read_to_string(err).unwrap())
}

#[test]
fn a_wrong_set_up_is_one_line_that_names_the_fix() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let rows: [(&[&str], &[(&str, &str)], &str); 6] = [
        (&["serve"], &[("TOLLGATE_LISTEN", &taken), ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0")], "in use"),
        (&["serve"], &[("TOLLGATE_LISTEN", "nonsense")], "TOLLGATE_LISTEN"),
        (&["serve"], &[("TOLLGATE_ADMIN_KEY", "short")], "32"),
        (&["serve"], &[("TOLLGATE_OPENAI_URL", "ftp://x/y"), ("OPENAI_API_KEY", "sk-x")], "TOLLGATE_OPENAI_URL"),
        (
            &["serve"],
            &[
                ("TOLLGATE_DATA_DIR", "/proc/nonsense"),
                ("TOLLGATE_LISTEN", "127.0.0.1:0"),
                ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:0"),
            ],
            "/proc/nonsense",
        ),
        (&["serve", "--config", "missing.toml"], &[], "missing.toml"),
    ];
    for (arguments, variables, word) in rows {
        let (code, _, stderr) = run(arguments, variables);
        assert!(code.is_some_and(|code| code != 0), "{arguments:?} {variables:?}: {code:?} {stderr}");
        let lines: Vec<&str> = stderr.lines().filter(|line| !line.trim().is_empty()).collect();
        assert_eq!(lines.len(), 1, "{arguments:?} {variables:?}: {stderr}");
        assert!(lines[0].contains(word), "{word} in {stderr}");
    }
}

#[test]
fn check_names_every_error_and_masks_every_secret() {
    let (code, stdout, stderr) = run(&["check"], &[("OPENAI_API_KEY", OPENAI_KEY), ("TOLLGATE_ADMIN_KEY", ADMIN_KEY)]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stdout.contains(OPENAI_KEY) && !stdout.contains(ADMIN_KEY), "{stdout}");
    assert!(stdout.contains("OPENAI_API_KEY") && stdout.contains("127.0.0.1:8080"), "{stdout}");
    let wrong = [("TOLLGATE_LISTEN", "nonsense"), ("TOLLGATE_UPSTREAM_TIMEOUT", "soon")];
    let (code, stdout, stderr) = run(&["check"], &wrong);
    assert_eq!(code, Some(1));
    let said = format!("{stdout}{stderr}");
    assert!(said.contains("TOLLGATE_LISTEN") && said.contains("TOLLGATE_UPSTREAM_TIMEOUT"), "{said}");
}

#[test]
fn a_log_filter_that_is_none_is_refused_by_check_as_by_the_start() {
    for command in ["check", "serve"] {
        let (code, stdout, stderr) = run(&[command, "--set", "log.filter=info,=="], &[]);
        assert_eq!(code, Some(1), "{command}: {stdout}{stderr}");
        assert!(stderr.contains("log.filter \"info,==\" is no filter"), "{command}: {stdout}{stderr}");
    }
}

#[test]
fn a_tenant_on_a_plan_that_is_gone_is_named_at_the_start() {
    let provider = Provider::start(honest);
    let mut first = Setup::new(&provider).config("[plans.gold]\nchats_per_month = 7\n").start();
    let key = first.issue("acme", "gold");
    assert_eq!(first.send(&chat(&key)).status, 200);
    first.stop();
    let refused = Setup::new(&provider).on_ledger_of(&first).refused();
    for word in ["acme", "gold", "[plans.gold]", "set-plan"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    assert_eq!(refused.trim_end().lines().count(), 1, "{refused}");
}

#[test]
fn a_second_gateway_that_reaches_the_ledger_by_a_link_is_refused() {
    let provider = Provider::start(honest);
    let first = Setup::new(&provider).start();
    let links = tempfile::tempdir().unwrap();
    let (soft, hard) = (links.path().join("soft.db"), first.data_dir().join("hard.db"));
    std::os::unix::fs::symlink(first.ledger_file(), &soft).unwrap();
    let refused = |path: &std::path::Path| {
        let said = Setup::new(&provider).set("DATABASE_URL", &format!("sqlite://{}", path.display())).refused();
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        said
    };
    let said = refused(&soft);
    assert!(said.contains("another tollgate") && said.contains("DATABASE_URL"), "{said}");
    std::fs::hard_link(first.ledger_file(), &hard).unwrap();
    let said = refused(&hard);
    assert!(said.contains("2 names"), "{said}");
}
