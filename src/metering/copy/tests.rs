use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::ports::BoxFuture;
use crate::ports::transfer::{Row, Shape, Unfinished, Value};

type Tables = BTreeMap<Table, BTreeMap<Key, Row>>;

/// A ledger in memory, which may break at the batch of a number.
#[derive(Default)]
struct Memory(Mutex<State>);

#[derive(Debug, Default, Clone)]
struct State {
    id: String,
    tables: Tables,
    mark: Option<(String, BTreeMap<Table, Key>)>,
    puts: usize,
    breaks_at: Option<usize>,
}

impl Memory {
    fn of(id: &str, tables: Tables) -> Self {
        Self(Mutex::new(State { id: id.to_owned(), tables, ..State::default() }))
    }

    fn state(&self) -> State {
        self.0.lock().unwrap().clone()
    }
}

struct Look(Tables);

impl View for Look {
    fn count(&mut self, table: Table) -> BoxFuture<'_, Result<u64, StoreError>> {
        let rows = self.0.get(&table).map_or(0, BTreeMap::len);
        Box::pin(async move { Ok(u64::try_from(rows).unwrap()) })
    }

    fn page<'a>(
        &'a mut self,
        table: Table,
        after: Option<&'a [Value]>,
        rows_max: u32,
    ) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        let rows = self.0.get(&table).into_iter().flatten();
        let behind =
            rows.filter(|(key, _)| after.is_none_or(|after| key.as_slice() > after)).map(|(_, row)| row.clone());
        let page = behind.take(usize::try_from(rows_max).unwrap()).collect();
        Box::pin(async move { Ok(page) })
    }

    fn leave(self: Box<Self>) -> BoxFuture<'static, Result<(), StoreError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Transfer for Memory {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreError>> {
        let state = self.state();
        let has_rows = state.tables.values().any(|rows| !rows.is_empty());
        let unfinished =
            state.mark.map(|(ledger_id, places)| Unfinished { ledger_id, places: places.into_iter().collect() });
        Box::pin(async move { Ok(Standing { ledger_id: Some(state.id), has_rows, unfinished }) })
    }

    fn view(&self) -> BoxFuture<'_, Result<Box<dyn View>, StoreError>> {
        let look = Look(self.state().tables);
        Box::pin(async move { Ok(Box::new(look) as Box<dyn View>) })
    }

    fn begin<'a>(&'a self, ledger_id: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.lock().unwrap().mark = Some((ledger_id.to_owned(), BTreeMap::new()));
        Box::pin(async { Ok(()) })
    }

    fn put<'a>(&'a self, table: Table, batch: &'a Batch) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut state = self.0.lock().unwrap();
        state.puts += 1;
        assert!(batch.rows() <= BATCH_ROWS_MAX && !batch.is_empty());
        if state.breaks_at == Some(state.puts) {
            return Box::pin(async { Err(StoreError::Unavailable("broken".to_owned())) });
        }
        let rows = state.tables.entry(table).or_default();
        for row in &batch.new {
            assert!(rows.insert(row.key(table).to_vec(), row.clone()).is_none(), "{row:?} was there");
        }
        for row in &batch.changed {
            let old = rows.insert(row.key(table).to_vec(), row.clone());
            assert!(old.is_some_and(|old| old != *row), "{row:?} was not there, or the same");
        }
        for key in &batch.gone {
            assert!(rows.remove(key).is_some(), "{key:?} was not there");
        }
        state.mark.as_mut().unwrap().1.insert(table, batch.place.clone());
        Box::pin(async { Ok(()) })
    }

    fn forget<'a>(&'a self, tables: &'a [Table]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.0.lock().unwrap().mark.as_mut().unwrap().1.retain(|table, _| !tables.contains(table));
        Box::pin(async { Ok(()) })
    }

    fn finish(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut state = self.0.lock().unwrap();
        let (id, _) = state.mark.take().unwrap();
        state.id = id;
        Box::pin(async { Ok(()) })
    }
}

