//! What is tried: by query, header, path, body, credential and by the ids of what is another's.

use super::*;

/// Ways of naming globex in a query.
const QUERIES: [&str; 33] = [
    "tenant_id=globex",
    "tenant_id=acme&tenant_id=globex",
    "tenant_id=globex&tenant_id=acme",
    "tenant_id=acme&tenant%5Fid=globex",
    "tenant%5fid=globex",
    "%74enant_id=globex",
    "tenant_id=%67lobex",
    "tenant_id=%2567lobex",
    "tenant_id=acme%00globex",
    "tenant_id=globex%00",
    "tenant_id=globex%20",
    "tenant_id=%20globex",
    "tenant_id=globex%0d%0a",
    "tenant_id=acme,globex",
    "tenant_id=acme%26tenant_id=globex",
    "tenant_id=acme;tenant_id=globex",
    "tenant_id[]=globex",
    "tenant_id[0]=globex",
    "tenant_id.id=globex",
    "tenant_id=GLOBEX",
    "tenant_id=%EF%BD%87lobex",
    "tenant_id=gl%D0%BEbex",
    "tenant_id=globe%C3%97",
    "tenant_id=*",
    "tenant_id=%25",
    "tenant_id=",
    "tenant_id=null",
    "tenant_id=../globex",
    "tenant_id=%7B%22$ne%22:%22acme%22%7D",
    "tenant_id=acme%27%20OR%20%271%27=%271",
    "TENANT_ID=globex",
    "tenantId=globex",
    "tenant=globex",
];

/// Headers by which some server or proxy would choose another tenant, route, method or address.
const HEADERS: [(&str, &str); 24] = [
    ("X-Tenant-Id", "globex"),
    ("X-Tenant", "globex"),
    ("X-Tollgate-Tenant-Id", "globex"),
    ("X-Tollgate-Tenant", "globex"),
    ("Tenant-Id", "globex"),
    ("X-Org-Id", "globex"),
    ("OpenAI-Organization", "globex"),
    ("OpenAI-Project", "globex"),
    ("X-Goog-User-Project", "globex"),
    ("X-Forwarded-User", "globex"),
    ("X-Remote-User", "globex"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Real-IP", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1;host=admin"),
    ("X-Forwarded-Host", "127.0.0.1:9090"),
    ("X-Forwarded-Prefix", "/admin"),
    ("X-Original-URL", "/billing/usage?tenant_id=globex"),
    ("X-Rewrite-URL", "/admin/tenants/globex"),
    ("X-Original-Host", "globex"),
    ("X-Admin", "true"),
    ("X-Role", "admin"),
    ("X-Impersonate", "globex"),
    ("Cookie", "tenant_id=globex; admin=1"),
    ("X-Tollgate-Request-Id", "globex"),
];

/// Ways of asking for another plan.
const PLANS: [&str; 14] = [
    r#"{"tenant_id":"globex","plan":"starter"}"#,
    r#"{"tenant_id":"acme","plan":"pro"}"#,
    r#"{"tenant_id":"acme","tenant_id":"globex","plan":"starter"}"#,
    r#"{"tenant_id":"globex","tenant_id":"acme","plan":"starter"}"#,
    r#"{"tenant_id":"acme","tenant\u005fid":"globex","plan":"starter"}"#,
    r#"{"tenant_id":["acme","globex"],"plan":"starter"}"#,
    r#"{"tenant_id":"acme\u0000globex","plan":"starter"}"#,
    r#"{"tenant_id":"\u0067lobex","plan":"starter"}"#,
    r#"{"tenant_id":"acme","plan":"pro","is_admin":true}"#,
    r#"{"tenant_id":"acme","plan":"pro","role":"admin","actor":"admin"}"#,
    r#"{"tenant_id":"acme","plan":"pro","__proto__":{"admin":true}}"#,
    r#"{"tenant_id":{"$ne":"acme"},"plan":"starter"}"#,
    r#"[{"tenant_id":"globex","plan":"starter"}]"#,
    r#"{"tenant_id":"acme","plan":{"name":"pro","monthly_limit":-1}}"#,
];

/// All that must be refused, or answered about the asker, and goes to no provider.
pub fn all(site: &Site) -> Vec<Attempt> {
    let mut all = Vec::new();
    all.extend(by_query(site));
    all.extend(by_header(site));
    all.extend(by_path(site));
    all.extend(by_body(site));
    all.extend(on_the_admin_listener(site));
    all.extend(by_credential(site));
    all.extend(by_upload(site));
    all
}

