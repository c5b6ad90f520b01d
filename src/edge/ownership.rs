//! Whose the objects are that a request names or its answer makes: asked before the request goes on, noted while the answer
//! goes back.
//!
//! May use: `domain`, `providers`, `metering`.

use std::sync::Arc;

use http::{header, response};

use crate::domain::ids::{ProviderId, TenantId};
use crate::domain::object::ObjectName;
use crate::domain::refusal::Refusal;
use crate::metering::objects::{Noting, Objects};
use crate::providers::objects::{Finder, Makes, Named, Touches};
use crate::providers::{Endpoint, Provider};

use super::exchange::{Asked, Gate};

impl Gate {
    /// Refuses what a request may not touch by its route alone: a list of everybody's objects, and one that is another
    /// tenant's. The caller has to be known by then.
    pub(super) async fn may_touch(
        &self,
        asked: &mut Asked<'_>,
        provider: &'static dyn Provider,
        endpoint: &Endpoint,
    ) -> Result<Touches, Refusal> {
        if has_own_account(asked, provider) {
            return Ok(Touches::default());
        }
        let touches = provider.touches(&asked.method, endpoint);
        asked.makes = touches.makes;
        asked.below = match &touches.named {
            Some(Named::Object(name)) => Some(name.clone()),
            Some(Named::Nothing(_)) | None => None,
        };
        if touches.lists && !asked.live.settings.isolation.lists {
            return Err(Refusal::ListOfAll);
        }
        self.may_name(asked, provider, touches.named.iter().cloned().collect()).await?;
        Ok(touches)
    }

    /// Refuses a request that names an object which is not its tenant's.
    pub(super) async fn may_name(
        &self,
        asked: &Asked<'_>,
        provider: &'static dyn Provider,
        named: Vec<Named>,
    ) -> Result<(), Refusal> {
        if named.is_empty() || has_own_account(asked, provider) {
            return Ok(());
        }
        let Some(account) = &asked.account else { return Err(Refusal::NoKey) };
        let names = named.into_iter().map(Named::name).collect::<Result<Vec<_>, _>>()?;
        let unknown = asked.live.settings.isolation.unknown;
        self.objects.check(&account.tenant.id, &provider.id(), names, unknown).await
    }

    /// Forgets an object that its DELETE took away, as its name is free from now on.
    pub(super) async fn is_gone(&self, asked: &Asked<'_>, touches: &Touches) {
        if let (true, Some(account), Some(Named::Object(name))) = (touches.frees, &asked.account, &touches.named) {
            self.objects.freed(&account.tenant.id, &asked.dialect.id(), name).await;
        }
    }
}

/// Whether the caller's calls go out with a key of its own: what that account keeps is its own, whoever made it.
fn has_own_account(asked: &Asked<'_>, provider: &'static dyn Provider) -> bool {
    asked.account.as_ref().is_some_and(|account| account.has_own_key(&provider.id()))
}

/// Notes the objects that one answer makes.
pub(super) struct Making {
    finder: Finder,
    objects: Arc<Objects>,
    tenant: TenantId,
    provider: ProviderId,
    below: Option<ObjectName>,
    noting: Noting,
}

impl Making {
    /// One for the answer with this head, if it makes any.
    pub(super) fn of(gate: &Gate, asked: &Asked<'_>, head: &response::Parts) -> Option<Self> {
        if asked.makes == Makes::Nothing || !head.status.is_success() {
            return None;
        }
        let tenant = asked.account.as_ref()?.tenant.id.clone();
        let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let finder = asked.dialect.finder(asked.makes, content_type)?;
        let (objects, provider) = (gate.objects.clone(), asked.dialect.id());
        Some(Self { finder, objects, tenant, provider, below: asked.below.clone(), noting: Noting::default() })
    }

    /// Looks at the next decoded bytes. What they tell of is known here from now on.
    pub(super) fn look(&mut self, decoded: &[u8]) {
        self.finder.look(decoded);
        let mut made = self.finder.take();
        // Whose that is was asked before. Where nobody knows and that is allowed, it is not whoever asked first.
        made.retain(|made| self.below.as_ref() != Some(&made.name));
        if !made.is_empty() {
            self.objects.note(&self.tenant, &self.provider, made, &mut self.noting);
        }
    }

    /// Waits until all nodes know what was noted, and not for long.
    pub(super) async fn noted(&mut self) {
        self.noting.done().await;
    }
}
