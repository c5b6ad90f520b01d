//! Why the gateway itself answers instead of the provider. Each refusal knows its status, its stable code (also the
//! metric label) and the sentence a client may read: never a key, an address or another program's words.

use std::fmt;

use super::bound::Bound;
use super::hold::money_of;
use super::ids::{PlanName, TenantId};
use super::models::Models;
use super::plan::{Metric, Standing, Subject};
use super::rate::RateMetric;
use super::time::{Micros, Period};

/// A quota that has no room for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaFacts {
    /// Whose quota.
    pub tenant: TenantId,
    /// Of whom in it.
    pub subject: Subject,
    /// Of which plan.
    pub plan: PlanName,
    /// What it counts.
    pub metric: Metric,
    /// In which window.
    pub period: Period,
    /// When it ends.
    pub resets_at: Micros,
    /// How much fits.
    pub limit: u64,
    /// How much is gone.
    pub standing: Standing,
    /// How much the call could use.
    pub asked: u64,
}

/// A rate that has no room for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateFacts {
    /// Whose rate.
    pub tenant: TenantId,
    /// Of whom in it.
    pub subject: Subject,
    /// Of which plan.
    pub plan: PlanName,
    /// What it counts.
    pub metric: RateMetric,
    /// How much.
    pub limit: u64,
    /// After how many seconds there may be room, at least 1.
    pub retry_after_s: u32,
}

/// A model that may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// The model that is asked for, shortened; empty where none is named.
    pub model: String,
    /// Whose list it is not in, such as `plan starter`.
    pub by: String,
    /// The list.
    pub allowed: Models,
}

impl ModelFacts {
    /// Names are shown up to this: they come from outside.
    const MODEL_CHARS_MAX: usize = 128;

    /// That `model` is not in the list of `by`.
    pub fn new(model: &str, by: String, allowed: Models) -> Self {
        Self { model: model.chars().take(Self::MODEL_CHARS_MAX).collect(), by, allowed }
    }
}