fn attempt(class: &'static str, request: Request) -> Attempt {
    Attempt { class, at: At::Proxy, request, outcome: Outcome::Refused }
}

fn own(class: &'static str, request: Request) -> Attempt {
    Attempt { outcome: Outcome::Own, ..attempt(class, request) }
}

fn on_admin(class: &'static str, request: Request) -> Attempt {
    Attempt { at: At::Admin, ..attempt(class, request) }
}

fn by_query(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "by query";
    let ask = |target: String| Request::get(target).bearer(&site.acme);
    let mut all = Vec::new();
    for route in ["usage", "limits", "cost-report", "events"] {
        all.extend(QUERIES.iter().map(|query| attempt(CLASS, ask(format!("/billing/{route}?{query}")))));
    }
    let Globex { event, key_id, .. } = &site.globex;
    all.extend(
        [
            "/billing/usage?group_by=tenant".to_owned(),
            "/billing/usage?group_by=tenant_id,model".to_owned(),
            format!("/billing/events?cursor={event}"),
            "/billing/usage?user_id=globex".to_owned(),
            format!("/billing/usage?key_id={key_id}"),
        ]
        .map(|target| attempt(CLASS, ask(target))),
    );
    // A key, user or knowledge base is one of the asker's own, whatever its name.
    all.extend(
        [
            format!("/billing/limits?key_id={key_id}"),
            format!("/billing/limits?user_id=user%20{MARK}"),
            format!("/billing/limits?kb_id=kb%20{MARK}"),
            "/billing/usage?group_by=key,user,kb,model".to_owned(),
            "/billing/events?limit=1000".to_owned(),
            "/billing/events?cursor=00000000-0000-7000-8000-000000000000".to_owned(),
        ]
        .map(|target| own(CLASS, ask(target))),
    );
    all
}

fn by_header(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "by header";
    let usage = || Request::get("/billing/usage").bearer(&site.acme);
    let mut all: Vec<Attempt> = HEADERS.iter().map(|(name, value)| own(CLASS, usage().header(*name, *value))).collect();
    for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let key = format!("/admin/tenants/globex/keys/{}", site.globex.key_id);
        let get = Request::get(key).bearer(&site.acme).header(name, "DELETE");
        all.push(on_admin(CLASS, get));
        let change = Request::post("/admin/tenants/globex", r#"{"suspended":true}"#).bearer(&site.acme);
        all.push(on_admin(CLASS, change.header(name, "PATCH")));
        all.push(own(CLASS, usage().header(name, "POST")));
    }
    all
}

fn by_path(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "by path";
    let Globex { event, key_id, .. } = &site.globex;
    let paths = [
        format!("/billing/events/{event}"),
        format!("/billing/events/{event}?tenant_id=globex"),
        format!("/billing/events/{event}?tenant_id=acme"),
        format!("/billing/events/{}", event.to_uppercase()),
        format!("/billing/events/{}", event.replace('-', "")),
        format!("/billing/events/{}", event.replace('-', "%2d")),
        format!("/billing/events/{event}/"),
        format!("/billing/events//{event}"),
        format!("/billing/events/x/../{event}"),
        format!("/billing/events/x/%2e%2e/{event}"),
        "/billing/globex/usage".to_owned(),
        "/billing/usage/globex".to_owned(),
        "/billing/usage;tenant_id=globex".to_owned(),
        "//billing/usage?tenant_id=globex".to_owned(),
        "/billing/%2e%2e/admin/tenants".to_owned(),
        "/billing/../admin/tenants/globex".to_owned(),
        "/billing/..%2fadmin/tenants/globex".to_owned(),
        "/billing\\..\\admin\\tenants".to_owned(),
        "/v1/../admin/tenants/globex".to_owned(),
        "/openai/../admin/tenants/globex".to_owned(),
        "/tenants/globex/usage".to_owned(),
        "/globex/v1/models".to_owned(),
        "/metrics".to_owned(),
        "/admin/tenants".to_owned(),
        "/admin/tenants/globex".to_owned(),
        "/admin/tenants/globex/keys".to_owned(),
        format!("/admin/tenants/acme/keys/{key_id}"),
        "/admin/audit?tenant_id=globex".to_owned(),
        "/ADMIN/tenants".to_owned(),
        "/admin%2ftenants".to_owned(),
        "http://gateway.test/billing/usage?tenant_id=globex".to_owned(),
        "http://127.0.0.1/admin/tenants".to_owned(),
    ];
    paths.into_iter().map(|path| attempt(CLASS, Request::get(path).bearer(&site.acme))).collect()
}

