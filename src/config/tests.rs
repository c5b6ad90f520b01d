//! Tests of loading: order of sources, all errors at once, secrets.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use super::*;
use crate::domain::plan::{Metric, Scope};
use crate::domain::time::Window;

fn environment(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.into(), key: key.into(), value: value.into() }
}

fn from_file(text: &str) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&[], &environment(&[]), Some(&path))
}

fn file_of(config: &Config) -> &Path {
    match &config.ledger {
        Ledger::Sqlite(path) => path,
        Ledger::Postgres(_) => panic!("{:?}", config.ledger),
    }
}

/// Every row: the file's text and what must stand in one line of the errors.
fn check_errors(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        let errors = from_file(text).expect_err(text).0;
        assert!(errors.iter().any(|line| line.contains(expected)), "{text}: {errors:?}");
        assert!(errors.iter().all(|line| !line.contains('\n')), "{errors:?}");
    }
}

#[test]
fn nothing_at_all_is_a_working_config() {
    let config = Config::load(&[], &environment(&[]), None).unwrap();
    assert_eq!(config.mode, Mode::Dev);
    assert_eq!(config.listen.proxy.to_string(), "127.0.0.1:8080");
    assert_eq!(file_of(&config), Path::new("data/billing/billing.db"));
    assert_eq!(config.listen.body_limit, 64 << 20);
    assert!(config.workers >= 1);
    assert_eq!(config.providers.vertex, config.providers.gemini.origin);
    assert!(config.explain().iter().all(|row| row.source == Source::Default));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn flags_beat_environment_beats_file_beats_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(
        &path,
        "data_dir = \"file\"\n[listen]\nproxy = \"127.0.0.1:1\"\nadmin = \"127.0.0.1:2\"\nbody_limit = 4096\n",
    )
    .unwrap();
    let variables = environment(&[("TOLLGATE_LISTEN", "127.0.0.1:3"), ("TOLLGATE_ADMIN_LISTEN", "127.0.0.1:4")]);
    let config = Config::load(&[flag("--listen", "listen.proxy", "127.0.0.1:5")], &variables, Some(&path)).unwrap();
    assert_eq!(config.listen.proxy.port(), 5);
    assert_eq!(config.listen.admin.port(), 4);
    assert_eq!(config.listen.body_limit, 4096);
    assert_eq!(file_of(&config), Path::new("file/billing/billing.db"));
    let source = |key: &str| config.explain().iter().find(|row| row.key == key).unwrap().source.to_string();
    assert_eq!(source("listen.proxy"), "flag --listen");
    assert_eq!(source("listen.admin"), "environment TOLLGATE_ADMIN_LISTEN");
    assert_eq!(source("listen.body_limit"), format!("{}:5", path.display()));
    assert_eq!(source("upstream.idle_timeout"), "default");
}

#[test]
fn the_first_name_of_a_variable_wins_and_an_empty_one_is_not_set() {
    let load = |rows: &[(&str, &str)]| Config::load(&[], &environment(rows), None);
    assert_eq!(load(&[("ENV", "prod")]).unwrap().mode, Mode::Prod);
    assert_eq!(load(&[("TOLLGATE_ENV", "dev"), ("ENV", "prod")]).unwrap().mode, Mode::Dev);
    assert_eq!(load(&[("TOLLGATE_ENV", ""), ("ENV", "prod")]).unwrap().mode, Mode::Prod);
    assert!(load(&[("ENV", "production")]).is_err());
    let config = load(&[("GOOGLE_API_KEY", "g2"), ("GEMINI_API_KEY", "g1")]).unwrap();
    assert_eq!(config.providers.gemini.api_key.unwrap().expose_secret(), "g1");
}