/// The gateway's own refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No credential in any of the places one may be.
    NoKey,
    /// A credential that is no key of this gateway, is expired or revoked.
    BadKey,
    /// Two different credentials in one request.
    TwoKeys,
    /// The admin key on the proxy listener.
    AdminKeyOnProxy,
    /// In dev, where names are keys: a browser sends it for a page that is not of this machine.
    ForeignPage,
    /// The same of a host that a name of the web may be, which leads here now and led elsewhere when the page was loaded.
    ForeignHost,
    /// An upload's address that this gateway did not give, that is over, or that is another tenant's.
    BadUpload,
    /// The tenant is suspended.
    Suspended(TenantId),
    /// The tenant is on a plan that the configuration does not have: nobody can say what it may use.
    UnknownPlan {
        /// The tenant.
        tenant: TenantId,
        /// The plan.
        plan: PlanName,
    },
    /// The plan or the key may not use this model.
    ModelNotAllowed(Box<ModelFacts>),
    /// A limit of the plan is used up, or has less left than the call could use.
    QuotaUsedUp(Box<QuotaFacts>),
    /// A limit has room for the call but for what others hold that are in flight.
    BudgetHeld(Box<QuotaFacts>),
    /// Requests or tokens come too fast, or too many run at once.
    RateLimited(Box<RateFacts>),
    /// The tenant has as many requests at once as one may have on this gateway, whatever its plan.
    Crowded {
        /// The tenant.
        tenant: TenantId,
        /// How many.
        limit: u64,
    },
    /// One wrong credential too many from this address.
    Guessing {
        /// After how many seconds one more is judged, at least 1.
        retry_after_s: u32,
    },
    /// The request came too slowly: its head, its body, or all of it.
    TooSlow(Bound),
    /// The plan limits cost, and nobody knows what this model costs.
    NoPrice {
        /// The model that is asked for, shortened; empty where none is named.
        model: Box<str>,
        /// The plan.
        plan: PlanName,
    },
    /// An object of the provider that is another tenant's, or of which nobody knows whose it is.
    UnknownObject {
        /// As the request names it, shortened.
        name: Box<str>,
    },
    /// A list of the provider's that holds the objects of all tenants.
    ListOfAll,
    /// Whose an object is cannot be looked up.
    ObjectsDown,
    /// It is charged after its answer, when nothing can be held for it, and the plan holds the most that calls can use.
    Deferred {
        /// The plan.
        plan: PlanName,
    },
    /// It would delete what still runs, before it is known what it charges.
    StillRuns {
        /// What runs: a response, a batch, a run of a thread.
        name: Box<str>,
    },
    /// It would delete what is not billed, and what that charges cannot be asked for.
    NotBilled {
        /// What is to be deleted.
        name: Box<str>,
    },
    /// The plan limits cost, and what a provider keeps by the hour is charged as long as the client likes.
    Storage {
        /// The plan.
        plan: PlanName,
    },
    /// No provider serves or bills this path.
    UnknownRoute,
    /// It would make a key or a call by which a client speaks to the provider past the gateway, unmetered.
    OpensElsewhere,
    /// The path is one of sessions, and the request does not ask for a websocket.
    NoUpgrade,
    /// A session had more turns at once than any client has.
    TooManyTurns,
    /// The path exists with other methods.
    MethodNotAllowed {
        /// The methods that it has, as in an `Allow` header.
        allow: String,
    },
    /// The provider of this route has no key in the configuration.
    ProviderOff {
        /// The provider's short name.
        provider: String,
        /// The environment variable that turns it on.
        variable: &'static str,
    },
    /// The tenant has a key of its own for this provider, which cannot be opened here.
    ProviderKeyLocked {
        /// The provider's short name.
        provider: String,
    },
    /// A session was opened with another key for its provider than the tenant's calls go out with by now.
    ProviderKeyChanged {
        /// The provider's short name.
        provider: String,
    },
    /// The body is longer than `listen.body_limit`, or `listen.upload_limit` where it is streamed.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The body broke off, came too slowly or had broken framing.
    BodyIncomplete,
    /// The body is not the JSON object that the route takes.
    BadJson {
        /// What is wrong, in our words.
        reason: &'static str,
    },
    /// The body is a form that two readers could understand in two ways.
    BadForm {
        /// What is wrong, in our words.
        reason: &'static str,
    },
    /// A parameter of the query would change the answer so that nobody can read what it charged.
    HidesUsage {
        /// The parameter's name.
        parameter: &'static str,
    },
    /// The body has a content coding: the gateway does not inflate requests.
    EncodedBody,
    /// The body is said to be a form where it is read as JSON.
    FormBody,
    /// The body is said to be of another type or charset than JSON in UTF-8, as which it is read.
    NotJson,
    /// A `x-tollgate-*` header outside its limits.
    BadAttribution {
        /// The header's name.
        header: &'static str,
    },
    /// Malformed or ambiguous HTTP.
    BadRequest {
        /// What is wrong, in our words.
        reason: &'static str,
    },
    /// The client waits for `100 Continue` where it cannot be told.
    ExpectationFailed,
    /// The head is over its limit.
    HeadTooLarge,
    /// The request target is over its limit.
    TargetTooLong,
    /// Another version of HTTP than 1.0 and 1.1.
    VersionNotSupported,
    /// A transfer coding other than chunked.
    CodingNotSupported,
    /// The provider could not be reached or broke off before its head.
    Unreachable,
    /// The provider did not answer in time.
    UpstreamTimeout,
    /// All body buffers together are in use.
    BuffersFull,
    /// The ledger's queue is full.
    JournalFull,
    /// Counters cannot be asked.
    CountersDown,
    /// A key that is not known here cannot be looked up.
    KeysDown,
    /// Shutting down.
    Draining,
}

