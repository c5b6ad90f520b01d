//! Temporary.
pub fn main() -> std::process::ExitCode {
    let config = crate::config::Config::load(&[], &crate::config::ProcessEnvironment, None).unwrap();
    crate::telemetry::logging::start(&config.log.filter, false).unwrap();
    match crate::boot::serve(&config, |r| println!("tollgate ready proxy={} admin={}", r.proxy, r.admin)) { Ok(()) => std::process::ExitCode::SUCCESS, Err(e) => { eprintln!("{e}"); std::process::ExitCode::FAILURE } }
}