#[test]
fn all_errors_come_at_once_each_on_its_line() {
    let text = "lisen = 1\n[listen]\nproxi = \"x\"\nadmin = \"9090\"\nheader_timeout = 10\n[upstream]\n\
                idle_timeout = \"0s\"\n[plans.basic]\nchats_per_monht = 5\n[plans.team]\nchats_per_day = -2\n[plans.none]\n";
    let errors = from_file(text).unwrap_err().0;
    let expected = [
        ":1: lisen is no configuration key",
        ":3: listen.proxi is no configuration key: did you mean listen.proxy?",
        ":4: listen.admin \"9090\" is no address: write IP:PORT",
        ":5: listen.header_timeout \"10\" has no unit: write 10s",
        ":7: upstream.idle_timeout \"0s\" is 0",
        ":9: plans.basic.chats_per_monht is no key of a plan: did you mean chats_per_month?",
        ":11: plans.team.chats_per_day is no whole number",
        ":12: plans.none has no limit",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for part in expected {
        assert!(errors.iter().any(|line| line.contains(part)), "{part}: {errors:#?}");
    }
}

#[test]
fn a_line_end_in_a_name_of_the_file_makes_no_second_error() {
    // Found by the fuzz target of the configuration.
    let errors = from_file("[plans.x]\n\"a\\nb\\u001B[2J\" = 1\n").unwrap_err();
    assert_eq!(errors.0.len(), 1, "{errors}");
    assert!(
        errors.0.iter().all(|line| line.contains("a\\nb\\u{1b}[2J") && !line.contains(char::is_control)),
        "{errors:?}"
    );
}

#[test]
fn a_name_that_may_be_half_of_a_url_is_not_shown() {
    // Found by the fuzz target of the configuration: the rest of a line that is no TOML was taken for a name.
    let errors = from_file("[providers.openai]\n\"api_key//user:hunter2@localhost\" = 1\n").unwrap_err().to_string();
    assert!(errors.contains("is no configuration key") && !errors.contains("hunter2"), "{errors}");
}

#[test]
fn what_is_wrong_is_refused_with_the_fix() {
    check_errors(&[
        ("listen = 5", "listen is no configuration key"),
        ("[listen]\nbody_limit = 1.5", "write it in quotes"),
        ("[listen]\nbody_limit = [1]", "write it in quotes"),
        ("[listen", "no valid TOML"),
        ("[listen]\nproxy = \"0.0.0.0:8080\"", "TOLLGATE_LISTEN=127.0.0.1:8080"),
        ("[listen]\nadmin = \"0.0.0.0:9090\"", "TOLLGATE_ENV=prod"),
        ("[listen]\nproxy = \"127.0.0.1:9090\"", "give one of them another port"),
        ("[listen]\nbody_limit = \"1GiB\"", "raise the total"),
        ("[admin]\nkey = \"short\"", "at least 32"),
        ("[storage]\nurl = \"postgres://u:secretpw@h\"", "names no database"),
        ("[storage]\nurl = \"mysql://h/d\"", "sqlite://relative"),
        ("[storage]\nurl = \"sqlite://\"", "names no file"),
        ("[counters]\nurl = \"http://h\"", "begins with redis://"),
        ("[counters]\nlease_ttl = \"10ms\"", "from 1s to 60s"),
        ("[providers.openai]\nurl = \"https://api.openai.com/v1\"", "origin alone"),
        ("[providers.anthropic]\nurl = \"x\"", "providers.anthropic"),
        ("[runtime]\nworkers = 5000", "from 0 to 1024"),
        ("[log]\nformat = \"xml\"", "text or json"),
        ("[admin]\nkey = \"\"", "t.toml:2: admin.key has no value: write one, or leave the line out"),
        ("[listen]\nproxy = \"\"", "t.toml:2: listen.proxy has no value"),
        ("admin.tls.client_ca = \"\"", "t.toml:1: admin.tls.client_ca has no value"),
        ("env = \"test\"", "dev or prod"),
        ("[plans.Big]\nchats_per_month = 1", "plan name"),
        ("[plans.a.b]\nchats_per_month = 1", "plans.a.b"),
        ("[plans]\nstarter = 5", "plans.starter"),
    ]);
}

#[test]
fn no_error_and_no_debug_form_shows_a_secret() {
    let secret = "sk-proj-5e1f0c9ab7d248361c7b90e4f2a6secret";
    let variables = environment(&[("OPENAI_API_KEY", secret), ("TOLLGATE_ADMIN_KEY", secret)]);
    let config = Config::load(&[], &variables, None).unwrap();
    let debug = format!("{config:?}");
    assert!(!debug.contains("00000000") && debug.contains("********cret"), "{debug}");

    let variables = environment(&[
        ("OPENAI_API_KEY", "a b"),
        ("DATABASE_URL", "postgres://u:hunter2@h"),
        ("REDIS_URL", "http://:hunter2@h"),
        ("TOLLGATE_ADMIN_KEY", "hunter2"),
    ]);
    let errors = Config::load(&[], &variables, None).unwrap_err();
    assert_eq!(errors.0.len(), 4, "{errors}");
    assert!(!errors.to_string().contains("hunter2") && !errors.to_string().contains("a b"), "{errors}");
}

#[test]
fn a_secret_can_lie_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "sk-from-file\n").unwrap();
    let path = path.display().to_string();
    let load = |rows: &[(&str, &str)]| Config::load(&[], &environment(rows), None);
    let config = load(&[("OPENAI_API_KEY_FILE", &path)]).unwrap();
    assert_eq!(config.providers.openai.api_key.unwrap().expose_secret(), "sk-from-file");
    for (rows, expected) in [
        (vec![("OPENAI_API_KEY_FILE", path.as_str()), ("OPENAI_API_KEY", "x")], "both set"),
        (vec![("OPENAI_API_KEY_FILE", "/nowhere")], "no such file"),
        (vec![("OPENAI_API_KEY_FILE", "/dev/null")], "is empty"),
    ] {
        let errors = load(&rows).unwrap_err();
        assert!(errors.to_string().contains(expected), "{errors}");
    }
}

