//! The operations of the port: how each is put to the script, and what its answer says.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::domain::ids::TenantId;
use crate::domain::time::Window;
use crate::ports::BoxFuture;
use crate::ports::counters::{CounterKey, CountersUnavailable};
use crate::ports::shared::{
    Ask, Beat, ClaimError, Count, Epoch, Finish, Floors, Held, Joined, Joining, Look, Member, NodeId, Noted, Noting,
    Part, Peer, Pulse, SharedCounters, WANTED_FOR, WANTED_MAX, Wanted,
};

use super::words::{Answer, Arguments, Strange, counter_named};
use super::{CLAIM_MAX, Ledger, PATIENCE, RedisCounters, Store, micros};

/// Nodes that were not heard of for so long are forgotten.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Fields of a tenant that are looked through at once to list its counters: half a millisecond of the server. And pages of
/// one tenant: 500 million counters.
const PAGE: u32 = 1_000;
const PAGES_MAX: u32 = 1_000_000;

/// Tenants that are read at the same time.
const LISTED_AT_ONCE: usize = 64;

impl SharedCounters for RedisCounters {
    fn claim<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), ClaimError>> {
        Box::pin(async move {
            let ledger = self.store.ledger.get_or_init(|| Ledger::new(ledger_id));
            if ledger.id == ledger_id && self.store.claim(ledger, CLAIM_MAX).await? {
                return Ok(());
            }
            Err(ClaimError::Unfit(format!(
                "{} holds the counters of another ledger: give each ledger a Redis of its own, or another database of it",
                self.store.settings.url
            )))
        })
    }

    fn hold<'a>(&'a self, ask: &'a Ask<'a>) -> BoxFuture<'a, Result<Held, CountersUnavailable>> {
        Box::pin(async move {
            let key = self.store.tenant_key(ask.tenant)?;
            let answer = self.store.run("hold", &key, &of_ask(ask), ask.within).await?;
            read(answer, held)
        })
    }

    fn note<'a>(&'a self, noting: &'a Noting<'a>) -> BoxFuture<'a, Result<Noted, CountersUnavailable>> {
        Box::pin(async move {
            let Noting { member, tenant, epoch, notes, lease_left, within } = *noting;
            let mut arguments = Arguments::default();
            arguments.text(member.node).text(member.life).epoch(epoch);
            match lease_left {
                Some(left) => arguments.exact(left),
                None => arguments.nothing(),
            };
            arguments.count(notes);
            for note in notes {
                arguments.note(member.node, note);
            }
            let answer = self.store.run("note", &self.store.tenant_key(tenant)?, &arguments, within).await?;
            read(answer, |word, _| match word {
                "done" => Ok(Noted::Done),
                "unjoined" => Ok(Noted::Unjoined),
                _ => Err(Strange),
            })
        })
    }

    fn join<'a>(&'a self, joining: &'a Joining<'a>) -> BoxFuture<'a, Result<Joined, CountersUnavailable>> {
        Box::pin(async move {
            let Joining { member, tenant, epoch, is_forced, floors, counting, calls, is_first, is_last, within } =
                *joining;
            let mut arguments = Arguments::default();
            arguments.text(member.node).text(member.life).epoch(epoch).flag(is_forced);
            arguments.text(floors.month).text(floors.day).flag(is_first).flag(is_last);
            arguments.text(counting.bits()).count(calls);
            for call in calls {
                arguments.note(member.node, call);
            }
            let answer = self.store.run("join", &self.store.tenant_key(tenant)?, &arguments, within).await?;
            read(answer, |word, answer| match word {
                "open" => answer.epoch().map(Joined::Open),
                "building" => answer.epoch().map(Joined::Building),
                "moved" => Ok(Joined::Moved),
                _ => Err(Strange),
            })
        })
    }

    fn look<'a>(&'a self, node: NodeId, tenant: &'a TenantId) -> BoxFuture<'a, Result<Look, CountersUnavailable>> {
        Box::pin(async move {
            let mut arguments = Arguments::default();
            arguments.text(node);
            let answer = self.store.run("look", &self.store.tenant_key(tenant)?, &arguments, PATIENCE).await?;
            read(answer, looked)
        })
    }

    fn sums<'a>(&'a self, part: &'a Part<'a>) -> BoxFuture<'a, Result<bool, CountersUnavailable>> {
        Box::pin(async move {
            let Part { tenant, epoch, joins, writer, is_first, sums, within } = *part;
            let mut arguments = Arguments::default();
            arguments.epoch(epoch).text(joins).text(writer).flag(is_first).count(sums);
            for (counter, sum) in sums {
                arguments.counter(counter).sum(*sum);
            }
            let answer = self.store.run("sums", &self.store.tenant_key(tenant)?, &arguments, within).await?;
            read(answer, |word, _| match word {
                "done" => Ok(true),
                "other" => Ok(false),
                _ => Err(Strange),
            })
        })
    }

    fn finish<'a>(&'a self, finish: &'a Finish<'a>) -> BoxFuture<'a, Result<bool, CountersUnavailable>> {
        Box::pin(async move {
            let Finish { tenant, epoch, joins, writer, sums, known, within } = *finish;
            let mut arguments = Arguments::default();
            arguments.epoch(epoch).text(joins);
            match writer {
                Some(writer) => arguments.text(writer),
                None => arguments.nothing(),
            };
            arguments.count(sums);
            for (counter, sum) in sums {
                arguments.counter(counter).sum(*sum);
            }
            arguments.count(known);
            for id in known {
                arguments.id(*id);
            }
            let answer = self.store.run("finish", &self.store.tenant_key(tenant)?, &arguments, within).await?;
            read(answer, |word, _| match word {
                "done" => Ok(true),
                "other" => Ok(false),
                _ => Err(Strange),
            })
        })
    }

    fn read<'a>(
        &'a self,
        tenant: &'a TenantId,
        counters: &'a [CounterKey],
    ) -> BoxFuture<'a, Result<Option<Vec<Count>>, CountersUnavailable>> {
        Box::pin(async move {
            let mut arguments = Arguments::default();
            arguments.count(counters);
            for counter in counters {
                arguments.counter(counter);
            }
            let answer = self.store.run("read", &self.store.tenant_key(tenant)?, &arguments, PATIENCE).await?;
            read(answer, |word, answer| match word {
                "none" => Ok(None),
                "counts" => answer.all_sums().map(Some),
                _ => Err(Strange),
            })
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<(CounterKey, Count)>, CountersUnavailable>> {
        Box::pin(async move {
            let keys = self.store.all_keys().await.map_err(CountersUnavailable)?;
            let each = stream::iter(keys).map(|key| list_one(&self.store, key)).buffer_unordered(LISTED_AT_ONCE);
            let all: Vec<_> = each.try_collect().await?;
            Ok(all.into_iter().flatten().collect())
        })
    }

    fn changed<'a>(
        &'a self,
        tenant: &'a TenantId,
        revision: i64,
        within: Duration,
    ) -> BoxFuture<'a, Result<(), CountersUnavailable>> {
        Box::pin(async move {
            let mut arguments = Arguments::default();
            arguments.text(revision);
            let answer = self.store.run("changed", &self.store.tenant_key(tenant)?, &arguments, within).await?;
            read(answer, |word, _| if word == "done" { Ok(()) } else { Err(Strange) })
        })
    }

    fn beat<'a>(&'a self, beat: &'a Beat<'a>) -> BoxFuture<'a, Result<Pulse, CountersUnavailable>> {
        Box::pin(async move {
            let Beat { member, revision, wanted, done, is_last, within } = *beat;
            let mut arguments = Arguments::default();
            arguments.text(member.node).text(member.life).text(revision).flag(is_last);
            arguments.text(micros(QUIET_MAX)).text(micros(WANTED_FOR));
            for wishes in [wanted, done] {
                arguments.count(wishes);
                for (tenant, wish) in wishes {
                    match wish {
                        Wanted::Join(Epoch(epoch)) => arguments.text(format_args!("J{epoch:032x}:{tenant}")),
                        Wanted::Lease => arguments.text(format_args!("L:{tenant}")),
                    };
                }
            }
            arguments.text(WANTED_MAX);
            let key = &self.store.ledger()?.nodes;
            let answer = self.store.run("beat", key.as_bytes(), &arguments, within).await?;
            read(answer, pulse)
        })
    }
}

