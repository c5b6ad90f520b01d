//! Units that wait for their bill, and a provider that is asked for them, in memory.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::domain::ids::{EventId, ProviderId, TenantId};
use crate::domain::time::Micros;
use crate::domain::unit::{Unit, UnitName};
use crate::ports::asking::{Ask, AskError, Whose};
use crate::ports::units::{DeferredUnit, Pauses, UnitStore};
use crate::ports::{BoxFuture, StoreError};

/// Units and when each was settled.
#[derive(Default)]
pub(crate) struct FakeUnits {
    units: Mutex<Vec<(DeferredUnit, Option<Micros>)>>,
}

impl FakeUnits {
    pub(crate) fn add(&self, unit: DeferredUnit) {
        self.units.lock().push((unit, None));
    }

    pub(crate) fn waiting(&self) -> usize {
        self.units.lock().iter().filter(|(_, settled)| settled.is_none()).count()
    }
}

/// A unit as the event of its begin knows it.
pub(crate) fn begun(name: &str, prompt_tokens: u64) -> Unit {
    let name = name.parse().unwrap();
    Unit { name, prompt_tokens, delivered_tokens: 0, output_max: None, own_account: false }
}

/// A unit of acme's that was begun at `requested_at`.
pub(crate) fn unit(provider: &'static str, name: &str, requested_at: Micros) -> DeferredUnit {
    DeferredUnit {
        provider: ProviderId::new(provider),
        name: name.parse().unwrap(),
        event: EventId::new(requested_at.unix_ms(), 7),
        requested_at,
        utc_offset_s: 0,
        tenant: "acme".parse().unwrap(),
        key: Some("key_0123456789abcdef".parse().unwrap()),
        user_id: Some("u1".into()),
        kb_id: None,
        model: "asked".into(),
        requested_model: "asked".into(),
        endpoint: "responses".to_owned(),
        prompt_tokens: 12,
        delivered_tokens: 0,
        output_max: None,
        own_account: false,
    }
}

impl UnitStore for FakeUnits {
    fn waiting<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
    ) -> BoxFuture<'a, Result<Option<DeferredUnit>, StoreError>> {
        let units = self.units.lock();
        let found =
            units.iter().find(|(unit, settled)| settled.is_none() && (&unit.provider, &unit.name) == (provider, name));
        let found = found.map(|(unit, _)| unit.clone());
        Box::pin(async { Ok(found) })
    }

    fn below<'a>(
        &'a self,
        provider: &'a ProviderId,
        path: &'a str,
        tenant: Option<&'a TenantId>,
        units_max: u32,
    ) -> BoxFuture<'a, Result<Vec<DeferredUnit>, StoreError>> {
        let is_below = |unit: &DeferredUnit| {
            let rest = unit.name.as_str().strip_prefix(path);
            unit.provider == *provider
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                && tenant.is_none_or(|tenant| unit.tenant == *tenant)
        };
        let units = self.units.lock();
        let open = units.iter().filter(|(unit, settled)| settled.is_none() && is_below(unit));
        let open = open.map(|(unit, _)| unit.clone()).take(units_max as usize).collect();
        Box::pin(async { Ok(open) })
    }

    fn claim(&self, _: Micros, _: Pauses, units_max: u32) -> BoxFuture<'_, Result<Vec<DeferredUnit>, StoreError>> {
        let units = self.units.lock();
        let due = units.iter().filter(|(_, settled)| settled.is_none()).map(|(unit, _)| unit.clone());
        let due: Vec<DeferredUnit> = due.take(units_max as usize).collect();
        Box::pin(async { Ok(due) })
    }

    fn settled<'a>(
        &'a self,
        provider: &'a ProviderId,
        name: &'a UnitName,
        at: Micros,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut units = self.units.lock();
        for (_, settled) in units.iter_mut().filter(|(unit, _)| (&unit.provider, &unit.name) == (provider, name)) {
            *settled = settled.or(Some(at));
        }
        Box::pin(async { Ok(()) })
    }

    fn forget(&self, before: Micros) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.units.lock().retain(|(_, settled)| settled.is_none_or(|at| at >= before));
        Box::pin(async { Ok(0) })
    }
}

/// Answers by target, and with `own` before it in accounts of tenants' own; what is not there is 404.
#[derive(Default)]
pub(crate) struct FakeAsk {
    pub(crate) answers: Mutex<HashMap<String, (u16, String)>>,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl FakeAsk {
    /// For a status: it never answers.
    pub(crate) const SILENT: u16 = 1;

    pub(crate) fn says(&self, target: &str, status: u16, body: &str) {
        self.answers.lock().insert(target.to_owned(), (status, body.to_owned()));
    }
}

impl Ask for FakeAsk {
    fn get<'a>(
        &'a self,
        whose: Whose<'a>,
        _: &'a ProviderId,
        target: &'a str,
        see: &'a mut (dyn FnMut(&[u8]) -> bool + Send),
    ) -> BoxFuture<'a, Result<u16, AskError>> {
        self.asked.lock().push(target.to_owned());
        let place = if whose.own_account { format!("own{target}") } else { target.to_owned() };
        let answer = self.answers.lock().get(&place).cloned();
        let Some((status, body)) = answer else { return Box::pin(async { Ok(404) }) };
        if status == Self::SILENT {
            return Box::pin(std::future::pending());
        }
        // Status 0: it is not reached.
        let seen = status == 200 && body.as_bytes().chunks(7).all(see);
        let told = match status {
            0 => Err(AskError::NoAnswer),
            200 if !seen => Err(AskError::TooLarge),
            status => Ok(status),
        };
        Box::pin(async move { told })
    }
}