impl Refusal {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoKey | Self::BadKey | Self::TwoKeys | Self::AdminKeyOnProxy | Self::BadUpload => 401,
            Self::QuotaUsedUp(_) => 402,
            Self::Suspended(_)
            | Self::ModelNotAllowed(_)
            | Self::NoPrice { .. }
            | Self::Deferred { .. }
            | Self::Storage { .. }
            | Self::ListOfAll
            | Self::ForeignPage
            | Self::ForeignHost => 403,
            Self::UnknownRoute | Self::OpensElsewhere | Self::UnknownObject { .. } => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::StillRuns { .. } => 409,
            Self::BodyTooLarge { .. } => 413,
            Self::NoUpgrade => 426,
            Self::TooManyTurns
            | Self::BudgetHeld(_)
            | Self::RateLimited(_)
            | Self::Crowded { .. }
            | Self::Guessing { .. } => 429,
            Self::TooSlow(_) => 408,
            Self::EncodedBody | Self::FormBody | Self::NotJson => 415,
            Self::BodyIncomplete
            | Self::BadJson { .. }
            | Self::BadForm { .. }
            | Self::HidesUsage { .. }
            | Self::BadAttribution { .. }
            | Self::BadRequest { .. } => 400,
            Self::TargetTooLong => 414,
            Self::ExpectationFailed => 417,
            Self::HeadTooLarge => 431,
            Self::CodingNotSupported => 501,
            Self::VersionNotSupported => 505,
            Self::Unreachable => 502,
            Self::UpstreamTimeout => 504,
            Self::UnknownPlan { .. }
            | Self::ProviderOff { .. }
            | Self::ProviderKeyLocked { .. }
            | Self::ProviderKeyChanged { .. }
            | Self::BuffersFull
            | Self::JournalFull
            | Self::CountersDown
            | Self::KeysDown
            | Self::ObjectsDown
            | Self::NotBilled { .. }
            | Self::Draining => 503,
        }
    }

    /// The stable code: the client's `code`, and the label of the refusal metric.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoKey => "missing_api_key",
            Self::BadKey => "invalid_api_key",
            Self::TwoKeys => "ambiguous_api_key",
            Self::AdminKeyOnProxy => "admin_key_not_allowed",
            Self::ForeignPage | Self::ForeignHost => "foreign_page",
            Self::BadUpload => "invalid_upload",
            Self::Suspended(_) => "tenant_suspended",
            Self::UnknownPlan { .. } => "unknown_plan",
            Self::ModelNotAllowed(_) => "model_not_allowed",
            Self::QuotaUsedUp(_) => "quota_exceeded",
            Self::BudgetHeld(_) => "budget_held",
            Self::RateLimited(facts) if facts.metric == RateMetric::Concurrent => "too_many_requests",
            Self::RateLimited(_) => "rate_limited",
            Self::Crowded { .. } => "too_many_requests",
            Self::Guessing { .. } => "too_many_failed_keys",
            Self::TooSlow(_) => "request_timeout",
            Self::NoPrice { .. } => "model_unpriced",
            Self::UnknownObject { .. } => "unknown_object",
            Self::ListOfAll => "list_of_all_tenants",
            Self::ObjectsDown => "objects_unavailable",
            Self::Deferred { .. } => "deferred_not_allowed",
            Self::StillRuns { .. } => "still_running",
            Self::NotBilled { .. } => "not_billed_yet",
            Self::Storage { .. } => "storage_unpriced",
            Self::UnknownRoute => "unknown_route",
            Self::OpensElsewhere => "not_metered",
            Self::NoUpgrade => "upgrade_required",
            Self::TooManyTurns => "too_many_turns",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::ProviderOff { .. } => "provider_not_configured",
            Self::ProviderKeyLocked { .. } => "provider_key_locked",
            Self::ProviderKeyChanged { .. } => "provider_key_changed",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyIncomplete => "body_incomplete",
            Self::BadJson { .. } => "invalid_json",
            Self::BadForm { .. } => "invalid_form",
            Self::HidesUsage { .. } => "hides_usage",
            Self::EncodedBody => "encoded_body",
            Self::FormBody => "form_body",
            Self::NotJson => "not_json",
            Self::BadAttribution { .. } => "invalid_attribution",
            Self::BadRequest { .. } => "bad_request",
            Self::ExpectationFailed => "expectation_failed",
            Self::HeadTooLarge => "head_too_large",
            Self::TargetTooLong => "target_too_long",
            Self::VersionNotSupported => "version_not_supported",
            Self::CodingNotSupported => "coding_not_supported",
            Self::Unreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::BuffersFull => "buffers_full",
            Self::JournalFull => "ledger_backlog_full",
            Self::CountersDown => "counters_unavailable",
            Self::KeysDown => "keys_unavailable",
            Self::Draining => "draining",
        }
    }

    /// `Retry-After` in seconds, where trying again can help.
    pub fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::BudgetHeld(_)
            | Self::Crowded { .. }
            | Self::BuffersFull
            | Self::JournalFull
            | Self::CountersDown
            | Self::KeysDown
            | Self::ObjectsDown => Some(1),
            Self::Guessing { retry_after_s } => Some(*retry_after_s),
            Self::RateLimited(facts) => Some(facts.retry_after_s),
            Self::Draining | Self::StillRuns { .. } | Self::NotBilled { .. } => Some(5),
            _ => None,
        }
    }

    /// The bound that was met, where it is one of those towards clients.
    pub fn bound(&self) -> Option<Bound> {
        match self {
            Self::Crowded { .. } => Some(Bound::RequestsPerTenant),
            Self::HeadTooLarge => Some(Bound::Head),
            Self::BodyTooLarge { .. } => Some(Bound::Body),
            Self::BuffersFull => Some(Bound::Buffers),
            Self::TooSlow(bound) => Some(*bound),
            _ => None,
        }
    }

    /// Whether the client's connection must not be used again, because what follows on it cannot be told apart.
    pub fn closes_connection(&self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge { .. }
                | Self::BodyIncomplete
                | Self::BadRequest { .. }
                | Self::HeadTooLarge
                | Self::TargetTooLong
                | Self::VersionNotSupported
                | Self::CodingNotSupported
                | Self::TooSlow(_)
                | Self::Draining
        )
    }
}

