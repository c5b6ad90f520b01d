//! Price books from a shell: how two differ, which there were, and which one is in force.
//!
//! May use: as [`super`].

use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};

use crate::boot::advice;
use crate::config::Config;
use crate::domain::price::PriceBook;
use crate::domain::price::changes::changes;
use crate::edge::api::wire::prices::{ChangeBody, PricesBody, UpdateBody};
use crate::metering::admin::Order;

use super::super::accounts::{Access, author, with_ledger};
use super::super::output::{Output, ask, complain, table};
use super::{Failure, for_so_many, read, sold_by};

/// What `tollgate prices update --help` ends with.
pub(super) const UPDATE_HELP: &str = "\
The book is checked as a whole, what it changes is shown, and then it is in force in every gateway of this ledger within \
seconds, without a restart: for calls that begin from then on. Calls in flight keep the prices they began with, and what is \
booked stays as it is (see tollgate prices rerate).

It stays in force until the next update, also over restarts and new versions of tollgate, and goes before prices.file and \
the built-in list. --configured ends that: each gateway has the prices of its own configuration again.

Examples:
  tollgate prices update --from contract-prices.json --dry-run
  tollgate prices update --from contract-prices.json --yes
  tollgate prices update --version 0a1b2c3d4e5f          one that is kept: see tollgate prices books
  tollgate prices update --configured";

/// Which book is to be in force, and how to go about it.
#[derive(Args)]
pub(in super::super) struct UpdateArgs {
    #[command(flatten)]
    book: Book,
    /// Only says what would change.
    #[arg(long)]
    dry_run: bool,
    /// Asks nobody.
    #[arg(long)]
    yes: bool,
}

/// Which book.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Book {
    /// A price file.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    from: Option<PathBuf>,
    /// A book that the ledger has.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// That of each gateway's own configuration: prices.file over the built-in list.
    #[arg(long)]
    configured: bool,
}

/// Puts a book in force for all gateways of the ledger.
pub(super) fn update(args: &UpdateArgs, configured: PriceBook, config: &Config, output: Output) -> Result<(), Failure> {
    let given = args.book.from.as_deref().map(read).transpose()?;
    if let (Some(file), Some(book)) = (&args.book.from, &given) {
        say_advice(file, book);
    }
    let access = if args.dry_run { Access::Reads } else { Access::Begins };
    let document = with_ledger(config, access, async |desk| {
        let view = desk.admin.prices().await?;
        let book = match (given, &args.book.version) {
            (Some(book), _) => Some(book),
            (None, Some(version)) => Some(kept(desk.admin.price_book(version).await?, version)?),
            (None, None) => None,
        };
        let (before, _) = desk.reports.prices();
        let is_new = match (&view.active, &book) {
            (Some(active), Some(book)) => active.version != book.version(),
            (None, None) => false,
            _ => true,
        };
        let after = book.as_ref().unwrap_or(&configured);
        let mut document = UpdateBody::new(&before, after, changes(&before, after));
        if is_new && !args.dry_run && (args.yes || is_wanted(&document)?) {
            let author = author();
            desk.admin.set_prices(Order::by(&author), book.as_ref()).await?;
            document.in_force = true;
        }
        document.in_force |= !is_new;
        Ok(document)
    })?;
    output.print(&document, || {
        let asked =
            if args.yes || args.dry_run || document.in_force { changes_text(&document) + "\n" } else { String::new() };
        let done = match (document.in_force, args.book.configured) {
            (false, _) => "Nothing was changed.".to_owned(),
            (true, true) => {
                format!("Each gateway has the prices of its own configuration; here that is {}.", document.after)
            }
            (true, false) => format!("Version {} is in force in all gateways of this ledger.", document.after),
        };
        asked + &done
    })
}

fn kept(found: Option<PriceBook>, version: &str) -> Result<PriceBook, Failure> {
    found.ok_or_else(|| format!("the ledger has no price book {version}: see tollgate prices books").into())
}

fn is_wanted(document: &UpdateBody) -> Result<bool, Failure> {
    ask(&format!("{}\nPut version {} in force?", changes_text(document), document.after))
}

/// Compares a price file with the prices in effect.
pub(super) fn diff(before: &PriceBook, file: &Path, output: Output) -> Result<(), Failure> {
    let after = read(file)?;
    say_advice(file, &after);
    let document = UpdateBody::new(before, &after, changes(before, &after));
    output.print(&document, || changes_text(&document))
}

/// What is hardly meant in a file, on stderr.
fn say_advice(file: &Path, book: &PriceBook) {
    let lines: Vec<String> = advice::of_book(&file.display().to_string(), book);
    if !lines.is_empty() {
        complain(&lines.into_iter().map(|line| format!("Warning: {line}")).collect::<Vec<_>>());
    }
}

fn changes_text(document: &UpdateBody) -> String {
    let UpdateBody { before, after, changes, .. } = document;
    if changes.is_empty() {
        return format!("Version {after} has the prices of version {before}, which is in effect.");
    }
    let row = |change: &ChangeBody| {
        let (many, _) = sold_by(change.unit);
        let price = |price: Option<i64>, is_unverified| {
            let doubt = if is_unverified { " (unverified)" } else { "" };
            price.map_or_else(|| "-".to_owned(), |pico| for_so_many(many, pico) + doubt)
        };
        let since = change.from.as_deref().and_then(|from| from.split('T').next()).unwrap_or("always");
        let source = change.after_source.as_ref().or(change.before_source.as_ref());
        [
            change.provider.clone(),
            change.model.clone(),
            change.tier.to_owned(),
            since.to_owned(),
            change.above.to_string(),
            change.kind.to_owned(),
            price(change.before, change.before_unverified),
            price(change.after, change.after_unverified),
            source.cloned().unwrap_or_default(),
        ]
    };
    let head = ["PROVIDER", "MODEL", "TIER", "FROM", "ABOVE", "KIND", "IN EFFECT", "THEN", "SOURCE"];
    let rows: Vec<_> = changes.iter().map(row).collect();
    let what = "Dollars for a million tokens, or for one of what is charged beside them";
    format!("{what}, version {before} and {after}\n\n{}", table(head, &rows))
}

/// Lists the books that the ledger has.
pub(super) fn books(config: &Config, output: Output) -> Result<(), Failure> {
    let view = with_ledger(config, Access::Reads, async |desk| Ok(desk.admin.prices().await?))?;
    let document = PricesBody::from(view);
    output.print(&document, || {
        let mark = |version: &str| if version == document.version { "in force" } else { "" };
        let rows: Vec<_> = document
            .books
            .iter()
            .map(|book| {
                let base = book.base.clone().unwrap_or_else(|| "-".to_owned());
                let (at, by) = (book.added_at.clone(), book.added_by.clone());
                [book.version.clone(), base, at, by, mark(&book.version).to_owned()]
            })
            .collect();
        let why = match &document.active {
            Some(active) => format!(
                "Version {} is in force in all gateways since {}, by {}; the configuration here has {}.",
                document.version, active.since, active.by, document.configured
            ),
            None => format!("Version {} is in force here: that of the configuration.", document.version),
        };
        format!("{}\n{why}", table(["VERSION", "OVER", "KEPT SINCE", "BY", ""], &rows))
    })
}
