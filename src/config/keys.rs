//! Every configuration key, written once: its name, its environment variables, its default and what it means.
//!
//! May use: nothing. The file `config/tollgate.toml`, the table in README.md and `tollgate check` all come from here.

/// One configuration key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name, as in `listen.proxy`.
    pub name: &'static str,
    /// The environment variables that set it; the first that is there wins.
    pub variables: &'static [&'static str],
    /// The default as text; empty for none.
    pub default: &'static str,
    /// Whether the value is a secret: it is masked, and `X_FILE` reads it from a file.
    pub secret: bool,
    /// What it means: one or two sentences.
    pub help: &'static str,
}

/// All keys, in the order in which they are documented. Keys of plans are dynamic: see `plans`.
pub static KEYS: &[Key] = &[
    key(
        "env",
        &["TOLLGATE_ENV", "ENV"],
        "dev",
        "`dev`: any tenant name is a credential, loopback only. `prod`: issued keys only.",
    ),
    key(
        "data_dir",
        &["TOLLGATE_DATA_DIR"],
        "data",
        "The directory of the journal, of a ledger in SQLite and of a generated admin key. Each gateway has one of its own, on a local disk.",
    ),
    key(
        "listen.proxy",
        &["TOLLGATE_LISTEN"],
        "127.0.0.1:8080",
        "Where apps connect: address and port. Port 0 takes a free one.",
    ),
    key(
        "listen.admin",
        &["TOLLGATE_ADMIN_LISTEN"],
        "127.0.0.1:9090",
        "Where admin routes, metrics and health answer. Keep it off the internet.",
    ),
    key("listen.header_timeout", &["TOLLGATE_HEADER_TIMEOUT"], "10s", "For a client's whole request head."),
    key(
        "listen.body_timeout",
        &["TOLLGATE_BODY_TIMEOUT"],
        "60s",
        "The longest silence of a client inside its request body.",
    ),
    key(
        "listen.keepalive_timeout",
        &["TOLLGATE_KEEPALIVE_TIMEOUT"],
        "75s",
        "How long an idle client connection is kept.",
    ),
    key(
        "listen.write_timeout",
        &["TOLLGATE_WRITE_TIMEOUT"],
        "60s",
        "The longest time that a client may take none of its answer; then it counts as gone.",
    ),
    key(
        "listen.body_limit",
        &["TOLLGATE_BODY_LIMIT"],
        "64MiB",
        "The largest JSON request body. It is buffered whole once; larger ones get 413.",
    ),
    key(
        "listen.buffer_total",
        &["TOLLGATE_BUFFER_TOTAL"],
        "512MiB",
        "All buffered request bodies together, heads beyond 8 KiB until they are whole, and messages of sessions beyond 64 KiB until they are taken; a body as far as it has come. Bodies for the gateway's own routes have 4 MiB of their own beside it, and each request over HTTP/2 has up to 128 KiB that came ahead of its reader. Beyond it 503 with Retry-After, in a session 1013.",
    ),
    key(
        "listen.upload_limit",
        &["TOLLGATE_UPLOAD_LIMIT"],
        "1GiB",
        "The largest request body that is streamed: files, forms and uploads, resumable ones as a whole.",
    ),
    key(
        "listen.session_message_limit",
        &["TOLLGATE_SESSION_MESSAGE_LIMIT"],
        "16MiB",
        "The largest message of a realtime or live session, in either direction. It is held whole once; a larger one ends its session with 1009.",
    ),
    key(
        "listen.connections_max",
        &["TOLLGATE_CONNECTIONS_MAX"],
        "10000",
        "Connections of all clients together. One more gets 503 before anything of it is read; over TLS it is closed.",
    ),
    key(
        "listen.connections_per_address",
        &["TOLLGATE_CONNECTIONS_PER_ADDRESS"],
        "1000",
        "Connections of one client address, of IPv6 of one /64. 0 is no limit.",
    ),
    key(
        "listen.balancers",
        &["TOLLGATE_BALANCERS"],
        "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
        "Networks in which load balancers stand, with commas between them, or `none`. Limits by address do not hold for an address in them; whose request it is says the last address in `X-Forwarded-For` that is in none of them.",
    ),
    key(
        "listen.requests_per_tenant",
        &["TOLLGATE_REQUESTS_PER_TENANT"],
        "5000",
        "Requests and sessions of one tenant at once on this gateway that go to a provider, billed or not, whatever its plan says. One more gets 429. 0 is no limit.",
    ),
    key(
        "listen.failed_keys_per_minute",
        &["TOLLGATE_FAILED_KEYS_PER_MINUTE"],
        "100",
        "Requests with a wrong key that one client address may make in a minute, on either listener. Then unknown keys from there get 429 without a look-up; those of tenants go on to work. 0 is no limit.",
    ),
    key("listen.head_limit", &["TOLLGATE_HEAD_LIMIT"], "64KiB", "The longest request head; longer ones get 431."),
    key(
        "listen.headers_max",
        &["TOLLGATE_HEADERS_MAX"],
        "128",
        "The most headers of a request; with more it gets 431.",
    ),
    key(
        "listen.request_timeout",
        &["TOLLGATE_REQUEST_TIMEOUT"],
        "1h",
        "The longest time from the head of a request to the end of its body, however fast it comes. An upload of 512 MiB has to move 150 kB a second for it.",
    ),
    key(
        "listen.rate_min",
        &["TOLLGATE_RATE_MIN"],
        "1KiB",
        "How many bytes a second a client has to send of its body, and to take of its answer, while it is waited for. Once it is behind by more than `listen.body_timeout` or `listen.write_timeout` it is cut. 0 is no limit.",
    ),
    key(
        "listen.http2_streams",
        &["TOLLGATE_HTTP2_STREAMS"],
        "100",
        "Requests of one HTTP/2 connection at once, those included that its client reset and that go on to their usage.",
    ),
    key(
        "listen.http2_resets",
        &["TOLLGATE_HTTP2_RESETS"],
        "100",
        "Requests of one HTTP/2 connection that may be malformed or made to be reset by the gateway; one a second is forgotten. Then it is told to go.",
    ),
    key(
        "listen.public_url",
        &["TOLLGATE_PUBLIC_URL"],
        "",
        "The origin by which clients reach the gateway, such as `https://llm.example.com`. Addresses of resumable uploads lead to it; by default to the `Host` that the client named, by `X-Forwarded-Proto`.",
    ),
    key(
        "listen.h2c",
        &["TOLLGATE_H2C"],
        "false",
        "Whether HTTP/2 is spoken in the clear with clients that begin with it. Over TLS it always is.",
    ),
    key(
        "listen.tls.cert",
        &["TOLLGATE_TLS_CERT"],
        "",
        "A PEM file with the certificate of `listen.proxy` and those between it and a root. With it and its key that listener speaks TLS and nothing else.",
    ),
    key("listen.tls.key", &["TOLLGATE_TLS_KEY"], "", "A PEM file with the private key of that certificate."),
    secret(
        "admin.key",
        &["TOLLGATE_ADMIN_KEY"],
        "The admin key, at least 32 characters that nobody guesses. Without one a key is made once and written to {data_dir}/admin.key.",
    ),
    key(
        "admin.tls.cert",
        &["TOLLGATE_ADMIN_TLS_CERT"],
        "",
        "A PEM file with the certificate of `listen.admin` and those between it and a root. With it and its key that listener speaks TLS and nothing else.",
    ),
    key("admin.tls.key", &["TOLLGATE_ADMIN_TLS_KEY"], "", "A PEM file with the private key of that certificate."),
    key(
        "admin.tls.client_ca",
        &["TOLLGATE_ADMIN_TLS_CLIENT_CA"],
        "",
        "A PEM file of roots. With it only clients that show a certificate of theirs reach `listen.admin`, and commands of this program, which show the listener's own.",
    ),
    secret(
        "secrets.key",
        &["TOLLGATE_SECRETS_KEY"],
        "The master key that tenants' own keys for providers are encrypted with: 64 hexadecimal digits, from `openssl rand -hex 32`. Several with commas or line ends between them: the first encrypts, each decrypts what it encrypted (`tollgate secrets rotate`).",
    ),
    Key {
        name: "storage.url",
        variables: &["DATABASE_URL"],
        default: "sqlite://{data_dir}/billing/billing.db",
        secret: true,
        help: "The ledger: `sqlite://relative/path`, `sqlite:///absolute/path`, or for several gateways `postgres://user:password@host:5432/database`, with `?sslmode=verify-full` for TLS.",
    },
    secret(
        "counters.url",
        &["REDIS_URL"],
        "Counters that several gateways share: `redis://host:6379`, `redis://a:6379,b:6379` for hosts of which one is the master, `redis+cluster://a:6379,b:6379`; `rediss://` and `rediss+cluster://` with TLS. Without it they live in the process.",
    ),
    key(
        "counters.call_budget",
        &["TOLLGATE_COUNTERS_CALL_BUDGET"],
        "50ms",
        "How long a call waits for shared counters. Then it is refused, or has what is left of a lease: `on_counters_down` of its plan. In the first half second after an answer in time it asks again, for under a second in all.",
    ),
    key(
        "counters.lease_max",
        &["TOLLGATE_COUNTERS_LEASE_MAX"],
        "64",
        "How many calls of a tenant a gateway admits at most without asking the shared counters. It takes a part of what is left, so that the limit stays exact. 0 asks for each call.",
    ),
    key(
        "counters.lease_ttl",
        &["TOLLGATE_COUNTERS_LEASE_TTL"],
        "3s",
        "After this what a gateway that died had leased is free again. From 1s to 60s.",
    ),
    key(
        "budgets.context_max",
        &["TOLLGATE_BUDGETS_CONTEXT_MAX"],
        "1048576",
        "How many tokens a model reads at most. A call under `hold = \"worst_case\"` holds them where it is asked with more than the bytes of its body: an image, a file, an earlier answer, a search.",
    ),
    key(
        "budgets.output_max",
        &["TOLLGATE_BUDGETS_OUTPUT_MAX"],
        "16384",
        "How many tokens one answer has at most, for a call that declares no maximum to a model whose own is not known.",
    ),
    key(
        "budgets.hold_min_usd",
        &["TOLLGATE_BUDGETS_HOLD_MIN_USD"],
        "0.01",
        "The least that a call holds of a cost limit whose price does not follow from tokens alone: images, speech, a batch.",
    ),
    key(
        "budgets.searches_max",
        &["TOLLGATE_BUDGETS_SEARCHES_MAX"],
        "16",
        "How many searches, of the web or of files, a provider makes at most for a call that has such a tool. A call under `hold = \"worst_case\"` holds the fees of so many, any other that of one.",
    ),
    key(
        "budgets.account_tier",
        &["TOLLGATE_BUDGETS_ACCOUNT_TIER"],
        "standard",
        "The service tier of calls that name none, as your provider account has it set: `standard`, or `priority`, `flex` if the project's default is that. Such calls hold its price.",
    ),
    secret("providers.openai.api_key", &["OPENAI_API_KEY"], "Your OpenAI key. The provider is on when it is there."),
    key(
        "providers.openai.url",
        &["TOLLGATE_OPENAI_URL"],
        "https://api.openai.com",
        "Where OpenAI is: an origin without a path.",
    ),
    secret(
        "providers.gemini.api_key",
        &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        "Your Gemini key. The provider is on when it is there.",
    ),
    key(
        "providers.gemini.url",
        &["TOLLGATE_GEMINI_URL"],
        "https://generativelanguage.googleapis.com",
        "Where Gemini is: an origin without a path.",
    ),
    key(
        "providers.vertex.url",
        &["TOLLGATE_VERTEX_URL"],
        "",
        "Where `/v1beta1/**` goes: an origin without a path. The Gemini origin by default.",
    ),
    key("upstream.connect_timeout", &["TOLLGATE_CONNECT_TIMEOUT"], "10s", "To connect to a provider, TLS included."),
    key(
        "upstream.first_byte_timeout",
        &["TOLLGATE_UPSTREAM_TIMEOUT"],
        "600s",
        "To the head of a provider's answer, from the last byte of its request that moved. Slow models think for minutes before it.",
    ),
    key(
        "upstream.idle_timeout",
        &["TOLLGATE_IDLE_TIMEOUT"],
        "300s",
        "The longest silence of a provider inside its answer.",
    ),
    key(
        "upstream.stream_timeout",
        &["TOLLGATE_STREAM_TIMEOUT"],
        "2h",
        "The longest time that an answer or a session lasts, whatever still comes. It is cut then, and booked as far as it came.",
    ),
    key(
        "upstream.drain_timeout",
        &["TOLLGATE_DRAIN_TIMEOUT"],
        "30s",
        "How long a provider is read on, to its usage, after the client left a stream. 0 closes at once and estimates.",
    ),
    key(
        "upstream.drain_bytes",
        &["TOLLGATE_DRAIN_BYTES"],
        "16MiB",
        "How much is read on at most after the client left.",
    ),
    key(
        "upstream.http2",
        &["TOLLGATE_UPSTREAM_HTTP2"],
        "false",
        "Whether HTTP/2 is spoken with providers that offer it over TLS. Calls of many tenants then share a connection, and meet its end together.",
    ),
    key(
        "upstream.ca",
        &["TOLLGATE_UPSTREAM_CA"],
        "",
        "A PEM file of roots that providers' certificates may come from, beside those of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).",
    ),
    key(
        "upstream.ca_only",
        &["TOLLGATE_UPSTREAM_CA_ONLY"],
        "false",
        "Whether the roots in `upstream.ca` are the only ones that count.",
    ),
    key(
        "upstream.idle_connections_max",
        &["TOLLGATE_IDLE_CONNECTIONS_MAX"],
        "256",
        "How many idle connections to each provider a worker thread keeps.",
    ),
    key(
        "upstream.poll_interval",
        &["TOLLGATE_POLL_INTERVAL"],
        "10s",
        "How soon a provider is asked for what it finishes later (responses in the background, batches) and nobody fetches. The pause doubles with each question, up to five minutes.",
    ),
    key(
        "isolation.unknown_objects",
        &["TOLLGATE_UNKNOWN_OBJECTS"],
        "auto",
        "What becomes of a request for a response, file, batch or the like that no tenant is known to have made through the gateway. `refuse`: 404, as for another tenant's. `allow`: forwarded. `auto`: refused in prod, forwarded in dev.",
    ),
    key(
        "isolation.lists",
        &["TOLLGATE_OBJECT_LISTS"],
        "auto",
        "Lists of files, batches and the like hold those of all tenants that share the provider's account. `refuse`: 403. `allow`: forwarded. `auto`: refused in prod, forwarded in dev.",
    ),
    key(
        "shutdown.drain_limit",
        &["TOLLGATE_SHUTDOWN_DRAIN_LIMIT"],
        "30s",
        "After SIGTERM: how long answers in flight may take to finish.",
    ),
    key("runtime.workers", &["TOLLGATE_WORKERS"], "0", "Threads that move requests. 0 is one for each core."),
    key(
        "journal.bytes_max",
        &["TOLLGATE_JOURNAL_BYTES_MAX"],
        "1GiB",
        "What calls in flight and events that wait for the ledger may take on disk: about 1.5 million calls. Beyond it 503 with Retry-After.",
    ),
    key(
        "journal.durability",
        &["TOLLGATE_JOURNAL_DURABILITY"],
        "group",
        "`group`: synced in the background; a power cut may take the last interval. `strict`: no answer ends before it is synced.",
    ),
    key(
        "journal.fsync_interval",
        &["TOLLGATE_JOURNAL_FSYNC_INTERVAL"],
        "50ms",
        "How often the journal is synced to disk.",
    ),
    key(
        "prices.file",
        &["TOLLGATE_PRICES_FILE"],
        "",
        "Your own price file. It lies over the built-in list: the models in it have its prices alone. A book that was put in force with `tollgate prices update` goes before both.",
    ),
    key(
        "models.output_max",
        &["TOLLGATE_MODELS_OUTPUT_MAX"],
        "",
        "The most tokens that one answer of a model may have: `PATTERN=TOKENS`, with commas between them, before those that the providers publish. What a call may cost at most follows from it where the call declares no maximum.",
    ),
    key(
        "reload.watch",
        &["TOLLGATE_RELOAD_WATCH"],
        "true",
        "Whether the configuration file, the price file and secrets in files are read again when they change, without a signal.",
    ),
    key("log.format", &["TOLLGATE_LOG_FORMAT"], "text", "`text` for people, `json` for machines. Logs go to stderr."),
    key("log.filter", &["RUST_LOG"], "info", "Which log lines are written, such as `warn,tollgate=debug`."),
];