/// A row of a table with that key; `value` is in all its other numbers.
fn row(table: Table, key: i64, value: i64) -> (Key, Row) {
    let key_of = |shape| match shape {
        Shape::Integer | Shape::Truth => Value::Integer(key),
        Shape::Text => Value::Text(format!("{key:03}")),
        Shape::Bytes | Shape::Id => Value::Bytes(vec![u8::try_from(key).unwrap()]),
    };
    let value_of = |shape| if shape == Shape::Integer { Value::Integer(value) } else { Value::Null };
    let columns = table.columns().iter().enumerate();
    let values = columns.map(
        |(at, column)| {
            if at < table.key_columns() { key_of(column.shape) } else { value_of(column.shape) }
        },
    );
    let row = Row(values.collect());
    (row.key(table).to_vec(), row)
}

fn tables() -> impl Strategy<Value = Tables> {
    let rows = proptest::collection::btree_map(0_i64..14, 0_i64..2, 0..14);
    proptest::collection::vec((0..Table::ALL.len(), rows), 0..3).prop_map(|tables| {
        let rows_of =
            |table, rows: BTreeMap<i64, i64>| rows.into_iter().map(|(key, value)| row(table, key, value)).collect();
        tables.into_iter().map(|(at, rows)| (Table::ALL[at], rows_of(Table::ALL[at], rows))).collect()
    })
}

/// Without tables that have no rows.
fn with_rows(tables: Tables) -> Tables {
    tables.into_iter().filter(|(_, rows)| !rows.is_empty()).collect()
}

fn run(from: &Memory, to: &Memory) -> Result<Report, Failure> {
    let standings = [from, to].map(|end| end.standing().now_or_never().unwrap().unwrap());
    let course = course(&standings[0], &standings[1]).unwrap();
    copy(from, to, course, &mut |step| assert!(step.done <= step.of)).now_or_never().unwrap()
}

proptest! {
    #[test]
    fn a_copy_is_equal_wherever_it_breaks(source in tables(), breaks in proptest::collection::vec(1_usize..6, 0..4)) {
        let (from, to) = (Memory::of("source", source.clone()), Memory::of("target", Tables::new()));
        for after in breaks {
            let at = to.state().puts + after;
            to.0.lock().unwrap().breaks_at = Some(at);
            if run(&from, &to).is_ok() {
                break;
            }
        }
        let report = run(&from, &to).unwrap();
        prop_assert!(report.comparison.is_equal());
        let state = to.state();
        prop_assert!(state.mark.is_none() && state.id == "source");
        prop_assert_eq!(with_rows(state.tables), with_rows(source));
    }

    #[test]
    fn a_source_that_changes_is_noticed_and_a_second_run_makes_up_for_it(before in tables(), after in tables(), breaks_at in 1_usize..6) {
        let (from, to) = (Memory::of("source", before), Memory::of("target", Tables::new()));
        to.0.lock().unwrap().breaks_at = Some(breaks_at);
        let is_broken = run(&from, &to).is_err();
        from.0.lock().unwrap().tables = after.clone();
        let report = run(&from, &to).unwrap();
        prop_assert_eq!(report.comparison.is_equal(), with_rows(to.state().tables) == with_rows(after.clone()));
        prop_assert_eq!(report.comparison.is_equal(), report.comparison.differences.total() == 0);
        if is_broken {
            prop_assert_eq!(report.comparison.is_equal(), to.state().mark.is_none());
            let report = run(&from, &to).unwrap();
            prop_assert!(report.comparison.is_equal() && to.state().mark.is_none());
            prop_assert_eq!(with_rows(to.state().tables), with_rows(after));
        }
    }
}

#[test]
fn another_ledger_is_never_written_to() {
    let ledger = |id: &str, has_rows| Standing { ledger_id: Some(id.to_owned()), has_rows, unfinished: None };
    let half = |of: &str| Standing {
        unfinished: Some(Unfinished { ledger_id: of.to_owned(), places: Vec::new() }),
        ..ledger("new", true)
    };
    let source = ledger("one", true);
    for (to, expected) in [
        (Standing::default(), Ok(Course::Begin)),
        (ledger("other", false), Ok(Course::Begin)),
        (ledger("other", true), Err(Refusal::OtherLedger)),
        (ledger("one", true), Ok(Course::Compare)),
        (ledger("one", false), Ok(Course::Compare)),
        (half("one"), Ok(Course::TakeUp)),
        (half("other"), Err(Refusal::OtherCopy)),
    ] {
        assert_eq!(course(&source, &to), expected, "{to:?}");
    }
}