fn read<T>(
    (word, mut answer): (String, Answer),
    meaning: impl FnOnce(&str, &mut Answer) -> Result<T, Strange>,
) -> Result<T, CountersUnavailable> {
    meaning(&word, &mut answer).map_err(|Strange| CountersUnavailable("the script answers something else".to_owned()))
}

fn of_ask(ask: &Ask<'_>) -> Arguments {
    let Ask { member, tenant: _, id, claims, revision, counting, is_alone, lease, within: _ } = *ask;
    let mut arguments = Arguments::default();
    arguments.text(member.node).text(member.life).id(id).text(revision);
    if is_alone {
        arguments.text(counting.bits());
    } else {
        arguments.nothing();
    }
    match lease {
        Some(wish) => {
            arguments.exact(wish.units_max).exact(wish.parts.max(1)).exact(micros(wish.lasts)).exact(wish.left);
        }
        None => {
            arguments.nothing().nothing().nothing().nothing();
        }
    }
    arguments.count(claims);
    for claim in claims {
        arguments.counter(&claim.counter).exact(claim.amount);
        match claim.max {
            Some(max) => arguments.exact(max),
            None => arguments.nothing(),
        };
    }
    arguments
}

fn held(word: &str, answer: &mut Answer) -> Result<Held, Strange> {
    Ok(match word {
        "taken" => {
            let (epoch, leased) = (answer.epoch()?, answer.unsigned()?);
            Held::Taken { epoch, counts: answer.all_sums()?, leased }
        }
        "full" => Held::Full { claim: answer.place()?, count: answer.sums()? },
        "leased" => Held::Leased { claim: answer.place()?, count: answer.sums()? },
        "behind" => Held::Behind { revision: answer.int()? },
        "unjoined" => Held::Unjoined,
        "building" => Held::Building,
        _ => return Err(Strange),
    })
}