const fn key(name: &'static str, variables: &'static [&'static str], default: &'static str, help: &'static str) -> Key {
    Key { name, variables, default, secret: false, help }
}

const fn secret(name: &'static str, variables: &'static [&'static str], help: &'static str) -> Key {
    Key { name, variables, default: "", secret: true, help }
}

/// The key of that name.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The known name that was probably meant by a wrong one.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may differ: `litsen.proxy` is found, `foo` is not taken for `env`.
    let distance_max = wrong.chars().count() / 3;
    known
        .into_iter()
        .map(|name| (distance(wrong, name), name))
        .filter(|(distance, _)| *distance <= distance_max)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Levenshtein's distance: how many letters must be added, dropped or changed.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, letter) in left.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        let mut last = at + 1;
        next.push(last);
        for (pair, other) in row.windows(2).zip(&right) {
            let &[diagonal, above] = pair else { continue };
            last = (diagonal + usize::from(letter != *other)).min(above + 1).min(last + 1);
            next.push(last);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_and_no_variable_stands_twice() {
        let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        let mut variables: Vec<_> = KEYS.iter().flat_map(|key| key.variables).collect();
        let (keys, vars) = (names.len(), variables.len());
        names.sort_unstable();
        names.dedup();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!((names.len(), variables.len()), (keys, vars));
        assert!(KEYS.iter().all(|key| key.help.ends_with('.') && !key.variables.is_empty()));
    }

    #[test]
    fn a_slip_finds_its_key_and_nonsense_finds_none() {
        let known = || KEYS.iter().map(|key| key.name);
        assert_eq!(nearest("listen.proxi", known()), Some("listen.proxy"));
        assert_eq!(nearest("litsen.admin", known()), Some("listen.admin"));
        assert_eq!(nearest("upstream.first_byte_timeot", known()), Some("upstream.first_byte_timeout"));
        assert_eq!(nearest("foo", known()), None);
        assert_eq!(nearest("", known()), None);
    }

    #[test]
    fn distance_counts_single_letters() {
        for (left, right, expected) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)] {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }
}