fn by_body(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "by body";
    let ask = |body: &str| Request::post("/billing/plan", body).bearer(&site.acme);
    let mut all: Vec<Attempt> = PLANS.iter().map(|body| attempt(CLASS, ask(body))).collect();
    all.extend(PLANS.iter().map(|body| on_admin(CLASS, ask(body))));
    let [body, ..] = PLANS;
    all.push(attempt(CLASS, ask(body).to("/billing/plan?tenant_id=globex")));
    all.push(attempt(CLASS, ask(body).header("X-Tenant-Id", "acme")));
    all.push(attempt(CLASS, ask(body).header("Idempotency-Key", "one-of-globex")));
    let form = Request { headers: Vec::new(), ..ask("tenant_id=globex&plan=starter") };
    let form = form.bearer(&site.acme).header("Content-Type", "application/x-www-form-urlencoded");
    all.push(attempt(CLASS, form));
    all
}

fn on_the_admin_listener(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "on the admin listener with a tenant's key";
    let key_of_globex = format!("/admin/tenants/globex/keys/{}", site.globex.key_id);
    let mut asked: Vec<Request> = [
        "/admin/tenants",
        "/admin/tenants/globex",
        "/admin/tenants/acme",
        "/admin/tenants/globex/keys",
        &key_of_globex,
        "/admin/audit",
        "/admin/audit?tenant_id=globex",
        "/admin/counters?tenant_id=globex",
        "/admin/tenants/globex/provider-keys",
        "/admin/tenants/globex/provider-keys/openai",
        "/admin/threshold-crossings",
        "/admin/prices",
        "/billing/usage?tenant_id=globex",
        "/billing/limits?tenant_id=globex",
        "/billing/events?tenant_id=globex",
        "/billing/cost-report?tenant_id=globex&format=focus",
    ]
    .map(Request::get)
    .into();
    asked.extend([
        Request::post("/admin/tenants", r#"{"id":"initech","name":"x","plan":"pro"}"#),
        Request::post("/admin/tenants/acme", r#"{"plan":"pro","is_admin":true}"#).method("PATCH"),
        Request::post("/admin/tenants/globex", r#"{"suspended":true}"#).method("PATCH"),
        Request::post("/admin/tenants/globex/keys", r#"{"name":"x"}"#),
        Request::post("/admin/tenants/globex/keys", r#"{"name":"x"}"#).header("Idempotency-Key", "one-of-globex"),
        Request::get(&key_of_globex).method("DELETE"),
        Request::get(&key_of_globex).to(format!("{key_of_globex}/rotate")).method("POST"),
        Request::post("/admin/tenants/globex/provider-keys/openai", r#"{"key":"sk-of-acme"}"#).method("PUT"),
        Request::get("/admin/tenants/globex/provider-keys/openai").method("DELETE"),
        Request::post("/admin/prices", r#"{"models":[]}"#),
        Request::post("/admin/prices/preview", r#"{"provider":"openai","model":"gpt-4o"}"#),
        Request::get("/admin/prices").method("DELETE"),
    ]);
    asked.into_iter().map(|request| on_admin(CLASS, request.bearer(&site.acme))).collect()
}

fn by_credential(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "by credential";
    let (acme, globex) = (&site.acme, &site.globex.key);
    let usage = || Request::get("/billing/usage");
    let in_query = |key: &str| Request::get(format!("/billing/usage?key={key}"));
    let basic = |user: &str, secret: &str| format!("Basic {}", base64(&format!("{user}:{secret}")));
    let mut mistyped = globex.clone();
    mistyped.replace_range(12..13, if &globex[12..13] == "a" { "b" } else { "a" });
    let mut all: Vec<Attempt> = [
        usage().bearer(acme).header("api-key", globex),
        usage().bearer(acme).google(globex),
        usage().bearer(acme).bearer(globex),
        usage().bearer(globex).bearer(acme),
        in_query(globex).bearer(acme),
        in_query(&format!("{acme}&key={globex}")),
        usage().bearer(&format!("{acme}, {globex}")),
        usage().bearer(&format!("{acme} {globex}")),
        usage().bearer(acme).google(ADMIN_KEY),
        usage().header("Authorization", basic("globex", acme)),
        usage().header("Authorization", basic("", globex)),
        usage().header("Authorization", basic("admin", ADMIN_KEY)),
        usage().header("Authorization", format!("Token {globex}")),
        usage().header("Authorization", format!("Digest username=\"globex\", response=\"{acme}\"")),
        usage().header("Authorization", globex.clone()),
        usage().header("Cookie", format!("Authorization=Bearer {globex}")),
        usage().header("X-Api-Key", globex.clone()),
        usage().bearer("globex"),
        usage().bearer(&site.globex.key_id),
        usage().bearer(&mistyped),
        usage().bearer(&globex.to_uppercase()),
        usage().bearer(&globex[..globex.len() - 1]),
        usage().bearer(&format!("{globex}%00")),
        usage().bearer(ADMIN_KEY),
        usage().google(ADMIN_KEY),
        in_query(ADMIN_KEY),
        Request::get("/billing/usage?tenant_id=globex").bearer(ADMIN_KEY),
        Request::post("/billing/plan", PLANS[0]).bearer(ADMIN_KEY),
        Request::get("/admin/tenants").bearer(ADMIN_KEY),
        chat(ADMIN_KEY),
        gemini(ADMIN_KEY),
    ]
    .map(|request| attempt(CLASS, request))
    .into();
    let tenants = || Request::get("/admin/tenants");
    all.extend(
        [
            tenants().header("Authorization", basic("admin", ADMIN_KEY)),
            tenants().header("Authorization", basic("admin", acme)),
            tenants().bearer(acme).header("X-Api-Key", ADMIN_KEY),
            tenants().bearer(acme).header("X-Api-Key", globex.clone()),
            tenants().bearer(&ADMIN_KEY.to_uppercase()),
            tenants().bearer(&ADMIN_KEY[..ADMIN_KEY.len() - 1]),
            tenants(),
        ]
        .map(|request| on_admin(CLASS, request)),
    );
    all
}

fn by_upload(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "by an upload's address";
    let address = &site.globex.upload;
    let piece = |target: &str| {
        Request::post(target, "abc")
            .header("X-Goog-Upload-Command", "upload, finalize")
            .header("X-Goog-Upload-Offset", "0")
    };
    let (path, query) = address.split_once('?').expect("an address");
    let unsigned = format!("{path}?upload_id={MARK}");
    let signature = query.split('&').find(|pair| pair.starts_with("tollgate_upload=")).expect("a signature");
    [
        piece(address).google(&site.acme),
        piece(address).bearer(&site.acme),
        piece(address).google(ADMIN_KEY),
        piece(&address.replace(".globex.", ".acme.")),
        piece(&address.replace(".globex.", ".acme.")).google(&site.acme),
        piece(&unsigned).google(&site.acme),
        piece(&unsigned),
        piece(&unsigned.replace("upload_id", "upload%5Fid")).google(&site.acme),
        piece(&format!("{address}&{signature}")),
        piece(&format!("{address}x")),
        Request::get(format!("/billing/usage?{signature}")),
        Request::get(format!("/v1beta/files?{signature}")),
        Request::post(format!("{}?{signature}", bodies::GEMINI), bodies::GEMINI_REQUEST),
    ]
    .map(|request| attempt(CLASS, request))
    .into()
}

/// Calls that are forwarded, and booked to whoever made them whatever they say of others.
pub fn calls(site: &Site) -> Vec<Attempt> {
    const CLASS: &str = "call";
    let with = |member: &str| CHAT_REQUEST.replacen('{', &format!("{{{member},"), 1);
    let mut all = vec![
        own(CLASS, chat_with(&site.acme, with(r#""tenant_id":"globex""#))),
        own(CLASS, chat_with(&site.acme, with(r#""user":"globex","metadata":{"tenant_id":"globex"}"#))),
        own(CLASS, chat(&site.acme).header("x-tollgate-user-id", format!("user {MARK}"))),
        own(CLASS, chat(&site.acme).header("x-tollgate-kb-id", format!("kb {MARK}"))),
        own(CLASS, chat(&site.acme).to("/v1/chat/completions?tenant_id=globex")),
    ];
    all.extend(HEADERS.iter().map(|(name, value)| own(CLASS, chat(&site.acme).header(*name, *value))));
    all
}

/// RFC 4648.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let number = group.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}
