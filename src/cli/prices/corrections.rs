//! An event and its corrections: what they come to, and how it stands after one of them.
//!
//! May use: as [`super`].

use serde::Serialize;

use crate::domain::event::UsageEvent;
use crate::domain::ids::EventId;
use crate::domain::money::{MoneyError, PicoUsd};
use crate::edge::api::wire::Usd;

use super::{Failure, sum_row};

/// An event and all its corrections, and which of these rows was asked for.
pub(super) struct History {
    pub(super) asked: EventId,
    pub(super) event: UsageEvent,
    /// In the order of their rows.
    pub(super) corrections: Vec<UsageEvent>,
}

/// The same in a document.
#[derive(Serialize)]
pub(super) struct HistoryBody {
    /// The event that a correction corrects; null for an event.
    corrects: Option<String>,
    /// Before the correction that was asked for.
    before: Option<BeforeBody>,
    /// All corrections of the event.
    corrections: Vec<CorrectionBody>,
    /// What the event and all of them come to; null where it has none.
    corrected_cost_usd: Option<Usd>,
    corrected_billable_usd: Option<Usd>,
}

/// How an event stood before a correction.
#[derive(Serialize)]
struct BeforeBody {
    price_version: String,
    priced: &'static str,
    cost_usd: Usd,
    billable_usd: Usd,
}

/// A correction.
#[derive(Serialize)]
struct CorrectionBody {
    event_id: String,
    price_version: String,
    priced: &'static str,
    cost_usd: Usd,
    billable_usd: Usd,
}

impl History {
    /// The event as it stands after the correction that was asked for; as it was booked where no correction was.
    pub(super) fn standing(&self) -> Result<UsageEvent, Failure> {
        let upto = self.corrections.iter().position(|correction| correction.id == self.asked);
        self.after(upto.map_or(0, |place| place.saturating_add(1)))
    }

    /// The event with its first corrections.
    fn after(&self, count: usize) -> Result<UsageEvent, Failure> {
        let too_large = |error: MoneyError| Failure::from(error.to_string());
        let mut event = self.event.clone();
        for correction in self.corrections.iter().take(count) {
            // What was not known counts as 0 in what was added to it.
            let sum = |so_far: Option<PicoUsd>, more: Option<PicoUsd>| {
                so_far.unwrap_or_default().plus(more.unwrap_or_default()).map(Some).map_err(too_large)
            };
            event.cost = sum(event.cost, correction.cost)?;
            event.billable = sum(event.billable, correction.billable)?;
            event.priced = correction.priced;
            event.price_version = correction.price_version.clone();
        }
        Ok(event)
    }

    /// Whether a correction was asked for.
    pub(super) fn is_of_correction(&self) -> bool {
        self.asked != self.event.id
    }

    pub(super) fn body(&self) -> Result<HistoryBody, Failure> {
        let usd = |amount: Option<PicoUsd>| Usd(amount.unwrap_or_default());
        let body = |correction: &UsageEvent| CorrectionBody {
            event_id: correction.id.to_string(),
            price_version: correction.price_version.to_string(),
            priced: correction.priced.as_str(),
            cost_usd: usd(correction.cost),
            billable_usd: usd(correction.billable),
        };
        let place = self.corrections.iter().position(|correction| correction.id == self.asked);
        let before = place.map(|place| self.after(place)).transpose()?.map(|event| BeforeBody {
            price_version: event.price_version.to_string(),
            priced: event.priced.as_str(),
            cost_usd: usd(event.cost),
            billable_usd: usd(event.billable),
        });
        let all = if self.corrections.is_empty() { None } else { Some(self.after(self.corrections.len())?) };
        Ok(HistoryBody {
            corrects: self.is_of_correction().then(|| self.event.id.to_string()),
            before,
            corrections: self.corrections.iter().map(body).collect(),
            corrected_cost_usd: all.as_ref().and_then(|event| event.cost).map(Usd),
            corrected_billable_usd: all.as_ref().and_then(|event| event.billable).map(Usd),
        })
    }
}

impl HistoryBody {
    /// What a correction corrects, in words.
    pub(super) fn head(&self) -> String {
        match (&self.corrects, &self.before) {
            (Some(event), Some(BeforeBody { price_version, priced, .. })) => {
                format!("A correction of event {event}, which was {priced} by version {price_version} until then.\n")
            }
            _ => String::new(),
        }
    }

    /// The rows behind those of an event that this correction, or its own ones, make another sum.
    pub(super) fn rows(&self, asked: &str) -> Vec<[String; 5]> {
        let Self { before, corrections, corrected_cost_usd, corrected_billable_usd, .. } = self;
        let mut rows = Vec::new();
        if let Some(BeforeBody { cost_usd, billable_usd, .. }) = before {
            let this = corrections.iter().find(|correction| correction.event_id == asked);
            rows.push(sum_row("booked before".to_owned(), &Some(*cost_usd)));
            rows.push(sum_row("difference, this correction".to_owned(), &this.map(|this| this.cost_usd)));
            rows.push(sum_row("billed before".to_owned(), &Some(*billable_usd)));
            rows.push(sum_row("difference, this correction".to_owned(), &this.map(|this| this.billable_usd)));
            return rows;
        }
        for CorrectionBody { event_id, price_version, cost_usd, .. } in corrections {
            rows.push(sum_row(format!("correction {event_id}, version {price_version}"), &Some(*cost_usd)));
        }
        if !corrections.is_empty() {
            rows.push(sum_row("with its corrections".to_owned(), corrected_cost_usd));
            rows.push(sum_row("billed with its corrections".to_owned(), corrected_billable_usd));
        }
        rows
    }
}
