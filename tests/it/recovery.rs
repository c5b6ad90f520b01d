//! What a start does with a journal that another process left: it counts all of it at once, and books it beside the calls.

use std::sync::Arc;
use std::time::Duration;

use tollgate::adapters::file_journal::disk::Folder;
use tollgate::adapters::file_journal::{FileJournal, Options};
use tollgate::domain::ids::EventId;
use tollgate::ports::journal::Journal;

use super::conformance::event;
use super::support::bodies::*;
use super::support::*;

/// A start is allowed so long for a million records.
const START_MAX: Duration = Duration::from_secs(5);

#[test]
fn a_start_on_a_million_records_takes_no_longer_than_any_other() {
    let is_release = is_release();
    // Two records each. A build without optimisation is tried with a tenth.
    let calls = match (machine::full(), is_release) {
        (true, true) => 500_000,
        (true, false) => 50_000,
        (false, _) => 20_000,
    };
    let provider = Provider::start(honest);
    let setup = Setup::new(&provider).config("[plans.starter]\nchats_per_month = 10000000\n");
    let journal = setup.data_dir().join("journal");
    let (journal, _) =
        FileJournal::open(Arc::new(Folder::open(&journal).unwrap()), Options { bytes_max: 1 << 30, strict: false })
            .unwrap();
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    for number in 0..calls {
        let mut event = event(number);
        event.id = EventId::new(now_ms, u128::from(number) << 20);
        event.requested_at = tollgate::domain::time::Micros(i64::try_from(now_ms).unwrap() * 1_000);
        let slot = journal.admit(&event).unwrap();
        journal.settle(slot, &event);
    }
    drop(journal);
    let gateway = setup.start();
    let took = gateway.started_in;
    assert_eq!(gateway.send(&chat("acme")).status, 200);
    assert_eq!(gateway.chats("acme").0, calls + 1, "the counters know what the ledger does not have yet");
    let booked =
        machine::until("everything is booked", Duration::from_secs(120), || gateway.usage("acme").chats == calls + 1);
    assert!(!is_release || took < START_MAX, "{took:?}");
    machine::figures(&format!(
        "recovery: started on {} records in {} ms, all booked {} ms later",
        2 * calls,
        took.as_millis(),
        booked.as_millis()
    ));
}