#[test]
fn a_variable_that_sets_nothing_is_a_warning() {
    let variables = environment(&[
        ("TOLLGATE_LISTN", "x"),
        ("TOLLGATE_SERVICE_HOST", "10.0.0.1"),
        ("TOLLGATE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("TOLLGATE_CONFIG", "x"),
        ("OPENAI_API_KEY", "x"),
    ]);
    let config = Config::load(&[], &variables, None).unwrap();
    assert_eq!(config.warnings, ["environment TOLLGATE_LISTN sets nothing: did you mean TOLLGATE_LISTEN?"]);
}

#[test]
fn a_file_that_is_named_for_what_is_no_secret_is_an_error() {
    let load = |rows: &[(&str, &str)]| Config::load(&[], &environment(rows), None);
    for (name, wanted) in [
        ("TOLLGATE_TLS_CERT_FILE", "write TOLLGATE_TLS_CERT=FILE"),
        ("TOLLGATE_CONFIG_FILE", "write TOLLGATE_CONFIG=FILE"),
        ("TOLLGATE_PRICES_FILE_FILE", "write TOLLGATE_PRICES_FILE=FILE"),
        ("TOLLGATE_LISTEN_FILE", "write TOLLGATE_LISTEN=VALUE"),
    ] {
        let errors = load(&[(name, "/run/secrets/x")]).expect_err(name).0;
        assert_eq!(errors, [format!("environment {name} sets nothing: {wanted}")]);
        assert!(load(&[(name, "")]).is_ok(), "an empty one is not set");
    }
    let (names, key) = (["TOLLGATE_ADMIN_KEY_FILE", "TOLLGATE_SECRETS_KEY_FILE"], "7c9e1f0ab35d4826".repeat(4));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), key).unwrap();
    for name in names {
        let errors =
            load(&[(name, file.path().to_str().unwrap())]).map_or_else(|errors| errors.to_string(), |_| String::new());
        assert!(!errors.contains("sets nothing"), "{errors}");
    }
}

#[test]
fn a_wrong_url_is_told_without_its_password() {
    let keys = ["providers.openai.url", "providers.gemini.url", "providers.vertex.url", "listen.public_url"];
    for key in keys {
        for url in [
            "https://ann:hunter2@llm.example",
            "https://ann:hunter2@llm.example/v1",
            "https://ann:hunt/hunter2@llm.example:99999",
            "https:/ann:hunter2@llm.example",
            "ann:hunter2@https://llm.example",
            "ann:hunter2@llm.example",
            "https://ann:hunter2%40llm.example",
            "https://llm.example?key=hunter2",
            "https://ann:hunter2",
            "https://ann:hunter2/v1",
            "hunter2",
        ] {
            let errors = Config::load(&[flag("--set", key, url)], &environment(&[]), None).expect_err(url);
            assert!(errors.to_string().contains(key) && !errors.to_string().contains("hunter2"), "{errors}");
        }
    }
    for url in ["https://llm.example", "https://llm.example:8443/", "https://[2001:db8::a]"] {
        let config = Config::load(&[flag("--set", keys[0], url)], &environment(&[]), None).unwrap();
        assert!(config.explain().iter().any(|row| row.key == keys[0] && row.value == url), "{url}");
    }
}

