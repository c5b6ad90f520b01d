//! The tool that is known for it, in each of its modes. Only in the long run, and where it is installed.

use std::process::{Command, Stdio};

use super::super::support::machine::full;
use super::*;

/// How long each mode attacks, in seconds.
const LENGTH_S: &str = "20";

#[test]
fn each_mode_of_slowhttptest_leaves_ordinary_calls_alone() {
    if !full() {
        return;
    }
    if Command::new("slowhttptest").arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return figures("slowhttptest: left out, as it is not installed (apt-get install slowhttptest)");
    }
    let provider = Provider::start(|seen| match seen.header("cookie").is_some() || seen.target.contains("large") {
        true => Script::json(200, format!("{{\"data\":\"{}\"}}", "x".repeat(2 << 20))),
        false => honest(seen),
    });
    let gateway = Setup::new(&provider)
        .config("[plans.starter]\nchats_per_month = -1")
        .set("TOLLGATE_HEADER_TIMEOUT", "5s")
        .set("TOLLGATE_BODY_TIMEOUT", "5s")
        .set("TOLLGATE_WRITE_TIMEOUT", "5s")
        .set("TOLLGATE_KEEPALIVE_TIMEOUT", "10s")
        .set("RUST_LOG", "warn")
        .start();
    use_up(&gateway, "warm", 20);
    let at = format!("http://{}", gateway.proxy);
    // The tool sends no header of ours: a key in the address is Gemini's way.
    let chats = format!("{at}/v1beta/models/gemini-2.5-flash:generateContent?key=slow");
    let models = format!("{at}/v1beta/models?key=slow&large");
    let modes: [(&str, &str, Vec<&str>, Option<&str>); 4] = [
        ("-H", "slow heads", vec!["-i", "1", "-u", &chats], Some("head_time")),
        (
            "-B",
            "slow bodies",
            vec!["-i", "1", "-s", "8192", "-x", "10", "-f", "application/json", "-u", &chats],
            Some("body_pace"),
        ),
        ("-R", "ranges", vec!["-t", "HEAD", "-a", "10", "-b", "3000", "-u", &models], Some("head")),
        (
            "-X",
            "slow reading",
            vec!["-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3", "-u", &models],
            Some("answer_pace"),
        ),
    ];
    for (mode, name, arguments, limit) in modes {
        let before = gateway.memory_kib();
        gateway.forget_memory_peak();
        let counted = limit.map(|limit| reached(&gateway, limit));
        let ordinary = Ordinary::start(&gateway, "acme");
        let output = Command::new("slowhttptest")
            .arg(mode)
            .args(["-c", "300", "-r", "150", "-l", LENGTH_S, "-p", "2", "-v", "1"])
            .args(&arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the tool runs");
        let (calls, slowest) = ordinary.stop();
        let grown = gateway.memory_peak_kib().saturating_sub(before);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let cut = limit.zip(counted).map_or(0, |(limit, before)| reached(&gateway, limit) - before);
        figures(&format!(
            "slowhttptest {mode} ({name}), 300 connections: {calls} ordinary calls, slowest {} ms; {cut} cut by {}; {} MiB more at most",
            slowest.as_millis(),
            limit.unwrap_or("no limit"),
            grown / 1024
        ));
        assert!(!said.contains("service available:   NO"), "{mode}: {said}");
        assert!(slowest < ORDINARY_MAX, "{mode}: {slowest:?}");
        assert!(grown < 128 * 1024, "{mode}: {grown} KiB more");
        assert!(cut > 0 || mode == "-R", "{mode}: nobody was cut: {said}");
    }
}