fn looked(word: &str, answer: &mut Answer) -> Result<Look, Strange> {
    Ok(match word {
        "unknown" => Look::Unknown,
        "open" => Look::Open(answer.epoch()?),
        "busy" => Look::Busy { is_joined: answer.unsigned()? > 0 },
        "building" => {
            let (epoch, joins) = (answer.epoch()?, answer.unsigned()?);
            let floors = Floors { month: answer.period(Window::Month)?, day: answer.period(Window::Day)? };
            let counting = answer.counting()?;
            let (mut nodes, mut ids) = (answer.list()?, answer.list()?);
            let (mut joined, mut calls) = (Vec::new(), Vec::new());
            while !nodes.is_over() {
                joined.push(nodes.node()?);
            }
            while !ids.is_over() {
                calls.push(ids.id()?);
            }
            Look::Building { epoch, joins, joined, calls, floors, counting }
        }
        _ => return Err(Strange),
    })
}

fn pulse(word: &str, answer: &mut Answer) -> Result<Pulse, Strange> {
    if word != "pulse" {
        return Err(Strange);
    }
    let mut pulse = Pulse { known_for_ms: answer.unsigned()? / 1_000, ..Pulse::default() };
    let (mut peers, mut wishes) = (answer.list()?, answer.list()?);
    while !peers.is_over() {
        let member = Member { node: peers.node()?, life: peers.unsigned()? };
        pulse.peers.push(Peer { member, quiet_ms: peers.unsigned()? / 1_000, revision: peers.int()? });
    }
    while !wishes.is_over() {
        let wish = wishes.text()?;
        let (kind, tenant) = wish.split_once(':').ok_or(Strange)?;
        let wish = match kind.split_at_checked(1) {
            Some(("J", epoch)) => Wanted::Join(Epoch(u128::from_str_radix(epoch, 16).map_err(|_| Strange)?)),
            Some(("L", "")) => Wanted::Lease,
            _ => return Err(Strange),
        };
        pulse.wanted.push((tenant.parse().map_err(|_| Strange)?, wish));
    }
    Ok(pulse)
}

/// The counters of the tenant with this key; none where it is not open, or gone by now.
async fn list_one(store: &Store, key: Vec<u8>) -> Result<Vec<(CounterKey, Count)>, CountersUnavailable> {
    let name = String::from_utf8_lossy(&key);
    let tenant = name.split_once('{').and_then(|(_, rest)| rest.strip_suffix('}')).and_then(|id| id.parse().ok());
    let Some(tenant) = tenant else { return Ok(Vec::new()) };
    let mut found: HashMap<CounterKey, Count> = HashMap::new();
    let mut cursor = "0".to_owned();
    for _ in 0..PAGES_MAX {
        let mut arguments = Arguments::default();
        arguments.text(&cursor).text(PAGE);
        let answer = store.run("list", &key, &arguments, PATIENCE).await?;
        let next = read(answer, |word, answer| match word {
            "none" => Ok(None),
            "sums" => {
                let next = answer.text()?;
                listed(&tenant, answer, &mut found)?;
                Ok(Some(next))
            }
            _ => Err(Strange),
        })?;
        match next {
            None => return Ok(Vec::new()),
            Some(next) if next == "0" => break,
            Some(next) => cursor = next,
        }
    }
    found.retain(|_, count| *count != Count::default());
    Ok(found.into_iter().collect())
}

/// Pairs of a field (`h:chats:2026-11`) and its value. A counter that was met before has these sums now.
fn listed(tenant: &TenantId, answer: &mut Answer, found: &mut HashMap<CounterKey, Count>) -> Result<(), Strange> {
    let mut page: HashMap<CounterKey, Count> = HashMap::new();
    while !answer.is_over() {
        let (field, value) = (answer.text()?, answer.unsigned()?);
        let (kind, name) = field.split_once(':').ok_or(Strange)?;
        let (subject, metric, period) = counter_named(name)?;
        let count = page.entry(CounterKey { tenant: tenant.clone(), subject, metric, period }).or_default();
        match kind {
            "b" => count.booked = value,
            "s" => count.settled = value,
            "h" => count.held = value,
            "q" => count.leased = value,
            _ => return Err(Strange),
        }
    }
    found.extend(page);
    Ok(())
}