impl Refusal {
    /// What stands between the gateway and a provider.
    fn write_provider(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProviderOff { provider, variable } => write!(
                f,
                "Provider {provider} is not configured on this gateway. Its operator turns it on with {variable}."
            ),
            Self::ProviderKeyLocked { provider } => {
                write!(f, "This gateway cannot open your own key for provider {provider}. Ask its operator.")
            }
            Self::ProviderKeyChanged { provider } => {
                write!(f, "Your own key for provider {provider} was set, changed or removed. Open the session again.")
            }
            _ => Ok(()),
        }
    }

    /// What is refused for what would be charged later, and could not be billed.
    fn write_of_later(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StillRuns { name } => write!(
                f,
                "{name} still runs, and once it is deleted nobody can say what it used. Cancel it first, or wait until it is done, and delete it then."
            ),
            Self::NotBilled { name } => write!(
                f,
                "What {name} used is not billed yet and cannot be asked for at the moment; once it is deleted nobody could say. Try again shortly."
            ),
            Self::Storage { plan } => write!(
                f,
                "Plan {plan} has a cost limit, and a cache is charged by the hour for as long as it is kept, which nobody can hold to it. The operator of this gateway can set unpriced = \"allow\" on the plan."
            ),
            _ => Ok(()),
        }
    }

    /// What is refused for whose object it is.
    fn write_of_objects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownObject { name } => write!(f, "There is no object {name}. Objects that were not made through this gateway, or not by this tenant, cannot be used."),
            Self::ListOfAll => f.write_str("This list holds the objects of all tenants of this gateway. Keep the ids of yours, or ask its operator to set isolation.lists = \"allow\"."),
            _ => f.write_str("Whose this object is cannot be looked up at the moment. Try again shortly."),
        }
    }
}