#[test]
fn plans_are_changed_and_added_by_the_file() {
    let config = from_file(
        "[plans.starter]\nchats_per_month = 700\nchats_per_day = 50\n[plans.pro]\n[plans.trial]\nchats_per_day = 0\n",
    )
    .unwrap();
    let max = |plan: &str, window| {
        let plan = config.plans.iter().find(|known| known.name.as_str() == plan).unwrap();
        plan.limit(Scope::Tenant, Metric::Chats, window).map(|limit| limit.max)
    };
    assert_eq!(config.plans.len(), 4);
    assert_eq!(max("starter", Window::Month), Some(700));
    assert_eq!(max("starter", Window::Day), Some(50));
    assert_eq!(max("growth", Window::Month), Some(5000));
    assert_eq!(max("pro", Window::Month), None);
    assert_eq!(max("trial", Window::Month), None);
    assert_eq!(max("trial", Window::Day), Some(0));
}

#[test]
fn a_plan_has_the_models_that_its_list_or_text_allows() {
    let config = from_file(
        "[plans.list]\nallowed_models = [\"gpt-4o*\", \"gemini-2.5-*\"]\n[plans.text]\nallowed_models = \"gpt-4o* , o3\"\n",
    )
    .unwrap();
    let models = |plan: &str| {
        let plan = config.plans.iter().find(|known| known.name.as_str() == plan).unwrap();
        plan.models.as_ref().map(ToString::to_string)
    };
    assert_eq!(models("list").as_deref(), Some("gpt-4o*, gemini-2.5-*"));
    assert_eq!(models("text").as_deref(), Some("gpt-4o*, o3"));
    assert_eq!(models("starter"), None);
    check_errors(&[
        ("[plans.a]\nallowed_models = []\n", "t.toml:2: plans.a.allowed_models names no model"),
        ("[plans.a]\nallowed_models = [\"GPT-4o\"]\n", "t.toml:2: plans.a.allowed_models has a pattern that is none"),
        ("[plans.a]\nallowed_models = [1]\n", "t.toml:2: plans.a.allowed_models is no list of texts"),
        ("[plans.a]\nthresholds = [100, 80]\n", "t.toml:2: plans.a.thresholds is no list of at most 10 ascending"),
        ("[plans.a]\nthresholds = [\"80\"]\n", "t.toml:2: plans.a.thresholds is no list of whole numbers"),
        ("[plans.a]\nthreshold = [80]\n", "t.toml:2: plans.a.threshold"),
        ("[plans.a]\nallowed_model = \"*\"\n", "did you mean allowed_models?"),
        ("[plans.a]\nchats_per_day = [\"1\", \"2\"]\n", "plans.a.chats_per_day is no configuration key"),
    ]);
}

#[test]
fn a_plan_has_a_percentage_to_the_hundredth_and_a_price_file() {
    let config = from_file(
        "[plans.dear]\nprice_percent = 120\n[plans.cheap]\nprice_percent = 97.25\nprices = \"own.json\"\n\
         [plans.text]\nprice_percent = \"0.5\"\n",
    )
    .unwrap();
    let percent = |plan: &str| {
        let plan = config.plans.iter().find(|known| known.name.as_str() == plan).unwrap();
        plan.pricing.percent.to_string()
    };
    assert_eq!(["dear", "cheap", "text", "starter"].map(percent), ["120", "97.25", "0.5", "100"]);
    assert_eq!(config.plan_prices, [("cheap".parse().unwrap(), PathBuf::from("own.json"))]);
    // A reload watches it.
    assert!(config.files.contains(&Stamped::now(Path::new("own.json"))));
    check_errors(&[
        ("[plans.a]\nprice_percent = 1.005\n", "t.toml:2: plans.a.price_percent is no percentage"),
        ("[plans.a]\nprice_percent = 1e2\n", "t.toml:2: plans.a.price_percent is no percentage"),
        ("[plans.a]\nprice_percent = -5\n", "t.toml:2: plans.a.price_percent is no percentage"),
        ("[plans.a]\nprice_percents = 5\n", "did you mean price_percent?"),
        ("[plans.a]\nprices = \"\"\n", "t.toml:2: plans.a.prices names no file"),
        ("[plans.a]\nchats_per_day = 1.5\n", "plans.a.chats_per_day is no configuration key"),
    ]);
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let errors = Config::load(&[], &environment(&[]), Some(Path::new("/nowhere/t.toml"))).unwrap_err();
    assert!(errors.to_string().contains("/nowhere/t.toml: no such file"), "{errors}");
    let errors = Config::load(&[flag("--set", "listen.prox", "x")], &environment(&[]), None).unwrap_err();
    assert_eq!(errors.0, ["flag --set: listen.prox is no configuration key: did you mean listen.proxy?"]);
}