/// The sentence for the client.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKey => f.write_str("No API key. Send your Tollgate key as 'Authorization: Bearer …', 'x-goog-api-key', 'api-key' or '?key='."),
            Self::BadKey => f.write_str("Incorrect API key: it is unknown, expired or revoked. Ask the operator of this gateway for a key."),
            Self::TwoKeys => f.write_str("Two different API keys in one request. Send exactly one."),
            Self::AdminKeyOnProxy => f.write_str("The admin key is accepted on the admin listener only. Use a tenant's key here."),
            Self::ForeignPage => f.write_str("In dev any name is a key, so no web page of elsewhere may use one. Serve the page from this machine, or run the gateway with TOLLGATE_ENV=prod and keys."),
            Self::ForeignHost => f.write_str("In dev any name is a key, so no host is served that a web page of elsewhere may have led here. Call it localhost or by its address, write the URL that it has into listen.public_url (TOLLGATE_PUBLIC_URL), or run the gateway with TOLLGATE_ENV=prod and keys."),
            Self::BadUpload => f.write_str("This address of an upload is unknown, is over or belongs to another tenant. Begin the upload again with your Tollgate key."),
            Self::Suspended(tenant) => write!(f, "Tenant {tenant} is suspended. Ask the operator of this gateway."),
            Self::UnknownPlan { tenant, plan } => {
                write!(f, "Tenant {tenant} is on plan {plan}, which this gateway does not know. Ask its operator.")
            }
            Self::ModelNotAllowed(facts) => write_model(f, facts),
            Self::QuotaUsedUp(quota) => write_quota(f, quota),
            Self::BudgetHeld(quota) => write_held(f, quota),
            Self::RateLimited(facts) => write_rate(f, facts),
            Self::Crowded { tenant, limit } => {
                write!(f, "Tenant {tenant} has {limit} requests running at once, which is as many as this gateway takes of one tenant. Try again shortly.")
            }
            Self::Guessing { retry_after_s } => {
                write!(f, "Too many requests with a wrong API key came from this address. Check the key, and try again in {retry_after_s} s.")
            }
            Self::TooSlow(bound) => f.write_str(too_slow(*bound)),
            Self::NoPrice { model, plan } => match &**model {
                "" => write!(f, "The call names no model where the gateway could see it, and plan {plan} has a cost limit: without a price nobody can hold to it."),
                model => write!(f, "Model {model} has no price, and plan {plan} has a cost limit: without a price nobody can hold to it."),
            },
            Self::UnknownObject { .. } | Self::ListOfAll | Self::ObjectsDown => self.write_of_objects(f),
            Self::StillRuns { .. } | Self::NotBilled { .. } | Self::Storage { .. } => self.write_of_later(f),
            Self::Deferred { plan } => write!(f, "Plan {plan} holds the most that a call can use, and this one is finished and charged after its answer, when nothing is held for it. Ask for an answer that is not in the background and no batch, or have the operator of this gateway set deferred = \"allow\" on the plan."),
            Self::UnknownRoute => f.write_str("No such route. The gateway forwards only what it can meter: see the table of routes in its README."),
            Self::OpensElsewhere => f.write_str("The gateway does not forward this: it makes a key or a call by which a client speaks to the provider directly, where nothing is metered. Open a websocket through the gateway with your Tollgate key instead."),
            Self::NoUpgrade => f.write_str("This route is a websocket. Ask for it by GET over HTTP/1.1 with 'Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Key' and 'Sec-WebSocket-Version: 13'."),
            Self::TooManyTurns => f.write_str("This session has too many turns at once."),
            Self::MethodNotAllowed { allow } => write!(f, "This route does not have that method. Allowed: {allow}."),
            Self::ProviderOff { .. } | Self::ProviderKeyLocked { .. } | Self::ProviderKeyChanged { .. } => {
                self.write_provider(f)
            }
            Self::BodyTooLarge { limit } => write!(f, "The request body is over the limit of {limit} bytes."),
            Self::BodyIncomplete => f.write_str("The request body broke off, came too slowly or has chunks that are none."),
            Self::BadJson { reason } => write!(f, "The request body is not what this route takes: {reason}."),
            Self::BadForm { reason } => write!(f, "The form in the request body cannot be read in one way: {reason}."),
            Self::HidesUsage { parameter } => {
                write!(f, "The gateway could not read what an answer charges with this value of {parameter} in the query. Leave it out.")
            }
            Self::EncodedBody => f.write_str("The request body has a content coding. Send it without Content-Encoding."),
            Self::FormBody => f.write_str("This route takes JSON, and the Content-Type of the request body is that of a form. Send 'Content-Type: application/json'."),
            Self::NotJson => f.write_str("This route takes JSON in UTF-8, and the Content-Type of the request body is another. Send 'Content-Type: application/json'."),
            Self::BadAttribution { header } => write!(f, "{header} takes 1 to 128 printable ASCII characters, once."),
            Self::BadRequest { reason } => write!(f, "Bad request: {reason}."),
            Self::ExpectationFailed => f.write_str("This gateway sends no '100 Continue' over HTTP/2. Send the request without 'Expect: 100-continue'."),
            Self::HeadTooLarge => f.write_str("The request head is over the limit."),
            Self::TargetTooLong => f.write_str("The request target is over the limit."),
            Self::VersionNotSupported => f.write_str("This version of HTTP is not served. Use HTTP/1.1."),
            Self::CodingNotSupported => f.write_str("This transfer coding is not served. Use chunked alone, or a Content-Length."),
            Self::Unreachable => f.write_str("The provider could not be reached or broke off before it answered."),
            Self::UpstreamTimeout => f.write_str("The provider did not answer in time."),
            Self::BuffersFull => f.write_str("Too many large requests at once. Try again shortly."),
            Self::JournalFull => f.write_str("The ledger cannot take more calls at the moment. Try again shortly."),
            Self::CountersDown => f.write_str("Quota cannot be checked at the moment. Try again shortly."),
            Self::KeysDown => f.write_str("This key cannot be looked up at the moment. Try again shortly."),
            Self::Draining => f.write_str("The gateway is shutting down. Try again."),
        }
    }
}

fn too_slow(bound: Bound) -> &'static str {
    match bound {
        Bound::HeadTime => "The request head came too slowly.",
        Bound::RequestTime => "The request took too long to come.",
        _ => "The request body came too slowly.",
    }
}

impl QuotaFacts {
    fn amount(&self, amount: u64) -> String {
        match self.metric {
            Metric::Cost => format!("{} USD", money_of(amount)),
            metric => format!("{amount} {}", metric.as_str()),
        }
    }

    fn is_used_up(&self) -> bool {
        self.standing.used >= self.limit
    }
}

/// `Tenant acme`, or `User alice of tenant acme`.
fn who(tenant: &TenantId, subject: &Subject) -> String {
    match subject {
        Subject::Tenant => format!("Tenant {tenant}"),
        Subject::Key(id) => format!("Key {id} of tenant {tenant}"),
        Subject::User(id) => format!("User {id} of tenant {tenant}"),
        Subject::Kb(id) => format!("Knowledge base {id} of tenant {tenant}"),
    }
}

fn write_model(f: &mut fmt::Formatter<'_>, facts: &ModelFacts) -> fmt::Result {
    let ModelFacts { model, by, allowed } = facts;
    match model.as_str() {
        "" => write!(f, "The call names no model where the gateway could see it, and {by} may use only: {allowed}."),
        model => write!(f, "Model {model} is not one that {by} may use: {allowed}."),
    }
}

fn write_rate(f: &mut fmt::Formatter<'_>, facts: &RateFacts) -> fmt::Result {
    let RateFacts { tenant, subject, plan, metric, limit, retry_after_s } = facts;
    let who = who(tenant, subject);
    match metric {
        RateMetric::Requests => write!(f, "{who} sends more than {limit} requests a minute of plan {plan}. ")?,
        RateMetric::Tokens => write!(f, "{who} uses more than {limit} tokens a minute of plan {plan}. ")?,
        RateMetric::Concurrent => write!(f, "{who} has {limit} requests of plan {plan} running at once. ")?,
    }
    write!(f, "Try again in {retry_after_s} s.")
}

fn write_quota(f: &mut fmt::Formatter<'_>, quota: &QuotaFacts) -> fmt::Result {
    let QuotaFacts { plan, metric, period, limit, standing, asked, .. } = quota;
    let used = if *metric == Metric::Cost { money_of(standing.used).to_string() } else { standing.used.to_string() };
    write!(
        f,
        "{} has used {used} of {} of plan {plan} for {period}",
        who(&quota.tenant, &quota.subject),
        quota.amount(*limit)
    )?;
    if standing.held > 0 {
        let held = if *metric == Metric::Cost { quota.amount(standing.held) } else { standing.held.to_string() };
        write!(f, " ({held} more in flight)")?;
    }
    if *metric != Metric::Chats && !quota.is_used_up() {
        write!(f, ", and this call could use up to {}", quota.amount(*asked))?;
    }
    write!(f, ". Resets {}.", quota.resets_at)
}

fn write_held(f: &mut fmt::Formatter<'_>, quota: &QuotaFacts) -> fmt::Result {
    let QuotaFacts { plan, period, limit, standing, asked, .. } = quota;
    let [limit, used, held, asked] = [*limit, standing.used, standing.held, *asked].map(|amount| quota.amount(amount));
    let who = who(&quota.tenant, &quota.subject);
    write!(f, "{who} has used {used} of {limit} of plan {plan} for {period}, and calls in flight hold {held}. ")?;
    write!(
        f,
        "This call could use up to {asked}, for which there is room once some of them are done. Try again shortly."
    )
}

#[cfg(test)]
mod tests {
    use super::super::time::Window;
    use super::*;

    fn quota(subject: Subject, metric: Metric, limit: u64, standing: Standing) -> Box<QuotaFacts> {
        Box::new(QuotaFacts {
            tenant: "acme".parse().unwrap(),
            subject,
            plan: "starter".parse().unwrap(),
            metric,
            period: Window::Month.period("2026-11-24T10:00:00Z".parse().unwrap()),
            resets_at: "2026-12-01T00:00:00Z".parse().unwrap(),
            limit,
            standing,
            asked: 30_000_000,
        })
    }

    #[test]
    fn a_used_up_quota_names_whose_it_is_and_what_the_call_would_take() {
        let dollar = 1_000_000_000;
        for (refusal, text) in [
            (
                Refusal::QuotaUsedUp(quota(Subject::Tenant, Metric::Chats, 500, Standing { used: 500, held: 0 })),
                "Tenant acme has used 500 of 500 chats of plan starter for 2026-11. Resets 2026-12-01T00:00:00Z.",
            ),
            (
                Refusal::QuotaUsedUp(quota(Subject::Tenant, Metric::Chats, 500, Standing { used: 499, held: 1 })),
                "Tenant acme has used 499 of 500 chats of plan starter for 2026-11 (1 more in flight). Resets 2026-12-01T00:00:00Z.",
            ),
            (
                Refusal::QuotaUsedUp(quota(
                    Subject::User("alice".into()),
                    Metric::Cost,
                    dollar,
                    Standing { used: dollar - 10_000_000, held: 0 },
                )),
                "User alice of tenant acme has used 0.99 of 1 USD of plan starter for 2026-11, and this call could use up to 0.03 USD. Resets 2026-12-01T00:00:00Z.",
            ),
            (
                Refusal::BudgetHeld(quota(
                    Subject::Tenant,
                    Metric::Cost,
                    dollar,
                    Standing { used: 0, held: dollar - 1_000_000 },
                )),
                "Tenant acme has used 0 USD of 1 USD of plan starter for 2026-11, and calls in flight hold 0.999 USD. This call could use up to 0.03 USD, for which there is room once some of them are done. Try again shortly.",
            ),
        ] {
            assert_eq!(refusal.to_string(), text);
        }
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let held = || quota(Subject::Tenant, Metric::Tokens, 5, Standing::default());
        let facts = |refusal: Refusal| (refusal.status(), refusal.code(), refusal.retry_after_s());
        assert_eq!(facts(Refusal::QuotaUsedUp(held())), (402, "quota_exceeded", None));
        assert_eq!(facts(Refusal::BudgetHeld(held())), (429, "budget_held", Some(1)));
        let no_price = Refusal::NoPrice { model: "m".into(), plan: "p".parse().unwrap() };
        assert_eq!(facts(no_price), (403, "model_unpriced", None));
        let deferred = Refusal::Deferred { plan: "p".parse().unwrap() };
        assert_eq!(facts(deferred), (403, "deferred_not_allowed", None));
    }
}
